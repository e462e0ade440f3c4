"""Reading datasets: finding them, equal content with TFDS, and one clear error for each way to be broken."""

import io
import json
import pathlib
import shutil
import struct
import time
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import ilx.data
from ilx.data import cache, example, features, folder, index, rlds, shards, stream, table, tfrecord
from ilx.data.features import Feature, Sequence

FLOAT, BOOL, INT = (np.dtype(x) for x in (np.float32, bool, np.int64))


def make(length=3, seed=0):
  """One episode's fields as they stand in a record."""
  rng = np.random.default_rng(seed)
  steps = np.arange(length + 1)
  return {
    "steps/observation": rng.standard_normal((length + 1, 4)).astype(np.float32),
    "steps/action": rng.uniform(-1, 1, (length + 1, 2)).astype(np.float32),
    "steps/reward": rng.standard_normal(length + 1).astype(np.float32),
    "steps/discount": np.ones(length + 1, np.float32),
    "steps/is_first": steps == 0,
    "steps/is_last": steps == length,
    "steps/is_terminal": steps == length,
  }


TREE = {
  "observation": Feature("tensor", (4,), FLOAT),
  "action": Feature("tensor", (2,), FLOAT),
  "reward": Feature("tensor", (), FLOAT),
  "discount": Feature("tensor", (), FLOAT),
  "is_first": Feature("tensor", (), BOOL),
  "is_last": Feature("tensor", (), BOOL),
  "is_terminal": Feature("tensor", (), BOOL),
}


def write(folder, records, tree=None, file_format="array_record", lengths=None, name="demo", **split):
  """A dataset folder of raw records; ``lengths`` are the episodes of each shard."""
  folder.mkdir(parents=True, exist_ok=True)
  records = [example.serialize(record) if isinstance(record, dict) else record for record in records]
  lengths = lengths or [len(records)]
  info = {"name": name, "version": "1.0.0", "fileFormat": file_format}
  info["splits"] = [{"name": "train", "shardLengths": [str(n) for n in lengths], **split}]
  (folder / "dataset_info.json").write_text(json.dumps(info))
  features.write(folder / "features.json", {"steps": Sequence(tree or TREE)})
  rest = iter(records)
  for file, length in zip(rlds.read_info(folder).splits["train"].files, lengths, strict=True):
    file.parent.mkdir(exist_ok=True)
    mine = [record for _, record in zip(range(length), rest, strict=False)]
    if file_format == "array_record":
      shards.write_array_record(file, mine)
    else:
      file.write_bytes(b"".join(map(shards.frame_tfrecord, mine)))
  return folder


FORMATS = pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])


@FORMATS
@pytest.mark.parametrize(("split", "count"), [("train", 5), ("train[:1]", 1), ("train[:3]", 3), ("train[:5]", 5)])
def test_load(tmp_path, file_format, split, count):
  records = [make(2 + i, i) for i in range(5)]
  write(tmp_path, records, file_format=file_format, lengths=[2, 2, 1])
  found = ilx.data.load(tmp_path, split)
  records = records[:count]
  assert found.num_episodes == len(records)
  for name in ("observation", "action", "reward", "discount", "is_terminal"):
    expected = np.concatenate([record[f"steps/{name}"] for record in records])
    np.testing.assert_array_equal(getattr(found, name), expected)
    assert getattr(found, name).dtype == expected.dtype


@pytest.mark.parametrize(("count", "name"), [(1, "00000-of-00001"), (100_000, "000000-of-100000")])
def test_shards_are_written_under_the_names_that_are_read(tmp_path, count, name):
  described = {"name": "x", "version": "1.0.0", "fileFormat": "array_record"}
  described["splits"] = [{"name": "train", "shardLengths": ["1"] * count}]
  (tmp_path / "dataset_info.json").write_text(json.dumps(described))
  features.write(tmp_path / "features.json", {"steps": Sequence(TREE)})
  written = folder.shard_name("x", "train", 0, count)
  assert written == rlds.read_info(tmp_path).splits["train"].files[0].name == f"x-train.array_record-{name}"


@pytest.mark.parametrize("opened", ["loaded", "mapped", "streamed"])
def test_a_flag_in_a_wrong_place_is_told_with_its_file(tmp_path, monkeypatch, opened):
  records = [make(2, seed) for seed in range(3)] + [make(3) | {"steps/is_first": np.array([1, 0, 1, 0], bool)}]
  write(tmp_path, records, lengths=[2, 2])
  monkeypatch.setattr(index, "_RECORDS", 2)
  monkeypatch.setattr(cache, "_BLOCK", 1)  # of one episode each
  found = r"00001-of-00002: episode 3 of split 'train': field 'steps/is_first' is true at step 2 of 4"
  with pytest.raises(ValueError, match=found):
    {"loaded": ilx.data.load, "mapped": cache.open, "streamed": stream.open}[opened](tmp_path)


def test_only_the_shards_that_are_needed_must_be_there(tmp_path):
  write(tmp_path, [make(seed=i) for i in range(4)], lengths=[2, 2])
  second = rlds.read_info(tmp_path).splits["train"].files[1]
  second.unlink()
  assert ilx.data.load(tmp_path, "train[:2]").num_episodes == 2
  with pytest.raises(FileNotFoundError, match=f"{second.name} is missing"):
    ilx.data.load(tmp_path, "train[:3]")


@pytest.mark.parametrize(
  ("template", "name"),
  [
    ("{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}", "demo-train.array_record-00000-of-00001"),
    ("{SPLIT}/data.{FILEFORMAT}-{SHARD_INDEX}", "train/data.array_record-00000"),
    ("x-{SHARD_INDEX}-{NUM_SHARDS}.{FILEFORMAT}", "x-00000-00001.array_record"),
    ("", "demo-train.array_record-00000-of-00001"),
  ],
)
def test_filepath_templates(tmp_path, template, name):
  write(tmp_path, [make()], filepathTemplate=template)
  assert (tmp_path / name).is_file()
  assert ilx.data.load(tmp_path).num_episodes == 1


@pytest.mark.parametrize("template", ["../{SPLIT}", "/etc/{SPLIT}", "{SPLIT}-{HOME}"])
def test_templates_that_leave_the_folder_or_mean_nothing(tmp_path, template):
  write(tmp_path, [make()])
  edit(tmp_path / "dataset_info.json", lambda info: info["splits"][0].update(filepathTemplate=template))
  with pytest.raises(ValueError, match=r"dataset_info\.json: splits are malformed"):
    rlds.read_info(tmp_path)


def edit(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def test_resolve(tmp_path, monkeypatch):
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path))
  assert ilx.data.root() == tmp_path
  for version in ("1.0.0", "1.10.0", "1.9.0", "2.0.0.incomplete"):
    write(tmp_path / "hopper-expert" / version, [make()])
  assert ilx.data.resolve("hopper-expert") == tmp_path / "hopper-expert" / "1.10.0"
  assert ilx.data.resolve("hopper-expert/1.9.0").name == "1.9.0"
  assert ilx.data.resolve(tmp_path / "hopper-expert").name == "1.10.0"
  assert ilx.data.resolve(tmp_path / "hopper-expert" / "1.0.0").name == "1.0.0"
  assert ilx.data.resolve("hopper-expert", "1.9.0") == tmp_path / "hopper-expert" / "1.9.0"
  assert ilx.data.resolve("hopper-expert/1.9.0", "1.0.0").name == "1.9.0", "it names the version itself"
  missing = r"/hopper-expert has no version '3\.0\.0'; there: 1\.0\.0, 1\.9\.0, 1\.10\.0$"
  with pytest.raises(FileNotFoundError, match=missing):
    ilx.data.resolve("hopper-expert", "3.0.0")
  with pytest.raises(FileNotFoundError, match=r"no dataset 'hoper-expert'.*nearest: hopper-expert"):
    ilx.data.resolve("hoper-expert")
  for missing in ("hopper-expert/9.9.9", tmp_path / "hopper-expert" / "9.9.9"):
    message = r"/hopper-expert has no version '9\.9\.9'; there: 1\.0\.0, 1\.9\.0, 1\.10\.0$"
    with pytest.raises(FileNotFoundError, match=message):
      ilx.data.resolve(missing)
  with monkeypatch.context() as elsewhere:  # in a folder of versions a name is a name
    elsewhere.chdir(tmp_path / "hopper-expert")
    with pytest.raises(FileNotFoundError, match="no dataset 'hoper-expert'"):
      ilx.data.resolve("hoper-expert")
  with pytest.raises(FileNotFoundError, match=r"no dataset 'zzz'.*there: hopper-expert"):
    ilx.data.load("zzz")
  (tmp_path / "lost+found").mkdir()
  within = pathlib.Path.iterdir

  def iterdir(path):
    if path.name == "lost+found":
      raise PermissionError(13, "Permission denied", str(path))
    return within(path)

  monkeypatch.setattr(pathlib.Path, "iterdir", iterdir)
  with pytest.raises(FileNotFoundError, match=r"no dataset 'zzz'.*there: hopper-expert"):
    ilx.data.load("zzz")


def test_root_is_under_the_cache_by_default(monkeypatch, tmp_path):
  monkeypatch.delenv("ILX_DATA_DIR", raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert ilx.data.root() == tmp_path / "ilx"
  with pytest.raises(FileNotFoundError, match="there: none"):
    ilx.data.resolve("x")


def _with(name, value, index=1, records=3):
  """Records of which one has another value in a field; None drops the field."""
  result = [make(seed=i) for i in range(records)]
  if value is None:
    del result[index][name]
  else:
    result[index][name] = value
  return result


def _poisoned(name, where, value):
  array = make(seed=1)[name].copy()
  array[where] = value
  return _with(name, array)


@pytest.mark.parametrize(
  ("records", "problem"),
  [
    (_poisoned("steps/observation", (2, 1), np.nan), "episode 1 .*'steps/observation' is NaN or inf at step 2"),
    (_poisoned("steps/reward", 1, np.inf), "episode 1 .*'steps/reward' is NaN or inf at step 1"),
    (_poisoned("steps/is_first", 2, True), "episode 1 .*: field 'steps/is_first' is true at step 2 of 4"),
    (_poisoned("steps/is_last", 0, True), "episode 1 .*: field 'steps/is_last' is true at step 0 of 4"),
    (_poisoned("steps/is_terminal", 1, True), "episode 1 .*: field 'steps/is_terminal' is true at step 1 of 4"),
    (_with("steps/observation", np.zeros((4, 5), np.float32)), r"'steps/observation' has 20 .*\[4\] have 16"),
    (_with("steps/reward", np.zeros(5, np.float32)), "'steps/observation' has 16 values where 5 steps"),
    (_with("steps/observation", None), "episode 1 .*'steps/observation' is missing from the record"),
    (_with("steps/reward", np.zeros(0, np.float32)), "episode 1 .*it is empty"),
    (_with("steps/action", np.zeros((4, 2), np.int64)), "'steps/action' holds uint8 values where .*float32"),
    (_with("steps/action", [b"x"] * 8), "'steps/action' is stored as another kind of list"),
    ([make(), b"\x0a\x03abc", make()], r"episode 1 .*malformed tf\.train\.Example"),
  ],
)
@FORMATS
def test_content_that_no_episode_has(tmp_path, file_format, records, problem):
  write(tmp_path, records, file_format=file_format)
  began = time.perf_counter()
  with pytest.raises(ValueError, match=problem) as error:
    ilx.data.load(tmp_path)
  assert time.perf_counter() - began < 1
  assert str(tmp_path) in str(error.value)


def test_the_table_names_an_episode_without_steps(tmp_path):
  empty = make()
  for name in [name for name in empty if name.startswith("steps/")]:
    empty[name] = np.zeros(0, np.asarray(empty[name]).dtype)
  write(tmp_path, [make(), empty])
  with pytest.raises(ValueError, match=f"{tmp_path}.*record 1 is an episode without steps"):
    table.table(ilx.data.read_info(tmp_path))


def test_a_record_cut_from_an_episode_needs_no_flags(tmp_path):
  cut = make()
  cut["steps/is_first"][:] = cut["steps/is_last"][:] = cut["steps/is_terminal"][:] = False
  write(tmp_path, [cut, make()])
  assert ilx.data.load(tmp_path).is_terminal.tolist() == [False] * 4 + [False] * 3 + [True]


def _without(*names):
  tree = {name: feature for name, feature in TREE.items() if name not in names}
  record = {name: value for name, value in make().items() if name.split("/")[1] not in names}
  return [record], tree


@pytest.mark.parametrize("name", ["observation", "action", "reward", "is_terminal"])
def test_required_fields(tmp_path, name):
  records, tree = _without(name)
  write(tmp_path, records, tree)
  with pytest.raises(ValueError, match=rf"features\.json: field 'steps/{name}' is missing"):
    ilx.data.load(tmp_path)


def test_optional_fields(tmp_path):
  records, tree = _without("discount", "is_first", "is_last")
  found = ilx.data.load(write(tmp_path, records, tree))
  np.testing.assert_array_equal(found.discount, np.ones(4, np.float32))


def test_types_in_memory(tmp_path):
  record = make()
  record["steps/observation/wide"] = np.arange(8, dtype=np.int64) * 1000
  record["steps/observation/flag"] = np.array([True, False, True, False])
  record["steps/observation/raw"] = [np.full((2, 3), i + 0.5).tobytes() for i in range(4)]
  record["steps/observation/text"] = [b"a"] * 4
  record["steps/observation/pixel"] = np.array([0, 128, 255, 7])
  record["steps/action"] = np.array([3, 2, 1, 0])
  del record["steps/observation"]
  tree = {
    **TREE,
    "observation": {
      "wide": Feature("tensor", (2,), INT),
      "flag": Feature("tensor", (), BOOL),
      "raw": Feature("tensor", (2, 3), np.dtype(np.float64), "bytes"),
      "text": Feature("text", (), np.dtype(object)),
      "pixel": Feature("tensor", (), np.dtype(np.uint8)),
    },
    "action": Feature("tensor", (), INT),
  }
  found = ilx.data.load(write(tmp_path, [record], tree))
  assert {name: value.dtype.name for name, value in found.observation.items()} == {
    "wide": "int32",
    "flag": "bool",
    "raw": "float32",
    "pixel": "uint8",
  }
  np.testing.assert_array_equal(found.observation["wide"], np.arange(8).reshape(4, 2) * 1000)
  np.testing.assert_array_equal(found.observation["raw"][3], np.full((2, 3), 3.5))
  np.testing.assert_array_equal(found.observation["pixel"], [0, 128, 255, 7])
  assert (found.action.dtype, found.action.tolist()) == (np.int32, [3, 2, 1, 0])


def test_integers_beyond_32_bits_are_refused(tmp_path):
  record = make()
  record["steps/action"] = np.array([0, 2**40, 0, 0])
  write(tmp_path, [record], {**TREE, "action": Feature("tensor", (), INT)})
  with pytest.raises(ValueError, match="'steps/action' has integers outside int32"):
    ilx.data.load(tmp_path)


@pytest.mark.parametrize(("declared", "stored"), [("uint64", -5), ("int8", 200), ("uint16", -1), ("int16", 2**20)])
def test_integers_beyond_what_features_json_says_are_refused(tmp_path, declared, stored):
  record = make()
  record["steps/action"] = np.array([0, stored, 0, 0])
  write(tmp_path, [record], {**TREE, "action": Feature("tensor", (), np.dtype(declared))})
  with pytest.raises(ValueError, match=f"'steps/action' has integers outside {declared}"):
    ilx.data.load(tmp_path)


def test_names_longer_than_files_can_have(tmp_path, monkeypatch):
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path))
  with pytest.raises(FileNotFoundError, match="no dataset 'aaaa"):
    ilx.data.load("a" * 300)
  record = make() | {f"steps/{'b' * 300}": np.zeros(4, np.float32)}
  write(tmp_path / "long" / "1.0.0", [record], {**TREE, "b" * 300: Feature("tensor", (), FLOAT)})
  assert ilx.data.load("long").num_episodes == 1


@pytest.mark.parametrize(
  ("changed", "problem"),
  [
    ({"observation": Sequence(Feature("tensor", (), FLOAT))}, "'steps/observation' is a Sequence inside a step"),
    ({"observation": {"note": Feature("text", (), np.dtype(object))}}, "'steps/observation' has nothing but text"),
    ({"action": Feature("text", (), np.dtype(object))}, "'steps/action' is text"),
    ({"reward": {"sum": Feature("tensor", (), FLOAT)}}, "'steps/reward' is a dict"),
    ({"reward": Feature("tensor", (3,), FLOAT)}, r"'steps/reward' has shape \(3,\)"),
  ],
)
def test_features_that_have_no_place_in_columns(tmp_path, changed, problem):
  write(tmp_path, [make()], {**TREE, **changed})
  with pytest.raises(ValueError, match=rf"features\.json: field {problem}"):
    ilx.data.load(tmp_path)


@FORMATS
def test_more_or_fewer_records_than_promised(tmp_path, file_format):
  for told in (2, 4):
    write(tmp_path, [make(seed=i) for i in range(3)], file_format=file_format)
    edit(tmp_path / "dataset_info.json", lambda info: info["splits"][0].update(shardLengths=[str(told)]))  # noqa: B023
    with pytest.raises(ValueError, match=rf"of-00001 holds (3|more) records where dataset_info\.json says {told}"):
      ilx.data.load(tmp_path)


@FORMATS
def test_truncated_shards_are_named_at_every_length(tmp_path, file_format):
  write(tmp_path, [make(40, i) for i in range(3)], file_format=file_format)
  shard = rlds.read_info(tmp_path).splits["train"].files[0]
  content = shard.read_bytes()
  for size in (0, 1, 11, 100, 1000, len(content) // 2, len(content) - 1):
    shard.write_bytes(content[:size])
    with pytest.raises(ValueError, match=f"{shard.name}.*(damaged|cut short|holds 0 records)"):
      ilx.data.load(tmp_path)
    assert shard.read_bytes() == content[:size]


@FORMATS
def test_a_flipped_bit_anywhere_is_found_or_harmless(tmp_path, file_format):
  records = [make(40, i) for i in range(3)]
  write(tmp_path, records, file_format=file_format)
  expected = ilx.data.load(tmp_path)
  shard = rlds.read_info(tmp_path).splits["train"].files[0]
  content = shard.read_bytes()
  harmless = found = 0
  for place in [*range(0, 4000, 37), *range(4000, len(content), 2039)]:
    if place >= len(content):
      continue
    broken = bytearray(content)
    broken[place] ^= 1 << place % 8
    shard.write_bytes(broken)
    try:
      loaded = ilx.data.load(tmp_path)
    except ValueError as error:
      found += shard.name in str(error)
    else:
      # ArrayRecord fills up its blocks with bytes that nothing reads.
      assert file_format == "array_record"
      assert place > sum(map(len, map(example.serialize, records))) / 2
      np.testing.assert_array_equal(loaded.observation, expected.observation)
      harmless += 1
  assert found > 50
  assert harmless < 100


def test_a_length_beyond_the_file_takes_no_memory(tmp_path):
  import google_crc32c

  write(tmp_path, [make()], file_format="tfrecord")
  shard = rlds.read_info(tmp_path).splits["train"].files[0]
  head = struct.pack("<Q", 2**60)
  shard.write_bytes(head + struct.pack("<I", tfrecord._mask(google_crc32c.value(head))) + b"x" * 50)
  with pytest.raises(ValueError, match="cut short at byte 0: a record of 1152921504606846976 bytes"):
    ilx.data.load(tmp_path)


@pytest.mark.parametrize("file", ["dataset_info.json", "features.json"])
def test_a_missing_json(tmp_path, file):
  write(tmp_path, [make()])
  (tmp_path / file).unlink()
  with pytest.raises(FileNotFoundError, match=f"{file} is missing"):
    rlds.read_info(tmp_path)


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    (lambda info: info.update(fileFormat="parquet"), "fileFormat 'parquet' is not supported"),
    (lambda info: info["splits"][0].pop("shardLengths"), "splits are malformed: KeyError"),
    (lambda info: info["splits"][0].update(shardLengths=["-1"]), "negative shardLengths"),
    (lambda info: info.pop("splits"), "splits are malformed"),
  ],
)
def test_a_malformed_dataset_info(tmp_path, change, problem):
  write(tmp_path, [make()])
  edit(tmp_path / "dataset_info.json", change)
  with pytest.raises(ValueError, match=rf"dataset_info\.json: .*{problem}"):
    ilx.data.load(tmp_path)


@pytest.mark.parametrize(
  ("split", "problem"),
  [
    ("test", "no split 'test'; there: train"),
    ("train[:2]", r"split 'train\[:2\]' reaches beyond the 1 episodes"),
    ("train[:0]", r"split 'train\[:0\]' is empty"),
  ],
)
def test_splits_and_numbers_that_are_not_there(tmp_path, split, problem):
  write(tmp_path, [make()])
  with pytest.raises(ValueError, match=problem):
    ilx.data.load(tmp_path, split)


def test_bridge_data_field_by_field(shared_data):
  """A slice of BridgeData V2 as TFRecord, by others: nested observations, JPEG images, text, parts of episodes."""
  folder = ilx.data.resolve(shared_data / "rlds" / "bridge_dataset")
  info = rlds.read_info(folder)
  reference = tfds.builder_from_directory(str(folder)).info.features
  for split in ("train", "val"):
    found = ilx.data.load(folder, split)
    assert (found.num_episodes, found.num_steps) == (25, 250)
    assert set(found.observation) == {"state", "image_0", "image_1", "image_2", "image_3"}
    for place, (_, record) in enumerate(rlds.read_records(info, split)):
      rows = slice(found.starts[place], found.starts[place + 1])
      steps = list(reference.deserialize_example_np(record)["steps"])
      for name in ("action", "reward", "discount", "is_terminal"):
        np.testing.assert_array_equal(getattr(found, name)[rows], [step[name] for step in steps])
      for name, value in found.observation.items():
        expected = np.stack([step["observation"][name] for step in steps])
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value[rows], expected)


def test_a_damaged_image_is_named(tmp_path, shared_data):
  source = ilx.data.resolve(shared_data / "rlds" / "bridge_dataset")
  info = rlds.read_info(source)
  fields = example.parse(next(rlds.read_records(info, "train"))[1])
  fields["steps/observation/image_1"][3] = fields["steps/observation/image_1"][3][:50]
  write(tmp_path, [fields], info.features["steps"].feature)
  with pytest.raises(ValueError, match=r"episode 0 .*'steps/observation/image_1', step 3"):
    ilx.data.load(tmp_path)


def test_images_of_another_size_are_refused(tmp_path, shared_data):
  source = ilx.data.resolve(shared_data / "rlds" / "bridge_dataset")
  shutil.copytree(source, tmp_path / "copy", copy_function=shutil.copyfile)
  features_file = tmp_path / "copy" / "features.json"
  features_file.write_text(features_file.read_text().replace('"64"', '"32"'))
  with pytest.raises(ValueError, match=r"image_\d', step 0: an image of 64 x 64 where features\.json says \(32, 32, 3"):
    ilx.data.load(tmp_path / "copy")


def test_what_tfds_encodes_loads(tmp_path):
  """Images, compressed tensors, labels and a shape left open, through TFDS' own serialiser."""
  feature = tfds.features
  steps = {
    "observation": {
      "gray": feature.Image(shape=(6, 5, 1), dtype=np.uint8, encoding_format="png"),
      "color": feature.Image(shape=(None, None, 3), dtype=np.uint8, encoding_format="png"),
      "small": feature.Tensor(shape=(2, 2), dtype=np.uint8, encoding="zlib"),
      "wide": feature.Tensor(shape=(3,), dtype=np.float64, encoding="bytes"),
      "open": feature.Tensor(shape=(None, 2), dtype=np.float32),
    },
    "action": feature.ClassLabel(num_classes=5),
    "reward": feature.Tensor(shape=(1,), dtype=np.float64),
    "is_terminal": feature.Scalar(np.bool_),
    "language": feature.Text(),
  }
  tree = feature.FeaturesDict({"steps": feature.Dataset(steps), "episode_id": np.int64})
  rng = np.random.default_rng(0)

  def step(last):
    return {
      "observation": {
        "gray": rng.integers(0, 256, (6, 5, 1), np.uint8),
        "color": rng.integers(0, 256, (4, 7, 3), np.uint8),
        "small": rng.integers(0, 256, (2, 2), np.uint8),
        "wide": rng.standard_normal(3),
        "open": rng.standard_normal((3, 2)).astype(np.float32),
      },
      "action": rng.integers(5),
      "reward": rng.standard_normal(1),
      "is_terminal": last,
      "language": "go",
    }

  def encoded(step):
    """TFDS turns arrays into PNG with TensorFlow; files it takes as they are."""
    images = {name: io.BytesIO() for name in ("gray", "color")}
    for name, file in images.items():
      Image.fromarray(step["observation"][name].squeeze()).save(file, "PNG")
      file.seek(0)
    return {**step, "observation": {**step["observation"], **images}}

  episodes = [[step(index == length) for index in range(length + 1)] for length in (3, 5)]
  records = [
    tree.serialize_example({"steps": [encoded(step) for step in steps], "episode_id": index})
    for index, steps in enumerate(episodes)
  ]
  write(tmp_path, records)
  tree.save_config(str(tmp_path))
  found = ilx.data.load(tmp_path)
  flat = [step for steps in episodes for step in steps]
  assert found.num_steps == len(flat) == 10
  for name, value in found.observation.items():
    expected = np.stack([step["observation"][name] for step in flat])
    np.testing.assert_array_equal(value, expected.astype(value.dtype), err_msg=name)
  assert {name: value.dtype.name for name, value in found.observation.items() if value.dtype != np.uint8} == {
    "wide": "float32",
    "open": "float32",
  }
  np.testing.assert_array_equal(found.action, [step["action"] for step in flat])
  np.testing.assert_array_equal(found.reward, np.float32([step["reward"][0] for step in flat]))
  np.testing.assert_array_equal(found.is_terminal, [step["is_terminal"] for step in flat])


def test_a_zip_bomb_is_cut_off(tmp_path):
  record = make()
  record["steps/observation"] = [zlib.compress(bytes(10_000_000))] * 4
  write(tmp_path, [record], {**TREE, "observation": Feature("tensor", (4,), FLOAT, "zlib")})
  with pytest.raises(ValueError, match=r"'steps/observation', step 0: 17 bytes where float32 \(4,\) has 16"):
    ilx.data.load(tmp_path)

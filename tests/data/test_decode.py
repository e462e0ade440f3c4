"""Whole episodes, against the values that TFDS was given, TFDS' numpy decoder and TensorFlow."""

import io
import json
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from random_features import Field, episodes

from ilx.data import decode, example, features, rlds, shards
from ilx.data.features import Feature, Sequence
from ilx.data.images import Images

F = tfds.features

_SEEDS = st.integers(0, 2**32)


def _same(found, expected, where="", atol=0):
  """``expected``: dicts, lists over time, texts, numbers and arrays."""
  if isinstance(expected, dict):
    assert found.keys() == expected.keys(), where
    for key, value in expected.items():
      _same(found[key], value, f"{where}/{key}", atol)
  elif isinstance(expected, list) and isinstance(found, dict):  # a sequence of dicts is a dict of sequences
    for key, value in found.items():
      _same(value, _pick(expected, key), f"{where}/{key}", atol)
  elif isinstance(expected, list):
    assert len(found) == len(expected), where
    for step, value in enumerate(expected):
      _same(found[step], value, f"{where}[{step}]", atol)
  elif isinstance(expected, str | bool | int | float):
    assert found == expected, where
  else:
    assert found.dtype == expected.dtype, where
    assert found.shape == expected.shape, where
    if atol and found.dtype == np.uint8:
      np.testing.assert_allclose(np.asarray(found, int), np.asarray(expected, int), atol=atol, rtol=0, err_msg=where)
    else:
      np.testing.assert_array_equal(found, expected, err_msg=where)


def _pick(value, key):
  return [_pick(step, key) for step in value] if isinstance(value, list) else value[key]


def _plain(value):
  """What TFDS gives, as dicts, lists, texts, numbers and arrays."""
  if isinstance(value, dict):
    return {key: _plain(child) for key, child in value.items()}
  if type(value).__name__ == "RaggedTensor":
    return [_plain(step) for step in value]
  if hasattr(value, "numpy"):
    value = value.numpy()
  if isinstance(value, bytes):
    return value.decode()
  if isinstance(value, np.ndarray) and value.dtype.kind in "OS":
    texts = np.empty(value.shape, object)
    texts.reshape(-1)[:] = [text.decode() for text in value.reshape(-1)]
    return texts
  return value if isinstance(value, np.ndarray | np.generic | bool | int | float) else [_plain(x) for x in value]


def _read(field, folder, given):
  """The record that TFDS writes, and what is read from it."""
  record = field.feature.serialize_example(given)
  field.feature.save_config(str(folder))
  tree = features.read(folder / "features.json")
  parsed = example.parse(record)
  assert decode.keys(tree) == parsed.keys()
  return record, decode.decode(tree, parsed)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(field=episodes(), seed=_SEEDS)
def test_gives_what_tfds_was_given(tmp_path_factory, field, seed):
  given, expected = field.make(np.random.default_rng(seed))
  _, found = _read(field, tmp_path_factory.mktemp("data"), given)
  _same(found, expected)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(field=episodes(simple=True), seed=_SEEDS)
def test_gives_what_tfds_reads(tmp_path_factory, field, seed):
  given, _ = field.make(np.random.default_rng(seed))
  record, found = _read(field, tmp_path_factory.mktemp("data"), given)
  _same(found, _plain(field.feature.deserialize_example_np(record)))


def test_gives_what_tensorflow_reads(tmp_path):
  """One record with everything that TensorFlow's decoder of TFDS can read."""
  pytest.importorskip("tensorflow")
  rng = np.random.default_rng(0)
  steps = {
    "observation": {
      "png": F.Image(shape=(6, 5, 4), encoding_format="png"),
      "open": F.Image(shape=(None, None, 1), encoding_format="png"),
      "deep": F.Image(shape=(6, 5, 1), dtype=np.uint16, encoding_format="png"),
      "color": F.Image(shape=(6, 5, 3), dtype=np.uint16, encoding_format="png"),
      "depth": F.Image(shape=(6, 5, 1), dtype=np.float32, encoding_format="png"),
      "zlib": F.Tensor(shape=(2, 2), dtype=np.uint8, encoding="zlib"),
      "bytes": F.Tensor(shape=(3,), dtype=np.float64, encoding="bytes"),
    },
    "action": F.Tensor(shape=(2,), dtype=np.float32),
    "label": F.ClassLabel(names=["left", "right"]),
    "is_last": np.bool_,
    "text": F.Text(),
  }
  beside = {
    "ragged": F.Sequence(F.Sequence(np.int32)),
    "objects": F.Sequence({"box": F.BBoxFeature(), "name": F.Text()}),
    "video": F.Video(shape=(None, 6, 5, 3)),
    "own": F.Tensor(shape=(None, None), dtype=np.int16, encoding="zlib"),
    "big": np.uint64,
    "half": np.float16,
    "double": np.float64,
    "names": F.Tensor(shape=(2,), dtype=np.str_),
    "missing": F.Scalar(np.float32, optional=True),
  }

  def step(index):
    return {
      "observation": {
        "png": rng.integers(0, 256, (6, 5, 4), np.uint8),
        "open": rng.integers(0, 256, (4, 7, 1), np.uint8),
        "deep": rng.integers(0, 2**16, (6, 5, 1), np.uint16),
        "color": rng.integers(0, 2**16, (6, 5, 3), np.uint16),
        "depth": rng.standard_normal((6, 5, 1)).astype(np.float32),
        "zlib": rng.integers(0, 256, (2, 2), np.uint8),
        "bytes": rng.standard_normal(3),
      },
      "action": rng.standard_normal(2).astype(np.float32),
      "label": "right",
      "is_last": index == 3,
      "text": "move \u00e9",
    }

  given = {
    "steps": [step(index) for index in range(4)],
    "beside": {
      "ragged": [[1, 2, 3], [], [4]],
      "objects": [{"box": F.BBox(0.1, 0.2, 0.3, 0.4), "name": "cup"}],
      "video": rng.integers(0, 256, (3, 6, 5, 3), np.uint8),
      "own": rng.integers(-9, 9, (2, 3), np.int16),
      "big": 2**64 - 5,
      "half": 0.1,
      "double": 0.1,
      "names": ["a", "b"],
      "missing": 2.5,
    },
  }
  field = Field(F.FeaturesDict({"steps": F.Dataset(steps), "beside": beside}), None)
  record, found = _read(field, tmp_path, given)
  _same(found, _plain(field.feature.deserialize_example(record)))


def test_bridge_data(shared_data):
  """A real dataset, every field of every episode."""
  info = rlds.read_info(rlds.resolve(shared_data / "rlds" / "bridge_dataset"))
  reference = tfds.builder_from_directory(str(info.directory)).info.features
  pairs = list(zip(rlds.read_episodes(info, "all"), rlds.read_records(info, "all"), strict=True))
  assert len(pairs) == 50
  for count, ((file, index, episode), (path, record)) in enumerate(pairs):
    assert (file, index) == (path, count % 25)
    _same(episode, _plain(reference.deserialize_example_np(record)))


def test_bridge_data_as_tensorflow_reads_it(shared_data):
  """TensorFlow's default for JPEG is a fast, coarse transform: 1.4 levels of 255 off on average over this dataset, 17
  at most. With its accurate one, not a bit differs.
  """
  tf = pytest.importorskip("tensorflow")
  info = rlds.read_info(rlds.resolve(shared_data / "rlds" / "bridge_dataset"))
  reference = tfds.builder_from_directory(str(info.directory)).info.features
  for _, record in rlds.read_records(info, "train[:2]"):
    episode = rlds.decode_episode(info, record)
    _same(episode, _plain(reference.deserialize_example(record)), atol=17)
    pictures = episode["steps"]["observation"]["image_0"]
    for step in range(len(pictures)):
      exact = tf.io.decode_jpeg(pictures.encoded(step), dct_method="INTEGER_ACCURATE")
      np.testing.assert_array_equal(pictures[step], exact)


FLOAT, INT, OBJECT = (np.dtype(x) for x in (np.float32, np.int64, object))
_TEXT = Feature("text", (), OBJECT)
_NUMBER = Feature("tensor", (), INT)


def _steps(**fields):
  return {"steps": Sequence(fields)}


def test_the_forms_of_what_varies():
  tree = _steps(
    tokens=Sequence(_NUMBER),
    pair=Sequence(Feature("tensor", (2,), FLOAT), 2),
    words=Sequence(Sequence(_TEXT)),
    raw=Feature("tensor", (None,), np.dtype(np.int16), "bytes"),
    binary=_TEXT,
  )
  found = decode.decode(
    tree,
    {
      "steps/tokens/ragged_flat_values": np.array([1, 2, 3]),
      "steps/tokens/ragged_row_lengths_0": np.array([3, 0]),
      "steps/pair/ragged_flat_values": np.arange(8, dtype=np.float32),
      "steps/pair/ragged_row_lengths_0": np.array([2, 2]),
      "steps/words/ragged_flat_values": [b"a", b"b", b"c"],
      "steps/words/ragged_row_lengths_0": np.array([2, 1]),
      "steps/words/ragged_row_lengths_1": np.array([1, 0, 2]),
      "steps/raw": [b"\1\0", b"\1\0\2\0"],
      "steps/binary": [b"\xff", "\u00e9".encode()],
    },
  )["steps"]
  assert [x.tolist() for x in found["tokens"]] == [[1, 2, 3], []]
  assert found["tokens"].dtype == object and found["tokens"][1].dtype == INT
  np.testing.assert_array_equal(found["pair"], np.arange(8, dtype=np.float32).reshape(2, 2, 2))
  assert [[y.tolist() for y in x] for x in found["words"]] == [[["a"], []], [["b", "c"]]]
  assert [x.tolist() for x in found["raw"]] == [[1], [1, 2]]
  assert found["binary"].tolist() == [b"\xff", "\u00e9"]


def test_sequences_of_what_has_no_numbers():
  stored = {"steps/x/ragged_flat_values": np.zeros(0, np.float32), "steps/x/ragged_row_lengths_0": np.array([2, 1])}
  found = decode.decode(_steps(x=Sequence(Feature("tensor", (0,), FLOAT))), stored)["steps"]["x"]
  assert [value.shape for value in found] == [(2, 0), (1, 0)]


def test_pictures_stay_encoded_where_they_have_one_size():
  feature = Feature("image", (None, None, 1), np.dtype(np.uint8), "png")

  def png(*shape):
    file = io.BytesIO()
    Image.fromarray(np.full(shape, 7, np.uint8)).save(file, "PNG")
    return file.getvalue()

  same = decode.decode(_steps(x=feature), {"steps/x": [png(2, 3)] * 4})["steps"]["x"]
  assert isinstance(same, Images) and same.shape == (4, 2, 3, 1)
  other = decode.decode(_steps(x=feature), {"steps/x": [png(2, 3), png(5, 4)]})["steps"]["x"]
  assert other.dtype == object and [x.shape for x in other] == [(2, 3, 1), (5, 4, 1)]


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64"])
def test_types_of_reals(name):
  dtype = features.from_json({"pythonClassName": "x.Tensor", "tensor": {"dtype": name}}).dtype
  value = np.array([0.1, -2.5], np.float32)
  found = decode.decode(_steps(x=Feature("tensor", (), dtype)), {"steps/x": value})["steps"]["x"]
  assert found.dtype == dtype
  np.testing.assert_array_equal(found, value.astype(dtype))


def test_big_unsigned_integers():
  found = decode.decode({"x": Feature("tensor", (), np.dtype(np.uint64))}, {"x": np.array([-5])})["x"]
  assert found == np.uint64(2**64 - 5)


def test_optional_and_absent_fields():
  optional = Feature("tensor", (), FLOAT, optional=True)
  assert decode.decode({"x": optional, "y": Sequence(_NUMBER)}, {})["x"] is None
  assert decode.decode({"y": Sequence(_NUMBER)}, {})["y"].shape == (0,)
  assert decode.decode(_steps(x=optional, y=_NUMBER), {"steps/y": np.arange(3)})["steps"]["x"] is None


_SHAPED = Feature("tensor", (None, None), np.dtype(np.int16), "bytes")


@pytest.mark.parametrize(
  ("tree", "stored", "problem"),
  [
    ({"x": _NUMBER}, {}, "'x' is missing from the record"),
    ({"x": _NUMBER}, {"x": np.arange(2)}, r"'x' has 2 values where 1 of shape \[\] have 1"),
    ({"x": _NUMBER}, {"x": [b"a"]}, "'x' is stored as another kind of list"),
    ({"x": _TEXT}, {"x": np.arange(1)}, "'x' is stored as another kind of list"),
    ({"x": _NUMBER}, {"x": np.ones(1, np.float32)}, "'x' holds float32 values where features.json says int64"),
    ({"x": Feature("tensor", (), np.dtype(np.int8))}, {"x": np.array([300])}, "'x' has integers outside int8"),
    (
      {"x": Feature("tensor", (2, None), FLOAT)},
      {"x": np.ones(3, np.float32)},
      "'x' has 3 values, which do not divide",
    ),
    (_steps(x=_NUMBER, y=_NUMBER), {"steps/x": np.arange(3)}, "'steps/y' is missing from the record"),
    (
      _steps(x=_NUMBER, y=_NUMBER),
      {"steps/x": np.arange(3), "steps/y": np.arange(2)},
      "'steps/y' has 2 values where 'steps/x' has 3",
    ),
    ({"x": Sequence(_NUMBER, 3)}, {"x": np.arange(2)}, "'x' has 2 values where features.json says 3"),
    (
      _steps(x=Sequence(_NUMBER)),
      {"steps/x/ragged_flat_values": np.arange(3), "steps/x/ragged_row_lengths_0": np.array([2, 2])},
      "'steps/x' has 3 values where its row lengths say 4",
    ),
    (
      _steps(x=Sequence(_NUMBER)),
      {"steps/x/ragged_flat_values": np.arange(3), "steps/x/ragged_row_lengths_0": np.array([4, -1])},
      "row lengths of level 0 are not 2 counts",
    ),
    (
      _steps(x=Sequence(_NUMBER, 2)),
      {"steps/x/ragged_flat_values": np.arange(3), "steps/x/ragged_row_lengths_0": np.array([1, 2])},
      "'steps/x' has 1 values where 2 are in a sequence",
    ),
    (_steps(x=Feature("tensor", (3,), INT, "bytes")), {"steps/x": [b"a"]}, "'steps/x', step 0: 1 bytes where int64"),
    (
      _steps(x=Feature("tensor", (3,), INT, "zlib")),
      {"steps/x": [zlib.compress(bytes(24)), b"x" * 30]},
      "'steps/x', step 1: .*incorrect header",
    ),
    ({"x": Feature("tensor", (3,), INT, "zlib")}, {"x": [zlib.compress(bytes(24))[:-3]]}, "'x'.* cut short"),
    ({"x": _SHAPED}, {"x/value": [b"abcd"], "x/shape": np.array([2, 2])}, r"'x': 4 bytes where int16 \(2, 2\) has 8"),
    ({"x": _SHAPED}, {"x/value": [b"abcd"], "x/shape": np.array([-1, -2])}, r"'x' has shape \(-1, -2\) where"),
    ({"x": _SHAPED}, {"x/value": [b"abcd"], "x/shape": np.array([2])}, "'x' has 1 sizes where 1 values of rank 2"),
    (
      _steps(x=Feature("image", (None, None, 3), np.dtype(np.uint8), "png")),
      {"steps/x": [b"nothing"]},
      "'steps/x', step 0: no PNG or JPEG",
    ),
  ],
)
def test_errors_name_the_field(tree, stored, problem):
  with pytest.raises(ValueError, match=problem):
    decode.decode(tree, stored)


def test_what_is_not_supported_is_left_out_unless_asked_for():
  tree = {"a": Feature("unknown", (), OBJECT, problem="it is odd"), "b": {"c": _NUMBER, "d": _TEXT}}
  assert decode.choose(tree, None) == {"b": tree["b"]}
  assert decode.choose(tree, ["b/c"]) == {"b": {"c": _NUMBER}}
  assert decode.choose(tree, ["b"]) == {"b": tree["b"]}
  with pytest.raises(ValueError, match="field 'a' cannot be read: it is odd"):
    decode.choose(tree, ["a"])
  with pytest.raises(ValueError, match="no field 'b/cc' \\(nearest: b/c"):
    decode.choose(tree, ["b/cc"])


def test_errors_name_file_and_record(tmp_path):
  features.write(tmp_path / "features.json", _steps(x=_NUMBER))
  info = {"name": "demo", "version": "1.0.0", "fileFormat": "tfrecord"}
  info["splits"] = [{"name": "train", "shardLengths": ["2"]}]
  (tmp_path / "dataset_info.json").write_text(json.dumps(info))
  records = [example.serialize({"steps/x": value}) for value in (np.arange(3), [b"a"])]
  path = tmp_path / "demo-train.tfrecord-00000-of-00001"
  path.write_bytes(b"".join(map(shards.frame_tfrecord, records)))
  found = rlds.read_episodes(rlds.read_info(tmp_path))
  assert next(found)[1] == 0
  with pytest.raises(ValueError, match=f"{path}: record 1: field 'steps/x' is stored as another kind"):
    next(found)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_datasets_that_tfds_writes(tmp_path, file_format):
  """Through TFDS' own writer of files, splits and metadata."""
  steps = {
    "observation": F.Tensor(shape=(2,), dtype=np.float32),
    "action": np.int64,
    "reward": np.float32,
    "is_first": np.bool_,
    "is_last": np.bool_,
    "is_terminal": np.bool_,
    "text": F.Text(),
  }
  info = tfds.core.DatasetInfo(
    builder=tfds.core.DatasetIdentity("demo", tfds.core.Version("1.0.0"), data_dir=str(tmp_path), module_name=""),
    features=F.FeaturesDict({"steps": F.Dataset(steps), "id": F.Text()}),
  )
  writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2, file_format=file_format)
  writer.initialize_splits(["train", "test"])
  rng = np.random.default_rng(0)
  episodes = [
    {
      "steps": [
        {
          "observation": rng.standard_normal(2).astype(np.float32),
          "action": index,
          "reward": np.float32(rng.random()),
          "is_first": index == 0,
          "is_last": index == length - 1,
          "is_terminal": False,
          "text": f"step {index}",
        }
        for index in range(length)
      ],
      "id": f"episode {length}",
    }
    for length in (3, 5, 2, 4)
  ]
  writer.add_examples({"train": episodes[:3], "test": episodes[3:]})
  writer.close_all()
  found = rlds.read_info(tmp_path)
  assert found.file_format == file_format
  assert found.splits["train"].lengths == (2, 1)
  for (_, _, episode), expected in zip(rlds.read_episodes(found, "train+test"), episodes, strict=True):
    assert episode["id"] == expected["id"]
    for name in steps:
      np.testing.assert_array_equal(episode["steps"][name], [step[name] for step in expected["steps"]])
  assert rlds.load(tmp_path, "train[1:]+test").num_steps == 5 + 2 + 4

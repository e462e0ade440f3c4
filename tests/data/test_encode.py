"""Recording fields beyond RLDS' own, text, pictures, episodes' metadata and several splits: all equal in TFDS."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ilx.data import Recorder, encode, episode, example, load, mapped, read_info, shards, streamed, values
from ilx.data.images import Images

KEY = st.text("abcdefgh_", min_size=1, max_size=4)
TEXT = st.text(st.characters(codec="utf-8"), max_size=6)


def plain(length=2, **fields):
  made = episode({"state": np.arange(length + 1.0)}, np.zeros((length, 1)), np.ones(length), terminal=True)
  return {**made, **fields}


def pixels(steps=3, channels=3, seed=0):
  coarse = np.random.default_rng(seed).integers(0, 256, (steps, 2, 3, channels), np.uint8)
  return coarse.repeat(4, 1).repeat(4, 2)


def record(root, episodes, metadata=(), splits=(), name="test", **options):
  with Recorder(root, name=name, **options) as recorder:
    for index, item in enumerate(episodes):
      recorder.add(
        item,
        metadata=metadata[index] if metadata else None,
        split=splits[index] if splits else None,
      )
  return recorder.path


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def through_tfds(path, split="train"):
  """Every episode of a split as TFDS gives it: (flat step fields as lists, metadata)."""
  for item in tfds.builder_from_directory(str(path)).as_data_source(split):
    steps = [dict(encode.flatten(step)) for step in item["steps"]]
    yield {name: [step[name] for step in steps] for name in steps[0]}, item.get("episode_metadata", {})


def assert_equal(found, expected, name):
  if isinstance(found, bytes):
    assert found.decode() == expected, name
  else:
    np.testing.assert_array_equal(found, expected, err_msg=name)


def numbers(draw, steps):
  dtype = np.dtype(draw(st.sampled_from(["float64", "float32", "float16", "int64", "int8", "uint16", "uint8", "bool"])))
  shape = (steps, *draw(st.lists(st.integers(1, 3), max_size=3)))
  raw = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 100, shape)
  return (raw / 8 if dtype.kind == "f" else raw % 2 if dtype.kind == "b" else raw).astype(dtype)


@st.composite
def some_fields(draw, steps):
  """A tree of fields of all kinds."""
  found = {}
  for key in draw(st.lists(KEY, min_size=1, max_size=3, unique=True)):
    kind = draw(st.sampled_from(["numbers", "text", "pictures", "dict"]))
    if kind == "numbers":
      found[key] = numbers(draw, steps)
    elif kind == "text":
      found[key] = draw(st.lists(TEXT, min_size=steps, max_size=steps))
    elif kind == "pictures":
      contents = [values.encode_picture(picture, "png") for picture in pixels(steps, draw(st.sampled_from([1, 3, 4])))]
      found[key] = Images.of(contents, np.asarray(Image.open(io.BytesIO(contents[0]))).reshape(8, 12, -1).shape)
    else:
      found[key] = {"x": numbers(draw, steps)}
  return found


METADATA = st.dictionaries(
  KEY,
  st.one_of(
    TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_infinity=False),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
    st.just(np.arange(4, dtype=np.uint8).reshape(2, 2)),
    st.just(np.ones((2, 1), np.float32)),
  ),
  max_size=4,
)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_tfds_gives_every_field_back(tmp_path_factory, data):
  steps = data.draw(st.integers(2, 4))
  extras = data.draw(some_fields(steps))
  item = {**plain(steps - 1), "observation": data.draw(some_fields(steps)), "extra": extras}
  if data.draw(st.booleans()):
    item["action"] = {"arm": np.ones((steps, 2)), "grip": np.ones(steps, int)}
  about = data.draw(METADATA)
  path = record(tmp_path_factory.mktemp("any"), [item], [about])
  ((found, found_about),) = through_tfds(path)
  expected = dict(encode.flatten(item))
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    for step in range(steps):
      wanted = np.asarray(value)[step] if isinstance(value, Images) else value[step]
      assert_equal(found[name][step], wanted, name)
  assert found_about.keys() == about.keys()
  for name, value in about.items():
    assert_equal(found_about[name], value, name)
    if isinstance(value, int | float):
      assert np.asarray(found_about[name]).dtype == np.asarray(value).dtype


def test_the_tensorflow_side_of_tfds_reads_it_too(tmp_path):
  about = {"score": 1.7e9 + 0.125, "seed": 2**62, "who": "ö", "won": True}
  item = plain(picture=pixels(), said=["a", "", "ü"], deep={"er": np.arange(3)})
  path = record(tmp_path, [item], [about], image_format="png")
  (stored,) = shards.read(path / "test-train.array_record-00000-of-00001", "array_record", 1)
  features = tfds.builder_from_directory(str(path)).info.features
  found = tfds.as_numpy(features.deserialize_example(stored))
  assert found["episode_metadata"] == {"score": 1.7e9 + 0.125, "seed": 2**62, "who": "ö".encode(), "won": True}
  steps = list(found["steps"])
  np.testing.assert_array_equal([step["picture"] for step in steps], pixels())
  assert [step["said"].decode() for step in steps] == ["a", "", "ü"]
  assert [step["deep"]["er"] for step in steps] == [0, 1, 2]


@pytest.mark.parametrize("image_format", [None, "png", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels(tmp_path, image_format, channels):
  shown = pixels(channels=channels)
  path = record(tmp_path, [plain(camera=shown)], image_format=image_format)
  feature = read_info(path).features["steps"].feature["camera"]
  assert feature.shape == (8, 12, channels)
  assert (feature.kind, feature.encoding) == (("image", image_format) if image_format else ("tensor", "bytes"))
  ((found, _),) = through_tfds(path)
  difference = np.abs(np.stack(found["camera"]).astype(int) - shown)
  assert difference.mean() <= (15 if image_format == "jpeg" else 0)  # random colours halved in resolution


def test_pictures_are_stored_as_they_are(tmp_path):
  files = [values.encode_picture(picture, "jpeg") for picture in pixels()]
  path = record(tmp_path, [plain(camera=Images.of(files, (8, 12, 3)))])
  assert read_info(path).features["steps"].feature["camera"].encoding == "jpeg"
  (stored,) = shards.read(path / "test-train.array_record-00000-of-00001", "array_record", 1)
  assert example.parse(stored)["steps/camera"] == files


@pytest.mark.parametrize("texts", [["a", "b", "c"], np.array(["a", "b", "c"]), np.array(["a", "b", "c"], object),
                                   (b"a", b"b", b"c"), np.array([b"a", b"b", b"c"])])  # fmt: skip
def test_text_in_every_form(tmp_path, texts):
  item = episode({"note": texts, "x": np.zeros(3)}, {"say": texts[:2]}, np.zeros(2), terminal=False)
  ((found, _),) = through_tfds(record(tmp_path, [item | {"instruction": texts}]))
  assert found["observation/note"] == found["instruction"] == [b"a", b"b", b"c"]
  assert found["action/say"] == [b"a", b"b", b""]


def test_splits(tmp_path):
  episodes = [plain(2 + i) for i in range(5)]
  splits = ["val", "train", "val", "test-2", "val"]
  path = record(tmp_path / "a", episodes, splits=splits, episodes_per_shard=2)
  assert {split: info.lengths for split, info in read_info(path).splits.items()} == {
    "test-2": (1,), "train": (1,), "val": (2, 1),
  }  # fmt: skip
  lengths = {split: [len(x["reward"]) for x, _ in through_tfds(path, split)] for split in ("train", "val", "test-2")}
  assert lengths == {"train": [4], "val": [3, 5, 7], "test-2": [6]}
  # neither the order among splits nor an interruption changes a byte
  other = Recorder(tmp_path / "b", name="test", episodes_per_shard=2)
  for index in (1, 0):
    other.add(episodes[index], split=splits[index])
  other.suspend()
  with Recorder(tmp_path / "b", name="test", episodes_per_shard=2) as other:
    for index in (2, 3, 4):
      other.add(episodes[index], split=splits[index])
    assert (other.num_episodes, other.num_transitions) == (5, 2 + 3 + 4 + 5 + 6)
    assert other.returns.tolist() == [3, 2, 4, 5, 6]
  assert contents(other.path) == contents(path)


def test_notes_and_the_last_episode_survive(tmp_path):
  recorder = Recorder(tmp_path, name="test")
  assert recorder.last() is None
  recorder.note({"seed": 3})
  recorder.add(plain())
  recorder.add(plain(5), metadata=None)
  last = recorder.last()
  recorder.note({"seed": 4})
  recorder.suspend()
  with Recorder(tmp_path, name="test") as recorder:
    assert recorder.notes == [{"seed": 3}, {"seed": 4}]
    assert recorder.last() == last == encode.encode(plain(5)).record


def test_features_without_an_episode_bind_nobody(tmp_path, monkeypatch):
  recorder = Recorder(tmp_path, name="test")
  append = recorder._journal.append
  monkeypatch.setattr(recorder._journal, "append", lambda head, *rest: append(head) if "features" in head else 1 / 0)
  with pytest.raises(ZeroDivisionError):
    recorder.add(plain(other=np.zeros(3)))
  recorder.suspend()
  with Recorder(tmp_path, name="test") as recorder:
    recorder.add(plain())
  assert "other" not in read_info(recorder.path).features["steps"].feature


def test_the_longest_names_open(tmp_path):
  """Those of fields and of the dataset, everywhere that files are called after them; longer ones are refused."""
  key, name, split = "k" * 182, "n" * 180, "s" * 13
  item = plain(observation={key: np.zeros((3, 2)), "b": np.zeros((3, 1))}) | {key: np.zeros(3)}
  about = {"ü" * 91: 1}
  with Recorder(tmp_path, name=name, split=split) as recorder:
    recorder.add(item, metadata=about)
    for longer in (
      (item | {"observation": {f"{key}k": np.zeros((3, 2))}}, about),
      (item, {**about, "ü" * 92: 1}),
    ):
      with pytest.raises(ValueError, match=r"the full name of field .* bytes; at most 200"):
        recorder.add(longer[0], metadata=longer[1])
    with pytest.raises(ValueError, match="too long together"):
      recorder.add(item, metadata=about, split=f"{split}s")
  for opened in (load, mapped):
    assert opened(recorder.path, split).observation[key].shape == (3, 2)
  assert streamed(recorder.path, split).num_episodes == 1
  with pytest.raises(ValueError, match="too long together"):
    Recorder(tmp_path, name=f"{name}n", split=split)


def test_synced_episodes_are_the_same(tmp_path):
  assert contents(record(tmp_path / "a", [plain()], fsync=True)) == contents(record(tmp_path / "b", [plain()]))


def _jpeg(step=0, channels=3):
  return values.encode_picture(pixels(channels=channels)[step], "jpeg")


def _png16():
  target = io.BytesIO()
  Image.fromarray(np.zeros((8, 12), np.uint16)).save(target, "png")
  return target.getvalue()


PNG = values.encode_picture(pixels()[0], "png")


@pytest.mark.parametrize(
  ("fields", "problem"),
  [
    ({"a/b": np.zeros(3)}, "key 'a/b'"),
    ({"x": {}}, "'x' is an empty dict"),
    ({"x": {"": np.zeros(3)}}, "key ''"),
    ({"x": np.zeros(2)}, r"'x' has shape \(2,\), but the reward has 3"),
    ({"x": ["a", "b"]}, r"'x' has shape \(2,\)"),
    ({"x": ["a", 1, "b"]}, "'x', step 1, is int; expected numbers, or text alone"),
    ({"x": ["a", "\ud800", "b"]}, "'x', step 1, is no UTF-8"),
    ({"x": [b"a", b"\xff", b"b"]}, "'x', step 1, is no UTF-8"),
    ({"x": np.array([["a"]] * 3)}, "'x' is <U1; expected numbers"),
    ({"x": np.array([1, None, 2])}, "'x', step 0, is int"),
    ({"x": [[1, 2], [1], [1]]}, "'x' is no array"),
    ({"x": np.zeros(3, complex)}, "'x' is complex128"),
    ({"x": np.array([0, np.inf, 0])}, "'x' is NaN or inf in float32 at step 1"),
    ({"x": np.full(3, 2**31)}, "'x' has integers outside int32"),
    ({"reward": ["a", "b", "c"]}, "'reward' is <U1; expected numbers"),
    ({"reward": {"x": np.zeros(3)}}, "'reward' must be an array"),
    ({"x": Images.of([PNG] * 2, (8, 12, 3))}, r"'x' has shape \(2, 8, 12, 3\)"),
    ({"x": Images.of([PNG, _jpeg(), PNG], (8, 12, 3))}, "'x', step 1: the picture is jpeg; expected png"),
    ({"x": Images.of([b"GIF89a"] * 3, (8, 12, 3))}, "'x', step 0: the picture is neither PNG nor JPEG"),
    ({"x": Images.of([PNG, PNG[:20], PNG], (8, 12, 3))}, "'x', step 1: the picture is damaged"),
    ({"x": Images.of([PNG] * 3, (8, 9, 3))}, "'x', step 0: a picture of 8 x 12 where 8 x 9 was said"),
    ({"x": Images.of([PNG] * 3, (8, 12, 1))}, "'x', step 0: a picture of mode RGB has no 1 channels"),
    ({"x": Images.of([_png16()] * 3, (8, 12, 1))}, "'x', step 0: a picture of mode I;16"),
    ({"x": Images.of([PNG] * 3, (8, 12, 2))}, "'x' has pictures of 2 channels"),
  ],
)
def test_bad_fields(fields, problem):
  with pytest.raises(ValueError, match=problem):
    encode.encode(plain(**fields))


@pytest.mark.parametrize(
  ("metadata", "problem"),
  [
    ({"a/b": 1}, "metadata has the key 'a/b'"),
    ({"x": None}, r"metadata 'x' is object \[\]; expected a string, a number"),
    ({"x": {"y": 1}}, "metadata 'x' is object"),
    ({"x": np.inf}, "metadata 'x' is infinite"),
    ({"x": 2**64}, "metadata 'x' is "),
    ({"x": 2**63}, "metadata 'x' is outside int64"),
    ({"x": []}, r"metadata 'x' is float64 \[0\]"),
    ({"x": ["a", "b"]}, r"metadata 'x' is <U1 \[2\]"),
    ({"x": "\ud800"}, "metadata 'x' is no UTF-8"),
  ],
)
def test_bad_metadata(metadata, problem):
  with pytest.raises(ValueError, match=problem):
    encode.encode(plain(), metadata)


@pytest.mark.parametrize(
  ("metadata", "problem"),
  [
    ({"x": 1.0}, r"'episode_metadata/x' is float64 \[\], but int64 \[\] in"),
    ({"x": "1"}, r"'episode_metadata/x' is text, but int64 \[\] in"),
    ({"y": 1, "x": 1}, "'episode_metadata/y' is int64 .*, but absent"),
    (None, r"'episode_metadata/x' is absent, but int64 \[\] in"),
  ],
)
def test_metadata_has_the_same_types_in_every_episode(tmp_path, metadata, problem):
  with Recorder(tmp_path, name="test") as recorder:
    recorder.add(plain(), metadata={"x": 1})
    with pytest.raises(ValueError, match=problem):
      recorder.add(plain(), metadata=metadata)
    assert recorder.num_episodes == 1


def test_pictures_of_another_format_or_size_are_refused(tmp_path):
  with Recorder(tmp_path, name="test") as recorder:
    recorder.add(plain(x=Images.of([PNG] * 3, (8, 12, 3))))
    with pytest.raises(ValueError, match=r"'x' is jpeg pictures \[8, 12, 3\] a step, but png pictures \[8, 12, 3\]"):
      recorder.add(plain(x=Images.of([_jpeg()] * 3, (8, 12, 3))))


def test_bad_options(tmp_path):
  with pytest.raises(ValueError, match="image_format 'gif' is none of png, jpeg"):
    Recorder(tmp_path, name="test", image_format="gif")
  with Recorder(tmp_path, name="test", image_format="jpeg") as recorder:
    with pytest.raises(ValueError, match="'x' has four channels, which JPEG has not"):
      recorder.add(plain(x=pixels(channels=4)))
    with pytest.raises(ValueError, match="split 'a/b'"):
      recorder.add(plain(), split="a/b")
    recorder.add(plain())

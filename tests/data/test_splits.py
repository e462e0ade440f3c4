"""Split syntax, against TFDS' own reading of it."""

import pathlib

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.core import naming
from tensorflow_datasets.core import splits as tfds_splits

from ilx.data import splits
from ilx.data.splits import Part, Split

_NUMBERS = st.one_of(
  st.integers(-30, 130).map(str),
  st.integers(-110, 110).map("{}%".format),
  st.floats(-101, 101, allow_nan=False).map("{:.1f}%".format),
  st.integers(-6, 6).map("{}shard".format),
  st.sampled_from(["", "1_0", "1.5", "x"]),
)
_SLICES = st.one_of(
  st.just(""), st.builds("[{}:{}]".format, _NUMBERS, _NUMBERS), st.builds("[{}]".format, _NUMBERS), st.just("[1:2:3]")
)
_PIECES = st.one_of(
  st.builds("{}{}".format, st.sampled_from(["train", "val", "empty", "tst"]), _SLICES), st.just("all")
)
_TEXTS = st.lists(_PIECES, min_size=1, max_size=3).flatmap(
  lambda x: st.sampled_from(["+", " + "]).map(lambda s: s.join(x))
)
_LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=5)


def _reference(lengths, text):
  """TFDS' parts and files; None where it refuses, or where a part is empty."""
  template = naming.ShardedFileTemplate(epath.Path("/d"), dataset_name="d", filetype_suffix="tfrecord")
  infos = {name: tfds_splits.SplitInfo(name, list(found), 0, template) for name, found in lengths.items()}
  try:
    parts = []
    for piece in text.split("+"):
      for name, start, stop in _absolute(piece.strip(), infos):
        if start < stop:
          parts.append(Part(name, start, stop))
        elif piece.strip() != "all":
          return None
    found = tfds_splits._make_file_instructions(list(infos.values()), text) if parts else []
  except (ValueError, NotImplementedError):
    return None
  files = []
  for piece in found:
    stop = None if piece.take == -1 else piece.skip + piece.take
    files.append((pathlib.Path(piece.filename).name, piece.skip, piece.examples_in_shard if stop is None else stop))
  return parts, files


def _absolute(piece, infos):
  for name, start, stop in (
    (x.splitname, x.from_, x.to) for x in tfds_splits.AbstractSplit.from_spec(piece).to_absolute(infos)
  ):
    yield name, start or 0, infos[name].num_examples if stop is None else stop


@settings(max_examples=800, deadline=None)
@given(_LENGTHS, _LENGTHS, _TEXTS)
def test_means_what_tfds_says(train, val, text):
  lengths = {"train": tuple(train), "val": tuple(val), "empty": (0,)}
  ours = {
    name: Split(tuple(pathlib.Path(f"d-{name}.tfrecord-{i:05}-of-{len(x):05}") for i in range(len(x))), x)
    for name, x in lengths.items()
  }
  expected = _reference(lengths, text)
  if expected is None or not expected[0]:
    with pytest.raises(ValueError, match="split"):
      splits.parse(text, ours)
    return
  parts = splits.parse(text, ours)
  assert parts == expected[0]
  assert [(c.file.name, c.start, c.stop) for c in splits.chunks(parts, ours)] == expected[1]


_SPLITS = {
  "train": Split(tuple(pathlib.Path(f"t{i}") for i in range(3)), (10, 10, 5)),
  "val": Split((pathlib.Path("v"),), (4,)),
}


@pytest.mark.parametrize(
  ("text", "parts"),
  [
    ("train", [("train", 0, 25)]),
    ("train[:90%]", [("train", 0, 22)]),
    ("train[90%:]", [("train", 22, 25)]),
    ("train[-5:]", [("train", 20, 25)]),
    ("train[50%:]+val[:1shard]", [("train", 12, 25), ("val", 0, 4)]),
    ("train[1shard]", [("train", 10, 20)]),
    ("train[-1shard]", [("train", 20, 25)]),
    ("all", [("train", 0, 25), ("val", 0, 4)]),
  ],
)
def test_examples(text, parts):
  assert splits.parse(text, _SPLITS) == parts


def test_chunks():
  found = splits.chunks([Part("train", 8, 21), Part("val", 0, 1)], _SPLITS)
  assert [tuple(map(str, chunk)) for chunk in found] == [
    ("t0", "8", "10", "10"),
    ("t1", "0", "10", "10"),
    ("t2", "0", "1", "5"),
    ("v", "0", "1", "4"),
  ]


def test_a_split_of_an_odd_name_is_taken_by_it():
  assert splits.parse("a+b[1]", {"a+b[1]": _SPLITS["val"]}) == [("a+b[1]", 0, 4)]


@pytest.mark.parametrize(
  ("text", "problem"),
  [
    ("trian", "no split 'trian'; there: train, val; did you mean 'train'?"),
    ("test", "no split 'test'; there: train, val$"),
    ("train[:0]", r"'train\[:0\]' is empty: 'train' has 25 episodes"),
    ("train[20:3]", "is empty"),
    ("val+train[:1%]", r"'train\[:1%\]' is empty"),
    ("train[:26]", "reaches beyond the 25 episodes of 'train'"),
    ("train[:101%]", "percentages are between"),
    ("train[3]", "one episode alone is written 3:4"),
    ("train[1.5:]", "only percentages may have a fraction"),
    ("train[", "is not understood"),
    ("train[::2]", "the slice is not understood"),
    ("", "is not understood"),
  ],
)
def test_errors(text, problem):
  with pytest.raises(ValueError, match=problem):
    splits.parse(text, _SPLITS)

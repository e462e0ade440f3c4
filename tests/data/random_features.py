"""Random datasets' fields, with values as TFDS takes them and as a reader should give them."""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from hypothesis import strategies as st
from PIL import Image

F = tfds.features
NUMBERS = [
  np.dtype(name)
  for name in (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
  )
]


@dataclasses.dataclass
class Field:
  """A field: its TFDS feature, and ``make(rng)`` -> (value for TFDS, value to be read)."""

  feature: Any
  make: Callable[[np.random.Generator], tuple[Any, Any]]


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
  """Also the extremes of the type."""
  if dtype.kind == "b":
    return rng.integers(0, 2, shape).astype(bool)
  if dtype.kind in "iu":
    limits = np.iinfo(dtype)
    top = min(limits.max, 2**63 - 1)  # TFDS' numpy decoder raises beyond
    found = rng.integers(limits.min, top, shape, dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.5, rng.integers(0, 100, shape).astype(dtype), found).astype(dtype)
  return rng.standard_normal(shape).astype(dtype)


@st.composite
def tensors(draw, inside: bool, most_open: int = 4) -> Field:
  dtype = draw(st.sampled_from(NUMBERS))
  shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
  encoding = draw(st.sampled_from(["none", "bytes", "zlib"]))
  declared = list(shape)
  for axis in range(len(shape)):
    # What is stored as plain numbers may have one open side, and none in a sequence, where TFDS cannot read it.
    most = most_open if encoding != "none" else 0 if inside else 1
    if declared.count(None) < most and draw(st.booleans()):
      declared[axis] = None

  def make(rng):
    full = tuple(int(rng.integers(1, 4)) if side is None else side for side in declared)
    value = numbers(rng, full, dtype)
    read = value.astype(np.float32).astype(dtype) if encoding == "none" and dtype == np.float64 else value
    return value, read

  return Field(F.Tensor(shape=tuple(declared), dtype=dtype, encoding=encoding), make)


@st.composite
def texts(draw) -> Field:
  shape = draw(st.sampled_from([None, (), (2,)]))

  def one(rng):
    return "".join(chr(int(x)) for x in rng.choice([65, 97, 0xE9, 0x4E2D, 0x1F600, 10], int(rng.integers(0, 6))))

  def make(rng):
    if not shape:
      value = one(rng)
      return value, value
    value = np.empty(shape, object)
    value[:] = [one(rng) for _ in range(shape[0])]
    return value, value

  return Field(F.Text() if shape is None else F.Tensor(shape=shape, dtype=np.str_), make)


@st.composite
def labels(draw) -> Field:
  classes = draw(st.integers(1, 300))

  def make(rng):
    value = int(rng.integers(-1, classes))
    return value, np.int64(value)

  return Field(F.ClassLabel(num_classes=classes), make)


@st.composite
def pictures(draw) -> Field:
  kind = draw(st.sampled_from(["png", "jpeg"]))
  channels = draw(st.sampled_from([1, 3, 4] if kind == "png" else [1, 3]))
  size = tuple(draw(st.integers(1, 9)) for _ in range(2))
  is_open = draw(st.booleans())
  varies = is_open and draw(st.booleans())

  def make(rng):
    height, width = rng.integers(1, 9, 2) if varies else size
    value = rng.integers(0, 256, (height, width, channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(value.squeeze(-1) if channels == 1 else value).save(file, kind)
    # TFDS encodes arrays with TensorFlow; files it takes as they are.
    content = io.BytesIO(file.getvalue())
    return content, np.asarray(Image.open(file)).reshape(value.shape)

  shape = (None, None, channels) if is_open else (*size, channels)
  return Field(F.Image(shape=shape, dtype=np.uint8, encoding_format=kind), make)


def boxes() -> st.SearchStrategy[Field]:
  def make(rng):
    y, x = np.sort(rng.random((2, 2)), axis=1)
    value = np.array([y[0], x[0], y[1], x[1]])
    return F.BBox(*(float(side) for side in value)), value.astype(np.float32)

  return st.just(Field(F.BBoxFeature(), make))


@st.composite
def sequences(draw, inner: st.SearchStrategy[Field]) -> Field:
  """A field of a length of its own."""
  field = draw(inner)
  length = draw(st.sampled_from([None, None, 1, 3]))

  def make(rng):
    made = [field.make(rng) for _ in range(int(rng.integers(0, 4)) if length is None else length)]
    return [x for x, _ in made], [x for _, x in made]

  return Field(F.Sequence(field.feature, length=length), make)


def folders(inner: st.SearchStrategy[Field], min_size: int = 1) -> st.SearchStrategy[Field]:
  """Several fields by name."""

  def field(parts: dict[str, Field]) -> Field:
    def make(rng):
      made = {name: part.make(rng) for name, part in parts.items()}
      return {name: x for name, (x, _) in made.items()}, {name: x for name, (_, x) in made.items()}

    return Field(F.FeaturesDict({name: part.feature for name, part in parts.items()}), make)

  names = st.sampled_from(["a", "image", "state", "shape", "x_1"])
  return st.dictionaries(names, inner, min_size=min_size, max_size=3).map(field)


def leaves(inside: bool, most_open: int = 4) -> st.SearchStrategy[Field]:
  return st.one_of(tensors(inside, most_open), texts(), labels(), pictures(), boxes())


def plain_leaves() -> st.SearchStrategy[Field]:
  """What TFDS can put in a sequence of sequences."""
  return st.one_of(texts().filter(lambda x: not x.feature.shape), labels(), boxes())


@st.composite
def episodes(draw, simple: bool = False) -> Field:
  """A whole record: steps and what else there is.

  ``simple``: what TFDS' numpy decoder can read: no sequences in sequences, at most one open side.
  """
  most_open = 1 if simple else 4
  inside = [leaves(True, most_open), folders(leaves(True, most_open))]
  if not simple:
    inside += [sequences(plain_leaves()), sequences(folders(plain_leaves())), sequences(sequences(plain_leaves()))]
  steps = draw(folders(st.one_of(inside)))
  beside = [leaves(False, most_open), sequences(leaves(True, most_open)), sequences(folders(leaves(True, most_open)))]
  rest = draw(folders(st.one_of(beside)))
  count = draw(st.integers(1, 4))

  def make(rng):
    made = [steps.make(rng) for _ in range(count)]
    given, read = rest.make(rng)
    return (
      {"steps": [x for x, _ in made], "episode_metadata": given},
      {"steps": [x for _, x in made], "episode_metadata": read},
    )

  return Field(F.FeaturesDict({"steps": F.Dataset(steps.feature), "episode_metadata": rest.feature}), make)

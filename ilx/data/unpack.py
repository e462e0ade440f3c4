"""The values of one field, from how they stand in a record to arrays of its type, texts or pictures."""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ilx.data import images
from ilx.data.features import Feature
from ilx.data.fields import Leaf
from ilx.data.images import Images

Stored = Mapping[str, np.ndarray | list[bytes]]

# No stream of zlib's unpacks to more than this many times its size.
_MAX_RATIO = 1032


def is_encoded(feature: Feature) -> bool:
  """Whether every value is one byte string."""
  return feature.kind == "image" or (feature.kind == "tensor" and feature.encoding != "none")


def batch(leaf: Leaf, stored: Stored, suffix: str, count: int) -> Any:
  """``count`` values of a field: ``[count, ...]``.

  Args:
    leaf: the field.
    stored: the record, parsed.
    suffix: of the names of its lists.
    count: how many values it must have.

  Raises:
    ValueError: where it has not, or they are not what ``features.json`` says; names the field.
  """
  name, feature = leaf.name, leaf.feature
  if feature.kind == "unknown":
    raise ValueError(f"field {name!r} cannot be read: {feature.problem}")
  if not feature.has_own_shape:
    value = stored[f"{name}{suffix}"]
    if not is_encoded(feature):
      return _texts(leaf, value, count) if feature.kind == "text" else _numbers(leaf, value, count)
    contents = _contents(leaf, value, count)
    return _pictures(leaf, contents) if feature.kind == "image" else _tensors(leaf, contents)
  shapes = stored[f"{name}/shape{suffix}"]
  rank = len(feature.shape)
  if feature.encoding == "none" or isinstance(shapes, list) or shapes.dtype.kind == "f":
    raise ValueError(f"field {name!r} has shape {feature.shape}, of which TFDS stores only bytes with their shapes")
  if len(shapes) != count * rank:
    raise ValueError(f"field {name!r} has {len(shapes)} sizes where {count} values of rank {rank} have {count * rank}")
  shapes = [tuple(row) for row in shapes.reshape(count, rank).tolist()]
  return _tensors(leaf, _contents(leaf, stored[f"{name}/value{suffix}"], count), shapes)


def _contents(leaf: Leaf, value: Any, count: int) -> list[bytes]:
  if not isinstance(value, list):
    raise ValueError(f"field {leaf.name!r} is stored as another kind of list than features.json says")
  if len(value) != count:
    raise ValueError(f"field {leaf.name!r} has {len(value)} values where {count} are expected")
  return value


def _numbers(leaf: Leaf, value: Any, count: int) -> np.ndarray:
  name, dtype = leaf.name, leaf.feature.dtype
  shape = _full_shape(leaf, len(value), count)
  if isinstance(value, list):
    if value:
      raise ValueError(f"field {name!r} is stored as another kind of list than features.json says")
    value = np.empty(0, np.float32)
  real = dtype.kind in "fV"  # bfloat16 is a V
  if len(value) and (value.dtype.kind == "f") != real:
    raise ValueError(f"field {name!r} holds {value.dtype} values where features.json says {dtype}")
  if dtype.kind in "iu" and len(value) and dtype != np.uint64:
    limits = np.iinfo(dtype)
    if value.min() < limits.min or value.max() > limits.max:
      raise ValueError(f"field {name!r} has integers outside {dtype}")
  with np.errstate(over="ignore"):
    # An int64 below 0 becomes the uint64 of the same bits, as TFDS stores it.
    return np.array(value, dtype).reshape(shape)


def _full_shape(leaf: Leaf, size: int, count: int) -> tuple[int, ...]:
  """``(count, *shape)`` for so many values; what is open in the shape follows from their number."""
  shape = leaf.feature.shape
  known = math.prod(size for size in shape if size is not None)
  if None in shape:
    per = count * known
    if shape.count(None) > 1 or (not per and size) or (per and size % per):
      raise ValueError(f"field {leaf.name!r} has {size} values, which do not divide into {count} of {list(shape)}")
    shape = tuple((size // per if per else 0) if side is None else side for side in shape)
  elif size != count * known:
    raise ValueError(f"field {leaf.name!r} has {size} values where {count} of shape {list(shape)} have {count * known}")
  return (count, *shape)


def _texts(leaf: Leaf, value: Any, count: int) -> np.ndarray:
  if not isinstance(value, list) and len(value):
    raise ValueError(f"field {leaf.name!r} is stored as another kind of list than features.json says")
  found = np.empty(len(value), object)
  for place, content in enumerate(value):
    try:
      found[place] = content.decode()
    except UnicodeDecodeError:
      found[place] = content
  return found.reshape(_full_shape(leaf, len(value), count))


def _tensors(leaf: Leaf, contents: list[bytes], shapes: list[tuple[int, ...]] | None = None) -> np.ndarray:
  """Tensors that are stored as bytes, maybe compressed."""
  shape = leaf.feature.shape
  if None not in shape:
    check_sizes(leaf.feature, contents, f"field {leaf.name!r}")
    found = np.empty((len(contents), *shape), leaf.feature.dtype)
    for place, content in enumerate(contents):
      found[place] = tensor(content, leaf.feature, shape, _place(leaf, place))
    return found
  found = np.empty(len(contents), object)
  for place, content in enumerate(contents):
    wanted = shape if shapes is None else shapes[place]
    if shapes is not None and any(
      side not in (None, size) or size < 0 for side, size in zip(shape, wanted, strict=True)
    ):
      raise ValueError(f"{_place(leaf, place)} has shape {wanted} where features.json says {shape}")
    found[place] = tensor(content, leaf.feature, wanted, _place(leaf, place)).copy()
  return found


def check_sizes(feature: Feature, contents: list[bytes], where: str) -> None:
  """Before memory is taken: no shape that a file claims may take more than its content can fill.

  Raises:
    ValueError: where tensors of a fixed shape that are stored as bytes cannot be as large; begins with ``where``.
  """
  size = math.prod(feature.shape) * feature.dtype.itemsize
  for place, content in enumerate(contents):
    if len(content) * (_MAX_RATIO if feature.encoding == "zlib" else 1) < size:
      raise ValueError(
        f"{where}, step {place}: {len(content)} bytes where {feature.dtype} {feature.shape} has {size} unpacked"
      )


def tensor(content: bytes, feature: Feature, shape: tuple[int | None, ...], where: str) -> np.ndarray:
  """One tensor that is stored as bytes; at most one size of ``shape`` may be open.

  Raises:
    ValueError: where it is damaged or of another size; begins with ``where``.
  """
  known = math.prod(side for side in shape if side is not None) * feature.dtype.itemsize
  limit = len(content) * _MAX_RATIO if None in shape else known
  if feature.encoding == "zlib":
    engine = zlib.decompressobj()
    try:
      content = engine.decompress(content, limit + 1)
    except (zlib.error, OverflowError) as error:
      raise ValueError(f"{where}: {error}") from None
    if not engine.eof and len(content) <= limit:
      raise ValueError(f"{where}: its compressed bytes are cut short")
  if None in shape:
    if not known or len(content) % known:
      raise ValueError(f"{where}: {len(content)} bytes where {feature.dtype} {shape} has a multiple of {known}")
    shape = tuple(len(content) // known if side is None else side for side in shape)
  elif len(content) != known:
    raise ValueError(f"{where}: {len(content)} bytes where {feature.dtype} {shape} has {known}")
  return np.frombuffer(content, feature.dtype.newbyteorder("<")).reshape(shape).astype(feature.dtype, copy=False)


def _pictures(leaf: Leaf, contents: list[bytes]) -> Images | np.ndarray:
  feature = leaf.feature
  shape = feature.shape
  lazy = feature.dtype == np.uint8 and len(shape) == 3 and shape[-1] in images.CHANNELS
  if lazy and None not in shape:
    return Images.of(contents, shape)
  found = [None] * len(contents)
  sizes = set()
  for place, content in enumerate(contents):
    try:
      if lazy:
        sizes.add((*images.size(content), shape[-1]))
      else:
        found[place] = images.decode(content, shape, feature.dtype)
        sizes.add(found[place].shape)
    except ValueError as error:
      raise ValueError(f"{_place(leaf, place)}: {error}") from None
  if not contents:
    return np.empty((0, *(size or 0 for size in shape)), feature.dtype)
  if len(sizes) == 1:
    return Images.of(contents, sizes.pop()) if lazy else np.stack(found)
  result = np.empty(len(contents), object)
  for place, content in enumerate(contents):
    try:
      result[place] = images.decode(content, shape, feature.dtype) if lazy else found[place]
    except ValueError as error:
      raise ValueError(f"{_place(leaf, place)}: {error}") from None
  return result


def _place(leaf: Leaf, place: int) -> str:
  return f"field {leaf.name!r}, step {place}" if leaf.lengths else f"field {leaf.name!r}"

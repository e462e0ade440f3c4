"""A record as nested dicts of arrays: every field as TFDS' own decoder gives it, whole columns at a time.

What a field becomes, at the top and in ``episode_metadata``, and as a column ``[T, ...]`` inside a sequence such as
``steps``:

  field                           alone                         in a sequence of T
  tensor, label                   array of its dtype            array [T, ...]
  tensor stored as bytes, of      array                         object array [T] of arrays
    a shape that varies
  text                            str (bytes if not UTF-8)      object array [T] of str (or bytes)
  picture, uint8                  array                         ``Images``; if sizes differ, object array of arrays
  picture, uint16 or float32      array                         array [T, ...]; if sizes differ, object array
  sequence in the sequence                                      array [T, length, ...] if its length is fixed, else
                                                                object array [T] of what the inner one is alone
  optional field that is absent   None                          None

Sources: tensorflow_datasets/core/example_serializer.py, example_parser.py and features/.
"""

import difflib
import math
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ilx.data import images
from ilx.data.features import Feature, Features, Sequence
from ilx.data.images import Images

Stored = Mapping[str, np.ndarray | list[bytes]]

# No stream of zlib's unpacks to more than this many times its size.
_MAX_RATIO = 1032


class Leaf(NamedTuple):
  """A field and the lengths of the sequences that it is in, the outermost first; None where one varies."""

  name: str
  feature: Feature
  lengths: tuple[int | None, ...]

  def keys(self) -> list[str]:
    """The names of its lists in a record."""
    parts = ("/value", "/shape") if self.feature.has_own_shape else ("",)
    depth = len(self.lengths)
    if depth < 2:
      return [self.name + part for part in parts]
    ragged = ("ragged_flat_values", *(f"ragged_row_lengths_{level}" for level in range(depth - 1)))
    return [f"{self.name}{part}/{key}" for part in parts for key in ragged]


def leaves(features: Features, name: str = "", lengths: tuple[int | None, ...] = ()) -> Iterator[Leaf]:
  """All fields of a tree; names joined by "/"."""
  if isinstance(features, dict):
    for key, child in features.items():
      yield from leaves(child, f"{name}/{key}" if name else key, lengths)
  elif isinstance(features, Sequence):
    yield from leaves(features.feature, name, (*lengths, features.length))
  else:
    yield Leaf(name, features, lengths)


def keys(features: Features) -> frozenset[str]:
  """The names of the lists in a record that ``decode`` reads."""
  return frozenset(key for leaf in leaves(features) for key in leaf.keys())  # noqa: SIM118 (no dict)


def choose(features: dict[str, Features], fields: Collection[str] | None) -> dict[str, Features]:
  """The part of a tree that has the ``fields``, whole folders such as "steps/observation" included.

  By default all of it but what is not supported.

  Raises:
    ValueError: for an unknown field, and one that is asked for and not supported; names it.
  """
  names = [leaf.name for leaf in leaves(features)]
  for field in fields or ():
    if not any(_is_in(name, field) for name in names):
      known = {name[: end if end >= 0 else None] for name in names for end in _ends(name)}
      near = difflib.get_close_matches(field, sorted(known), n=3)
      hint = f"nearest: {', '.join(near)}" if near else f"there: {', '.join(names)}"
      raise ValueError(f"no field {field!r} ({hint})")
  return _choose(features, fields, "") or {}


def _ends(name: str) -> Iterator[int]:
  return (place for place in [*(i for i, letter in enumerate(name) if letter == "/"), -1])


def _is_in(name: str, field: str) -> bool:
  return name == field or name.startswith(f"{field}/")


def _choose(features: Features, fields: Collection[str] | None, name: str) -> Features | None:
  if isinstance(features, dict):
    chosen = {key: _choose(child, fields, f"{name}/{key}" if name else key) for key, child in features.items()}
    return {key: child for key, child in chosen.items() if child is not None} or None
  if isinstance(features, Sequence):
    inner = _choose(features.feature, fields, name)
    return None if inner is None else Sequence(inner, features.length)
  if fields is None:
    return None if features.kind == "unknown" else features
  if not any(_is_in(name, field) for field in fields):
    return None
  if features.kind == "unknown":
    raise ValueError(f"field {name!r} cannot be read: {features.problem}")
  return features


def decode(features: dict[str, Features], stored: Stored) -> dict[str, Any]:
  """One record's fields.

  Args:
    features: what ``features.json`` says of them, or a part of it; see ``choose``.
    stored: the record, parsed.

  Returns:
    Nested dicts; see above for the types. Arrays share no memory with the record.

  Raises:
    ValueError: where a field is missing or disagrees with ``features``; names it, and the step. Takes no memory
      beyond a small multiple of the record's, or what its compressed values unpack to.
  """
  return _node(features, stored, "")


def _node(features: Features, stored: Stored, name: str) -> Any:
  if isinstance(features, dict):
    return {key: _node(child, stored, f"{name}/{key}" if name else key) for key, child in features.items()}
  if isinstance(features, Sequence):
    counts = {leaf: count(leaf, stored) for leaf in leaves(features, name)}
    length = _length(features, name, counts)
    return _inside(features.feature, stored, name, (features.length,), length)
  leaf = Leaf(name, features, ())
  if not all(key in stored for key in leaf.keys()):  # noqa: SIM118 (no dict)
    if features.optional:
      return None
    raise ValueError(f"field {name!r} is missing from the record")
  found = _batch(leaf, stored, "", 1)[0]
  return found if isinstance(found, np.ndarray | np.generic | str | bytes) else np.asarray(found)


def _length(features: Sequence, name: str, counts: dict[Leaf, int | None]) -> int:
  """How many values a sequence has, on which all its fields must agree; a field with none may be left out."""
  known = {leaf: count for leaf, count in counts.items() if count is not None}
  if not known and counts:
    raise ValueError(f"field {name!r} does not tell how many values it has")
  length = max(known.values(), default=0)
  for leaf, count in known.items():
    if count != length and not (count == -1 and (leaf.feature.optional or length == 0)):
      longest = max(known, key=known.get)
      if count == -1:
        raise ValueError(f"field {leaf.name!r} is missing from the record")
      raise ValueError(f"field {leaf.name!r} has {count} values where {longest.name!r} has {length}")
  length = max(length, 0)
  if features.length is not None and length != features.length:
    raise ValueError(f"field {name!r} has {length} values where features.json says {features.length}")
  return length


def count(leaf: Leaf, stored: Stored) -> int | None:
  """How many values of the outermost sequence a field has; -1 where it is absent, None where it cannot be told."""
  key, *rest = leaf.keys()
  value = stored.get(rest[0] if len(leaf.lengths) > 1 else key)
  if value is None:
    return -1
  feature = leaf.feature
  if len(leaf.lengths) > 1 or _is_encoded(feature):
    return len(value)
  size = math.prod(size or 0 for size in feature.shape)
  if not size:
    return None
  if len(value) % size:
    raise ValueError(f"field {leaf.name!r} has {len(value)} values, which is no multiple of {list(feature.shape)}")
  return len(value) // size


def column(leaf: Leaf, stored: Stored, length: int) -> Any:
  """One field of a sequence of ``length``; see above for the types.

  Raises:
    ValueError: as ``decode``.
  """
  return _inside(leaf.feature, stored, leaf.name, leaf.lengths, length)


def _inside(features: Features, stored: Stored, name: str, lengths: tuple[int | None, ...], length: int) -> Any:
  if isinstance(features, dict):
    return {
      key: _inside(child, stored, f"{name}/{key}" if name else key, lengths, length) for key, child in features.items()
    }
  if isinstance(features, Sequence):
    return _inside(features.feature, stored, name, (*lengths, features.length), length)
  leaf = Leaf(name, features, lengths)
  if not all(key in stored for key in leaf.keys()):  # noqa: SIM118 (no dict)
    if features.optional:
      return None
    if length:
      raise ValueError(f"field {name!r} is missing from the record")
    return _empty(leaf)
  if len(lengths) == 1:
    return _batch(leaf, stored, "", length)
  return _ragged(leaf, stored, length)


def _empty(leaf: Leaf) -> Any:
  if len(leaf.lengths) == 1 and leaf.feature.kind == "image":
    return _batch(leaf, {leaf.name: []}, "", 0)
  shape = tuple(size or 0 for size in (*leaf.lengths[1:], *leaf.feature.shape))
  varies = None in leaf.lengths[1:]
  return np.empty((0,) if varies else (0, *shape), object if varies else leaf.feature.dtype)


def _ragged(leaf: Leaf, stored: Stored, length: int) -> np.ndarray:
  """A field of sequences in sequences: all its values in one row, and how many each sequence has."""
  part = "/value" if leaf.feature.has_own_shape else ""
  rows, expected = [], length
  for level in range(len(leaf.lengths) - 1):
    lengths = stored[f"{leaf.name}{part}/ragged_row_lengths_{level}"]
    lengths = np.asarray(lengths if len(lengths) else (), np.int64 if not len(lengths) else None)
    if lengths.dtype.kind not in "iu" or len(lengths) != expected or (len(lengths) and lengths.min() < 0):
      raise ValueError(f"field {leaf.name!r}: row lengths of level {level} are not {expected} counts")
    rows.append(lengths.astype(np.int64))
    # As Python integers: what is stored may be anything.
    expected = sum(lengths.tolist())
  value = stored[f"{leaf.name}{part}/ragged_flat_values"]
  if expected > len(value) and math.prod(size or 1 for size in leaf.feature.shape):
    raise ValueError(f"field {leaf.name!r} has {len(value)} values where its row lengths say {expected}")
  found = _batch(leaf, stored, "/ragged_flat_values", expected)
  for lengths, fixed in zip(reversed(rows), reversed(leaf.lengths[1:]), strict=True):
    if fixed is not None and np.any(lengths != fixed):
      raise ValueError(f"field {leaf.name!r} has {lengths[lengths != fixed][0]} values where {fixed} are in a sequence")
    if fixed is not None and not isinstance(found, Images):
      found = found.reshape(len(lengths), fixed, *found.shape[1:])
      continue
    ends = np.cumsum(lengths)
    parts = np.empty(len(lengths), object)
    for place, (begin, end) in enumerate(zip((ends - lengths).tolist(), ends.tolist(), strict=True)):
      parts[place] = found.part(begin, end) if isinstance(found, Images) else found[begin:end]
    found = parts
  return found


def _is_encoded(feature: Feature) -> bool:
  """Whether every value is one byte string."""
  return feature.kind == "image" or (feature.kind == "tensor" and feature.encoding != "none")


def _batch(leaf: Leaf, stored: Stored, suffix: str, count: int) -> Any:
  """``count`` values of a field: ``[count, ...]``."""
  name, feature = leaf.name, leaf.feature
  if feature.kind == "unknown":
    raise ValueError(f"field {name!r} cannot be read: {feature.problem}")
  if not feature.has_own_shape:
    value = stored[f"{name}{suffix}"]
    if not _is_encoded(feature):
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
  if dtype == np.uint64 and value.dtype == np.int64:
    value = value.view(np.uint64)  # as TFDS stores it
  with np.errstate(over="ignore"):
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

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

import math
from typing import Any

import numpy as np

from ilx.data.features import Features, Sequence
from ilx.data.fields import Leaf, choose, keys, leaves
from ilx.data.images import Images
from ilx.data.unpack import Stored, batch, is_encoded

__all__ = ["Leaf", "choose", "column", "count", "decode", "keys", "leaves"]


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
  found = batch(leaf, stored, "", 1)[0]
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
  if len(leaf.lengths) > 1 or is_encoded(feature):
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
    return batch(leaf, stored, "", length)
  return _ragged(leaf, stored, length)


def _empty(leaf: Leaf) -> Any:
  if len(leaf.lengths) == 1 and leaf.feature.kind == "image":
    return batch(leaf, {leaf.name: []}, "", 0)
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
  if expected > len(value) and math.prod(1 if size is None else size for size in leaf.feature.shape):
    raise ValueError(f"field {leaf.name!r} has {len(value)} values where its row lengths say {expected}")
  found = batch(leaf, stored, "/ragged_flat_values", expected)
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

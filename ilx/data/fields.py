"""The fields of a dataset, their names in a record, and a choice of them."""

import difflib
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ilx.data.features import Feature, Features, Sequence


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

"""What of a mapping fits no record of any recording: its buttons are never pressed, its sums are 0.

In one recording that is usual, a key that nobody pressed; in all of them it is likely spelt in another way than there.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ilx.data.convert import cells, checks, events, tables
from ilx.data.convert.mapping import Events, Field, Where
from ilx.data.convert.mapping import Mapping as GameMapping

# Values that are gathered, and told, of a column that has none of the wanted ones.
_GATHERED, _TOLD = 1000, 20

# The records that a ``where`` chooses.
Records = Callable[[Where], Iterator[dict[str, Any]]]


def find(mapping: GameMapping, files: Mapping[str, Sequence[os.PathLike]]) -> list[str]:
  """A sentence for every key of the mapping that asks for values which no record has.

  The search for each ends with the first record that fits, so that a mapping without mistakes costs little; only what
  is told costs passes over its table. Records that cannot be read are left out.

  Args:
    mapping: the mapping.
    files: of all recordings, by table.
  """
  found = []
  for name, about in mapping.events.items():
    if not (fields := mapping.fields_of(name)):
      continue
    records = functools.partial(_records, about, files[name], tables.wanted(about, fields))
    if problem := _of_where(records, (), about.where):
      found.append(f"events.{name}.where: {problem}")
    elif not _any(records(about.where)):
      found.append(f"events.{name}: no recording has a record")
    else:
      of_fields = (
        (key, _of_field(records, about.where, field)) for key, field in mapping.fields() if field.source == name
      )
      found += [f"{key}.{problem}" for key, problem in of_fields if problem]
  return found


def _records(
  about: Events, files: Sequence[os.PathLike], columns: Sequence[str], where: Where
) -> Iterator[dict[str, Any]]:
  for file in files:
    try:
      for place, record in tables.records(file, about, columns):
        if cells.matches(record, where, place):
          yield record
    except (ValueError, OSError):
      continue  # the conversion has told


def _any(records: Iterator[dict[str, Any]]) -> bool:
  return next(records, None) is not None


def _of_where(records: Records, before: Where, where: Where) -> str:
  """What is wrong with a ``where``, of the records that ``before`` chooses; "" where it chooses any."""
  for count, (column, allowed) in enumerate(where):
    if _any(records(before + where[: count + 1])):
      continue
    there = records(before + where[:count])
    if (last := next(there, None)) is None:
      return ""  # there are no records at all
    seen = _gathered(records(before + where[:count]), column)
    if not seen:
      return f"no record of any recording has the column {column!r}{cells.near(last, column)}"
    wanted = " or ".join(repr(checks.plain(value)) for value in allowed)
    near = checks.nearest(checks.plain(allowed[0]), seen)
    return f"no record of any recording has {wanted} in its column {column!r}{near}; there are {_listed(seen)}"
  return ""


def _of_field(records: Records, before: Where, field: Field) -> str:
  """The first key of a field that fits no record, and what is wrong with it; "" where all do."""
  if problem := _of_where(records, before, field.where):
    return f"where: {problem}"
  chosen = before + field.where
  if field.pressed and not any(np.any(value) for value in _values(records(chosen), field)):
    column = field.column or field.columns[0]
    there = f"; there are {_listed(_gathered(records(chosen), column))}"
    return f"pressed: no record of any recording has one of these values in its column {column!r}{there}"
  unseen = set(field.vocabulary)
  if field.kind == "category" and field.fill is not None:
    unseen.discard(checks.plain(field.fill))  # it is the value before the first record
  if unseen:
    for value in _values(records(chosen), field):
      unseen -= _named(value, field)
      if not unseen:
        return ""
    return f"vocabulary: no record of any recording has {_listed(unseen)} in its column {field.column!r}"
  return ""


def _values(records: Iterator[dict[str, Any]], field: Field) -> Iterator[Any]:
  """A field's values, as ``cells.reader`` gives them, of those records that have one."""
  read = cells.reader(field)
  for record in records:
    try:
      value, _ = read(record)
    except ValueError:
      continue
    if value is not None:
      yield value


def _named(value: Any, field: Field) -> set[str]:
  """What of its vocabulary a value of a field stands for."""
  if field.kind == "category":
    return {field.vocabulary[value]}
  return {name for name, pressed in zip(field.vocabulary, value, strict=True) if pressed}


def _gathered(records: Iterator[dict[str, Any]], column: str) -> set[str]:
  """Texts of the values in a column."""
  found: set[str] = set()
  for record in records:
    value = events.lookup(record, column)
    if value is not events.ABSENT and value is not None and not isinstance(value, dict | list):
      text = checks.plain(value)
      found.add(text.strip() or text)
    if len(found) >= _GATHERED:
      break
  return found


def _listed(names: set[str]) -> str:
  return ", ".join(checks.shown(name) for name in sorted(names)[:_TOLD]) + (", ..." if len(names) > _TOLD else "")

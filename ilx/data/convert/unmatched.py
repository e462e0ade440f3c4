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

# The records that a ``where`` chooses, and the texts that their column has.
Records = Callable[[Where], Iterator[dict[str, Any]]]
Gathered = Callable[[Where, str], set[str]]


def find(mapping: GameMapping, files: Mapping[str, Sequence[os.PathLike]]) -> list[str]:
  """A sentence for every key of the mapping that asks for values which no record has.

  Each table is read once, up to the record after which no field wants more, so that a mapping without mistakes costs
  little; only what is told costs further passes, one for all that is asked of one column. Records that cannot be read
  are left out.

  Args:
    mapping: the mapping.
    files: of all recordings, by table.
  """
  found = []
  for name, about in mapping.events.items():
    fields = {key: field for key, field in mapping.fields() if field.source == name}
    if not fields:
      continue
    records = functools.partial(_records, about, files[name], tables.wanted(about, list(fields.values())))
    gathered = functools.cache(functools.partial(_gathered, records))
    wanted = _wanted(records(about.where), fields)
    if wanted is None:
      problem = _of_where(records, gathered, (), about.where)
      found.append(f"events.{name}.where: {problem}" if problem else f"events.{name}: no recording has a record")
      continue
    for key, wants in wanted.items():
      found.append(f"{key}.{_of_field(records, gathered, about.where, fields[key], wants)}")
  return found


def _records(
  about: Events, files: Sequence[os.PathLike], columns: Sequence[str], where: Where
) -> Iterator[dict[str, Any]]:
  for file in files:
    try:
      for _, record in tables.records(file, about, columns):
        if _fits(record, where):
          yield record
    except (ValueError, OSError):
      continue  # the conversion has told


def _fits(record: dict[str, Any], where: Where) -> bool:
  """Whether a ``where`` chooses the record; not if it may mean true or false by words that are neither."""
  try:
    return cells.matches(record, where, "")
  except ValueError:
    return False


def _wanted(records: Iterator[dict[str, Any]], fields: Mapping[str, Field]) -> dict[str, set[str]] | None:
  """What the fields that ask for more than there is want in vain, see ``_wants``; None where there are no records."""
  wanted, empty = {key: wants for key, field in fields.items() if (wants := _wants(field))}, True
  readers = {key: cells.reader(fields[key]) for key in wanted}
  for record in records:
    empty = False
    for key, read in readers.items():
      wanted[key] -= _has(record, fields[key], read)
    wanted = {key: wants for key, wants in wanted.items() if wants}
    readers = {key: readers[key] for key in wanted}
    if not wanted:
      break
  return None if empty else wanted


def _wants(field: Field) -> set[str]:
  """What a field asks for: a record that its ``where`` chooses, one of ``pressed``, and every ``=name`` it knows."""
  wants = {f"={name}" for name in field.vocabulary}
  if field.kind == "category" and field.fill is not None:
    wants.discard(f"={checks.plain(field.fill)}")  # it is the value before the first record
  return wants | ({"where"} if field.where else set()) | ({"pressed"} if field.pressed else set())


def _has(record: dict[str, Any], field: Field, read: Callable[[dict[str, Any]], Any]) -> set[str]:
  """What of it a record has."""
  if not _fits(record, field.where):
    return set()
  try:
    value, _ = read(record)
  except ValueError:
    return {"where"}
  if value is None:
    return {"where"}
  if field.vocabulary:
    return {"where"} | {f"={name}" for name in _named(value, field)}
  return {"where", "pressed"} if np.any(value) else {"where"}


def _any(records: Iterator[dict[str, Any]]) -> bool:
  return next(records, None) is not None


def _of_where(records: Records, gathered: Gathered, before: Where, where: Where) -> str:
  """What is wrong with a ``where`` that chooses none of the records that ``before`` does; "" where there are none."""
  for count, (column, allowed) in enumerate(where, 1):
    if count < len(where) and _any(records(before + where[:count])):
      continue
    chosen = before + where[: count - 1]
    if (first := next(records(chosen), None)) is None:
      return ""
    if not (seen := gathered(chosen, column)):
      return f"no record of any recording has the column {column!r}{cells.near(first, column)}"
    wanted = " or ".join(repr(checks.plain(value)) for value in allowed)
    near = checks.nearest(checks.plain(allowed[0]), seen)
    return f"no record of any recording has {wanted} in its column {column!r}{near}; there are {_listed(seen)}"
  return ""


def _of_field(records: Records, gathered: Gathered, before: Where, field: Field, wants: set[str]) -> str:
  """The first key of a field that fits no record, and what is wrong with it."""
  if "where" in wants:
    return f"where: {_of_where(records, gathered, before, field.where)}"
  if "pressed" in wants:
    column = field.column or field.columns[0]
    there = f"; there are {_listed(gathered(before + field.where, column))}"
    return f"pressed: no record of any recording has one of these values in its column {column!r}{there}"
  unseen = {name.removeprefix("=") for name in wants}
  return f"vocabulary: no record of any recording has {_listed(unseen)} in its column {field.column!r}"


def _named(value: Any, field: Field) -> set[str]:
  """What of its vocabulary a value of a field stands for."""
  if field.kind == "category":
    return {field.vocabulary[value]}
  return {name for name, pressed in zip(field.vocabulary, value, strict=True) if pressed}


def _gathered(records: Records, where: Where, column: str) -> set[str]:
  """Texts of the values in a column of the records that a ``where`` chooses."""
  found: set[str] = set()
  for record in records(where):
    value = events.lookup(record, column)
    if value is not events.ABSENT and value is not None and not isinstance(value, dict | list):
      text = checks.plain(value)
      found.add(text.strip() or text)
    if len(found) >= _GATHERED:
      break
  return found


def _listed(names: set[str]) -> str:
  return ", ".join(checks.shown(name) for name in sorted(names)[:_TOLD]) + (", ..." if len(names) > _TOLD else "")

"""From a record of a game log to the value of one field, and to its time."""

import datetime
import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ilx.data.convert import checks, events
from ilx.data.convert.mapping import Events, Field, Where

_SCALE = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_PRESSED = ("true", "yes", "on", "down", "pressed")
_RELEASED = ("false", "no", "off", "up", "released")


def matches(record: dict[str, Any], wanted: Where, where: str) -> bool:
  """Whether a record has the wanted values, spaces around them aside.

  Args:
    record: the record.
    wanted: columns, each with the values that it may have.
    where: the record's file and line, for messages.

  Raises:
    ValueError: where true or false is wanted and the record has something else: YAML reads on, off, yes and no so, too.
  """
  for column, allowed in wanted:
    value = events.lookup(record, column)
    if value is events.ABSENT or isinstance(value, dict | list):
      return False
    try:
      if not _is_one_of(value, allowed, "where"):
        return False
    except ValueError as error:
      raise ValueError(f"{where}: column {column!r} is {checks.shown(value)}, but {error}") from None
  return True


def _is_one_of(value: Any, allowed: tuple[str | bool, ...], key: str) -> bool:
  """Whether a value is allowed; raises ValueError where true or false is and the value may be what was meant by it."""
  text = checks.plain(value)
  # The key for a space is one.
  if text in allowed or text.strip() in allowed:
    return True
  flags = [flag for flag in (True, False) if flag in allowed]
  text = text.strip().lower()
  if not flags or value is None or not text:
    return False
  if text in ("true", "1", "false", "0"):
    return (text in ("true", "1")) in flags
  meant = [flag for flag in flags if text in (("on", "yes") if flag else ("off", "no"))]
  if not meant and len(flags) < len(allowed):
    return False
  said = (meant or flags)[0]
  raise ValueError(
    f"{key!r} has {checks.plain(said)}, as YAML reads {'on and yes' if said else 'off and no'} too; write what the "
    f'file has there, a text in quotes: "{text if meant else "on" if said else "off"}"'
  )


def seconds(value: Any, about: Events, record: dict[str, Any], where: str) -> float:
  """A time as seconds; raises ValueError where it is none."""
  if value is events.ABSENT or value is None:
    raise ValueError(f"{where}: no column {about.time!r} with its time{near(record, about.time)}")
  try:
    if about.unit == "iso" and isinstance(value, str):
      value = datetime.datetime.fromisoformat(value.strip())
    if isinstance(value, datetime.datetime):
      return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
    if about.unit == "iso" or isinstance(value, bool):
      raise ValueError
    time = float(value) * _SCALE[about.unit]
  except (ValueError, TypeError, OverflowError):
    raise ValueError(f"{where}: column {about.time!r} is {checks.shown(value)}, no time in {about.unit!r}") from None
  if not math.isfinite(time):
    raise ValueError(f"{where}: column {about.time!r} is {checks.shown(value)}, no time")
  return time


def reader(field: Field) -> Callable[[dict[str, Any]], tuple[Any, bool]]:
  """The function from a record to (value or None, whether the column is there)."""
  if field.columns:
    return lambda record: _vector(field, [events.lookup(record, column) for column in field.columns])
  convert = {"text": _text, "category": _category, "button": _buttons, "number": _numbers}[field.kind]

  def read_one(record: dict[str, Any]) -> tuple[Any, bool]:
    value = events.lookup(record, field.column)
    # No button is pressed in an empty list.
    empty = isinstance(value, str) and not value.strip() and field.kind != "text" and not _lists_buttons(field)
    if value is events.ABSENT or value is None or empty:
      return None, value is not events.ABSENT
    try:
      return convert(field, value), True
    except (ValueError, TypeError) as error:
      raise ValueError(f"column {field.column!r} is {checks.shown(value)}; {error}") from None

  return read_one


def _vector(field: Field, values: list[Any]) -> tuple[Any, bool]:
  found: list[float] = []
  for column, value in zip(field.columns, values, strict=True):
    if value is events.ABSENT or value is None or (isinstance(value, str) and not value.strip()):
      return None, all(value is not events.ABSENT for value in values)
    try:
      number = _press(field, value) if field.kind == "button" else _number(value)
    except (ValueError, TypeError) as error:
      raise ValueError(f"column {column!r} is {checks.shown(value)}; {error}") from None
    if number is None:
      return None, True
    found.append(number)
  return found, True


def _number(value: Any) -> float | None:
  """None for NaN."""
  if type(value) is float and math.isfinite(value):
    return value
  if isinstance(value, str | int | float | bool | np.number) or hasattr(value, "__float__"):
    try:
      number = float(value)
    except (ValueError, OverflowError):
      raise ValueError("expected a number") from None
    if math.isinf(number):
      raise ValueError("expected a finite number")
    return None if math.isnan(number) else number
  raise ValueError("expected a number")


def _numbers(field: Field, value: Any) -> float | list[float] | None:
  if isinstance(value, str) and value.lstrip().startswith("["):
    value = json.loads(value)
  if not isinstance(value, list | tuple):
    return _number(value)
  found = [None if item is None else _number(item) for item in value]
  if not found:
    raise ValueError("expected a number, or a list of them")
  return None if None in found else found


def _press(field: Field, value: Any) -> float:
  if isinstance(value, bool) and not field.pressed:
    return float(value)
  if isinstance(value, list | dict):
    raise ValueError("expected one value; give a 'vocabulary' of buttons to read a list of those that are pressed")
  text = checks.plain(value).strip()
  if field.pressed:
    return float(_is_one_of(value, field.pressed, "pressed"))
  if text.lower() in _PRESSED or text.lower() in _RELEASED:
    return float(text.lower() in _PRESSED)
  try:
    return float(float(text) != 0)
  except ValueError:
    raise ValueError("say in 'pressed' which values say that the button is") from None


def _lists_buttons(field: Field) -> bool:
  return field.kind == "button" and bool(field.vocabulary)


def _buttons(field: Field, value: Any) -> float | list[float]:
  if not _lists_buttons(field):
    return _press(field, value)
  if isinstance(value, str):
    value = [name for name in re.split(r"[\s,+|]+", value) if name]
  if not isinstance(value, list | tuple):
    raise ValueError("expected a list of the buttons that are pressed")
  if any(isinstance(name, dict | list) for name in value):
    raise ValueError("expected names of buttons")
  pressed = {checks.plain(name) for name in value}
  return [float(name in pressed) for name in field.vocabulary]


def _category(field: Field, value: Any) -> int:
  if isinstance(value, dict | list):
    raise ValueError("expected one value")
  text = checks.plain(value).strip()
  if text not in field.vocabulary:
    raise ValueError(f"not in the vocabulary{checks.nearest(text, field.vocabulary)}")
  return field.vocabulary.index(text)


def _text(field: Field, value: Any) -> str:
  if isinstance(value, dict | list | bytes):
    raise ValueError("expected a text")
  return checks.plain(value)


def missing(field: Field, record: dict[str, Any], where: str) -> str:
  """The sentence that says which value is missing."""
  for column in field.columns or (field.column,):
    value = events.lookup(record, column)
    if value is events.ABSENT:
      instead = near(record, column)
      return f"{where}: no column {column!r}{instead}; set 'missing' to 'forward' or a number if some records lack it"
  return f"{where}: column {field.column or list(field.columns)} has no value; set 'missing' to 'forward' or a number"


def near(record: dict[str, Any], name: str) -> str:
  """What the record has instead."""
  known = list(itertools.islice(_paths(record), 100))
  there = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
  return f"{checks.nearest(name, known)}; there are {there}"


def _paths(record: dict[str, Any], prefix: str = "") -> Iterator[str]:
  for key, value in record.items():
    # Not deeper: an alias in YAML can make a small file endless.
    if isinstance(value, dict) and prefix.count(".") < 3:
      yield from _paths(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}"

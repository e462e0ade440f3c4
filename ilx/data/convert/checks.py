"""Checked reading of settings: plain dicts, as JSON and YAML give them, into frozen dataclasses."""

import dataclasses
import difflib
import json
import math
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

Check = Callable[[Any, str], Any]

_QUOTE = "YAML reads on and yes as true, off and no as false: put them in quotes"


def nearest(name: str, known: Iterable[str]) -> str:
  """ " (did you mean 'x'?)", or "" where nothing is near."""
  close = difflib.get_close_matches(str(name), list(known), n=1)
  return f" (did you mean {close[0]!r}?)" if close else ""


def setting(check: Check, default: Any = dataclasses.MISSING, *, key: str | None = None, factory: Any = None) -> Any:
  """A dataclass field with its check; ``key`` is what the user writes where that is no name in Python."""
  about = {"check": check, "key": key}
  if factory is not None:
    return dataclasses.field(default_factory=factory, metadata=about)
  return dataclasses.field(default=default, metadata=about)


def build(cls: type, value: Any, where: str) -> Any:
  """``cls`` from a dict of its settings.

  Raises:
    ValueError: names ``where`` and the key that is unknown, missing or has a wrong value.
  """
  fields = {f.metadata["key"] or f.name: f for f in dataclasses.fields(cls)}
  if not isinstance(value, dict):
    raise ValueError(f"{where}: is {value!r}; expected keys among {', '.join(fields)}")
  for key in value:
    if key not in fields:
      raise ValueError(f"{where}: unknown key {key!r}{nearest(key, fields)}; there are {', '.join(fields)}")
  arguments = {}
  for key, field in fields.items():
    if key in value:
      arguments[field.name] = field.metadata["check"](value[key], f"{where}.{key}")
    elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
      raise ValueError(f"{where}: key {key!r} is missing")
  try:
    return cls(**arguments)
  except ValueError as error:
    raise ValueError(f"{where}: {error}") from None


def one(cls: type) -> Check:
  """A ``cls``."""
  return lambda value, where: build(cls, value, where)


def named(cls: type) -> Check:
  """A dict from names to ``cls``."""

  def check(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
      raise ValueError(f"{where}: is {value!r}; expected names, each with its settings")
    return {name_of(name, where): build(cls, item, f"{where}.{name}") for name, item in value.items()}

  return check


def name_of(value: Any, where: str) -> str:
  """The name of a field, which is part of paths."""
  if not isinstance(value, str) or not value or "/" in value:
    raise ValueError(f"{where}: {value!r} is no name; names are texts without '/'")
  return value


def text(value: Any, where: str) -> str:
  """A text that is not empty."""
  if not isinstance(value, str) or not value:
    hint = f"; {_QUOTE}" if isinstance(value, bool) else ""
    raise ValueError(f"{where}: is {value!r}; expected a text{hint}")
  return value


def mark(value: Any, where: str) -> str:
  """One character."""
  if len(text(value, where)) != 1 or value in '\r\n"':
    raise ValueError(f"{where}: is {value!r}; expected one character, such as ';'")
  return value


def encoding(value: Any, where: str) -> str:
  """The name of an encoding of texts."""
  try:
    "a".encode(text(value, where))
  except (LookupError, UnicodeError):
    raise ValueError(f"{where}: is {value!r}; expected an encoding, such as 'utf-16' or 'latin-1'") from None
  return value


def texts(value: Any, where: str) -> tuple[str, ...]:
  """A list of different texts; numbers stand for their texts."""
  found = texts_or_flags(value, where)
  if any(isinstance(x, bool) for x in found):
    raise ValueError(f"{where}: is {value!r}; {_QUOTE}")
  return found


def names(value: Any, where: str) -> tuple[str, ...]:
  """A list of different texts; numbers and bools stand for their texts."""
  return tuple(map(plain, texts_or_flags(value, where)))


def texts_or_flags(value: Any, where: str) -> tuple[str | bool, ...]:
  """A list of different texts and bools; numbers stand for their texts."""
  if not isinstance(value, list) or not value or not all(isinstance(x, str | int | float) for x in value):
    raise ValueError(f"{where}: is {value!r}; expected a list of texts")
  found = tuple(x if isinstance(x, bool) else plain(x) for x in value)
  if len(set(map(plain, found))) != len(found):
    raise ValueError(f"{where}: is {value!r}, which names one thing twice")
  return found


def shown(value: Any) -> str:
  """A value for a message: short whatever it is (nested values that share parts may be long beyond measure)."""
  shortener = reprlib.Repr()
  shortener.maxlevel, shortener.maxstring, shortener.maxother = 2, 60, 60
  return shortener.repr(value)


def plain(value: Any) -> str:
  """A value as text: true and false as JSON writes them, whole numbers without a point."""
  if isinstance(value, bool):
    return "true" if value else "false"
  if isinstance(value, float) and value.is_integer():
    return str(int(value))
  return str(value)


def number(value: Any, where: str) -> float:
  """A finite number."""
  try:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
      raise ValueError
  except (ValueError, OverflowError):
    raise ValueError(f"{where}: is {shown(value)}; expected a number") from None
  return float(value)


def positive(value: Any, where: str) -> float:
  """A number above 0."""
  if number(value, where) <= 0:
    raise ValueError(f"{where}: is {value!r}; expected a number above 0")
  return float(value)


def whole(value: Any, where: str) -> int:
  """A whole number from 1 on."""
  if isinstance(value, bool) or not isinstance(value, int) or value < 1:
    raise ValueError(f"{where}: is {value!r}; expected a whole number from 1 on")
  return value


def flag(value: Any, where: str) -> bool:
  """True or false."""
  if not isinstance(value, bool):
    raise ValueError(f"{where}: is {value!r}; expected true or false")
  return value


def pixels(value: Any, where: str) -> tuple[int, ...]:
  """A list of whole numbers."""
  if not isinstance(value, list) or not all(isinstance(x, int) and not isinstance(x, bool) for x in value):
    raise ValueError(f"{where}: is {value!r}; expected a list of pixels")
  return tuple(value)


def choice(*allowed: Any) -> Check:
  """One of ``allowed``."""

  def check(value: Any, where: str) -> Any:
    if isinstance(value, bool) or value not in allowed:
      expected = ", ".join(repr(x) for x in allowed)
      raise ValueError(f"{where}: is {value!r}; expected one of {expected}{nearest(value, map(str, allowed))}")
    return value

  return check


def either(first: Check, second: Check) -> Check:
  """Numbers by ``second``, all else by ``first``."""

  def check(value: Any, where: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (second if is_number else first)(value, where)

  return check


def pairs(value: Any, where: str) -> tuple[tuple[str, tuple[str | bool, ...]], ...]:
  """A dict from a column to the value, or the list of values, that it must have."""
  if not isinstance(value, dict) or not value:
    raise ValueError(f"{where}: is {value!r}; expected columns, each with its value or list of values")
  return tuple(
    (text(k, where), texts_or_flags(v if isinstance(v, list) else [v], f"{where}.{k}")) for k, v in value.items()
  )


def value(value: Any, where: str) -> float | str:
  """A finite number (true and false are 1 and 0), or a text, which may be empty."""
  if isinstance(value, str):
    return value
  return number(int(value) if isinstance(value, bool) else value, where)


def lists(value: Any, where: str) -> dict[str, tuple[str, ...]]:
  """A dict of lists of texts."""
  if not isinstance(value, dict):
    raise ValueError(f"{where}: is {value!r}; expected names, each with a list of texts")
  return {text(name, where): texts(items, f"{where}.{name}") for name, items in value.items()}


def jsonable(value: Any, where: str) -> dict[str, Any]:
  """A dict that JSON can hold."""
  if not isinstance(value, dict):
    raise ValueError(f"{where}: is {value!r}; expected keys and values")
  try:
    json.dumps(value, allow_nan=False)
  except (TypeError, ValueError) as error:
    raise ValueError(f"{where}: {error}") from None
  return value

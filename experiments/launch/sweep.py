"""What a sweep consists of: every point of a grid over flags, for every line of a list."""

import hashlib
import itertools
import pathlib
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.report.text import short_dataset

# Longer names are cut; a hash of the whole name ends them.
_MAX_NAME = 120
_BRACKETS = {"(": ")", "[": "]", "{": "}"}

# Values of flags by name, without dashes; None for a flag without a value, ``--nosomething``.
Flags = dict[str, str | None]


class Run(NamedTuple):
  """One run of a sweep.

  Attributes:
    name: of its folder in the sweep's.
    flags: what experiments.main takes, but ``--workdir``.
    swept: those that the grid or the list sets.
  """

  name: str
  flags: tuple[str, ...]
  swept: Flags


def expand(common: Sequence[str], grid: Sequence[str], lines: Sequence[str] | None) -> list[Run]:
  """The runs of a sweep: each line with each point of the grid, whose last entry varies fastest.

  Args:
    common: flags of all runs, such as ``--config=experiments/configs/bc.py``.
    grid: entries such as ``config.seed=0,1,2``. Commas in brackets or quotes do not separate values.
    lines: flags of one run each, as for a shell; empty lines and comments (#) are left out. None: there is no list.

  Raises:
    ValueError: for what is no flag, a flag that is set twice, a name that two runs would have.
  """
  fixed = _parse(common, "the flags of all runs")
  entries = [_entry(text) for text in grid]
  points = [dict(point) for point in itertools.product(*([(name, v) for v in values] for name, values in entries))]
  listed = [{}] if lines is None else [found for text in lines if (found := _line(text))]
  if not listed:
    raise ValueError("--list: the file has no line with flags")
  for line in listed:
    _check_once([*fixed, *line, *(name for name, _ in entries)])
  swept = [line | point for line in listed for point in points]
  names = _names(swept, fixed.get("config"))
  twice = [name for name, count in Counter(names).items() if count > 1]
  if twice:
    raise ValueError(f"several runs would be named {twice[0]!r}; each must differ from the others in --grid or --list")
  return [Run(name, _words(fixed | own), own) for name, own in zip(names, swept, strict=True)]


def short(names: Iterable[str]) -> dict[str, str]:
  """Last parts of dotted names, or the whole names where last parts are alike."""
  names = list(names)
  count = Counter(name.rpartition(".")[2] for name in names)
  return {name: last if count[last := name.rpartition(".")[2]] == 1 else name for name in names}


def split(text: str) -> list[str]:
  """Values between commas; those in brackets and quotes do not count, quotes about a whole value go.

  Raises:
    ValueError: for an empty value, brackets or quotes that are not closed.
  """
  values, closing, quote = [""], [], ""
  for char in text:
    if quote:
      quote = "" if char == quote else quote
    elif char in "\"'":
      quote = char
    elif char in _BRACKETS:
      closing.append(_BRACKETS[char])
    elif closing and char == closing[-1]:
      closing.pop()
    if char == "," and not closing and not quote:
      values.append("")
    else:
      values[-1] += char
  if quote or closing:
    raise ValueError(f"--grid: {quote or closing[-1]} is missing in {text!r}")
  if "" in values:
    raise ValueError(f"--grid: an empty value in {text!r}; an empty text is \"''\"")
  return [v[1:-1] if len(v) > 1 and v[0] == v[-1] and v[0] in "\"'" else v for v in values]


def _entry(text: str) -> tuple[str, list[str]]:
  name, equals, values = text.removeprefix("--").partition("=")
  if not equals or not name:
    raise ValueError(f"--grid={text} must be FLAG=VALUE,VALUE,..., such as --grid=config.seed=0,1,2")
  return name, split(values)


def _line(text: str) -> Flags:
  try:
    return _parse(shlex.split(text, comments=True), f"--list: {text!r}")
  except ValueError as error:
    raise error if text in str(error) else ValueError(f"--list: {text!r}: {error}") from None


def _parse(words: Iterable[str], where: str) -> Flags:
  found: Flags = {}
  for word in words:
    name, equals, value = word.removeprefix("--").partition("=")
    if not word.startswith("--") or not name:
      raise ValueError(f"{where}: unexpected {word!r}; flags start with --, and their value follows a =")
    if name in found:
      raise ValueError(f"{where}: --{name} is set twice")
    found[name] = value if equals else None
  return found


def _check_once(names: Sequence[str]) -> None:
  for name, count in Counter(names).items():
    if count > 1:
      raise ValueError(f"--{name} is set twice, among --grid, --list and the flags of all runs")
    if name == "workdir":
      raise ValueError("--workdir is the sweep's folder, in which every run has its own; it cannot be swept")


def _words(flags: Flags) -> tuple[str, ...]:
  """The config file is first, since its fields must follow."""
  order = sorted(flags, key=lambda name: name != "config")
  return tuple(f"--{name}" if flags[name] is None else f"--{name}={flags[name]}" for name in order)


def _names(swept: Sequence[Flags], config: str | None) -> list[str]:
  shorter = short(dict.fromkeys(name for own in swept for name in own))

  def part(name: str, value: str | None) -> str:
    if value is None:
      return shorter[name]
    if name == "config":
      return _stem(value)
    # Of paths their ends; several datasets, with their shares or without, are one value.
    return f"{shorter[name]}={','.join(map(short_dataset, value.split(',')))}"

  found = []
  for own in swept:
    name = ",".join(part(*item) for item in own.items()) or _stem(config or "run")
    name = re.sub(r"[^A-Za-z0-9._+=,-]+", "_", name)
    if len(name) > _MAX_NAME:
      name = f"{name[: _MAX_NAME - 9]}-{hashlib.sha256(repr(own).encode()).hexdigest()[:8]}"
    found.append(name)
  return found


def _stem(path: str) -> str:
  return pathlib.PurePath(path).stem

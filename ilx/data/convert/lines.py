"""Records of files of lines: JSON lines, CSV and TSV."""

import csv
import itertools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import IO, Any, AnyStr

from ilx.data.convert import checks

# The longest line, in bytes or characters.
_LONGEST = 64 << 20


def bounded(file: IO[AnyStr], path: Any) -> Iterator[AnyStr]:
  """The lines of an open file, none of which is longer than ``_LONGEST``.

  Raises:
    ValueError: where one is; names ``path`` and the line.
  """
  for number in itertools.count(1):
    if not (line := file.readline(_LONGEST + 1)):
      return
    if len(line) > _LONGEST:
      raise ValueError(
        f"{path}, line {number}: is longer than {_LONGEST >> 20} MiB; no file of records, or a damaged one"
      )
    yield line


def objects(path: pathlib.Path) -> Iterator[tuple[str, Any]]:
  """(line, value) of every line of JSON that is not empty; see ``events.records``."""
  with path.open("rb") as file:
    for number, line in enumerate(bounded(file, path), 1):
      if not line.strip():
        continue
      try:
        yield f"line {number}", json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
      except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: no JSON: {error}") from None


def separated(path: pathlib.Path, delimiter: str, encoding: str) -> Iterator[tuple[str, Any]]:
  """(line, record) of every row after the first, which names the columns; see ``events.records``."""
  with path.open(encoding=encoding, newline="") as file:
    rows = csv.reader(bounded(file, path), delimiter=delimiter, strict=True)
    names: list[str] = []
    while True:
      try:
        row = next(rows, None)
      except UnicodeError as error:
        raise ValueError(
          f"{path}: is not written in {encoding.removesuffix('-sig')} ({error.reason}); set 'encoding', such as utf-16 "
          "or latin-1"
        ) from None
      except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from None
      if row is None:
        return
      if not row:
        continue
      if not names:
        names = [name.strip() for name in row]
        _check_header(path, names, delimiter)
        if len(set(names)) != len(names):
          raise ValueError(f"{path}, line {rows.line_num}: two columns of one name in {', '.join(names)}")
        continue
      if len(row) != len(names):
        raise ValueError(f"{path}, line {rows.line_num}: {len(row)} values where there are {len(names)} columns")
      yield f"line {rows.line_num}", dict(zip(names, row, strict=True))


def _check_header(path: pathlib.Path, names: list[str], delimiter: str) -> None:
  """Whether the first line can be names of columns."""
  other = next((mark for mark in ";\t|," if mark != delimiter and mark in names[0]), None)
  if len(names) == 1 and other is not None:
    raise ValueError(
      f"{path}: the first line has one column {checks.shown(names[0])}, not separated by {delimiter!r}; "
      f"set 'delimiter' to {other!r}?"
    )
  if any("\0" in name for name in names):
    raise ValueError(f"{path}: the first line has zero bytes; set 'encoding', such as utf-16-le, or it is damaged")
  counted = [str(number) for number in range(len(names))]  # as tables without names are written
  if names != counted and all(re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", name) for name in names):
    raise ValueError(
      f"{path}: the first line, {checks.shown(delimiter.join(names))}, has numbers alone; the columns' names are "
      "expected there: put them in front"
    )

"""Columns of numbers, buttons, categories and texts, read from the records of game logs."""

import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ilx.data.convert import cells, checks, events
from ilx.data.convert.mapping import Events, Field


class Column(NamedTuple):
  """The values of one field.

  Attributes:
    rows: int64 ``[M]``, the records that have one, rising.
    values: ``[M]`` or ``[M, D]``: float64, int64 for categories, or texts (``object``).
  """

  rows: np.ndarray
  values: np.ndarray


class Table(NamedTuple):
  """The records of one episode.

  Attributes:
    where: the file, or the first of them, for messages.
    count: R, how many records.
    times: float64 ``[R]`` seconds, not falling; None where records are aligned by number.
    columns: by field.
    checked: whether the times must be those of the frames; see ``mapping``.
  """

  where: str
  count: int
  times: np.ndarray | None
  columns: dict[Field, Column]
  checked: bool = True


def read(files: Sequence[os.PathLike], about: Events, fields: Sequence[Field]) -> dict[str | None, Table]:
  """Reads a table, by episode, or as the only one under None where ``about.episode`` is not given.

  Args:
    files: read one after the other.
    about: what the mapping says of the table.
    fields: those made of it.

  Raises:
    ValueError: where a record cannot be read, or what the mapping asks for is not there; names file, record and key.
  """
  columns = wanted(about, fields)
  found: dict[str | None, _Rows] = {}
  first: dict[str, Any] = {}
  for file in files:
    for number, (place, record) in enumerate(records(file, about, columns)):
      where = f"{file}, {place}"
      if not number:
        first |= record
      if not cells.matches(record, about.where, where):
        continue
      episode = None
      if about.episode is not None:
        value = events.lookup(record, about.episode)
        if value is events.ABSENT or value is None or isinstance(value, dict | list):
          raise ValueError(
            f"{where}: no column {about.episode!r} that names the episode{cells.near(record, about.episode)}"
          )
        episode = checks.plain(value)
      if episode not in found:
        found[episode] = _Rows(str(file), about, fields)
      found[episode].append(record, where)
  # In other formats a record has the columns that concern it, so that one may be in no record of a recording.
  if first and all(events.kind(file, about.format) in ("csv", "tsv") for file in files):
    for column in columns:
      if events.lookup(first, column) is events.ABSENT:
        raise ValueError(f"{files[0]}: no column {column!r}{cells.near(first, column)}")
  return {episode: rows.table() for episode, rows in found.items()}


def records(file: str | os.PathLike, about: Events, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
  """``events.records`` of a table's file."""
  return events.records(file, about.format, about.records, columns, delimiter=about.delimiter, encoding=about.encoding)


def wanted(about: Events, fields: Sequence[Field]) -> list[str]:
  """The columns that a table and the fields made of it are read from, in order."""
  paths = [about.time, about.episode, *(column for column, _ in about.where)]
  for field in fields:
    paths += [field.column, *field.columns, *(column for column, _ in field.where)]
  return sorted({path for path in paths if path})


def shared(files: Sequence[pathlib.Path], about: Events, fields: Sequence[Field]) -> dict[str | None, Table]:
  """``read`` of a table that holds many episodes: whole, once a process, of which the wanted columns are kept."""
  return _shared(tuple(files), about, tuple(fields), tuple(stamp(file) for file in files))


@functools.lru_cache(maxsize=4)
def _shared(files: Any, about: Events, fields: Any, stamps: Any) -> dict[str | None, Table]:
  del stamps
  return read(files, about, fields)


def stamp(path: pathlib.Path) -> tuple[str, int, int]:
  """What changes with a file; of a pattern of files, with its folder."""
  try:
    found = path.stat()
  except FileNotFoundError:
    found = path.parent.stat()
  return str(path), found.st_mtime_ns, found.st_size


def empty(file: str, about: Events, fields: Sequence[Field]) -> Table:
  """The table of an episode without records."""
  return _Rows(file, about, fields).table()


class _Values:
  """Collects the values of a field."""

  def __init__(self, field: Field):
    self.field, self.read = field, cells.reader(field)
    self.rows: list[int] = []
    self.values: list[Any] = []
    # Records that concern the field, and how many of them have its column at all.
    self.concerned = self.seen = 0

  def append(self, record: dict[str, Any], row: int, where: str) -> None:
    field = self.field
    if field.where and not cells.matches(record, field.where, where):
      return
    self.concerned += 1
    try:
      value, there = self.read(record)
    except ValueError as error:
      raise ValueError(f"{where}: {error}") from None
    self.seen += there
    if value is None:
      if field.missing == "error":
        raise ValueError(cells.missing(field, record, where))
      if field.missing == "forward":
        return
      value = field.missing
    before = self.values[-1] if self.values else None
    if isinstance(value, list) and isinstance(before, list) and len(value) != len(before):
      raise ValueError(f"{where}: column {field.column!r} has {len(value)} values, before it had {len(before)}")
    self.rows.append(row)
    self.values.append(value)

  def column(self) -> Column:
    field, values = self.field, self.values
    if sizes := {len(value) for value in values if isinstance(value, list)}:
      # A number that stands for a missing vector.
      size = max(sizes)
      values = [value if isinstance(value, list) else [value] * size for value in values]
    dtype = {"text": object, "category": np.int64}.get(field.kind, np.float64)
    found = np.array(values, dtype)
    if not values and (field.columns or (field.kind == "button" and field.vocabulary)):
      found = found.reshape(0, len(field.columns or field.vocabulary))
    return Column(np.array(self.rows, np.int64), found)


class _Rows:
  """Collects the records of an episode."""

  def __init__(self, file: str, about: Events, fields: Sequence[Field]):
    self._file, self._about = file, about
    self._count = 0
    self._times: list[float] = []
    self._fields = [_Values(field) for field in fields]
    self._last: dict[str, Any] = {}

  def append(self, record: dict[str, Any], where: str) -> None:
    if self._about.time is not None:
      time = cells.seconds(events.lookup(record, self._about.time), self._about, record, where)
      if self._times and time < self._times[-1]:
        raise ValueError(f"{where}: the clock runs backwards: {time} s after {self._times[-1]} s")
      self._times.append(time)
    for values in self._fields:
      values.append(record, self._count, where)
    self._last = record
    self._count += 1

  def table(self) -> Table:
    for values in self._fields:
      if values.concerned and not values.seen:
        name = values.field.column or values.field.columns[0]
        raise ValueError(f"{self._file}: no record has the column {name!r}{cells.near(self._last, name)}")
    times = None
    if self._about.time is not None:
      times = np.array(self._times, np.float64)
      if self._about.relative and len(times):
        times = times - times[0]
      times = times / self._about.rate + self._about.offset
    return Table(
      self._file, self._count, times, {values.field: values.column() for values in self._fields}, self._about.check
    )

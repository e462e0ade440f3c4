"""RLDS datasets on disk: a TFDS folder whose records are whole episodes, read without TensorFlow."""

import bisect
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ilx.data import columns, decode, example
from ilx.data import selection as selection_lib
from ilx.data.episodes import Episodes, from_columns
from ilx.data.info import Info, read_info, resolve, root
from ilx.data.records import Records, open_split, read_numbered, read_records, select
from ilx.data.selection import EVERYTHING, Selection
from ilx.data.splits import Split

__all__ = [
  "EVERYTHING",
  "Info",
  "Records",
  "Selection",
  "Split",
  "assemble",
  "decode_episode",
  "load",
  "open_split",
  "read_episodes",
  "read_info",
  "read_records",
  "resolve",
  "root",
]


# Bytes of records between two flushes: enough episodes to make numpy's overhead small, few enough for the cache.
_BLOCK = 1 << 20


def read_episodes(
  info: Info, split: str = "train", *, fields: Collection[str] | None = None
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
  """Whole episodes, every field as TFDS' own decoder gives it.

  Args:
    info: of the dataset.
    split: in TFDS' syntax, such as "train[:90%]+val"; see ``ilx.data.splits.parse``.
    fields: names of fields or of folders of them, such as "episode_metadata" and "steps/action"; only these are read.
      By default all but those of classes that are not supported.

  Yields:
    (file, number of the record in the file, episode): nested dicts ``{"steps": {"observation": ..., ...}, ...}``. A
    field of the steps is a column ``[T, ...]`` of the dtype in ``features.json``; texts are object arrays of str (of
    bytes where they are not UTF-8); pictures stay encoded in ``ilx.data.images.Images``. See ``ilx.data.decode``.

  Raises:
    FileNotFoundError: where a file is missing.
    ValueError: for an unknown split or field, and where a file is damaged or disagrees with ``features.json``; names
      file, record and field.
  """
  try:
    chosen = decode.choose(info.features, fields)
  except ValueError as error:
    raise ValueError(f"{info.directory}: {error}") from None
  return _episodes_of(chosen, read_numbered(info, split))


def _episodes_of(
  features: dict[str, Any], records: Iterable[tuple[Path, int, bytes]]
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
  wanted = decode.keys(features)
  for file, index, record in records:
    try:
      episode = decode.decode(features, example.parse(record, wanted))
    except ValueError as error:
      raise ValueError(f"{file}: record {index}: {error}") from None
    yield file, index, episode


def decode_episode(info: Info, record: bytes, fields: Collection[str] | None = None) -> dict[str, Any]:
  """One serialised episode, as ``read_episodes`` gives it.

  Raises:
    ValueError: where it is damaged or disagrees with ``features.json``; names the field.
  """
  chosen = decode.choose(info.features, fields)
  return decode.decode(chosen, example.parse(record, decode.keys(chosen)))


def load(
  directory_or_name: str | os.PathLike,
  split: str = "train",
  *,
  selection: Selection = EVERYTHING,
) -> Episodes:
  """A dataset in columns, decoded at memory speed.

  Real numbers become float32, integers int32, bool and uint8 (images, decoded) stay; text fields have no place in
  arrays and are left out of the observation. A missing ``discount`` is 1 everywhere. Nothing else is made up:
  ``observation``, ``action``, ``reward`` and ``is_terminal`` must be there.

  Args:
    directory_or_name: see ``resolve``.
    split: in TFDS' syntax, such as "train", "train[:90%]" or "train[:-10]+val"; see ``ilx.data.splits.parse``.
    selection: which fields become which columns.

  Returns:
    ``Episodes`` of numpy arrays.

  Raises:
    FileNotFoundError: where the dataset or one of its files is missing.
    ValueError: where a file is damaged, disagrees with ``features.json`` or ``dataset_info.json``, or holds what
      no episode can (NaN, inf, no steps, ``is_first`` or ``is_last`` in a wrong place); names file, field, episode.
  """
  info = read_info(resolve(directory_or_name))
  records = read_records(info, split)
  chunks = select(info, split)
  size = sum(path.stat().st_size for path in {chunk.file for chunk in chunks})
  wanted = sum(chunk.stop - chunk.start for chunk in chunks)
  return assemble(info, selection, records, where=f"split {split!r}", expected=(wanted, size))


def assemble(
  info: Info,
  selection: Selection,
  records: Iterable[tuple[Path, bytes]],
  *,
  where: str = "",
  first: int = 0,
  expected: tuple[int, int] = (0, 0),
) -> Episodes:
  """Episodes from serialised ones.

  Args:
    info: of their dataset.
    selection: which fields become which columns.
    records: (file, serialised episode) pairs; the file is named in errors.
    where: what of the dataset they are, for errors.
    first: the number there of the first one, for errors.
    expected: how many episodes, and how many bytes at most, make room for at once; 0: unknown.

  Raises:
    ValueError: as ``load``.
  """
  plan = selection_lib.plan(info.features, selection, info.directory / "features.json")
  fields = {name: columns.Column(leaf, plan.lazy) for name, leaf in plan.fields.items()}
  wanted = frozenset(key for leaf in plan.fields.values() for key in leaf.keys())  # noqa: SIM118 (no dict)
  starts, files, waiting = [0], [], 0

  def fault(episode: int, problem: object) -> ValueError:
    return ValueError(f"{files[episode]}: episode {first + episode} of {where}: {problem}")

  try:
    for file, record in records:
      files.append(file)
      try:
        steps = columns.append(fields, example.parse(record, wanted))
      except columns.RowError:
        raise
      except ValueError as error:
        raise fault(len(starts) - 1, error) from None
      if len(starts) == 1:
        # Memory that is never touched is never taken, so an estimate may be generous; files bound it.
        columns.reserve(fields, min(steps * expected[0], steps * expected[1] * 4 // len(record) + steps))
      starts.append(starts[-1] + steps)
      # What waits keeps its records in memory.
      waiting += len(record)
      if waiting > _BLOCK:
        columns.flush(fields)
        waiting = 0
    columns.flush(fields)
  except columns.RowError as error:
    row, problem = error.args
    episode = bisect.bisect_right(starts, row) - 1
    raise fault(episode, f"{problem} at step {row - starts[episode]}") from None
  bounds = np.array(starts, np.int64)
  for name, rows in (("is_first", bounds[:-1]), ("is_last", bounds[1:] - 1), ("is_terminal", bounds[1:] - 1)):
    column = fields.get(f"steps/{name}")
    if column is not None and (stray := _stray(column.values, rows)) is not None:
      episode = bisect.bisect_right(starts, stray) - 1
      step, steps = stray - starts[episode], starts[episode + 1] - starts[episode]
      raise fault(episode, f"field 'steps/{name}' is true at step {step} of {steps}; one record must be one episode")
  return _episodes(plan, fields, bounds)


def _stray(values: np.ndarray, rows: np.ndarray) -> int | None:
  """The first place where a flag is true that may be so at ``rows`` alone.

  It may be false there: a record can be a part cut from an episode.
  """
  values = values.reshape(-1)
  if np.count_nonzero(values) == np.count_nonzero(values[rows]):
    return None
  return int(np.setdiff1d(np.flatnonzero(values), rows)[0])


def _episodes(plan: selection_lib.Plan, fields: dict[str, columns.Column], starts: np.ndarray) -> Episodes:
  """Gathers the columns."""
  last = starts[1:] - 1
  steps = int(starts[-1])

  def value(name: str, dtype: type) -> np.ndarray:
    if f"steps/{name}" in fields:
      return fields[f"steps/{name}"].values.reshape(-1).astype(dtype, copy=False)
    return np.full(steps, plan.fill.get(name, 1), dtype)

  is_terminal = value("is_terminal", bool)
  if "is_terminal" in plan.fill:
    is_terminal[:] = False
    is_terminal[last] = bool(plan.fill["is_terminal"])
  return from_columns(
    observation=columns.tree(plan.observation, fields),
    action=jax.tree.map(_as_action, columns.tree(plan.action, fields)),
    reward=value("reward", np.float32),
    discount=value("discount", np.float32),
    is_terminal=is_terminal,
    starts=starts,
    extras=columns.tree(plan.extras, fields),
  )


def _as_action(column: np.ndarray) -> np.ndarray:
  return column if column.dtype.kind in "fb" else column.astype(np.int32, copy=False)

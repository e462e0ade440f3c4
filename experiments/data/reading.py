"""Episodes of a split in chunks of columns, skipping over what cannot be read."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data import activity, fields, tolerant
from experiments.data.fields import Stored
from ilx.data import example, rlds
from ilx.data.rlds import Info

# A chunk is handed on when it has so many steps or bytes: large enough that Python does not count.
_STEPS, _BYTES = 8192, 16 << 20


class Chunk(NamedTuple):
  """Some episodes, one after the other.

  Attributes:
    split: where they are from.
    columns: fields ``[N, ...]`` by their names in a record: arrays, or byte strings for text and pictures.
    starts: int64 ``[E + 1]``; episode ``e`` is rows ``starts[e]`` to ``starts[e + 1] - 1``.
    others: uint64 ``[E]``, hashes of what every episode's steps have beside the columns.
    metadata: of every episode, what stands beside its steps, by name.
  """

  split: str
  columns: dict[str, Stored]
  starts: np.ndarray
  others: np.ndarray
  metadata: list[dict[str, Any]]


class _Part(NamedTuple):
  steps: int
  columns: dict[str, Stored]
  others: np.ndarray
  metadata: dict[str, Any]


def records(info: Info, split: str, report: Callable[[str], None]) -> Iterator[bytes]:
  """The readable records of a split, in order; ``report`` takes a sentence for each that is not.

  Raises:
    ValueError: for a split that is not there.
  """
  if split not in info.splits:
    for _, record in rlds.read_records(info, split):
      yield record
    return
  for path, length in zip(*info.splits[split], strict=True):
    for index, found in tolerant.records(path, info.file_format, length):
      if isinstance(found, bytes):
        yield found
      else:
        report(f"{path.name}{'' if index is None else f', record {index}'}: {found}")


def chunks(info: Info, split: str, report: Callable[[str], None], max_episodes: int | None = None) -> Iterator[Chunk]:
  """The readable episodes of a split; see ``records``. Of ragged fields there are but hashes."""
  steps_fields = {name: feature for name, feature in fields.of_steps(info).items() if fields.examined(feature)}
  beside = {name: feature for name, feature in fields.of_episodes(info).items() if fields.examined(feature)}
  parts: list[_Part] = []
  rows = size = taken = 0
  for index, content in enumerate(records(info, split, report)):
    if max_episodes is not None and taken >= max_episodes:
      break
    try:
      record = example.parse(content)
      steps = fields.count_steps(record, steps_fields)
      if not steps:
        raise ValueError("the episode is empty")
      columns = values(steps_fields, record, steps)
      metadata = {name: scalar(value) for name, value in values(beside, record, 1).items()}
    except ValueError as error:
      report(f"split {split}, episode {index}: {error}")
      continue
    parts.append(_Part(steps, columns, activity.content_hash(fields.others(record, columns)), metadata))
    rows, size, taken = rows + steps, size + len(content), taken + 1
    if rows >= _STEPS or size >= _BYTES:
      yield _join(split, parts)
      parts, rows, size = [], 0, 0
  if parts:
    yield _join(split, parts)


def values(wanted: Mapping[str, Any], record: Mapping[str, Stored], steps: int) -> dict[str, Stored]:
  """The ``wanted`` fields of a parsed record; raises ValueError, which names the field."""
  found = {}
  for name, feature in wanted.items():
    try:
      found[name] = fields.values(feature, record.get(name), steps)
    except fields.FieldError as error:
      at = "" if error.step is None else f", step {error.step}"
      raise ValueError(f"field {name!r}{at}: {error}") from None
  return found


def scalar(value: Stored) -> Any:
  """One value of an episode as Python's own: a number, bool, string, or a list of numbers."""
  first = value[0]
  if isinstance(first, bytes):
    return first.decode(errors="replace")
  return first.item() if np.ndim(first) == 0 else first.tolist()


def _join(split: str, parts: list[_Part]) -> Chunk:
  columns: dict[str, Stored] = {}
  for name in parts[0].columns:
    pieces = [part.columns[name] for part in parts]
    whole = isinstance(pieces[0], np.ndarray)
    columns[name] = np.concatenate(pieces) if whole else [item for piece in pieces for item in piece]
  starts = np.cumsum([0, *(part.steps for part in parts)]).astype(np.int64)
  others = np.concatenate([part.others for part in parts])
  return Chunk(split, columns, starts, others, [part.metadata for part in parts])


def files(info: Info, split: str) -> list[Path]:
  """The split's shards that are there."""
  return [path for path in info.splits[split].files if path.is_file()] if split in info.splits else []

"""One recording of a game: all its tables brought to its steps. Pictures are but found, not read."""

import math
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ilx.data.convert import align, clocks, find, frames, video
from ilx.data.convert.mapping import Mapping as GameMapping
from ilx.data.convert.steps import Steps
from ilx.data.convert.tables import Table
from ilx.data.images import Images
from ilx.types import Tree

Files = Mapping[str, tuple[pathlib.Path, ...]]


class Pictures(NamedTuple):
  """The pictures of one stream, not read.

  Attributes:
    files: the picture files, or the one video.
    shown: float64 ``[F]``, when the video's frames are, by its own clock; None for picture files.
    times: float64 ``[F]`` seconds on the recording's clock, or None.
    count: F.
  """

  files: list[pathlib.Path]
  shown: np.ndarray | None
  times: np.ndarray | None
  count: int


class Session(NamedTuple):
  """A recording of S steps and T actions.

  Attributes:
    frames: by stream, which of its frames every step shows, int64 ``[S]``.
    pictures: by stream.
    observation: by field, ``[S, ...]``.
    action: float32 ``[S, A]`` or int32 ``[S]``; or a dict of parts, which may also be
      bool ``[S]`` and ``[S, K]`` or int32 ``[S, K]``.
    reward: float32 ``[S]``.
    steps: further fields, ``[S, ...]``.
    metadata: of the recording.
    terminal: whether it ended by an end of the task.
    num_actions: T: S - 1; or S, where what followed the last action was not recorded and step S - 1 is shown again.
  """

  frames: dict[str, np.ndarray]
  pictures: dict[str, Pictures]
  observation: dict[str, np.ndarray]
  action: Tree
  reward: np.ndarray
  steps: dict[str, np.ndarray]
  metadata: dict[str, Any]
  terminal: bool
  num_actions: int


def count(mapping: GameMapping, files: Files) -> int:
  """S of a recording whose clock are frames, from their number alone."""
  stream = files[mapping.clock.source]
  found = find.pictures(stream)
  total = video.count(stream[0]) if found is None else len(found)
  return -(-total // mapping.clock.skip)


def read(mapping: GameMapping, files: Files, tables: Mapping[str, Table], name: str) -> Session:
  """Brings a recording's tables to its steps; warns where they have no record of an action for long.

  Args:
    mapping: the mapping.
    files: the recording's, by stream and table.
    tables: its tables.
    name: its own, for warnings.

  Raises:
    ValueError: where counts or clocks do not fit, or a step has no value; names the file and the mapping's key.
  """
  streams = {name: _pictures(mapping, name, files[name]) for name in mapping.frames}
  clock = mapping.clock
  times, total = _clock(mapping, streams, tables)
  chosen = np.arange(0, total, clock.skip)
  for key, stream in streams.items():
    if key != clock.source and times is not None and stream.times is not None and mapping.frames[key].check:
      where = f"{stream.files[0]} (frames.{key})"
      clocks.check_stream(where, stream.times, align.grid(times, total, chosen), clock.source)
  aligned = Steps(mapping, tables, times, total, chosen)
  flags = aligned.flags(mapping.terminal)
  size, terminal, repeated = _end(flags, len(chosen), clock.after_end, aligned.final, tables, mapping)
  actions = size if repeated else size - 1
  if actions < 1:
    raise ValueError(f"{_name(files, clock.source)}: {total} frames make {size} steps; an episode needs two")
  if silence := aligned.silence(size):
    warnings.warn(
      f"recording {name}: {silence}: did the log stop? The actions there are the last ones before it, or 0; "
      "set 'check: false' if that is right",
      stacklevel=2,
    )
  cut = slice(0, size)
  return Session(
    frames={key: _shown(key, s, streams, times, total, chosen, clock.source)[cut] for key, s in streams.items()},
    pictures=streams,
    observation={k: aligned.stored(f, f"observation.{k}")[cut] for k, f in mapping.observation.items()},
    action=part(aligned.action(), cut),
    reward=aligned.reward()[cut],
    steps={key: aligned.stored(field, f"steps.{key}")[cut] for key, field in mapping.steps.items()},
    metadata=aligned.metadata(),
    terminal=terminal,
    num_actions=actions,
  )


def part(action: Tree, steps: slice) -> Tree:
  """Some steps of an action, or of all its parts."""
  return {name: part(value, steps) for name, value in action.items()} if isinstance(action, dict) else action[steps]


def images(session: Session, name: str, mapping: GameMapping, rows: np.ndarray) -> Images:
  """The encoded pictures of a stream that steps ``rows`` show."""
  stream, look = session.pictures[name], mapping.frames[name].look
  wanted = session.frames[name][rows]
  if stream.shown is not None:
    (path,) = stream.files
    pixels = video.frames(path, stream.shown[wanted], 1e-6)
    return frames.pack(frames.from_arrays(pixels, look), f"{path} (frames.{name})")
  where = f"{stream.files[0].parent} (frames.{name})"
  return frames.pack((_from_file(stream.files[row], look) for row in wanted), where)


def _from_file(path: pathlib.Path, look: frames.Look) -> bytes:
  try:
    return frames.from_file(path, look)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None


def _pictures(mapping: GameMapping, name: str, files: tuple[pathlib.Path, ...]) -> Pictures:
  about = mapping.frames[name]
  found = find.pictures(files)
  if found is None and len(files) != 1:
    listed = ", ".join(str(file) for file in files[:3])
    raise ValueError(f"frames.{name}.path: fits {len(files)} videos of one recording: {listed}; one is expected")
  shown = video.clock(files[0]) if found is None else None
  total = len(found) if shown is None else len(shown)
  if not total:
    raise ValueError(f"{files[0]} (frames.{name}): has no pictures")
  times = np.arange(total) / about.fps if about.fps is not None else None
  if times is None and shown is not None:
    times = shown - shown[0]  # containers begin at times of their own
  return Pictures(
    list(files) if found is None else found, shown, None if times is None else times + about.offset, total
  )


def _clock(
  mapping: GameMapping, streams: dict[str, Pictures], tables: Mapping[str, Table]
) -> tuple[np.ndarray | None, int]:
  """When the frames of the clock are, and how many there are."""
  source = mapping.clock.source
  if source in streams:
    return streams[source].times, streams[source].count
  table = tables[source]
  times = table.times
  if not table.count:
    raise ValueError(f"{table.where} (events.{source}): has no records")
  if times is None:
    return None, table.count
  if mapping.clock.fps is not None:
    total = math.floor((times[-1] - times[0]) * mapping.clock.fps + 1e-6) + 1
    return times[0] + np.arange(total) / mapping.clock.fps, total
  if table.count > 1 and np.any(np.diff(times) <= 0):
    row = int(np.argmax(np.diff(times) <= 0)) + 2
    raise ValueError(f"{table.where}, record {row}: has the time of the record before, but is the clock; set clock.fps")
  return times, table.count


def _shown(
  name: str,
  stream: Pictures,
  streams: dict[str, Pictures],
  times: np.ndarray | None,
  total: int,
  chosen: np.ndarray,
  clock: str,
) -> np.ndarray:
  """Which frame of a stream every step shows: the last one until then."""
  if name == clock:
    return chosen
  if times is None or stream.times is None:
    if stream.count != total:
      raise ValueError(
        f"{stream.files[0]} (frames.{name}): {stream.count} frames where {clock!r} has {total}; "
        "set fps of both to align them by time"
      )
    return chosen
  grid = align.grid(times, total, chosen)
  found = np.searchsorted(stream.times, grid.times + grid.slack, side="right") - 1
  if found[0] < 0 and stream.times[0] > grid.times[0] + align.period(times):
    raise ValueError(
      f"{stream.files[0]} (frames.{name}): begins at {stream.times[0]:.3f} s, {clock!r} at {times[0]:.3f} s; "
      "set the offset between their clocks"
    )
  return np.maximum(found, 0)


def _name(files: Files, source: str) -> str:
  return f"{files[source][0]} ({source})" if files.get(source) else source


def _end(
  flags: np.ndarray | bool, size: int, after: str, final: bool, tables: Mapping[str, Table], mapping: GameMapping
) -> tuple[int, bool, bool]:
  """Steps that are kept, whether the task ended, and whether the last observation is to be repeated."""
  if isinstance(flags, bool):
    return size, flags, flags and not final
  first = int(np.argmax(flags)) if flags.any() else None
  if first is None:
    return size, False, False
  if first < size - 2:
    if after == "error":
      raise ValueError(
        f"{tables[mapping.terminal.source].where}: terminal is true at step {first} of {size}, before the end; "
        "cut the recording, or set clock.after_end to 'cut'"
      )
    size = first + 2
  return size, True, first == size - 1 and not final

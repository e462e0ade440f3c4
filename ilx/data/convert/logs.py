"""Game logs: videos or folders of pictures, and records of events, turned into RLDS episodes by a mapping file.

``mapping`` documents what the file says and what was decided about times, ends and final observations.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np

from ilx.data import encode
from ilx.data.convert import actions, mapping_file, session, tables, unmatched
from ilx.data.convert.mapping import Mapping
from ilx.data.convert.recordings import Recording, find_recordings
from ilx.data.convert.source import Converted

__all__ = ["GameLogs", "Recording", "open"]


def open(path: str | os.PathLike, mapping: str | os.PathLike | dict[str, Any]) -> "GameLogs":
  """Finds the recordings in a folder. Events are read only where they tell the episodes apart.

  Example::

    source = logs.open("recordings", "game.yaml")
    write.write(source, name="my-game")   # ilx.data.convert.write

  Args:
    path: the folder of recordings.
    mapping: a YAML or JSON file, or what it would hold; see ``mapping``.

  Raises:
    FileNotFoundError: where there is no such folder or mapping file.
    ValueError: where the mapping is wrong, nothing fits its patterns, or all recordings lack a file; names the key. A
      recording that lacks a file when others do not is refused when it is read.
  """
  root = pathlib.Path(path).expanduser()
  if not root.is_dir():
    raise FileNotFoundError(f"{root} is missing: no folder of recordings")
  read = mapping_file.read(mapping)
  recordings = find_recordings(root, read)
  source = GameLogs(root, read, recordings, ())
  if read.clock.segment is None:
    return dataclasses.replace(source, pieces=tuple((number, 0, 1) for number in range(len(recordings))))
  pieces = []
  for number, recording in enumerate(recordings):
    try:
      if read.clock.source in read.frames and read.clock.after_end == "error" and not recording.problem:
        steps = session.count(read, recording.files)
      else:
        steps = len(source.session(number).reward)
      parts = _segments(steps, read.clock.segment)
    except ValueError:
      parts = 1  # reading it says what is wrong, or that there are more
    pieces += [(number, part, parts) for part in range(parts)]
  return dataclasses.replace(source, pieces=tuple(pieces))


def _segments(steps: int, length: int) -> int:
  return max(1, -(-(steps - 1) // length))


@dataclasses.dataclass(frozen=True, eq=False)
class GameLogs:
  """A ``convert.source.Source``; ``open`` makes it.

  Attributes:
    root: the folder of recordings.
    mapping: the mapping.
    recordings: in natural order of their parts.
    pieces: by episode, (the recording's number, the segment's number, how many segments the recording has).
  """

  root: pathlib.Path
  mapping: Mapping
  recordings: tuple[Recording, ...]
  pieces: tuple[tuple[int, int, int], ...]

  @property
  def name(self) -> str:
    """The mapping's name, or the folder's."""
    return self.mapping.name or self.root.resolve().name

  @property
  def metadata(self) -> dict[str, Any]:
    """The mapping's metadata, what is known of the actions, and the mapping itself."""
    found = {
      "source": "game logs",
      "reward": "recorded" if self.mapping.reward else "filled with 0: none was recorded",
      "mapping": _without_defaults(dataclasses.replace(self.mapping, name=None, metadata={})),
    }
    return found | actions.metadata(self.mapping.action, self.mapping.metadata)

  def __len__(self) -> int:
    """How many episodes there are, segments counted."""
    return len(self.pieces)

  def __getitem__(self, index: int) -> Converted:
    """Reads one episode; see ``convert.source.Source``."""
    number, part, parts = self.pieces[index]
    recording, whole = self.recordings[number], self.session(number)
    start, stop = 0, whole.num_actions
    if (length := self.mapping.clock.segment) is not None:
      if _segments(len(whole.reward), length) != parts:
        raise ValueError(f"{recording.name}: its number of frames is not what the video's header says; remux it")
      start, stop = part * length, stop if part == parts - 1 else (part + 1) * length
    # What the last action led to was not recorded: its frame is shown again.
    rows = np.minimum(np.arange(start, stop + 1), len(whole.reward) - 1)
    observation: dict[str, Any] = {name: values[rows] for name, values in whole.observation.items()}
    for name in self.mapping.frames:
      observation[name] = session.images(whole, name, self.mapping, rows)
    terminal = whole.terminal and part == parts - 1
    action = session.part(whole.action, slice(start, stop))
    steps = encode.episode(observation, action, whole.reward[start:stop], terminal=terminal)
    for name, values in whole.steps.items():
      steps[name] = values[rows].tolist() if values.dtype == object else values[rows]
    metadata = {name: value for name, value in recording.parts.items() if name != "split"}
    metadata |= {"episode": recording.name} | whole.metadata
    if length is not None:
      metadata |= {"segment": part, "segments": parts}
    return Converted(steps, metadata, recording.split)

  def doubts(self) -> list[str]:
    """What of the mapping fits no record of any recording; see ``convert.source.Source``."""
    files = {
      name: list(dict.fromkeys(path for recording in self.recordings for path in recording.files.get(name, ())))
      for name in self.mapping.events
    }
    return unmatched.find(self.mapping, files)

  def session(self, number: int) -> session.Session:
    """A recording's steps, pictures not read; the last one is kept, for its other segments."""
    recording = self.recordings[number]
    if recording.problem:
      raise ValueError(recording.problem)
    files = recording.files
    stamps = tuple(tables.stamp(path) for name in sorted(files) for path in files[name])
    return _session(_Same(self, recording), stamps)


class _Same:
  """Stands for a recording in a cache: equal to all that are of the same files, read by the same mapping."""

  def __init__(self, source: GameLogs, recording: Recording):
    self.source, self.recording = source, recording
    self._text = repr((source.root.resolve(), source.mapping, recording))

  def __hash__(self) -> int:
    return hash(self._text)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, _Same) and self._text == other._text


@functools.lru_cache(maxsize=1)
def _session(same: _Same, stamps: tuple[Any, ...]) -> session.Session:
  del stamps  # part of the cache's key
  recording = same.recording
  return session.read(same.source.mapping, recording.files, _tables(same.source, recording), recording.name)


def _tables(source: GameLogs, recording: Recording) -> dict[str, tables.Table]:
  found = {}
  for name, about in source.mapping.events.items():
    fields = source.mapping.fields_of(name)
    if not fields and name != source.mapping.clock.source:
      continue
    files = recording.files[name]
    if about.episode is None:
      read = tables.read(files, about, fields)
      found[name] = read.get(None) or tables.empty(str(files[0]), about, fields)
      continue
    read = tables.shared(files, about, fields)
    if recording.name not in read and not any(other.name in read for other in source.recordings):
      raise ValueError(f"{files[0]} (events.{name}.episode): no record of an episode {recording.name!r}")
    found[name] = read.get(recording.name) or tables.empty(str(files[0]), about, fields)
  return found


def _without_defaults(value: Any) -> Any:
  """A mapping as its file would say it."""
  if isinstance(value, dict):
    return {name: _without_defaults(item) for name, item in value.items()}
  if not dataclasses.is_dataclass(value):
    return [_without_defaults(item) for item in value] if isinstance(value, tuple) else value
  found = {}
  for field in dataclasses.fields(value):
    item = getattr(value, field.name)
    default = field.default_factory() if field.default is dataclasses.MISSING and not item else field.default
    if item != default:
      found[field.metadata["key"] or field.name] = _without_defaults(item)
  return found

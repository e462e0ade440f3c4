"""Which files make up each recording."""

import fnmatch
import pathlib
from typing import NamedTuple

from ilx.data.convert import checks, find, tables
from ilx.data.convert.find import Found
from ilx.data.convert.mapping import Mapping


class Recording(NamedTuple):
  """One recording.

  Attributes:
    name: its ``{episode}``, or all its parts.
    parts: what the named parts of the patterns are.
    split: where it belongs.
    files: by stream and table; a folder of pictures is one path.
  """

  name: str
  parts: dict[str, str]
  split: str
  files: dict[str, tuple[pathlib.Path, ...]]


def find_recordings(root: pathlib.Path, mapping: Mapping) -> tuple[Recording, ...]:
  """All recordings below ``root``, in natural order; those that the clock's pattern finds.

  Raises:
    ValueError: where a pattern finds nothing, a recording lacks a file, or a file has no recording.
  """
  found: dict[str, Found] = {}
  for kind, streams in (("frames", mapping.frames), ("events", mapping.events)):
    for name, about in streams.items():
      found[name] = find.find(root, about.path, f"{kind}.{name}.path")
  clock = mapping.clock.source
  recordings = []
  for parts in _parts(mapping, found[clock]):
    files = {name: _files(name, found[name], parts, mapping) for name in found}
    label = parts.get("episode") or "/".join(parts.values()) or root.resolve().name
    recordings.append(Recording(label, parts, _split(label, parts, mapping), files))
  for name, stream in found.items():
    used = {path for recording in recordings for path in recording.files[name]}
    for paths in stream.files.values():
      if paths[0] not in used:
        raise ValueError(f"{paths[0]} ({name}) belongs to no recording: {clock!r} has nothing there")
  if shared := set(mapping.episode) & set(recordings[0].parts):
    raise ValueError(f"episode.{min(shared)}: is a part of the paths, and so metadata already; use another name")
  return tuple(recordings)


def _parts(mapping: Mapping, clock: Found) -> list[dict[str, str]]:
  """The named parts of every recording."""
  found = []
  events = mapping.events.get(mapping.clock.source)
  for values, files in clock.files.items():
    parts = dict(zip(clock.names, values, strict=True))
    if events is None or events.episode is None:
      found.append(parts)
      continue
    table = tables.shared(files, events, mapping.fields_of(mapping.clock.source))
    found += [parts | {"episode": episode} for episode in table if episode is not None]
  if not found:
    raise ValueError(f"events.{mapping.clock.source}: has no records")
  return found


def _files(name: str, stream: Found, parts: dict[str, str], mapping: Mapping) -> tuple[pathlib.Path, ...]:
  kind = "frames" if name in mapping.frames else "events"
  if unknown := [part for part in stream.names if part not in parts]:
    raise ValueError(
      f"{kind}.{name}.path: has the part {{{unknown[0]}}}, which {mapping.clock.source!r} lacks"
      f"{checks.nearest(unknown[0], parts)}; its parts are {', '.join(parts) or 'none'}"
    )
  if kind == "events" and mapping.events[name].episode is not None and "episode" not in parts:
    raise ValueError(f"events.{name}.episode: names episodes, but no path has a part {{episode}}")
  files = stream.files.get(tuple(parts[part] for part in stream.names))
  if files is None:
    raise ValueError(f"{kind}.{name}: no file for the recording {parts}")
  return files


def _split(label: str, parts: dict[str, str], mapping: Mapping) -> str:
  if "split" in parts:
    return parts["split"]
  for split, patterns in mapping.splits.items():
    if any(fnmatch.fnmatchcase(label, pattern) for pattern in patterns):
      return split
  return "train"

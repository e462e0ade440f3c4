"""Which files make up each recording."""

import fnmatch
import pathlib
import re
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
    problem: why it cannot be read: which file it lacks; "" where it has all.
  """

  name: str
  parts: dict[str, str]
  split: str
  files: dict[str, tuple[pathlib.Path, ...]]
  problem: str = ""


def find_recordings(root: pathlib.Path, mapping: Mapping) -> tuple[Recording, ...]:
  """All recordings below ``root``, in natural order of the clock's parts; those that lack the clock come last.

  Raises:
    ValueError: where a pattern finds nothing, no recording has all its files, or a split cannot be called so.
  """
  found: dict[str, Found] = {}
  for kind, streams in (("frames", mapping.frames), ("events", mapping.events)):
    for name, about in streams.items():
      found[name] = find.find(root, about.path, f"{kind}.{name}.path")
  of_clock = _parts(mapping, found[mapping.clock.source])
  for name, stream in found.items():
    _check_parts(name, stream, of_clock[0], mapping)
  recordings = [_recording(root, found, parts, mapping) for parts in of_clock]
  recordings += [_recording(root, found, parts, mapping) for parts in _orphans(found, recordings)]
  whole = [recording for recording in recordings if not recording.problem]
  if not whole:
    raise ValueError(recordings[0].problem)
  if shared := set(mapping.episode) & set(whole[0].parts):
    raise ValueError(f"episode.{min(shared)}: is a part of the paths, and so metadata already; use another name")
  return tuple(recordings)


def _recording(root: pathlib.Path, found: dict[str, Found], parts: dict[str, str], mapping: Mapping) -> Recording:
  label = parts.get("episode") or "/".join(parts.values()) or root.resolve().name
  files, problem = {}, ""
  for name, stream in found.items():
    if (paths := stream.files.get(tuple(parts.get(part, "") for part in stream.names))) is not None:
      files[name] = paths
    elif not problem:
      kind, about = ("frames", mapping.frames) if name in mapping.frames else ("events", mapping.events)
      expected = root / find.filled(about[name].path, parts)
      problem = f"{expected} ({kind}.{name}) is missing: no file for the recording {parts}"
  return Recording(label, parts, _split(label, parts, mapping), files, problem)


def _orphans(found: dict[str, Found], recordings: list[Recording]) -> list[dict[str, str]]:
  """The parts of files that belong to no recording of the clock's."""
  orphans: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
  for name, stream in found.items():
    used = {path for recording in recordings for path in recording.files.get(name, ())}
    for values, paths in stream.files.items():
      if paths[0] not in used:
        parts = dict(zip(stream.names, values, strict=True))
        orphans.setdefault(tuple(sorted(parts.items())), parts)
  return list(orphans.values())


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


def _check_parts(name: str, stream: Found, parts: dict[str, str], mapping: Mapping) -> None:
  """Whether the parts of a clock's recording say which of a stream's files is its own."""
  kind = "frames" if name in mapping.frames else "events"
  if unknown := [part for part in stream.names if part not in parts]:
    raise ValueError(
      f"{kind}.{name}.path: has the part {{{unknown[0]}}}, which {mapping.clock.source!r} lacks"
      f"{checks.nearest(unknown[0], parts)}; its parts are {', '.join(parts) or 'none'}"
    )
  if kind == "events" and mapping.events[name].episode is not None and "episode" not in parts:
    raise ValueError(f"events.{name}.episode: names episodes, but no path has a part {{episode}}")


def _split(label: str, parts: dict[str, str], mapping: Mapping) -> str:
  split = parts.get("split")
  if split is None:
    fits = (name for name, ps in mapping.splits.items() if any(fnmatch.fnmatchcase(label, p) for p in ps))
    split = next(fits, "train")
  if not re.fullmatch(r"\w[\w-]*", split, re.ASCII) or split == "all":
    raise ValueError(
      f"the recording {parts} is in the split {split!r}, which cannot be called so: letters, digits, '_' and '-', and "
      "not 'all', which means every split; rename it"
    )
  return split

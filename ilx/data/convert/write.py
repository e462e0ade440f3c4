"""From a source of recordings to an RLDS dataset on disk."""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ilx.data import encode, folder, rlds
from ilx.data.convert.source import Source
from ilx.data.record import Recorder


class Prepared(NamedTuple):
  """One episode of a source, ready for a shard."""

  encoded: encode.Encoded
  split: str


class Skipped(NamedTuple):
  """An episode that was left out, and why."""

  index: int
  reason: str


def write(
  source: Source,
  directory: str | os.PathLike | None = None,
  *,
  name: str | None = None,
  version: str = "1.0.0",
  metadata: Mapping[str, Any] | None = None,
  episodes_per_shard: int = 1000,
  skip_damaged: bool = False,
  image_format: str | None = None,
  inputs: Iterable[str | os.PathLike] | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> Path:
  """Writes a source as the RLDS dataset ``<directory>/<name>/<version>``, whole or not at all.

  One episode is in memory at a time. Killed and called again, it goes on behind the last episode that was written.

  Args:
    source: the recordings.
    directory: the folder of datasets; by default ``ilx.data.root()``.
    name: letters, digits, "_" and "-"; by default the source's.
    version: three numbers.
    metadata: entries of ``metadata.json`` beside, or instead of, the source's own. "data_return" and
      "data_return_std" (undiscounted, over episodes), "num_episodes" and "num_transitions" are filled in where
      neither gives them.
    episodes_per_shard: episodes in a file.
    skip_damaged: leaves out episodes that cannot be read or stored, and lists them in ``metadata.json`` as "skipped".
    image_format: see ``Recorder``.
    inputs: files and folders that the recordings are in, which must be the same, by size and time of change, where an
      unfinished conversion goes on; by default what the source's ``files`` lists, or its ``path`` or ``root``.
    progress: called with (episodes done, episodes there are).

  Returns:
    The dataset's folder.

  Raises:
    ValueError: for a damaged episode, which is named; a bad name; nothing to write; or where an unfinished conversion
      of something else, or of files that have changed since, is in the way.
    FileExistsError: where the dataset is already there.
    OSError: where it cannot be written; what was written stays, and the next call goes on behind it.
    RuntimeError: where another process writes it.
  """
  total, merged = checked(source, metadata)
  where = rlds.root() if directory is None else directory
  recorder = Recorder(
    where, name=name or source.name, version=version, metadata=merged, episodes_per_shard=episodes_per_shard
  )
  with recorder:
    stamps = _stamps(source, inputs, recorder.path.parent)
    skipped = _resume(recorder, source, total, skip_damaged, image_format, stamps)
    done = recorder.num_episodes + len(skipped)
    if progress:
      progress(done, total)
    for index in range(done, total):
      try:
        prepared = prepare(source, index, image_format)
        recorder.add_encoded(prepared.encoded, split=prepared.split)
      except ValueError as error:
        if not skip_damaged:
          raise named(error, source, index) from error
        skipped.append(Skipped(index, str(error)))
        recorder.note({"skipped": skipped[-1]._asdict()})
      if progress:
        progress(index + 1, total)
    if skipped and not recorder.num_episodes:
      raise ValueError(
        f"{source.name}: all {total} episodes are damaged; the first: {skipped[0].reason}; "
        f"to try again, remove {recorder.path}.incomplete"
      )
    recorder.metadata = described(merged, recorder.returns, recorder.num_transitions, skipped)
  warn(source)
  return recorder.path


def checked(source: Source, metadata: Mapping[str, Any] | None) -> tuple[int, dict[str, Any]]:
  """How many episodes there are, and metadata from both; raises ValueError where it is empty or not JSON."""
  total = len(source)
  if not total:
    raise ValueError(f"{source.name}: has no episodes")
  merged = dict(source.metadata) | dict(metadata or {})
  try:
    folder.json_text(source.metadata)
    folder.json_text(merged)
  except ValueError as error:
    raise ValueError(f"{source.name}: {error}") from None
  return total, merged


def warn(source: Source) -> None:
  """Warns of what a source doubts, if it does: of all its episodes, whichever run or worker has written them."""
  for doubt in getattr(source, "doubts", list)():
    warnings.warn(f"{source.name}: {doubt}", stacklevel=3)


def prepare(source: Source, index: int, image_format: str | None) -> Prepared:
  """Reads and encodes one episode.

  Raises:
    ValueError: where it is damaged.
  """
  converted = source[index]
  return Prepared(encode.encode(converted.steps, converted.metadata, image_format), converted.split)


def named(error: ValueError, source: Source, index: int) -> ValueError:
  """The error with the episode it is about."""
  return ValueError(f"{source.name}: episode {index}: {error}")


def described(
  metadata: dict[str, Any], returns: np.ndarray, num_transitions: int, skipped: list[Skipped]
) -> dict[str, Any]:
  """``metadata.json`` with what is known once all is written; what is there stays."""
  found = folder.summary(returns, num_transitions) | metadata
  if skipped:
    found["skipped"] = [episode._asdict() for episode in skipped]
  return found


def _resume(
  recorder: Recorder,
  source: Source,
  total: int,
  skip_damaged: bool,
  image_format: str | None,
  stamps: dict[str, list[int]],
) -> list[Skipped]:
  """What an earlier, killed run left out; raises where that run was of something else and came to anything."""
  left = f"{recorder.path}.incomplete"
  again = f"{left} holds an unfinished"
  what = {"name": source.name, "length": total, "metadata": _digest(source.metadata)}
  found = [note["source"] for note in recorder.notes if "source" in note]
  skipped = [Skipped(**note["skipped"]) for note in recorder.notes if "skipped" in note]
  if not found and (recorder.num_episodes or skipped):
    raise ValueError(f"{again} recording; finish it, or remove the folder")
  if not recorder.num_episodes and not skipped:
    # The first one, or one after others that came to nothing, whose notes count no more.
    recorder.note({"source": what | {"files": stamps}})
    return []
  former = found[-1]
  if changed := [key for key in what if former.get(key) != what[key]]:
    key = changed[0]
    if key == "metadata":
      raise ValueError(
        f"{again} conversion of another mapping or options; remove {left} to begin anew, or give the former ones to "
        "finish it"
      )
    raise ValueError(
      f"{again} conversion of a source of another {key} ({former.get(key)!r} then, {what[key]!r} now); remove {left} "
      "to begin anew, or give the former source to finish it"
    )
  if stamps and (before := former.get("files")) and before != stamps:
    path = min(path for path in before.keys() | stamps.keys() if before.get(path) != stamps.get(path))
    change = "is gone" if path not in stamps else "is new" if path not in before else "has changed"
    raise ValueError(f"{again} conversion, since when {path} {change}; to convert what is there now, remove the folder")
  if skipped and not skip_damaged:
    raise ValueError(
      f"{again} conversion that left out episode {skipped[0].index} ({skipped[0].reason}); skip damaged ones again"
    )
  if recorder.num_episodes:
    last = max(set(range(recorder.num_episodes + len(skipped))) - {episode.index for episode in skipped})
    if prepare(source, last, image_format).encoded.record != recorder.last():
      raise ValueError(
        f"{again} conversion in which episode {last} is not what the source gives now; remove the folder"
      )
  return skipped


def _stamps(source: Source, inputs: Iterable[str | os.PathLike] | None, output: Path) -> dict[str, list[int]]:
  """Size and time of change of every file that the recordings are in, by path; empty where that is not known."""
  if inputs is None:
    inputs = getattr(source, "files", None)
  if inputs is None:
    known = (getattr(source, name, None) for name in ("path", "root"))
    inputs = [path for path in known if isinstance(path, str | os.PathLike)]
  output = output.absolute()
  found = {}
  for path in (Path(each).expanduser().absolute() for each in inputs):
    for file in _files(path, output) if path.is_dir() else [path]:
      status = file.stat()
      found[str(file)] = [status.st_size, status.st_mtime_ns]
  return found


def _files(folder: Path, output: Path) -> Iterable[Path]:
  """The files below a folder, but for hidden ones and what is written there."""
  for parent, folders, names in os.walk(folder):
    folders[:] = [name for name in folders if not name.startswith(".") and Path(parent, name) != output]
    yield from (Path(parent, name) for name in names if not name.startswith("."))


def _digest(metadata: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()[:16]

"""What a complete checkpoint consists of: the size and the CRC-32 of every file, written when all are on the disk.

And which seed it learnt with, where that is known.
"""

import json
import os
import pathlib
import zlib
from typing import Any

from ilx.data import files

_NAME = "manifest.json"
_PIECE = 1 << 20


def exists(folder: pathlib.Path) -> bool:
  """Whether the writing of ``folder`` came to its end."""
  return (folder / _NAME).exists()


def write(folder: pathlib.Path, seed: int | None = None) -> None:
  """Waits until every file of ``folder`` is on the disk; then the manifest appears, whole."""
  paths = _files(folder)
  found = {name: {"bytes": path.stat().st_size, "crc32": _crc32(path, sync=True)} for name, path in paths.items()}
  for directory in {folder, *(path.parent for path in paths.values())}:
    files.sync_folder(directory)
  temporary = folder / f"{_NAME}.tmp"
  entries: dict[str, Any] = {"files": found} | ({} if seed is None else {"seed": seed})
  files.write_text(temporary, json.dumps(entries | {"crc32": _of_entries(entries)}, indent=1) + "\n")
  temporary.rename(folder / _NAME)
  files.sync_folder(folder)
  files.sync_folder(folder.parent)


def check(folder: pathlib.Path) -> str | None:
  """What is wrong with a folder that has a manifest, in a few words that name the file; None where nothing is."""
  try:
    content = json.loads((folder / _NAME).read_text())
    expected = content["files"]
    if content["crc32"] != _of_entries(content):
      return f"{_NAME} is damaged"
    there = _files(folder)
    for name, facts in expected.items():
      if name not in there:
        return f"{name} is missing"
      if (size := there[name].stat().st_size) != facts["bytes"]:
        return f"{name} has {size} bytes where {facts['bytes']} were written"
      if _crc32(there[name]) != facts["crc32"]:
        return f"{name} is damaged (CRC-32)"
  except OSError as error:
    return f"{error.filename or folder} cannot be read: {error.strerror}"
  except (AttributeError, KeyError, TypeError, ValueError):
    return f"{_NAME} is damaged"
  return next((f"{name} does not belong there" for name in there if name not in expected), None)


def seed_of(folder: pathlib.Path) -> int | None:
  """The seed of a checkpoint whose manifest is good; None where there is none, or it does not say."""
  return json.loads((folder / _NAME).read_text()).get("seed") if exists(folder) else None


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  """By their paths within ``folder``, without the manifest's own."""
  found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
  return {name: path for name, path in found.items() if name not in (_NAME, f"{_NAME}.tmp")}


def _of_entries(content: dict[str, Any]) -> int:
  # Of files alone where there is no more to tell, as in manifests of old.
  entries = [content["files"], content["seed"]] if "seed" in content else content["files"]
  return zlib.crc32(json.dumps(entries, sort_keys=True).encode())


def _crc32(path: pathlib.Path, sync: bool = False) -> int:
  value = 0
  with path.open("rb") as file:
    if sync:
      os.fsync(file.fileno())
    while piece := file.read(_PIECE):
      value = zlib.crc32(piece, value)
  return value

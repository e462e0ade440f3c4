"""Where what is worked out of a dataset once is kept: statistics, the index of episodes, columnar caches."""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ilx.data import files
from ilx.data.rlds import Info, root

T = TypeVar("T")

# Characters of a file's name that come from the dataset.
_LONGEST = 100


def fingerprint(info: Info, times: bool = True) -> str:
  """16 hex digits that change with the dataset's files: their names, sizes and times, and what describes them.

  Without ``times`` a copy has the same, and so may files that changed but kept their sizes.
  Costs one ``stat`` a file; the files are not read. One that is missing counts as such, since a dataset may be there in
  part; whoever reads it says so.
  """
  digest = hashlib.sha256()
  for name in ("dataset_info.json", "features.json", "metadata.json"):
    path = info.directory / name
    digest.update(path.read_bytes() if path.exists() else b"")
    digest.update(b"\0")
  for split in sorted(info.splits):
    for path in info.splits[split].files:
      try:
        found = path.stat()
        state = f"{found.st_size} {found.st_mtime_ns}" if times else str(found.st_size)
      except FileNotFoundError:
        state = "absent"
      digest.update(f"{path.name} {state}\0".encode())
  return digest.hexdigest()[:16]


def key(*parts: object) -> str:
  """16 hex digits for what was asked for, such as a split and a selection of fields."""
  return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def folder(info: Info) -> Path:
  """The folder that a dataset's derived files are written to; they hold for ``fingerprint(info)`` alone.

  ``<dataset>/.ilx/<fingerprint>`` where the dataset's folder can be written, else
  ``root()/.derived/<name>-<version>-<fingerprint>``. Not made here.
  """
  mark = fingerprint(info)
  # The mode too: to root, who may write anywhere, a folder that nobody is meant to write to is read-only all the same.
  if os.access(info.directory, os.W_OK) and info.directory.stat().st_mode & 0o222:
    return info.directory / ".ilx" / mark
  return root() / ".derived" / f"{prefix(info)}-{mark}"


def prefix(info: Info) -> str:
  """``<name>-<version>``, of characters that make neither a path nor a pattern, whatever the dataset calls itself."""
  return re.sub(r"[^\w.-]", "_", f"{info.name}-{info.version}", flags=re.ASCII).lstrip(".")[:_LONGEST]


def find(info: Info, name: str) -> Path:
  """A derived file or folder: beside the dataset if it is there, even where nothing can be written, else in ``folder``.

  So what was prepared once serves those who may only read the dataset.
  """
  beside = info.directory / ".ilx" / fingerprint(info) / name
  return beside if os.path.exists(beside) else folder(info) / name


def holds(info: Info, path: Path) -> bool:
  """Whether a derived file or folder is one of the dataset's present state."""
  return path.parent.name.endswith(fingerprint(info))


def kept(
  info: Info,
  path: Path,
  otherwise: str,
  build: Callable[[], T],
  encode: Callable[[T], bytes],
  decode: Callable[[bytes], T],
) -> T:
  """What the file ``path`` keeps; built, and kept for the next time, where there is none yet.

  Several processes may ask at once: one builds it, the others wait. A file that is damaged is made anew, with a warning
  that names it.

  Args:
    info: of the dataset.
    path: from ``find``.
    otherwise: what happens where it cannot be kept, for the warning.
    build: makes it of the dataset.
    encode: gives the content of the file.
    decode: the reverse; raises ValueError where the content is damaged.

  Raises:
    ValueError: where the dataset changed while it was read, and what ``build`` raises.

  Warns:
    UserWarning: where it cannot be kept, such as on a full disk; it is made all the same.
  """
  if (found := _stored(path, decode)) is not None:
    return found
  with contextlib.ExitStack() as stack:
    obstacle = None
    try:
      stack.enter_context(locked(path))
    except OSError as error:
      obstacle = error
    if obstacle is None and (found := _stored(path, decode)) is not None:
      return found
    found = build()
    if not holds(info, path):
      raise ValueError(f"{info.directory} changed while it was read; read it again")
    try:
      if obstacle is None:
        _write(path, encode(found))
    except OSError as error:
      obstacle = error
  if obstacle is not None:
    warnings.warn(
      f"cannot write {path}: {obstacle.strerror or obstacle}; {otherwise}. "
      "Free some space, or let ILX_DATA_DIR be a folder that can be written",
      stacklevel=3,
    )
  return found


def _write(path: Path, content: bytes) -> None:
  for left in path.parent.glob(f"{path.name}.*.incomplete"):
    left.unlink()  # of a process that was killed: the lock is ours
  staging = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.incomplete")
  try:
    with staging.open("wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    staging.rename(path)
    files.sync_folder(path.parent)
  finally:
    staging.unlink(missing_ok=True)


def _stored(path: Path, decode: Callable[[bytes], T]) -> T | None:
  """What is kept; None where there is nothing, or something damaged, of which a warning tells."""
  try:
    content = path.read_bytes()
  except (FileNotFoundError, NotADirectoryError, PermissionError):
    return None
  try:
    return decode(content)
  except ValueError as error:
    warnings.warn(f"{path} is damaged and made anew ({error}); if it happens again, check the disk", stacklevel=4)
    return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
  """Holds an exclusive lock on ``<path>.lock`` across processes; waits for it. A killed process lets go of it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with Path(f"{path}.lock").open("a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
  """A new folder beside ``path`` that takes its name when the block ends well and is removed when it does not.

  Raises:
    FileExistsError: where ``path`` is already there at the end.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  staging = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.incomplete")
  staging.mkdir()
  try:
    yield staging
    files.sync_folder(staging)
    if path.exists():
      raise FileExistsError(f"{path} is already there")
    staging.rename(path)
    files.sync_folder(path.parent)
  finally:
    shutil.rmtree(staging, ignore_errors=True)

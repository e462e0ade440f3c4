"""Where what is worked out of a dataset once is kept: statistics, the index of episodes, columnar caches."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from ilx.data import files
from ilx.data.rlds import Info, root


def fingerprint(info: Info) -> str:
  """16 hex digits that change with the dataset's files: their names, sizes and times, and what describes them.

  Costs one ``stat`` a file; the files are not read.

  Raises:
    FileNotFoundError: where a shard is missing.
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
      except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: the dataset is incomplete; copy or build it again") from None
      digest.update(f"{path.name} {found.st_size} {found.st_mtime_ns}\0".encode())
  return digest.hexdigest()[:16]


def key(*parts: object) -> str:
  """16 hex digits for what was asked for, such as a split and a selection of fields."""
  return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def folder(info: Info) -> Path:
  """The folder of a dataset's derived files; they hold for ``fingerprint(info)`` alone.

  ``<dataset>/.ilx/<fingerprint>`` where the dataset's folder can be written, else
  ``root()/.derived/<name>-<version>-<fingerprint>``. Not made here.
  """
  mark = fingerprint(info)
  # The mode too: to root, who may write anywhere, a folder that nobody is meant to write to is read-only all the same.
  if os.access(info.directory, os.W_OK) and info.directory.stat().st_mode & 0o222:
    return info.directory / ".ilx" / mark
  return root() / ".derived" / f"{info.name}-{info.version}-{mark}"


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

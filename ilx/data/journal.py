"""An append-only file that survives kills and full disks, held by one process at a time."""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ilx.data import files, shards, tfrecord

_BLOCK = 1 << 20


class Journal:
  """Entries, each a JSON object and bytes, in one TFRecord file: a kill may only tear the last one, which is dropped.

  Attributes:
    path: of the file.
  """

  def __init__(self, path: Path, *, fsync: bool = False):
    """Opens or makes the file and locks it.

    Args:
      path: of the file; its folder is made.
      fsync: waits after every entry until it is on the disk, so that it survives a power cut too.

    Raises:
      RuntimeError: where another process holds it.
    """
    self.path = path
    self._fsync = fsync
    if fsync:
      _make_lasting(path.parent)
    self._file = _locked(path)
    while not _is_at(self._file, path):
      self._file.close()  # removed by the process that held it until now
      self._file = _locked(path)
    if fsync:
      files.sync_folder(path.parent)

  @property
  def empty(self) -> bool:
    """Whether nothing was ever appended."""
    return not os.fstat(self._file.fileno()).st_size

  def clear(self) -> None:
    """Removes all entries."""
    self._file.truncate(0)

  @property
  def closed(self) -> bool:
    """Whether ``close`` was called."""
    return self._file.closed

  def scan(self) -> Iterator[tuple[int, dict[str, Any], bytes]]:
    """All entries, as (offset, head, payload); afterwards a torn one at the end is gone from the file.

    Raises:
      ValueError: where the file is damaged or no journal; names it.
    """
    size = self._file.seek(0, os.SEEK_END)
    self._file.seek(0)
    offset = 0
    try:
      for behind, record in shards.scan_tfrecord(self._file, size, str(self.path)):
        head, payload = self._split(record)
        yield offset, head, payload
        offset = behind
    except ValueError as error:
      if not isinstance(error, shards.CutShortError) and not self._is_unwritten(offset, size):
        raise
      self._file.truncate(offset)

  def payload(self, offset: int) -> bytes:
    """The bytes of the entry at ``offset``."""
    size = self._file.seek(0, os.SEEK_END)
    self._file.seek(offset)
    _, record = next(shards.scan_tfrecord(self._file, size - offset, f"{self.path}, from byte {offset},"))
    return self._split(record)[1]

  def append(self, head: Mapping[str, Any], payload: bytes = b"") -> int:
    """Adds an entry, whole or not at all; returns its offset.

    Raises:
      OSError: where it cannot be written; the file is as before.
    """
    end = self._file.seek(0, os.SEEK_END)
    left = memoryview(shards.frame_tfrecord(json.dumps(head, sort_keys=True).encode() + b"\n" + payload))
    try:
      while left:
        left = left[self._file.write(left) :]
      if self._fsync:
        os.fsync(self._file.fileno())
    except BaseException as error:
      self._file.truncate(end)
      if isinstance(error, OSError):
        raise write_error(error, self.path.parent) from None
      raise
    return end

  def close(self) -> None:
    """Lets go of the file, which stays."""
    self._file.close()

  def _is_unwritten(self, offset: int, size: int) -> bool:
    """Whether the entry at ``offset`` ends in zeros, as does all behind it: a power cut left the length alone."""
    self._file.seek(offset)
    with contextlib.suppress(ValueError):  # zeros from its very start
      offset += tfrecord.HEAD + tfrecord.read_length(self._file.read(tfrecord.HEAD), size, offset, "")
    self._file.seek(offset)
    while block := self._file.read(_BLOCK):
      if block.count(0) < len(block):
        return False
    return True

  def _split(self, record: bytes) -> tuple[dict[str, Any], bytes]:
    head, newline, payload = record.partition(b"\n")
    try:
      parsed = json.loads(head)
    except ValueError:
      parsed = None
    if not newline or not isinstance(parsed, dict):
      raise ValueError(f"{self.path} is no journal of this version of ilx; finish it with the older one, or remove it")
    return parsed, payload


def _make_lasting(folder: Path) -> None:
  """Makes a folder and those above it, so that a power cut leaves their names."""
  if not folder.is_dir():
    _make_lasting(folder.parent)
    folder.mkdir(exist_ok=True)
    files.sync_folder(folder.parent)


def _locked(path: Path) -> BinaryIO:
  path.parent.mkdir(parents=True, exist_ok=True)
  file = path.open("a+b", buffering=0)
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BaseException as error:
    file.close()
    if isinstance(error, BlockingIOError):
      raise RuntimeError(f"{path.parent} is being recorded by another process; wait for it or stop it") from None
    raise
  return file


def _is_at(file: BinaryIO, path: Path) -> bool:
  try:
    return os.path.samestat(os.fstat(file.fileno()), path.stat())
  except FileNotFoundError:
    return False


def write_error(error: OSError, folder: Path) -> OSError:
  """The same error with what it means for a recording under ``folder``."""
  full = error.errno in (errno.ENOSPC, errno.EDQUOT)
  return OSError(
    error.errno,
    f"cannot write to {folder}: {error.strerror or error}; what was recorded before is intact, "
    f"{'free some space and ' if full else ''}run again",
  )

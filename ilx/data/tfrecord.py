"""TFRecord files, plain or compressed as a whole (gzip, zlib); every byte checked by its checksum.

A record is: length uint64, masked CRC32C of the length, the bytes, masked CRC32C of the bytes.
"""

import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

HEAD, _TAIL = 12, 4
_BLOCK = 1 << 18


class CutShortError(ValueError):
  """A file ends in the middle of a record."""


def scan(file: BinaryIO, size: int | None, name: str, start: int = 0) -> Iterator[tuple[int, bytes]]:
  """The (offset behind the record, record) pairs of an open file, without the first ``start`` records.

  Args:
    file: at its beginning.
    size: in bytes; None where it is not known, as of a compressed file.
    name: for errors.
    start: how many records to pass over; of these only the lengths are read, and checked.

  Raises:
    CutShortError: where the file ends in the middle of a record; names ``name`` and the offset.
    ValueError: at the first damaged record; names ``name`` and the offset.
  """
  import google_crc32c

  def read(size: int, _: int) -> bytes:
    return file.read(size)

  offset = 0
  while size is None or offset < size:
    head = file.read(HEAD)
    if not head and size is None:
      return
    length = read_length(head, size, offset, name)
    if start:
      start -= 1
      file.seek(length + _TAIL, os.SEEK_CUR)
    else:
      body = _whole(read, length + _TAIL)
      if len(body) < length + _TAIL:
        raise CutShortError(f"{name} is cut short at byte {offset}: a record of {length} bytes")
      record = body[:length]
      if _mask(google_crc32c.value(record)) != int.from_bytes(body[length:], "little"):
        raise ValueError(f"{name} is damaged: wrong checksum of the record at byte {offset}")
      yield offset + length + HEAD + _TAIL, record
    offset += length + HEAD + _TAIL


def _whole(read: Callable[[int, int], bytes], size: int) -> bytes:
  """``size`` bytes of ``read(how many, behind how many)``, or all there are: Linux gives at most 2 GiB at once."""
  content = read(size, 0)
  while len(content) < size and (more := read(size - len(content), len(content))):
    content += more
  return content


def read_length(head: bytes, size: int | None, offset: int, name: str) -> int:
  """Of the record at ``offset``, whose first bytes are ``head``.

  Raises:
    CutShortError, ValueError: as ``scan``.
  """
  import google_crc32c

  if len(head) < HEAD:
    raise CutShortError(f"{name} is cut short at byte {offset}")
  length, checksum = struct.unpack("<QI", head)
  if _mask(google_crc32c.value(head[:8])) != checksum:
    raise ValueError(f"{name} is damaged: wrong checksum of the record's length at byte {offset}")
  if size is not None and length > size - offset - HEAD - _TAIL:
    raise CutShortError(f"{name} is cut short at byte {offset}: a record of {length} bytes in {size - offset}")
  return length


def frame(record: bytes) -> bytes:
  """One record as it stands in a file."""
  import google_crc32c

  head = struct.pack("<Q", len(record))
  parts = (
    head,
    struct.pack("<I", _mask(google_crc32c.value(head))),
    record,
    struct.pack("<I", _mask(google_crc32c.value(record))),
  )
  return b"".join(parts)


def _mask(checksum: int) -> int:
  """Checksums are stored rotated and shifted, as a checksum of data with checksums inside is weak."""
  return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def is_compressed(file: BinaryIO) -> bool:
  """Whether an open file is compressed as a whole; the position stays at its beginning."""
  import google_crc32c

  head = file.read(HEAD)
  file.seek(0)
  if len(head) == HEAD and _mask(google_crc32c.value(head[:8])) == int.from_bytes(head[8:], "little"):
    return False
  return head[:2] == b"\x1f\x8b" or (len(head) > 1 and head[0] == 0x78 and int.from_bytes(head[:2], "big") % 31 == 0)


class Inflated:
  """A compressed file as its content, read from front to end; holds one block and what was asked for.

  Raises ValueError from ``read`` and ``seek`` where the file is damaged or cut short.
  """

  def __init__(self, file: BinaryIO, name: str):
    self._file, self._name = file, name
    self._engine = self._new_engine()
    self._ready = b""
    self._at = 0

  def _new_engine(self):
    return zlib.decompressobj(zlib.MAX_WBITS | 32)  # either header

  def read(self, size: int) -> bytes:
    """The next ``size`` bytes; fewer at the end."""
    parts, left = [], size
    while left:
      if self._at == len(self._ready) and not self._more():
        break
      part = self._ready[self._at : self._at + left]
      self._at += len(part)
      left -= len(part)
      parts.append(part)
    return b"".join(parts)

  def seek(self, distance: int, whence: int = os.SEEK_CUR) -> None:
    """Passes over ``distance`` bytes; no other direction is known."""
    del whence
    while distance and (passed := len(self.read(min(distance, _BLOCK)))):
      distance -= passed
    if distance:
      raise CutShortError(f"{self._name} is cut short: {distance} bytes are missing")

  def _more(self) -> bool:
    while True:
      if self._engine.eof:
        # A gzip file may be several, one behind the other.
        rest = self._engine.unused_data or self._file.read(_BLOCK)
        if not rest:
          return False
        self._engine = self._new_engine()
      else:
        rest = self._engine.unconsumed_tail or self._file.read(_BLOCK)
        if not rest:
          raise CutShortError(f"{self._name} is cut short: its compression has no end")
      try:
        self._ready, self._at = self._engine.decompress(rest, _BLOCK), 0
      except zlib.error as error:
        raise ValueError(f"{self._name} is damaged: {error}") from None
      if self._ready:
        return True


def records(path: Path, start: int = 0) -> Iterator[bytes]:
  """The records of a file, plain or compressed, from record ``start`` on.

  Raises:
    ValueError: as ``scan``.
  """
  with path.open("rb") as file:
    if is_compressed(file):
      found = scan(Inflated(file, str(path)), None, str(path), start)
    else:
      found = scan(file, os.fstat(file.fileno()).st_size, str(path), start)
    for _, record in found:
      yield record


class Reader:
  """Any record of a file, by its number; safe to use from several threads at once.

  A compressed file is unpacked into a temporary file first.
  """

  def __init__(self, path: Path):
    """Finds the records by their lengths, which are checked; the records themselves are not read.

    Raises:
      ValueError: where a length is damaged, or the last record is cut short.
    """
    self._name = str(path)
    self._file = path.open("rb")
    try:
      if is_compressed(self._file):
        self._file = _unpacked(self._file, self._name)
      self._offsets = self._scan_lengths()
    except BaseException:
      self._file.close()
      raise

  def _scan_lengths(self) -> np.ndarray:
    size = self._file.seek(0, os.SEEK_END)
    descriptor, offset, offsets = self._file.fileno(), 0, [0]
    while offset < size:
      offset += read_length(os.pread(descriptor, HEAD, offset), size, offset, self._name) + HEAD + _TAIL
      offsets.append(offset)
    return np.array(offsets, np.int64)

  def __len__(self) -> int:
    return len(self._offsets) - 1

  def __getitem__(self, index: int) -> bytes:
    """Raises ValueError where the record is damaged."""
    import google_crc32c

    begin, end = int(self._offsets[index]), int(self._offsets[index + 1])
    # Reading at an offset leaves no position that threads could disturb.
    descriptor = self._file.fileno()
    content = _whole(lambda size, behind: os.pread(descriptor, size, begin + behind), end - begin)
    if len(content) < end - begin:
      raise CutShortError(f"{self._name} is cut short at byte {begin}: it shrank while it was open")
    read_length(content[:HEAD], None, begin, self._name)
    record = content[HEAD:-_TAIL]
    if _mask(google_crc32c.value(record)) != int.from_bytes(content[-_TAIL:], "little"):
      raise ValueError(f"{self._name} is damaged: wrong checksum of the record at byte {begin}")
    return record

  def close(self) -> None:
    """Lets go of the file."""
    self._file.close()


def _unpacked(file: BinaryIO, name: str) -> BinaryIO:
  unpacked = tempfile.TemporaryFile()  # noqa: SIM115 (the reader closes it)
  try:
    with file:
      source = Inflated(file, name)
      while block := source.read(_BLOCK):
        unpacked.write(block)
    unpacked.flush()
  except BaseException:
    unpacked.close()
    raise
  return unpacked

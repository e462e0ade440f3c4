"""Record files: ArrayRecord (what ilx writes) and TFRecord, every byte checked by its checksum."""

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

FORMATS = ("array_record", "tfrecord")

# One record per chunk, as TFDS writes it, so that any episode can be read alone. Snappy: floats hardly compress, and
# zstd would cap reading at a third of the speed.
_ARRAY_RECORD_OPTIONS = "group_size:1,snappy"

# What every Riegeli file, and so every ArrayRecord file, begins with; the reader itself does not look at it.
# Source: https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md
_SIGNATURE = bytes.fromhex(
  "83af70d10d884a3f0000000000000000400000000000000091bac23c9287e1a9"
  "0000000000000000e19f13c0e9b1c3727300000000000000" + "00" * 8
)


class CutShortError(ValueError):
  """A file ends in the middle of a record."""


def read(path: Path, file_format: str, count: int) -> Iterator[bytes]:
  """The records of one file, in order.

  Args:
    path: the file.
    file_format: "array_record" or "tfrecord".
    count: how many records the dataset's metadata promises; checked.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where the file is damaged or cut short, or holds another number of records; names the file.
  """
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing: the dataset is incomplete; copy or build it again")
  return (_read_array_record if file_format == "array_record" else _read_tfrecord)(path, count)


def _read_array_record(path: Path, count: int) -> Iterator[bytes]:
  from array_record.python import array_record_module

  with path.open("rb") as file:
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
      raise ValueError(f"{path} is damaged or no ArrayRecord file: wrong signature at its start")
  # Riegeli keeps a hash of every chunk and raises on the first that differs, some of them on closing only.
  found = None
  try:
    reader = array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
    try:
      found = reader.num_records()
      for _ in range(count if found == count else 0):
        yield reader.read()
    finally:
      reader.close()
  except (RuntimeError, ValueError, IndexError) as error:
    message = str(error).split("\n", 1)[0][:200]
    raise ValueError(f"{path} is damaged or cut short; copy or build it again ({message})") from None
  if found != count:
    raise _wrong_count(path, found, count)


def _read_tfrecord(path: Path, count: int) -> Iterator[bytes]:
  found = 0
  with path.open("rb") as file:
    for _, record in scan_tfrecord(file, os.path.getsize(path), str(path)):
      found += 1
      if found > count:
        raise _wrong_count(path, "more", count)
      yield record
  if found != count:
    raise _wrong_count(path, found, count)


def scan_tfrecord(file, size: int, name: str) -> Iterator[tuple[int, bytes]]:
  """The (offset behind the record, record) pairs of an open TFRecord file of ``size`` bytes.

  A record is: length uint64, masked CRC32C of the length, the bytes, masked CRC32C of the bytes.

  Raises:
    CutShortError: where the file ends in the middle of a record; names ``name`` and the offset.
    ValueError: at the first damaged record; names ``name`` and the offset.
  """
  import google_crc32c

  offset = 0
  while offset < size:
    head = file.read(12)
    if len(head) < 12:
      raise CutShortError(f"{name} is cut short at byte {offset}")
    length, checksum = struct.unpack("<QI", head)
    if _mask(google_crc32c.value(head[:8])) != checksum:
      raise ValueError(f"{name} is damaged: wrong checksum of the record's length at byte {offset}")
    if length > size - offset - 16:
      raise CutShortError(f"{name} is cut short at byte {offset}: a record of {length} bytes in {size - offset}")
    body = file.read(length + 4)
    record = body[:length]
    if _mask(google_crc32c.value(record)) != int.from_bytes(body[length:], "little"):
      raise ValueError(f"{name} is damaged: wrong checksum of the record at byte {offset}")
    offset += length + 16
    yield offset, record


def frame_tfrecord(record: bytes) -> bytes:
  """One record as it stands in a TFRecord file."""
  import google_crc32c

  head = struct.pack("<Q", len(record))
  return b"".join(
    [
      head,
      struct.pack("<I", _mask(google_crc32c.value(head))),
      record,
      struct.pack("<I", _mask(google_crc32c.value(record))),
    ]
  )


def write_array_record(path: Path, records: Iterable[bytes]) -> int:
  """Writes and syncs one file, the same bytes for the same records; returns the size of the records.

  Raises:
    OSError: where the disk is full or not writable.
  """
  from array_record.python import array_record_module

  size = 0
  try:
    writer = array_record_module.ArrayRecordWriter(str(path), _ARRAY_RECORD_OPTIONS)
    try:
      for record in records:
        writer.write(record)
        size += len(record)
    finally:
      writer.close()
  except RuntimeError as error:
    # The writer tells what the system said in words only.
    number = next((number for number in errno.errorcode if os.strerror(number) in str(error)), errno.EIO)
    raise OSError(number, os.strerror(number), str(path)) from None
  with path.open("rb") as file:
    os.fsync(file.fileno())
  return size


def _mask(checksum: int) -> int:
  """TFRecord stores checksums rotated and shifted, as a checksum of data with checksums inside is weak."""
  return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _wrong_count(path: Path, found: int | str, count: int) -> ValueError:
  return ValueError(f"{path} holds {found} records where dataset_info.json says {count}; copy or build it again")

"""The records of a shard, whatever is wrong with some of them."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from ilx.data import shards, tfrecord

# A record, or what is wrong with it.
Found = tuple[int | None, bytes | ValueError]


def records(path: Path, file_format: str, count: int) -> Iterator[Found]:
  """Every record of a file with its number, or an error in its place; None for errors about the file as a whole.

  A damaged record does not hide those behind it as long as the file says where they start.

  Args:
    path: the file.
    file_format: "array_record" or "tfrecord".
    count: how many records ``dataset_info.json`` promises.
  """
  if not path.is_file():
    yield None, ValueError("the file is missing: the dataset is incomplete; copy or build it again")
    return
  read = _array_record if file_format == "array_record" else _tfrecord
  found, whole = 0, True
  try:
    for index, record in read(path, count):
      found, whole = (found, False) if index is None else (index + 1, whole)
      yield index, record
  except OSError as error:
    yield None, ValueError(f"cannot be read: {error.strerror or error}")
    return
  # Of a file that ends in damage no more records were to be expected.
  if whole and found != count:
    yield None, ValueError(f"{found} records where dataset_info.json says {count}")


def _tfrecord(path: Path, count: int) -> Iterator[Found]:
  del count
  size = os.path.getsize(path)
  offset = index = 0
  with path.open("rb") as file:
    if tfrecord.is_compressed(file):
      yield from _compressed(path)
      return
    while offset < size:
      head = file.read(12)
      if len(head) < 12:
        yield None, ValueError(f"cut short at byte {offset}, in the head of record {index}")
        return
      length, checksum = struct.unpack("<QI", head)
      if _masked(head[:8]) != checksum:
        yield (
          None,
          ValueError(
            f"damaged at byte {offset}: wrong checksum of the length of record {index}; what follows cannot be found"
          ),
        )
        return
      if length > size - offset - 16:
        yield None, ValueError(f"cut short at byte {offset}, in record {index}")
        return
      body = file.read(length + 4)
      record = body[:length]
      good = _masked(record) == int.from_bytes(body[length:], "little")
      yield index, record if good else ValueError(f"wrong checksum of the record at byte {offset}")
      offset += length + 16
      index += 1


def _compressed(path: Path) -> Iterator[Found]:
  # Nothing can be read behind damage in a compressed stream.
  index = 0
  try:
    for record in tfrecord.records(path):
      yield index, record
      index += 1
  except ValueError as error:
    yield None, ValueError(str(error).removeprefix(f"{path} "))


def _masked(content: bytes) -> int:
  """The checksum as a TFRecord holds it: CRC32C, rotated and shifted."""
  import google_crc32c

  checksum = google_crc32c.value(content)
  return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _array_record(path: Path, count: int) -> Iterator[Found]:
  from array_record.python import array_record_module

  with path.open("rb") as file:
    if file.read(len(shards.SIGNATURE)) != shards.SIGNATURE:
      yield None, ValueError("damaged or no ArrayRecord file: wrong signature at its start")
      return
  start = 0
  while True:
    # After an error the reader is of no more use; a new one goes on behind the record.
    reader, total, bad = None, None, None
    try:
      reader = array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
      total = reader.num_records()
      if start:
        reader.seek(start)
      while start < total:
        record = reader.read()
        yield start, record
        start += 1
    except (RuntimeError, ValueError, IndexError) as error:
      bad = ValueError(f"damaged ({_first_line(error)})")
    finally:
      try:
        if reader is not None:
          reader.close()
      except RuntimeError as error:
        bad = bad or ValueError(f"damaged ({_first_line(error)})")
    if bad is None:
      return
    if total is None or start >= total:
      yield None, bad
      return
    yield start, bad
    start += 1


def _first_line(error: Exception) -> str:
  return str(error).split("\n", 1)[0][:160]

"""Record files: ArrayRecord (what ilx writes) and TFRecord, every byte checked by its checksum."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from ilx.data import tfrecord
from ilx.data.tfrecord import CutShortError as CutShortError
from ilx.data.tfrecord import frame as frame_tfrecord  # noqa: F401
from ilx.data.tfrecord import scan as scan_tfrecord  # noqa: F401

FORMATS = ("array_record", "tfrecord")

# One record per chunk, as TFDS writes it, so that any episode can be read alone. Snappy: floats hardly compress, and
# zstd would cap reading at a third of the speed.
_ARRAY_RECORD_OPTIONS = "group_size:1,snappy"

# What every Riegeli file, and so every ArrayRecord file, begins with; the reader itself does not look at it.
# Source: https://github.com/google/riegeli/blob/master/doc/riegeli_records_file_format.md
SIGNATURE = bytes.fromhex(
  "83af70d10d884a3f0000000000000000400000000000000091bac23c9287e1a9"
  "0000000000000000e19f13c0e9b1c3727300000000000000" + "00" * 8
)


def read(path: Path, file_format: str, count: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
  """The records ``start`` to ``stop - 1`` of one file, in order; those before are not read.

  Args:
    path: the file.
    file_format: "array_record" or "tfrecord".
    count: how many records the dataset's metadata promises; checked (in a TFRecord, where the last one is wanted).
    start: the first record.
    stop: behind the last record; ``count`` by default.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where the file is damaged or cut short, or holds another number of records; names the file.
  """
  _must_exist(path)
  stop = count if stop is None else stop
  return (_read_array_record if file_format == "array_record" else _read_tfrecord)(path, count, start, stop)


class Reader:
  """Any record of one file, by its number; see ``open``. Safe to use from several threads at once."""

  def __init__(self, path: Path, file_format: str, count: int):
    self._path, self._count = path, count
    self._lock = threading.Lock()
    self._is_array_record = file_format == "array_record"
    self._file = self._open()

  def _open(self):
    if self._is_array_record:
      file = _open_array_record(self._path)
      try:
        found = file.num_records()
        if found != self._count:
          file.close()  # tells of damage, if that is why
      except (RuntimeError, ValueError) as error:
        raise _damaged(self._path, error) from None
    else:
      file = tfrecord.Reader(self._path)
      found = len(file)
    if found != self._count:
      file.close()
      raise _wrong_count(self._path, found, self._count)
    return file

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> bytes:
    """One record.

    Raises:
      IndexError: where there is none.
      ValueError: where it is damaged; names the file. Other records stay readable.
    """
    if not -self._count <= index < self._count:
      raise IndexError(f"{self._path}: record {index} of {self._count}")
    index %= self._count
    if self._is_array_record:
      return self._read_array_record(index)
    file = self._file
    if file is None:
      raise ValueError(f"{self._path}: the reader is closed")
    return file[index]

  def _read_array_record(self, index: int) -> bytes:
    with self._lock:
      if self._file is None:
        raise ValueError(f"{self._path}: the reader is closed")
      try:
        if not self._file.ok():
          self._file = self._open()
        self._file.seek(index)
        return self._file.read()
      except (RuntimeError, IndexError, ValueError) as error:
        # A reader that met damage gives nothing more; the next call opens the file again.
        raise _damaged(self._path, error, f" at record {index}") from None

  def close(self) -> None:
    """Lets go of the file."""
    with self._lock:
      if self._file is not None:
        with contextlib.suppress(RuntimeError, ValueError):  # of damage that has already been told
          self._file.close()
        self._file = None

  def __enter__(self) -> "Reader":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def __repr__(self) -> str:
    return f"shards.Reader({str(self._path)!r}, {self._count} records)"


def open(path: Path, file_format: str, count: int) -> Reader:
  """A reader of any record of one file; a context manager with ``len`` and ``[index]``.

  Args:
    path: the file.
    file_format: "array_record" or "tfrecord". A TFRecord has no index: its records' lengths are read at once, and a
      compressed one is unpacked into a temporary file.
    count: how many records the dataset's metadata promises; checked.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where the file is damaged or cut short, or holds another number of records; names the file.
  """
  _must_exist(path)
  return Reader(path, file_format, count)


def _must_exist(path: Path) -> None:
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing: the dataset is incomplete; copy or build it again")


def _open_array_record(path: Path):
  from array_record.python import array_record_module

  with path.open("rb") as file:
    if file.read(len(SIGNATURE)) != SIGNATURE:
      raise ValueError(f"{path} is damaged or no ArrayRecord file: wrong signature at its start")
  try:
    return array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0,max_parallelism:0")
  except (RuntimeError, ValueError) as error:
    raise _damaged(path, error) from None


def _read_array_record(path: Path, count: int, start: int, stop: int) -> Iterator[bytes]:
  # Riegeli keeps a hash of every chunk and raises on the first that differs, some of them on closing only.
  reader = _open_array_record(path)
  found = None
  try:
    try:
      found = reader.num_records()
      if start and found == count:
        reader.seek(start)
      for _ in range(stop - start if found == count else 0):
        yield reader.read()
    finally:
      reader.close()
  except (RuntimeError, ValueError, IndexError) as error:
    raise _damaged(path, error) from None
  if found != count:
    raise _wrong_count(path, found, count)


def _read_tfrecord(path: Path, count: int, start: int, stop: int) -> Iterator[bytes]:
  if start == stop:
    return
  found = start
  for record in tfrecord.records(path, start):
    found += 1
    if found > count:
      raise _wrong_count(path, "more", count)
    yield record
    if found == stop < count:
      return
  if found != count:
    raise _wrong_count(path, found, count)


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


def _damaged(path: Path, error: Exception, where: str = "") -> ValueError:
  message = str(error).split("\n", 1)[0][:200]
  return ValueError(f"{path} is damaged or cut short{where}; copy or build it again ({message})")


def _wrong_count(path: Path, found: int | str, count: int) -> ValueError:
  return ValueError(f"{path} holds {found} records where dataset_info.json says {count}; copy or build it again")

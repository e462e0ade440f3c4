"""The serialised episodes of a part of a dataset: one after the other, or any by its number."""

import bisect
import collections
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ilx.data import shards, splits
from ilx.data.info import Info

_MAX_OPEN_FILES = 32


def parts(info: Info, split: str) -> list[splits.Part]:
  """What ``split`` is of. Raises ValueError, with the dataset's folder, where ``splits.parse`` does."""
  try:
    return splits.parse(split, info.splits)
  except ValueError as error:
    raise ValueError(f"{info.directory}: {error}") from None


def select(info: Info, split: str) -> list[splits.Chunk]:
  """The pieces of files that ``split`` is, in order.

  Raises:
    FileNotFoundError: where a file that is needed is missing.
    ValueError: where ``split`` is not understood, unknown or empty (see ``splits.parse``).
  """
  result = splits.chunks(parts(info, split), info.splits)
  for chunk in result:
    if not chunk.file.is_file():
      raise FileNotFoundError(f"{chunk.file} is missing: the dataset is incomplete; copy or build it again")
  return result


def read_numbered(info: Info, split: str) -> Iterator[tuple[Path, int, bytes]]:
  """As ``read_records``, with the record's number in its file."""
  return _read(select(info, split), info.file_format)


def _read(chunks: list[splits.Chunk], file_format: str) -> Iterator[tuple[Path, int, bytes]]:
  for file, start, stop, length in chunks:
    # A file of which the end is wanted is read to its very end, where a surplus would show.
    for index, record in enumerate(shards.read(file, file_format, length, start, stop), start):
      yield file, index, record


def read_records(info: Info, split: str) -> Iterator[tuple[Path, bytes]]:
  """The (file, serialised episode) pairs of a split, in order.

  Args:
    info: of the dataset.
    split: in TFDS' syntax, such as "train[:90%]+val"; see ``splits.parse``. Records outside it are not read.

  Raises:
    FileNotFoundError: where a shard is missing.
    ValueError: for an unknown or empty split, or a damaged shard; names it.
  """
  return ((file, record) for file, _, record in read_numbered(info, split))


class Records:
  """The serialised episodes of a part of a dataset, any by its number; see ``open_split``.

  Files are opened when they are first read, at most 32 at a time. Safe to use from several threads at once; picklable,
  and cheap to send to another process, where files are opened anew.
  """

  def __init__(self, chunks: list[splits.Chunk], file_format: str):
    self._chunks, self._file_format = chunks, file_format
    # The number of the first episode behind each chunk.
    self._ends = list(itertools.accumulate(chunk.stop - chunk.start for chunk in chunks))
    self._forget()

  def _forget(self) -> None:
    self._lock = threading.Lock()
    self._open: collections.OrderedDict[Path, shards.Reader] = collections.OrderedDict()

  def __len__(self) -> int:
    return self._ends[-1]

  def where(self, index: int) -> tuple[Path, int]:
    """The file of an episode, and its number there.

    Raises:
      IndexError: where there is none.
    """
    chunk, number = self._find(index)
    return chunk.file, number

  def __getitem__(self, index: int) -> tuple[Path, bytes]:
    """The (file, serialised episode) pair of one episode.

    Raises:
      IndexError: where there is none.
      FileNotFoundError, ValueError: where its file is missing or damaged; see ``shards.Reader``.
    """
    chunk, number = self._find(index)
    return chunk.file, self._reader(chunk)[number]

  def _find(self, index: int) -> tuple[splits.Chunk, int]:
    if not -len(self) <= index < len(self):
      raise IndexError(f"episode {index} of {len(self)}")
    index %= len(self)
    place = bisect.bisect_right(self._ends, index)
    chunk = self._chunks[place]
    return chunk, chunk.stop - (self._ends[place] - index)

  def _reader(self, chunk: splits.Chunk) -> shards.Reader:
    with self._lock:
      reader = self._open.pop(chunk.file, None)
      if reader is None:
        reader = shards.open(chunk.file, self._file_format, chunk.length)
      self._open[chunk.file] = reader
      if len(self._open) > _MAX_OPEN_FILES:
        # Not closed here, as another thread may be reading: it closes when the last one lets go of it.
        self._open.popitem(last=False)
      return reader

  def close(self) -> None:
    """Lets go of all files; reading opens them again."""
    with self._lock:
      self._open.clear()

  def __enter__(self) -> "Records":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def __getstate__(self) -> dict[str, Any]:
    return {"_chunks": self._chunks, "_file_format": self._file_format, "_ends": self._ends}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._forget()

  def __repr__(self) -> str:
    return f"Records({len(self)} episodes in {len({chunk.file for chunk in self._chunks})} files)"


def open_split(info: Info, split: str = "train") -> Records:
  """Any serialised episode of a split: ``len(found)``, ``found[k] -> (file, bytes)``.

  Args:
    info: of the dataset.
    split: in TFDS' syntax, such as "train[:90%]+val"; see ``splits.parse``.

  Raises:
    FileNotFoundError: where a file that is needed is missing.
    ValueError: where ``split`` is not understood, unknown or empty.
  """
  return Records(select(info, split), info.file_format)

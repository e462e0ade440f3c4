"""Rows of the arrays in an ``.npz`` file, read in slices: never an array as a whole."""

import math
import os
import pathlib
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from ilx.data.convert import archive

_BLOCK = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError, OSError)


class _Cursor(NamedTuple):
  """A member of the archive, open behind row ``row - 1``."""

  stream: Any
  row: int


class Rows:
  """An ``.npz`` file of arrays ``[N, ...]``. Opened where it is first read, again in every process.

  Rows are decompressed in the order in which they stand: reading forward costs what is read and skipped, reading
  backward begins at the array's beginning again. The checksum of an array is compared when its last row is read.

  Attributes:
    path: of the file.
    names: of its arrays, sorted.
  """

  def __init__(self, path: str | os.PathLike):
    """Reads the file's directory.

    Raises:
      FileNotFoundError: where there is no such file.
      ValueError: where it is no npz file.
    """
    self.path = pathlib.Path(path).expanduser().absolute()  # other processes may be elsewhere
    self.names = archive.keys(self.path)
    self._opened: tuple[int, zipfile.ZipFile] | None = None
    self._cursors: dict[str, _Cursor] = {}
    self._types: dict[str, tuple[tuple[int, ...], np.dtype]] = {}

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {"_opened": None, "_cursors": {}}

  def shape(self, name: str) -> tuple[int, ...]:
    """Of an array.

    Raises:
      ValueError: where there is none of that name, it holds objects, or declares more than the file can hold.
    """
    return self._type(name)[0]

  def read(self, name: str, start: int, stop: int) -> np.ndarray:
    """Rows ``start`` to ``stop - 1``.

    Raises:
      ValueError: where there is no such array or are no such rows, or it is damaged.
    """
    shape, dtype = self._type(name)
    if not shape or not 0 <= start <= stop <= shape[0]:
      raise ValueError(f"{self.path}: array {name!r} of shape {shape} has no rows {start} to {stop - 1}")
    size = math.prod(shape[1:]) * dtype.itemsize
    self._root()
    cursor = self._cursors.pop(name, None)
    if cursor is None or cursor.row > start:
      cursor = _Cursor(self._begin(name)[0], 0)
    try:
      skip = (start - cursor.row) * size
      while skip > 0:
        skip -= len(_exactly(cursor.stream, min(skip, _BLOCK)))
      content = _exactly(cursor.stream, (stop - start) * size)
    except _BROKEN as error:
      raise ValueError(f"{self.path}: array {name!r} cannot be read ({error})") from None
    self._cursors[name] = _Cursor(cursor.stream, stop)
    return np.frombuffer(content, dtype).reshape(stop - start, *shape[1:])

  def _type(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
    if name not in self.names:
      raise ValueError(f"{self.path}: no array {name!r}; there: {', '.join(self.names) or 'none'}")
    if name not in self._types:
      stream, shape, dtype = self._begin(name)
      stream.close()
      self._types[name] = (shape, dtype)
    return self._types[name]

  def _root(self) -> zipfile.ZipFile:
    if self._opened is None or self._opened[0] != os.getpid():
      self._opened, self._cursors = (os.getpid(), archive.opened(self.path)), {}
    return self._opened[1]

  def _begin(self, name: str) -> tuple[Any, tuple[int, ...], np.dtype]:
    """A stream at an array's first row, its shape and dtype, after checking its header."""
    root = self._root()
    info = archive.members(root)[name]
    archive.check_sizes(self.path, {name: info}, max_bytes=1 << 62)
    archive.check_header(self.path, root, name, info)
    stream = root.open(info)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(stream)
    if by_columns and len(shape) > 1:
      stream.close()
      raise ValueError(f"{self.path}: array {name!r} is stored by columns; save it in C order")
    return stream, shape, dtype


def _exactly(stream: Any, size: int) -> bytes:
  content = stream.read(size)
  if len(content) != size:
    raise EOFError(f"ends {size - len(content)} bytes early")
  return content

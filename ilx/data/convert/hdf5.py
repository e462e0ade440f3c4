"""HDF5 files by others, read part by part in any process.

A file may say anything about itself: sizes are checked against what it holds before memory is taken, and nothing
outside the file is read (external links, external storage and virtual datasets are refused). The structure itself is
parsed by the HDF5 library.
"""

import math
import os
import pathlib
import types
from typing import Any

import numpy as np

# What deflate can make of a byte at most (RFC 1951), and what small datasets may claim without having stored it.
_MAX_RATIO = 1032
_SLACK = 4096
# Rows of neighbouring episodes share chunks; each is to be decompressed once. Per dataset that is kept open.
_CHUNK_CACHE = 16 << 20
_BROKEN = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, AttributeError, UnicodeError)


class File:
  """An HDF5 file. Opened where it is first read, again in every process; pickling keeps the path alone.

  Attributes:
    path: of the file.
  """

  def __init__(self, path: str | os.PathLike, *, keep: bool = False):
    """Opens nothing.

    Args:
      path: of the file.
      keep: whether datasets stay open, with caches of their chunks: for files of a few long datasets.
    """
    self.path = pathlib.Path(path).expanduser().absolute()  # other processes may be elsewhere
    self._keep = keep
    self._opened: tuple[int, Any] | None = None
    self._kept: dict[str, Any] = {}

  def __getstate__(self) -> dict[str, Any]:
    return {"path": self.path, "_keep": self._keep, "_opened": None, "_kept": {}}

  def names(self, group: str = "/") -> list[str]:
    """What a group holds, sorted.

    Raises:
      ValueError: where there is no such group or it is damaged.
    """
    found = self._find(group)
    if not isinstance(found, _h5py().Group):
      raise ValueError(f"{self.path}: {group!r} is no group")
    try:
      return sorted(found)
    except _BROKEN as error:
      raise ValueError(f"{self.path}: group {group!r} cannot be read ({_text(error)})") from None

  def kind(self, name: str) -> str:
    """What there is by a name: "group", "dataset" or "nothing"."""
    found = self._find(name, missing=None)
    if found is None:
      return "nothing"
    return "group" if isinstance(found, _h5py().Group) else "dataset"

  def shape(self, name: str) -> tuple[int, ...]:
    """Of a dataset."""
    return self._dataset(name).shape

  def dtype(self, name: str) -> np.dtype:
    """Of a dataset; ``object`` for text and for rows of varying length."""
    return self._dataset(name).dtype

  def read(self, name: str, start: int | None = None, stop: int | None = None) -> np.ndarray:
    """Rows ``start`` to ``stop - 1`` of a dataset, or all of it; text as an array of bytes.

    Raises:
      ValueError: where there is no such dataset, it is damaged, or the file cannot hold what it declares.
    """
    dataset = self._dataset(name)
    try:
      return np.asarray(dataset[()] if dataset.ndim == 0 else dataset[start:stop])
    except _BROKEN as error:
      raise ValueError(f"{self.path}: dataset {name!r} cannot be read ({_text(error)})") from None

  def datasets(self, group: str, depth: int = 8) -> list[str]:
    """Names of all datasets in a group and its groups, relative to it, sorted.

    Raises:
      ValueError: where it is damaged, or nested deeper than ``depth``.
    """
    found = []
    for name in self.names(group):
      if self.kind(f"{group}/{name}") == "dataset":
        found.append(name)
        continue
      if not depth:
        raise ValueError(f"{self.path}: group {group!r} is nested too deeply")
      found += [f"{name}/{inner}" for inner in self.datasets(f"{group}/{name}", depth - 1)]
    return found

  def attribute(self, group: str, name: str, missing: Any = None) -> Any:
    """An attribute of a group: a string, a number or an array; ``missing`` where there is none of that name.

    Raises:
      ValueError: where it is damaged.
    """
    try:
      found = self._find(group).attrs
      return _plain(found[name]) if name in found else missing
    except _BROKEN as error:
      raise ValueError(f"{self.path}: attribute {name!r} of {group!r} cannot be read ({_text(error)})") from None

  def attributes(self, group: str) -> list[str]:
    """Names of a group's attributes, sorted.

    Raises:
      ValueError: where it is damaged.
    """
    try:
      return sorted(self._find(group).attrs)
    except _BROKEN as error:
      raise ValueError(f"{self.path}: the attributes of {group!r} cannot be read ({_text(error)})") from None

  def _root(self) -> Any:
    if self._opened is None or self._opened[0] != os.getpid():
      with open(self.path, "rb"):
        pass  # whether it is there and may be read is said by the system's own error
      try:
        opened = _h5py().File(self.path, "r", rdcc_nbytes=_CHUNK_CACHE, rdcc_nslots=10007)
      except _BROKEN as error:
        raise ValueError(f"{self.path}: not an HDF5 file, or a damaged one ({_text(error)})") from None
      self._opened, self._kept = (os.getpid(), opened), {}
    return self._opened[1]

  def _find(self, name: str, missing: Any = ValueError) -> Any:
    """Follows a path by links that stay in the file."""
    h5py = _h5py()
    place = self._root()
    for part in filter(None, name.split("/")):
      try:
        link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        if isinstance(link, h5py.HardLink):
          place = place[part]
          continue
      except _BROKEN as error:
        raise ValueError(f"{self.path}: {name!r} cannot be read ({_text(error)})") from None
      if link is not None:
        raise ValueError(f"{self.path}: {name!r} is a link elsewhere, which is not followed; store the data itself")
      if missing is None:
        return None
      raise ValueError(f"{self.path}: has no {name!r}")
    return place

  def _dataset(self, name: str) -> Any:
    root = self._root()
    if name in self._kept:
      return self._kept[name]
    dataset = self._find(name)
    if not isinstance(dataset, _h5py().Dataset):
      raise ValueError(f"{self.path}: {name!r} is no dataset")
    try:
      self._check(dataset, name)
    except ValueError:
      raise
    except _BROKEN as error:
      raise ValueError(f"{self.path}: dataset {name!r} cannot be read ({_text(error)})") from None
    if self._keep and self._opened is not None and root is self._opened[1]:
      self._kept[name] = dataset
    return dataset

  def _check(self, dataset: Any, name: str) -> None:
    """Raises ValueError where the file cannot hold what the dataset declares, or it is kept elsewhere."""
    if dataset.is_virtual or dataset.external:
      raise ValueError(f"{self.path}: dataset {name!r} is kept in other files, which are not read")
    if dataset.shape is None:
      raise ValueError(f"{self.path}: dataset {name!r} is empty")
    stored = min(dataset.id.get_storage_size(), self.path.stat().st_size)
    ratio = _MAX_RATIO if dataset.id.get_create_plist().get_nfilters() else 1
    for what, shape in (("", dataset.shape), ("chunks of ", dataset.chunks or ())):
      declared = math.prod(shape) * dataset.dtype.itemsize
      if declared > ratio * stored + _SLACK:
        raise ValueError(
          f"{self.path}: dataset {name!r} declares {what}{declared} bytes, more than the {stored} bytes stored can hold"
        )


def _plain(value: Any) -> Any:
  """An attribute as plain Python where it is one value."""
  if isinstance(value, bytes):
    return value.decode("utf-8", "replace")
  return value.item() if isinstance(value, np.generic) else value


def _text(error: BaseException) -> str:
  return " ".join(str(error).split())[:200]


def _h5py() -> types.ModuleType:
  try:
    import h5py
  except ImportError:
    raise ImportError('HDF5 files need h5py: pip install "ilx[data]"') from None
  return h5py

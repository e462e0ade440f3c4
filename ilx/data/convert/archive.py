"""Arrays out of ``.npz`` files that are not trusted: nothing is unpickled, sizes are checked before memory is taken."""

import errno
import math
import os
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

# A deflate stream cannot expand further than this (RFC 1951: 258 bytes from two bits or so).
_MAX_DEFLATE_RATIO = 1032
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError)


def keys(path: str | os.PathLike) -> list[str]:
  """Names of the arrays in an ``.npz`` file, sorted.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is no npz file.
  """
  with opened(path) as archive:
    return sorted(members(archive))


def load(path: str | os.PathLike, wanted: Iterable[str], *, max_bytes: int = 8 << 30) -> dict[str, np.ndarray]:
  """The arrays named in ``wanted``.

  Every size is checked before the first array is read: what the array's header declares must be what the archive
  holds for it, no more than compression can explain, and ``max_bytes`` at most for all of them together.

  Raises:
    FileNotFoundError: where there is no such file.
    KeyError: where the file has no array of that name.
    ValueError: where the file is damaged, an array holds Python objects, or the sizes fail these checks.
  """
  wanted = list(wanted)
  with opened(path) as archive:
    found = members(archive)
    for key in wanted:
      if key not in found:
        raise KeyError(f"{path}: no array {key!r}")
    check_sizes(path, {key: found[key] for key in wanted}, max_bytes)
    for key in wanted:
      check_header(path, archive, key, found[key])
    return {key: _array(path, archive, key, found[key]) for key in wanted}


def opened(path: str | os.PathLike) -> zipfile.ZipFile:
  """The archive.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is no npz file.
  """
  try:
    return zipfile.ZipFile(path)
  except FileNotFoundError:
    raise FileNotFoundError(f"{path}: no such file") from None
  except _BROKEN as error:
    raise ValueError(f"{path}: not an npz file ({error})") from None
  except OSError as error:
    # zipfile seeks to where a damaged directory sends it
    if error.errno != errno.EINVAL:
      raise
    raise ValueError(f"{path}: not an npz file, or a damaged one") from None


def members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
  """Where its arrays are, by name."""
  return {info.filename[: -len(".npy")]: info for info in archive.infolist() if info.filename.endswith(".npy")}


def check_sizes(path: str | os.PathLike, members: dict[str, zipfile.ZipInfo], max_bytes: int) -> None:
  """Raises ValueError where arrays declare more than the file can hold, or take more than ``max_bytes`` together."""
  on_disk = os.path.getsize(path)
  for key, info in members.items():
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError(f"{path}: array {key!r} is compressed in a way that npz files do not use")
    ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _MAX_DEFLATE_RATIO
    if info.compress_size > on_disk or info.file_size > ratio * info.compress_size + 64:
      raise ValueError(
        f"{path}: array {key!r} declares {info.file_size} bytes, more than the file of {on_disk} bytes can hold"
      )
  total = sum(info.file_size for info in members.values())
  if total > max_bytes:
    raise ValueError(
      f"{path}: its arrays take {total} bytes, more than max_bytes={max_bytes}; raise it if you trust it"
    )


def check_header(path: str | os.PathLike, archive: zipfile.ZipFile, key: str, info: zipfile.ZipInfo) -> None:
  """Raises ValueError where an array holds objects, or its header does not fit the bytes that are there."""
  try:
    with archive.open(info) as stream:
      version = np.lib.format.read_magic(stream)
      if version not in _HEADERS:
        raise ValueError(f"npy version {version} is for structured arrays")
      shape, _, dtype = _HEADERS[version](stream)
      start = stream.tell()
  except (*_BROKEN, OSError) as error:
    raise ValueError(f"{path}: array {key!r} cannot be read ({error})") from None
  if dtype.hasobject:
    raise ValueError(f"{path}: array {key!r} holds pickled Python objects, which are not read; save plain arrays")
  if dtype.kind not in "biufU":
    raise ValueError(f"{path}: array {key!r} has dtype {dtype}; expected numbers, flags or text")
  if any(size < 0 for size in shape) or start + math.prod(shape) * dtype.itemsize != info.file_size:
    raise ValueError(
      f"{path}: array {key!r} declares shape {shape} of {dtype}, which is not the {info.file_size - start} bytes it has"
    )


def _array(path: Any, archive: zipfile.ZipFile, key: str, info: zipfile.ZipInfo) -> np.ndarray:
  try:
    with archive.open(info) as stream:
      return np.lib.format.read_array(stream, allow_pickle=False)
  except (*_BROKEN, OSError) as error:
    raise ValueError(f"{path}: array {key!r} cannot be read ({error})") from None

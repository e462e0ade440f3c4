"""Episodes as a folder of files that are mapped into memory: the format of ``ilx.data.cache``.

One file per column, raw values, two for pictures that stay encoded (their bytes and their offsets), and ``index.json``:
every file's type, shape and CRC32C, with a CRC32C of the index itself.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ilx.data import files
from ilx.data.episodes import Episodes
from ilx.data.images import Images

VERSION = 2
_INDEX = "index.json"
_FIELDS = ("observation", "action", "reward", "discount", "is_terminal", "extras")
_VECTORS = {"reward": "<f4", "discount": "<f4", "is_terminal": "|b1", "starts": "<i8", "rows": "<i4"}
_TYPES = ("|b1", "|u1", "<f4", "<i4", "<i8")


class UnfitError(ValueError):
  """Episodes that make no columns: blocks that differ, too many steps, none at all."""


def write(folder: Path, blocks: Iterable[Episodes], facts: dict[str, Any], progress: Callable | None = None) -> None:
  """Writes episodes that come in blocks, one after the other; memory is taken for one block.

  Args:
    folder: an empty one; complete and on the disk when this returns.
    blocks: columns of the same names, types and shapes.
    facts: what the index is to say beside the columns, JSON-able.
    progress: called with the numbers of episodes and steps written so far.

  Raises:
    UnfitError: where blocks differ, there is none, or more steps than ``Episodes`` can have.
    OSError: where it cannot be written.
  """
  import google_crc32c

  columns: dict[tuple[str, ...], list[_Writer]] = {}
  pictures: dict[tuple[str, ...], tuple[int, ...]] = {}
  episodes = steps = 0
  with contextlib.ExitStack() as stack:
    for block in blocks:
      found = dict(leaves(block, steps))
      for name in () if columns else found:
        stem = f"{len(columns):03}-{re.sub(r'[^A-Za-z0-9_-]', '_', '-'.join(name))}"
        kinds = ("data", "offsets") if isinstance(found[name], Images) else ("values",)
        columns[name] = [stack.enter_context(_Writer(folder / f"{stem}.{kind}")) for kind in kinds]
        pictures[name] = found[name].shape[1:] if isinstance(found[name], Images) else ()
      if found.keys() != columns.keys():
        raise UnfitError(f"the columns differ from episode {episodes} on")
      for name, leaf in found.items():
        where = f"{'/'.join(name)}, from episode {episodes} on,"
        if isinstance(leaf, Images):
          if leaf.shape[1:] != pictures[name]:
            raise UnfitError(f"{where} has pictures of {leaf.shape[1:]}, but {pictures[name]} before")
          data, offsets = columns[name]
          shifted = leaf.offsets + (data.rows - leaf.offsets[0])
          data.append(leaf.data[leaf.offsets[0] : leaf.offsets[-1]], where)
          offsets.append(shifted[1:] if steps else shifted, where)
        else:
          columns[name][0].append(leaf, where)
      episodes, steps = episodes + block.num_episodes, steps + block.num_steps
      if steps > np.iinfo(np.int32).max:
        raise UnfitError(f"{steps} steps do not fit one columnar block; take a part of the split")
      if progress is not None:
        progress(episodes, steps)
    if not columns:
      raise UnfitError("there are no episodes")
    described = [
      {"path": name, "picture": pictures[name], "files": [writer.finish() for writer in writers]}
      for name, writers in columns.items()
    ]
  text = json.dumps(facts | {"columns": described, "episodes": episodes, "steps": steps}, sort_keys=True)
  files.write_text(folder / _INDEX, json.dumps({"content": text, "crc32c": google_crc32c.value(text.encode())}))


def leaves(episodes: Episodes, steps: int = 0) -> Iterator[tuple[tuple[str, ...], np.ndarray | Images]]:
  """(path, values) of all columns; ``starts`` and ``rows`` as they are behind ``steps`` earlier steps."""
  for name in _FIELDS:
    yield from _flatten(getattr(episodes, name), (name,))
  yield ("starts",), np.asarray(episodes.starts[1:] if steps else episodes.starts, np.int64) + steps
  yield ("rows",), np.asarray(episodes.rows, np.int32) + np.int32(steps)


def _flatten(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], np.ndarray | Images]]:
  if isinstance(tree, dict):
    for key, value in tree.items():
      yield from _flatten(value, (*path, key))
  else:
    yield path, tree


class _Writer:
  """One file of values ``[rows, ...]``, appended to; a context manager."""

  def __init__(self, path: Path):
    self._path = path
    self._file = path.open("xb", buffering=0)
    self._checksum = 0
    self._like: tuple[str, tuple[int, ...]] | None = None
    self.rows = 0

  def append(self, values: np.ndarray, where: str) -> None:
    import google_crc32c

    like = (values.dtype.str, values.shape[1:])
    if self._like is None:
      if like[0] not in _TYPES:
        raise ValueError(f"{where} is {values.dtype}, which no column has")
      self._like = like
    elif like != self._like:
      raise UnfitError(f"{where} is {like[0]} {like[1]}, but {self._like[0]} {self._like[1]} before")
    self.rows += len(values)
    content = values.tobytes()
    self._checksum = google_crc32c.extend(self._checksum, content)
    left = memoryview(content)
    while left:
      left = left[self._file.write(left) :]

  def finish(self) -> dict[str, Any]:
    """Waits until the file is on the disk; what the index says of it."""
    os.fsync(self._file.fileno())
    dtype, shape = self._like
    return {"file": self._path.name, "dtype": dtype, "shape": (self.rows, *shape), "crc32c": self._checksum}

  def __enter__(self) -> "_Writer":
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()


def read(folder: Path) -> Episodes:
  """The episodes of a folder, mapped read-only; takes milliseconds whatever their size.

  Raises:
    ValueError: where something is missing, damaged or another format; names folder and file.
  """
  content = _read_index(folder)
  tree: dict[str, Any] = {}
  try:
    for column in content["columns"]:
      *parents, name = column["path"]
      node = tree
      for parent in parents:
        node = node.setdefault(parent, {})
      node[name] = _column(folder, column)
      rows = {"starts": content["episodes"] + 1, "rows": content["steps"] - content["episodes"]}
      if len(node[name]) != rows.get(column["path"][0], content["steps"]):
        raise ValueError(f"{'/'.join(column['path'])} has {len(node[name])} rows")
    episodes = Episodes(**tree)
    for field, dtype in _VECTORS.items():
      values = getattr(episodes, field)
      if not isinstance(values, np.ndarray) or values.dtype.str != dtype or values.ndim != 1:
        raise ValueError(f"{field} is no row of {dtype}")
    if episodes.starts[0] != 0 or episodes.starts[-1] != content["steps"]:
      raise ValueError("starts do not divide the steps")
    # Their ends alone, as a look at all would read the file; those between are numpy's to check.
    if len(episodes.rows) and not 0 <= episodes.rows[0] <= episodes.rows[-1] < content["steps"]:
      raise ValueError("rows are not among the steps")
  except (AttributeError, LookupError, OSError, OverflowError, TypeError, ValueError) as error:
    raise _damaged(folder, str(error)) from None
  return episodes


def _column(folder: Path, column: dict[str, Any]) -> np.ndarray | Images:
  arrays, picture = [_map(folder, part) for part in column["files"]], column["picture"]
  if not picture:
    (values,) = arrays
    return values
  data, offsets = arrays
  if len(picture) != 3 or not all(isinstance(size, int) and size > 0 for size in picture):
    raise ValueError(f"pictures of {picture}")
  if (data.dtype, offsets.dtype, data.ndim, offsets.ndim) != (np.uint8, np.int64, 1, 1):
    raise ValueError("pictures are bytes and their offsets")
  if offsets[0] != 0 or offsets[-1] != len(data):
    raise ValueError(f"the offsets of pictures do not divide their {len(data)} bytes")
  # Not by the constructor, which looks at all offsets and so reads a whole file; `verify` covers them.
  images = object.__new__(Images)
  images.data, images.offsets, images.shape = data, offsets, (len(offsets) - 1, *picture)
  return images


def verify(folder: Path) -> None:
  """Compares every byte with its checksum.

  Raises:
    ValueError: where one is damaged; names folder and file.
  """
  import google_crc32c

  read(folder)
  for part in (part for column in _read_index(folder)["columns"] for part in column["files"]):
    checksum = 0
    with (folder / part["file"]).open("rb") as file:
      while block := file.read(1 << 22):
        checksum = google_crc32c.extend(checksum, block)
    if checksum != part["crc32c"]:
      raise _damaged(folder, f"{part['file']} has another checksum than {_INDEX} says")


def read_facts(folder: Path) -> dict[str, Any]:
  """What was given to ``write`` as facts, and the numbers of "episodes" and "steps"; raises as ``read``."""
  return {key: value for key, value in _read_index(folder).items() if key != "columns"}


def _read_index(folder: Path) -> dict[str, Any]:
  import google_crc32c

  try:
    found = files.read_json(folder / _INDEX)
    text = found["content"]
    if google_crc32c.value(text.encode()) != found["crc32c"]:
      raise ValueError("wrong checksum")
    return json.loads(text)
  except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
    raise _damaged(folder, f"{_INDEX}: {error}") from None


def _map(folder: Path, part: dict[str, Any]) -> np.ndarray:
  """The values of one file: a plain array, which is faster to index than ``np.memmap``."""
  if not re.fullmatch(r"[\w-]+\.\w+", part["file"], re.ASCII) or part["dtype"] not in _TYPES:
    raise ValueError(f"unknown file {part['file']!r} or type {part['dtype']!r}")
  if any(type(count) is not int or count < 0 for count in part["shape"]):
    raise ValueError(f"{part['file']} has the shape {part['shape']}")
  path, dtype, shape = folder / part["file"], np.dtype(part["dtype"]), tuple(part["shape"])
  size, expected = path.stat().st_size, math.prod(shape) * dtype.itemsize
  if size != expected:
    raise ValueError(f"{part['file']} has {size} bytes where {expected} are expected")
  if not size:
    return np.empty(shape, dtype)  # nothing cannot be mapped
  return np.asarray(np.memmap(path, dtype, "r", shape=shape))


def _damaged(folder: Path, reason: str) -> ValueError:
  return ValueError(
    f"the cache {folder} is damaged: {reason}. Remove the folder; it is written again when it is opened"
  )

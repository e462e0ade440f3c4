"""From episodes on the wire to columns over all steps."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ilx.data import decode
from ilx.data.fields import Leaf
from ilx.data.images import Images

# The lists whose length tells how many steps an episode has, where they are there.
_COUNTERS = tuple(f"steps/{name}" for name in ("reward", "is_terminal", "is_last", "is_first", "discount"))


class RowError(ValueError):
  """(row, what is wrong there): found after the episode, and maybe others, were added."""


class Column:
  """One field of all steps: an array that grows by episodes.

  Numbers are gathered and then copied and checked for many episodes at once, by ``flush``.

  Attributes:
    name: as in the record, such as "steps/observation/state".
    leaf: where it stands in the record, and what ``features.json`` says about it.
    plain: whether it is stored as one list of numbers.
    dtype: in memory: float32, int32, uint8 or bool.
  """

  def __init__(self, leaf: Leaf, lazy: bool = False):
    self.name, self.leaf = leaf.name, leaf
    self.dtype = _in_memory(leaf.feature.dtype)
    self._real = self.dtype.kind == "f"
    # Integers below 128 come as uint8 and fit every type.
    self._usual = np.dtype(np.float32 if self._real else np.uint8)
    self.plain = leaf.feature.kind in ("tensor", "label") and leaf.feature.encoding == "none" and len(leaf.lengths) == 1
    self._lazy = lazy and leaf.feature.kind == "image" and leaf.feature.dtype == np.uint8
    self._array: np.ndarray | None = None
    self._picture: tuple[int, ...] | None = None
    self._data, self._sizes = bytearray(), []
    self._size = -1  # values of one step, in the record, once known
    self._rows = 0  # in the array
    self._pending: list[np.ndarray] = []
    self._pending_rows = 0

  @property
  def values(self) -> np.ndarray | Images:
    """``[N, ...]``, after ``flush``."""
    if self._lazy:
      offsets = np.concatenate([[0], np.cumsum(self._sizes, dtype=np.int64)])
      return Images(np.frombuffer(self._data, np.uint8), offsets, self._picture)
    return self._array[: self._rows]

  def reserve(self, rows: int) -> None:
    """Makes room for ``rows`` steps altogether, an estimate: where there is not so much memory, for none."""
    if self._array is not None and rows > len(self._array):
      try:
        grown = np.empty((rows, *self._array.shape[1:]), self.dtype)
      except MemoryError:
        return  # the steps that come make room for themselves
      grown[: self._rows] = self._array[: self._rows]
      self._array = grown

  def append(self, stored: Mapping[str, np.ndarray | list[bytes]], steps: int) -> None:
    """Adds one episode of ``steps`` steps.

    Raises:
      RowError: where it is not finite and not plain; plain ones are checked by ``flush``.
      ValueError: where it is not what ``features.json`` says.
    """
    if not self.plain:
      self._append_decoded(stored, steps)
      return
    values = stored.get(self.name)
    if values.__class__ is np.ndarray and values.dtype == self._usual and len(values) == steps * self._size:
      self._pending.append(values)
      self._pending_rows += steps
      return
    if values is None:
      raise ValueError(f"field {self.name!r} is missing from the record")
    if values.__class__ is list and values:
      raise ValueError(f"field {self.name!r} is stored as another kind of list than features.json says")
    if self._array is None:
      self._start(self._shape(len(values), steps), steps)
    if len(values) != steps * self._size:
      shape = list(self._array.shape[1:])
      raise ValueError(
        f"field {self.name!r} has {len(values)} values where {steps} steps of shape {shape} have {steps * self._size}"
      )
    if values.__class__ is list or values.dtype != self._usual:
      values = self._checked(np.asarray(values, None if len(values) else self.dtype))
    self._pending.append(values)
    self._pending_rows += steps

  def flush(self) -> None:
    """Moves what was added to the array.

    Raises:
      RowError: where it is not finite.
    """
    if not self._pending:
      return
    end = self._rows + self._pending_rows
    self._make_room(end)
    target = self._array[self._rows : end]
    np.concatenate(self._pending, out=target.reshape(-1), casting="unsafe")
    first, self._rows = self._rows, end
    self._pending, self._pending_rows = [], 0
    self._check_finite(target, first)

  def _append_decoded(self, stored: Mapping[str, np.ndarray | list[bytes]], steps: int) -> None:
    found = decode.column(self.leaf, stored, steps)
    if found is None:
      raise ValueError(f"field {self.name!r} is missing from the record")
    if found.dtype == object and len(found) and len({value.shape for value in found}) == 1:
      found = np.stack(list(found))
    if found.dtype == object:
      raise ValueError(f"field {self.name!r} has shapes that vary; columns need a fixed one")
    if len(found) != steps:
      raise ValueError(f"field {self.name!r} has {len(found)} values where the episode has {steps} steps")
    is_encoded = isinstance(found, Images)
    if is_encoded and not self._lazy:
      with self._naming_steps():
        found.check(np.arange(steps))
    if self._array is None and self._picture is None:
      self._start(found.shape[1:], steps)
    shape = self._picture or self._array.shape[1:]
    if found.shape[1:] != shape:
      raise ValueError(f"field {self.name!r} has shape {list(found.shape[1:])}, but {list(shape)} in episodes before")
    if self._lazy:
      begin, end = found.offsets[0], found.offsets[-1]
      self._data += memoryview(found.data)[begin:end]
      self._sizes.extend(np.diff(found.offsets).tolist())
      return
    end = self._rows + steps
    self._make_room(end)
    target = self._array[self._rows : end]
    if is_encoded:
      with self._naming_steps():
        found.decode(np.arange(steps), target)
    else:
      with np.errstate(over="ignore"):
        target[...] = self._checked(found)
    first, self._rows = self._rows, end
    self._check_finite(target, first)

  @contextlib.contextmanager
  def _naming_steps(self) -> Iterator[None]:
    """Pictures know their number alone."""
    try:
      yield
    except ValueError as error:
      raise ValueError(f"field {self.name!r}, {str(error).replace('picture', 'step', 1)}") from None

  def _start(self, shape: tuple[int, ...], steps: int) -> None:
    if self._lazy:
      self._picture = shape
      return
    self._array = np.empty((steps, *shape), self.dtype)
    self._size = math.prod(shape)

  def _shape(self, values: int, steps: int) -> tuple[int, ...]:
    """One step's shape; what ``features.json`` leaves open is as in the first episode."""
    shape = self.leaf.feature.shape
    known = math.prod(size for size in shape if size is not None)
    if values != steps * known and None not in shape:
      raise ValueError(
        f"field {self.name!r} has {values} values where {steps} steps of shape {list(shape)} have {steps * known}"
      )
    if None in shape and (shape.count(None) > 1 or not known or values % (steps * known)):
      raise ValueError(f"field {self.name!r} has shape {shape}, which varies; columns need a fixed one")
    return tuple(values // (steps * known) if size is None else size for size in shape)

  def _checked(self, values: np.ndarray) -> np.ndarray:
    if (values.dtype.kind in "fV") != self._real:
      raise ValueError(
        f"field {self.name!r} holds {values.dtype} values where features.json says {self.leaf.feature.dtype}"
      )
    if self.dtype == bool:
      return values.astype(bool)
    if not self._real and values.size:
      for dtype in (self.leaf.feature.dtype, self.dtype):  # a uint64 of 2^63 or more is stored as an int64 below 0
        limits = np.iinfo(dtype)
        if values.min() < limits.min or values.max() > limits.max:
          raise ValueError(f"field {self.name!r} has integers outside {dtype}")
    return values

  def _make_room(self, rows: int) -> None:
    if rows > len(self._array):
      self.reserve(max(rows, len(self._array) * 3 // 2))

  def _check_finite(self, target: np.ndarray, first: int) -> None:
    if not self._real:
      return
    finite = np.isfinite(target)
    if np.count_nonzero(finite) == finite.size:
      return
    row = first + int(finite.reshape(len(target), -1).all(axis=1).argmin())
    raise RowError(row, f"field {self.name!r} is NaN or inf")


def _in_memory(dtype: np.dtype) -> np.dtype:
  if dtype.kind in "fV":  # bfloat16 is a V
    return np.dtype(np.float32)
  return dtype if dtype in (np.uint8, bool) else np.dtype(np.int32)


def append(columns: Mapping[str, Column], stored: Mapping[str, np.ndarray | list[bytes]]) -> int:
  """Adds one parsed episode to all columns; returns its number of steps.

  Raises:
    RowError, ValueError: as ``Column.append``.
  """
  steps = _steps(columns, stored)
  for column in columns.values():
    column.append(stored, steps)
  return steps


def _steps(columns: Mapping[str, Column], stored: Mapping[str, np.ndarray | list[bytes]]) -> int:
  for name in _COUNTERS:
    if name in columns and columns[name].plain:
      steps = len(stored.get(name, ()))
      break
  else:
    found = ((name, decode.count(column.leaf, stored)) for name, column in columns.items())
    name, steps = next(((name, steps) for name, steps in found if steps is not None), ("steps", 0))
  if steps < 1:
    raise ValueError(f"it is empty: field {name!r} has no values")
  return steps


def flush(columns: Mapping[str, Column]) -> None:
  """Moves what was added to the arrays of all columns.

  Raises:
    RowError: as ``Column.flush``.
  """
  for column in columns.values():
    column.flush()


def reserve(columns: Mapping[str, Column], rows: int) -> None:
  """Makes room in all columns."""
  for column in columns.values():
    column.reserve(rows)


def tree(names: Any, columns: Mapping[str, Column]) -> Any:
  """The values of the columns that a name, or nested dicts of names, stand for."""
  if isinstance(names, dict):
    return {key: tree(child, columns) for key, child in names.items()}
  return columns[names].values

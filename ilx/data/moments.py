"""Running moments and quantiles of one array's rows."""

import copy
import math
from typing import Any

import jax
import numpy as np

from ilx.types import QUANTILES

# What stands for a quantile has a rank within so much of the asked one, in 99 of 100 cases; up to as many rows as a
# sketch has items it is exact.
RANK_ERROR = 0.0035
_SKETCH_ITEMS = 800

# Arrays of more numbers a row than this are pictures or alike: no quantiles.
LARGE = 1024
# Beyond this the moments are those of a channel, repeated.
HUGE = 16_384
_MAX_CHANNELS = 16

# Numbers at a time: few enough for the cache, enough that Python does not count.
_BLOCK = 1 << 15
# Of columns that are no arrays, rows read at once: enough pictures for all cores, enough numbers elsewhere.
_LAZY_ROWS, _LAZY_NUMBERS = 64, 1 << 20


class Moments:
  """Count, mean, squared deviations, extremes and a sketch of rows of one shape.

  Rows go through a buffer of fixed size, so the moments are the same bits however the rows are divided into calls.

  Attributes:
    name: for errors.
    shape: of one row.
    large: whether a row has more than ``LARGE`` numbers.
  """

  def __init__(self, name: str, shape: tuple[int, ...], quantiles: bool):
    self.name, self.shape = name, shape
    size = math.prod(shape)
    self.large = size > LARGE
    self._reduced = shape
    if size > HUGE:
      self._reduced = shape[-1:] if len(shape) > 2 and shape[-1] <= _MAX_CHANNELS else ()
    self._width = math.prod(self._reduced)
    self._buffer = np.empty((max(1, _BLOCK // max(1, self._width)), self._width))
    self._filled = 0
    # The mean is kept as what it differs from the first row: nothing is lost where both are large.
    self._count, self._first, self._mean, self._squares = 0, *np.zeros((3, self._width))
    self._low, self._high = np.full(self._width, np.inf), np.full(self._width, -np.inf)
    self._sketches: Any = None
    if quantiles and self._width and not self.large:
      self._sketches = _sketches(self._width)

  def check(self, values: Any) -> None:
    """Raises ValueError where ``values`` are no rows for ``update``."""
    if values.shape[1:] != self.shape:
      raise ValueError(f"statistics: {self.name} has shape {values.shape[1:]} after rows of {self.shape}")
    if isinstance(values, np.ndarray) and values.dtype.kind in "OSUTMmc":  # bfloat16 has a kind of its own
      raise ValueError(f"statistics: {self.name} is {values.dtype}; expected numbers")

  def update(self, values: Any, rows: np.ndarray | None = None) -> None:
    """Adds ``values`` ``[n, *shape]`` that passed ``check``, or ``rows`` (integers) of them.

    Columns that are no arrays but are indexed as such, of pictures that stay encoded, are read some rows at a time.
    """
    total = len(values) if rows is None else len(rows)
    step = max(1, total)
    if isinstance(values, jax.Array):
      values = np.asarray(values)
    elif not isinstance(values, np.ndarray):
      step = max(_LAZY_ROWS, _LAZY_NUMBERS // max(1, math.prod(self.shape)))
    for start in range(0, total, step):
      part = slice(start, start + step)
      self._append(values[part if rows is None else rows[part]])

  def _append(self, values: np.ndarray) -> None:
    values = values.reshape(-1, self._width) if self._width else np.empty((len(values), 0))
    start = 0
    while start < len(values):
      taken = min(len(self._buffer) - self._filled, len(values) - start)
      self._buffer[self._filled : self._filled + taken] = values[start : start + taken]
      self._filled, start = self._filled + taken, start + taken
      if self._filled == len(self._buffer):
        self._flush()

  def _flush(self) -> None:
    block = self._buffer[: self._filled]
    if not len(block):
      return
    low, high = block.min(axis=0), block.max(axis=0)
    limit = np.finfo(np.float32).max
    if not np.all((low >= -limit) & (high <= limit)):
      raise ValueError(f"statistics: {self.name} has a number that is NaN, inf or beyond float32")
    if self._sketches is not None:
      # Sorted, with NumPy's vector instructions, since the sketch sorts too and is done sooner: half the time.
      self._sketches.update(np.sort(block.T.astype(np.float32), axis=1).T, "F")
    first = block[0].copy()
    block -= first
    mean = block.mean(axis=0)
    block -= mean
    self._filled = 0
    self._combine(len(block), first, mean, np.einsum("ij,ij->j", block, block), low, high)

  def flushed(self) -> "Moments":
    """What counts all rows so far; this one, and so the bits of what it will give, stays as it is."""
    if not self._filled:
      return self
    result = copy.copy(self)
    result._buffer = self._buffer[: self._filled].copy()
    if self._sketches is not None:
      result._sketches = _sketches(self._width)
      result._sketches.merge(self._sketches)
    result._flush()
    return result

  def merge(self, other: "Moments") -> None:
    """Adds the rows of ``other``, which is of the same shape and ``flushed``."""
    self._flush()
    if not other._count:
      return
    if self._sketches is not None:
      self._sketches.merge(other._sketches)
    self._combine(other._count, other._first, other._mean, other._squares, other._low, other._high)

  def _combine(
    self, count: int, first: np.ndarray, mean: np.ndarray, squares: np.ndarray, low: np.ndarray, high: np.ndarray
  ) -> None:
    """Chan, Golub & LeVeque 1983. ``mean`` is what it differs from ``first``."""
    if not self._count:
      self._first = first
    total = self._count + count
    distance = (first - self._first) + (mean - self._mean)
    self._squares = self._squares + squares + distance**2 * (self._count * count / total)
    self._mean = mean if not self._count else self._mean + distance * (count / total)
    self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
    self._count = total

  def result(self) -> tuple[np.ndarray, ...]:
    """(mean, std, min, max, quantiles) in one step's shape; of what is ``flushed``."""
    if not self._count:
      raise ValueError(f"statistics: none of the rows chosen for {self.name}, a large leaf, is there")
    moments = (self._first + self._mean, np.sqrt(self._squares / self._count), self._low, self._high)
    spread = (np.broadcast_to(x.reshape(self._reduced), self.shape) for x in moments)
    if self._sketches is None:
      quantiles = np.broadcast_to(np.float32(np.nan), (len(QUANTILES), *self.shape))
    else:
      quantiles = self._sketches.get_quantiles(list(QUANTILES)).T.reshape(len(QUANTILES), *self.shape)
    return *spread, quantiles


def _sketches(width: int) -> Any:
  import datasketches

  return datasketches.vector_of_kll_floats_sketches(_SKETCH_ITEMS, width)

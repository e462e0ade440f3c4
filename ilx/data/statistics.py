"""Moments, exact to float64, and quantiles, to a third of a percent, in one pass."""

import math
from typing import Any

import jax
import numpy as np

from ilx.types import Statistics, Tree

# The probabilities of ``Statistics.quantiles``.
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# What stands in for a quantile has a rank within so much of the asked one, in 99 of 100 cases. It is exact for as many
# rows as a sketch has items.
RANK_ERROR = 0.0035
_SKETCH_ITEMS = 800

# A leaf of more numbers a step than this is a picture or alike: no quantiles, and its moments come from a sample of
# steps (``sample``).
LARGE = 1024
SAMPLE = 16_384
# Beyond this the moments are those of a channel: ``[height, width, channels]`` has one for each channel, repeated.
HUGE = 16_384
_MAX_CHANNELS = 16

# Numbers at a time: few enough for the cache, enough that Python does not count.
_BLOCK = 1 << 15
# Rows taken out of a lazily decoded column at once: enough for its threads.
_PICTURES = 64


class Accumulator:
  """Statistics of rows that come in parts.

  However the rows are divided into calls of ``update``, the moments are the same bits; quantiles are from a sketch
  (KLL, Karnin, Lang & Liberty 2016) that rolls dice of its own, so they differ from run to run within ``RANK_ERROR``.

  Leaves of more than ``HUGE`` numbers a step have the moments of their channels (the last of at least three axes, if it
  is 16 at most, else one channel); leaves of more than ``LARGE`` have NaN for quantiles.

  Attributes:
    count: rows so far.
  """

  def __init__(self, quantiles: bool = True):
    """``quantiles``: whether to estimate them; costs three times as much as the moments."""
    self.count = 0
    self._quantiles = quantiles
    self._structure: Any = None
    self._leaves: list[_Leaf] = []

  def update(self, tree: Tree, rows: np.ndarray | None = None) -> None:
    """Adds rows.

    Args:
      tree: arrays (or ``Images``) ``[n, ...]`` of numbers; always the same tree of the same shapes.
      rows: integers ``[m]``, the only ones that count in leaves of more than ``LARGE`` numbers a step.

    Raises:
      ValueError: where the tree or a shape is another than before, the leaves disagree on n, or a number is NaN, inf or
        beyond float32; names the leaf.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    sizes = {len(leaf) for _, leaf in paths}
    if len(sizes) != 1:
      raise ValueError(
        f"statistics: the leaves must have one number of rows above 0, got {sorted(sizes) or 'no leaves'}"
      )
    if self._structure is None:
      self._structure = structure
      self._leaves = [_Leaf(_name(path), tuple(np.shape(leaf)[1:]), self._quantiles) for path, leaf in paths]
    if structure != self._structure:
      raise ValueError(f"statistics: rows of {structure} after rows of {self._structure}")
    for mine, (_, leaf) in zip(self._leaves, paths, strict=True):
      mine.update(leaf, rows)
    self.count += sizes.pop()

  def merge(self, other: "Accumulator") -> None:
    """Adds the rows that ``other`` has seen, which may be used further.

    Raises:
      ValueError: where it has seen rows of another tree or shape, or only one of the two estimates quantiles.
    """
    if other._structure is None:
      return
    if other._quantiles != self._quantiles:
      raise ValueError("statistics: accumulators with and without quantiles do not go together")
    if self._structure is None:
      self._structure = other._structure
      self._leaves = [_Leaf(leaf.name, leaf.shape, self._quantiles) for leaf in other._leaves]
    if other._structure != self._structure:
      raise ValueError(f"statistics: rows of {other._structure} and of {self._structure} do not go together")
    for mine, others in zip(self._leaves, other._leaves, strict=True):
      mine.merge(others)
    self.count += other.count

  def result(self) -> Statistics:
    """The statistics of all rows so far.

    Raises:
      ValueError: where there are none.
    """
    if not self.count:
      raise ValueError("statistics: the leaves must have one number of rows above 0, got 0")
    columns = zip(*(leaf.result() for leaf in self._leaves), strict=True)
    *moments, quantiles = (jax.tree.unflatten(self._structure, column) for column in columns)
    return Statistics(self.count, *moments, quantiles if self._quantiles else None)


def statistics(tree: Tree, *, quantiles: bool = False, rows: np.ndarray | None = None) -> Statistics:
  """Per-dimension mean, standard deviation (of the population), minimum and maximum over the first axis.

  Args:
    tree: arrays ``[N, ...]`` of numbers.
    quantiles: whether to estimate ``QUANTILES`` too.
    rows: see ``Accumulator.update``.

  Raises:
    ValueError: where there are no rows, the leaves disagree on their number, or a number is NaN, inf or beyond float32.
  """
  accumulator = Accumulator(quantiles)
  accumulator.update(tree, rows)
  return accumulator.result()


def merge(a: Statistics, b: Statistics) -> Statistics:
  """The statistics of two sets of rows together, from theirs alone.

  Chan, Golub & LeVeque 1983: the squared deviations add up, plus what the distance of the means contributes. Quantiles
  cannot be had from quantiles and are None; ``Accumulator.merge`` keeps them.
  """
  count = a.count + b.count
  share = b.count / count
  mean = jax.tree.map(lambda x, y: x + (y - x) * share, a.mean, b.mean)
  std = jax.tree.map(
    lambda mean_a, std_a, mean_b, std_b: np.sqrt(
      (1 - share) * std_a**2 + share * std_b**2 + (mean_b - mean_a) ** 2 * (share * (1 - share))
    ),
    a.mean,
    a.std,
    b.mean,
    b.std,
  )
  return Statistics(count, mean, std, jax.tree.map(np.minimum, a.min, b.min), jax.tree.map(np.maximum, a.max, b.max))


def sample(steps: np.ndarray, num_episodes: int, first: int = 0) -> np.ndarray:
  """Rows of at most ``SAMPLE`` steps of a dataset, spread evenly over episodes and within them.

  Args:
    steps: ``[e]``, the steps of consecutive episodes, last ones included.
    num_episodes: in the whole dataset.
    first: which episode of it the first of ``steps`` belongs to.

  Returns:
    Rising int64 ``[m]``, rows of these episodes laid end to end. All parts of a dataset together give what the
    whole gives.
  """
  every, quota = -(-num_episodes // SAMPLE), max(1, SAMPLE // num_episodes)
  starts = np.cumsum(steps) - steps
  rows = []
  for episode in range(-first % every, len(steps), every):
    size = int(steps[episode])
    taken = min(size, quota)
    # Multiples of the golden ratio: a single step an episode is not always the first.
    shift = (first + episode) * 0.6180339887498949 % 1.0 if taken < size else 0.0
    rows.append(starts[episode] + ((np.arange(taken) + shift) * (size / max(1, taken))).astype(np.int64))
  return np.concatenate(rows) if rows else np.empty(0, np.int64)


class _Leaf:
  """Running moments and sketches of one leaf."""

  def __init__(self, name: str, shape: tuple[int, ...], quantiles: bool):
    self.name, self.shape = name, shape
    size = math.prod(shape)
    self._sampled = size > LARGE
    self._reduced = shape
    if size > HUGE:
      self._reduced = shape[-1:] if len(shape) > 2 and shape[-1] <= _MAX_CHANNELS else ()
    self._width = math.prod(self._reduced)
    self._buffer = np.empty((max(1, _BLOCK // max(1, self._width)), self._width))
    self._filled = 0
    self._count, self._mean, self._squares = 0, np.zeros(self._width), np.zeros(self._width)
    self._low, self._high = np.full(self._width, np.inf), np.full(self._width, -np.inf)
    self._sketches: Any = None
    if quantiles and self._width and not self._sampled:
      import datasketches

      self._sketches = datasketches.vector_of_kll_floats_sketches(_SKETCH_ITEMS, self._width)

  def update(self, values: Any, rows: np.ndarray | None) -> None:
    if tuple(np.shape(values)[1:]) != self.shape:
      raise ValueError(f"statistics: {self.name} has shape {np.shape(values)[1:]} after rows of {self.shape}")
    if not self._sampled:
      rows = None
    step = len(values) if isinstance(values, np.ndarray) and rows is None else _PICTURES
    total = len(values) if rows is None else len(rows)
    for start in range(0, total, max(1, step)):
      part = slice(start, start + step)
      self._append(np.asarray(values[part if rows is None else rows[part]]))

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
    mean = block.mean(axis=0)
    block -= mean
    # The mean of numbers far from 0 is off by some last digits: what is left over is put right.
    rest = block.mean(axis=0)
    squares = np.maximum(np.einsum("ij,ij->j", block, block) - len(block) * rest**2, 0.0)
    self._filled = 0
    self._combine(len(block), mean + rest, squares, low, high)

  def merge(self, other: "_Leaf") -> None:
    if other.shape != self.shape:
      raise ValueError(f"statistics: {self.name} has shapes {self.shape} and {other.shape}")
    self._flush()
    other._flush()
    if not other._count:
      return
    if self._sketches is not None:
      self._sketches.merge(other._sketches)
    self._combine(other._count, other._mean, other._squares, other._low, other._high)

  def _combine(self, count: int, mean: np.ndarray, squares: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Chan, Golub & LeVeque 1983."""
    total = self._count + count
    distance = mean - self._mean
    self._squares = self._squares + squares + distance**2 * (self._count * count / total)
    self._mean = mean if not self._count else self._mean + distance * (count / total)
    self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
    self._count = total

  def result(self) -> tuple[np.ndarray, ...]:
    """(mean, std, min, max, quantiles) in one step's shape."""
    self._flush()
    if not self._count:
      raise ValueError(f"statistics: none of the rows chosen for {self.name}, a large leaf, is there")
    moments = (self._mean, np.sqrt(self._squares / self._count), self._low, self._high)
    spread = (np.broadcast_to(x.reshape(self._reduced), self.shape) for x in moments)
    if self._sketches is None:
      quantiles = np.broadcast_to(np.float32(np.nan), (len(QUANTILES), *self.shape))
    else:
      quantiles = self._sketches.get_quantiles(list(QUANTILES)).T.reshape(len(QUANTILES), *self.shape)
    return *spread, quantiles


def _name(path: Any) -> str:
  return repr(jax.tree_util.keystr(path, simple=True, separator="/")) if path else "the array"

"""Moments, exact to float64, and quantiles, to a third of a percent, in one pass."""

from typing import Any

import jax
import numpy as np

from ilx.data.moments import HUGE, LARGE, RANK_ERROR, Moments
from ilx.types import QUANTILES, Statistics, Tree

__all__ = ["HUGE", "LARGE", "QUANTILES", "RANK_ERROR", "SAMPLE", "Accumulator", "merge", "sample", "statistics"]

# How many steps stand for all where a leaf is large (see ``Accumulator``).
SAMPLE = 4096


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
    self._leaves: list[Moments] = []

  def update(self, tree: Tree, rows: np.ndarray | None = None) -> None:
    """Adds rows.

    Args:
      tree: arrays (or ``Images``) ``[n, ...]`` of numbers; always the same tree of the same shapes.
      rows: integers ``[m]``, the only ones that count in leaves of more than ``LARGE`` numbers a step.

    Raises:
      ValueError: where the tree or a shape is another than before, the leaves disagree on n, or a number is NaN, inf or
        beyond float32; names the leaf. Only after such a number, which may be found later, is this of no further use.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    sizes = {len(leaf) for _, leaf in paths}
    if len(sizes) != 1:
      raise ValueError(
        f"statistics: the leaves must have one number of rows above 0, got {sorted(sizes) or 'no leaves'}"
      )
    if self._structure is None:
      self._structure = structure
      self._leaves = [Moments(_name(path), tuple(np.shape(leaf)[1:]), self._quantiles) for path, leaf in paths]
    if structure != self._structure:
      raise ValueError(f"statistics: rows of {structure} after rows of {self._structure}")
    for mine, (_, leaf) in zip(self._leaves, paths, strict=True):
      mine.check(leaf)
    for mine, (_, leaf) in zip(self._leaves, paths, strict=True):
      mine.update(leaf, rows if mine.large else None)
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
      self._leaves = [Moments(leaf.name, leaf.shape, self._quantiles) for leaf in other._leaves]
    if other._structure != self._structure:
      raise ValueError(f"statistics: rows of {other._structure} and of {self._structure} do not go together")
    for mine, others in zip(self._leaves, other._leaves, strict=True):
      if mine.shape != others.shape:
        raise ValueError(f"statistics: {mine.name} has shapes {mine.shape} and {others.shape}")
    for mine, others in zip(self._leaves, [leaf.flushed() for leaf in other._leaves], strict=True):
      mine.merge(others)
    self.count += other.count

  def result(self) -> Statistics:
    """The statistics of all rows so far.

    Raises:
      ValueError: where there are none.
    """
    if not self.count:
      raise ValueError("statistics: the leaves must have one number of rows above 0, got 0")
    columns = zip(*(leaf.flushed().result() for leaf in self._leaves), strict=True)
    *moments, quantiles = (jax.tree.unflatten(self._structure, column) for column in columns)
    return Statistics(self.count, *moments, quantiles if self._quantiles else None)


def statistics(tree: Tree, *, quantiles: bool = False, rows: np.ndarray | None = None) -> Statistics:
  """Per-dimension mean, standard deviation (of the population), minimum and maximum over the first axis.

  Args:
    tree: arrays ``[N, ...]`` of numbers.
    quantiles: whether to estimate quantiles (``ilx.types.QUANTILES``) too.
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
    places = ((np.arange(taken) + shift) * (size / max(1, taken))).astype(np.int64)
    rows.append(starts[episode] + np.minimum(places, size - 1))
  return np.concatenate(rows) if rows else np.empty(0, np.int64)


def _name(path: Any) -> str:
  return repr(jax.tree_util.keystr(path, simple=True, separator="/")) if path else "the array"

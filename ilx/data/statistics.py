"""Moments of observations, exact to float64, in one pass."""

import jax
import numpy as np

from ilx.types import Statistics, Tree

# Rows at a time: small enough for the cache, large enough that Python does not count.
_CHUNK_BYTES = 1 << 18


def statistics(observation: Tree) -> Statistics:
  """Per-dimension mean, standard deviation (of the population), minimum and maximum over the first axis.

  Args:
    observation: a tree of arrays ``[N, ...]`` of numbers.

  Raises:
    ValueError: where there are no rows, or the leaves disagree on their number.
  """
  leaves, structure = jax.tree.flatten(observation)
  counts = {len(leaf) for leaf in leaves}
  if len(counts) != 1 or counts == {0}:
    raise ValueError(
      f"statistics: the leaves must have one number of rows above 0, got {sorted(counts) or 'no leaves'}"
    )
  moments = [_moments(np.asarray(leaf)) for leaf in leaves]
  return Statistics(counts.pop(), *(jax.tree.unflatten(structure, column) for column in zip(*moments, strict=True)))


def merge(a: Statistics, b: Statistics) -> Statistics:
  """The statistics of two sets of rows together, from theirs alone.

  Chan, Golub & LeVeque 1983: the squared deviations add up, plus what the distance of the means contributes.
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


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """(mean, std, min, max), float64 of one row's shape."""
  shape = values.shape[1:]
  rows = values.reshape(len(values), -1)
  step = max(1, _CHUNK_BYTES // max(1, 8 * rows.shape[1]))
  count, mean, squares = 0, 0.0, 0.0
  low, high = np.inf, -np.inf
  for start in range(0, len(rows), step):
    chunk = rows[start : start + step].astype(np.float64)
    low, high = np.minimum(low, chunk.min(axis=0)), np.maximum(high, chunk.max(axis=0))
    chunk_mean = chunk.mean(axis=0)
    chunk -= chunk_mean
    total = count + len(chunk)
    squares = squares + np.einsum("ij,ij->j", chunk, chunk) + (chunk_mean - mean) ** 2 * (count * len(chunk) / total)
    mean = mean + (chunk_mean - mean) * (len(chunk) / total)
    count = total
  std = np.sqrt(squares / count)
  return tuple(np.reshape(x, shape) for x in (mean, std, low, high))

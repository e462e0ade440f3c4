"""Statistics over seeds and tasks.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".

Scores are normalised, and given as a sequence of tasks, for each the scores of its seeds, ``[seeds]``. Intervals are of
95 %, percentiles of a stratified bootstrap: in every task its seeds are drawn anew, with replacement, ``resamples``
times (ValueError where that is not at least once).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ilx.evaluation.scores import INTERVAL, check_resamples, interval, iqm
from ilx.types import Array

Tasks = Sequence[Array]


class Estimate(NamedTuple):
  """A number and the ends of its 95 % interval."""

  value: float
  low: float
  high: float


def mean(tasks: Tasks, *, resamples: int = 5000, seed: int = 0) -> Estimate:
  """Of the tasks' means: every task counts alike."""
  return _estimate(lambda drawn: np.mean([task.mean(axis=-1) for task in drawn], axis=0), tasks, resamples, seed)


def interquartile_mean(tasks: Tasks, *, resamples: int = 5000, seed: int = 0) -> Estimate:
  """Of the middle half of all runs, whatever their task."""
  return _estimate(lambda drawn: iqm(np.concatenate(drawn, axis=-1), axis=-1), tasks, resamples, seed)


def optimality_gap(tasks: Tasks, target: float = 100.0, *, resamples: int = 5000, seed: int = 0) -> Estimate:
  """How much is lacking to ``target`` in the mean, where what is above it counts no more than it; less is better.

  The mean is of all runs, whatever their task, as in the paper's own code (rliable): other than for ``mean``, a task
  with more seeds counts more. With equally many seeds for every task the two count alike.
  """

  def gap(drawn: list[np.ndarray]) -> np.ndarray:
    return target - np.mean(np.minimum(np.concatenate(drawn, axis=-1), target), axis=-1)

  return _estimate(gap, tasks, resamples, seed)


def probability_of_improvement(ours: Tasks, theirs: Tasks, *, resamples: int = 2000, seed: int = 0) -> Estimate:
  """That a run of ours beats one of theirs on a task drawn at random; ties count half (Mann and Whitney's U).

  Raises:
    ValueError: where the two have not the same number of tasks.
  """
  if len(ours) != len(theirs):
    raise ValueError(f"probability_of_improvement: {len(ours)} tasks of ours and {len(theirs)} of theirs")

  def probability(drawn: list[np.ndarray]) -> np.ndarray:
    pairs = zip(drawn[: len(ours)], drawn[len(ours) :], strict=True)
    return np.mean([np.mean(_beats(x[..., :, None], y[..., None, :]), axis=(-2, -1)) for x, y in pairs], axis=0)

  return _estimate(probability, [*ours, *theirs], resamples, seed)


def performance_profile(
  tasks: Tasks, thresholds: Array, *, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The share of all runs whose score is above each threshold, and its 95 % band, pointwise: ``[T]`` each."""
  thresholds = np.asarray(thresholds, np.float64)

  def share(drawn: list[np.ndarray]) -> np.ndarray:
    runs = np.concatenate(drawn, axis=-1)
    return np.stack([np.mean(runs > threshold, axis=-1) for threshold in thresholds], axis=-1)

  low, high = np.percentile(share(_resampled(tasks, resamples, seed)), INTERVAL, axis=0)
  return share(_checked(tasks)), low, high


def _beats(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return (x > y) + 0.5 * (x == y)


def _estimate(statistic: Callable[[list[np.ndarray]], np.ndarray], tasks: Tasks, resamples: int, seed: int) -> Estimate:
  return Estimate(float(statistic(_checked(tasks))), *interval(statistic(_resampled(tasks, resamples, seed))))


def _resampled(tasks: Tasks, resamples: int, seed: int) -> list[np.ndarray]:
  """For every task ``[resamples, seeds]``."""
  check_resamples(resamples)
  rng = np.random.default_rng(seed)
  return [task[rng.integers(len(task), size=(resamples, len(task)))] for task in _checked(tasks)]


def _checked(tasks: Tasks) -> list[np.ndarray]:
  found = [np.asarray(task, np.float64) for task in tasks]
  if not found or any(task.ndim != 1 or not len(task) or not np.isfinite(task).all() for task in found):
    shapes = ", ".join(str(task.shape) for task in found)
    raise ValueError(f"scores must be finite, [seeds] for each of at least one task; got {shapes or 'no task'}")
  return found

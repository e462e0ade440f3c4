"""Statistics of returns: over episodes, over seeds, against references."""

import numpy as np

from ilx.types import Array

# Percentiles of a 95 % interval.
INTERVAL = (2.5, 97.5)
# Numbers held at once while resampling.
_BLOCK = 1 << 22


def iqm(values: Array, axis: int | None = None) -> np.ndarray:
  """Interquartile mean: of the middle half, ``floor(n / 4)`` values left out at either end.

  As ``scipy.stats.trim_mean(values, 0.25)``. Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the
  Statistical Precipice".
  """
  values = np.sort(np.asarray(values, np.float64), axis=axis)
  axis = 0 if axis is None else axis
  cut = values.shape[axis] // 4
  return np.mean(np.take(values, np.arange(cut, values.shape[axis] - cut), axis=axis), axis=axis)


def summary(returns: Array, *, resamples: int = 5000, seed: int = 0) -> dict[str, float | tuple[float, float]]:
  """Mean, spread and 95 % bootstrap intervals of returns.

  The intervals are percentile bootstraps (Efron 1979). For ``[seeds, episodes]`` both levels are resampled: seeds
  with replacement, then in each drawn seed its episodes with replacement. So the interval speaks of the
  algorithm, the luck of training included; with one seed it speaks of that policy alone.

  Args:
    returns: ``[episodes]`` of one policy, or ``[seeds, episodes]``.
    resamples: bootstrap resamples, at least 1.
    seed: of the resampling; the same arguments give the same numbers.

  Returns:
    ``mean``, ``std`` (with n in the denominator), ``median``, ``iqm``, ``min``, ``max`` over all episodes, and the
    intervals ``mean_ci95`` and ``iqm_ci95`` as (low, high).

  Raises:
    ValueError: for no returns, more than two axes, values that are not finite, or no resamples.
  """
  check_resamples(resamples)
  returns = np.asarray(returns, np.float64)
  if returns.ndim not in (1, 2) or returns.size == 0:
    raise ValueError(f"returns must be [episodes] or [seeds, episodes] and not empty, got shape {returns.shape}")
  if not np.isfinite(returns).all():
    raise ValueError(f"returns: {np.count_nonzero(~np.isfinite(returns))} of {returns.size} are not finite")
  means, iqms = _bootstrap(np.atleast_2d(returns), resamples, np.random.default_rng(seed))
  return {
    "mean": float(np.mean(returns)),
    "std": float(np.std(returns)),
    "median": float(np.median(returns)),
    "iqm": float(iqm(returns)),
    "min": float(np.min(returns)),
    "max": float(np.max(returns)),
    "mean_ci95": interval(means),
    "iqm_ci95": interval(iqms),
  }


def normalized(score: Array, random: float, expert: float) -> Array:
  """``100 (score - random) / (expert - random)``: 0 is a random policy, 100 the expert.

  Fu et al. 2020, "D4RL", section 5.

  Raises:
    ValueError: where the expert is as good as the random policy.
  """
  if expert == random:
    raise ValueError(f"normalized score: the expert's return equals the random policy's, {random}")
  return 100.0 * (score - random) / (expert - random)


def check_resamples(resamples: int) -> None:
  """Raises ValueError where a bootstrap would have nothing to make an interval of."""
  if resamples < 1:
    raise ValueError(f"resamples={resamples} must be at least 1")


def _bootstrap(returns: np.ndarray, resamples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """Means and IQMs ``[resamples]`` of resampled ``[seeds, episodes]``."""
  seeds, episodes = returns.shape
  means, iqms = [], []
  block = max(1, _BLOCK // returns.size)
  for first in range(0, resamples, block):
    count = min(block, resamples - first)
    drawn_seeds = rng.integers(seeds, size=(count, seeds, 1))
    drawn_episodes = rng.integers(episodes, size=(count, seeds, episodes))
    drawn = returns[drawn_seeds, drawn_episodes].reshape(count, -1)
    means.append(np.mean(drawn, axis=1))
    iqms.append(iqm(drawn, axis=1))
  return np.concatenate(means), np.concatenate(iqms)


def interval(values: Array) -> tuple[float, float]:
  """The ends of the 95 % interval of resampled values."""
  low, high = np.percentile(values, INTERVAL)
  return float(low), float(high)

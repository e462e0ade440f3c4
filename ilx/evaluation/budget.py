"""What finding a good policy costs: the score against the number of policy evaluations.

Jackson et al. 2025, "A Clean Slate for Offline Reinforcement Learning". An offline method is tuned by playing: of the
policies that its hyper-parameters gave, one plays some and keeps the best. A method whose score needs a thousand
episodes of tuning is worth less than one that has it after ten, which a score after tuning does not show.
"""

from typing import NamedTuple

import numpy as np

from ilx.evaluation.scores import INTERVAL
from ilx.types import Array


class Budget(NamedTuple):
  """What one has after playing 1, 2, ... K episodes.

  Attributes:
    value: float64 ``[K]``, the expected score of the policy that looks best, the mean over all searches.
    low: float64 ``[K]``; 2.5 % of the searches have less.
    high: float64 ``[K]``; 2.5 % of the searches have more.
  """

  value: np.ndarray
  low: np.ndarray
  high: np.ndarray


def budget(
  returns: Array,
  *,
  episodes: int = 200,
  policies: int = 20,
  searches: int = 1000,
  exploration: float = 2.0,
  seed: int = 0,
) -> Budget:
  """Simulates searches for the best policy by upper confidence bounds (Auer et al. 2002), from recorded returns.

  A search draws some of the policies without replacement. In turn it plays an episode of the one whose mean return so
  far plus ``sqrt(exploration * log(t) / plays)`` is largest, in units of the range of all returns (so that their scale
  does not matter); those not yet played come first, and chance decides among equals. The episode is one of the
  policy's, with replacement. What it has found is the policy with the largest mean so far; that policy's score is the
  mean of all its recorded returns.

  Args:
    returns: ``[policies, episodes]``, of policies that differ in hyper-parameters, seeds, or both.
    episodes: K, played by each search.
    policies: drawn by each search, all of them where there are not so many.
    searches: how many.
    exploration: 0 plays whatever looks best.
    seed: the same arguments give the same numbers.

  Raises:
    ValueError: for returns of another shape, or that are not finite; for counts below 1.
  """
  returns = np.asarray(returns, np.float64)
  if returns.ndim != 2 or not returns.size or not np.isfinite(returns).all():
    raise ValueError(f"returns must be finite, [policies, episodes], and not empty; got shape {returns.shape}")
  if min(episodes, policies, searches) < 1 or exploration < 0:
    raise ValueError("episodes, policies and searches must be at least 1, and exploration at least 0")
  rng = np.random.default_rng(seed)
  count = min(policies, len(returns))
  drawn = rng.permuted(np.tile(np.arange(len(returns)), (searches, 1)), axis=1)[:, :count]
  spread = np.ptp(returns) or 1.0
  scores = returns.mean(axis=1)
  plays, sums = np.zeros((searches, count)), np.zeros((searches, count))
  found = np.empty((episodes, searches))
  everyone = np.arange(searches)
  for t in range(episodes):
    bound = _means(sums, plays) / spread + np.sqrt(exploration * np.log(t + 1) / np.maximum(plays, 1))
    arm = _best(np.where(plays == 0, np.inf, bound), rng)
    sums[everyone, arm] += returns[drawn[everyone, arm], rng.integers(returns.shape[1], size=searches)]
    plays[everyone, arm] += 1
    looks_best = _best(np.where(plays == 0, -np.inf, _means(sums, plays)), rng)
    found[t] = scores[drawn[everyone, looks_best]]
  low, high = np.percentile(found, INTERVAL, axis=1)
  return Budget(found.mean(axis=1), low, high)


def _means(sums: np.ndarray, plays: np.ndarray) -> np.ndarray:
  return sums / np.maximum(plays, 1)


def _best(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The place of a row's largest value, one of them by chance where there are several."""
  largest = values == values.max(axis=1, keepdims=True)
  return np.argmax(largest * rng.uniform(0.5, 1.0, values.shape), axis=1)

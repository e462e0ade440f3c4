"""Numbers on how like a policy's actions are to recorded ones."""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from ilx.types import Action, Continuous, MultiDiscrete, Tree


class ContinuousFidelity(NamedTuple):
  """Distances of the policy's mode from held-out actions, in the environment's units.

  Attributes:
    episodes: held out.
    transitions: compared, M.
    mean_absolute_error: float64 ``[A]``.
    root_mean_squared_error: float64 ``[A]``.
    explained: float64 ``[A]``, R^2: the fraction of the actions' variance that the policy explains. 0 is as good as the
      mean action, below 0 worse; NaN where the action never varies.
    std: float64 ``[A]``, of the held-out actions.
    total_explained: the same fraction of the variance of all dimensions together.
    log_likelihood: mean log-density of the held-out actions, scaled to [-1, 1], under the policy, in nats (of a policy
      that chooses bins, of their log-probability); None of a policy without a distribution.
  """

  episodes: int
  transitions: int
  mean_absolute_error: np.ndarray
  root_mean_squared_error: np.ndarray
  explained: np.ndarray
  std: np.ndarray
  total_explained: float
  log_likelihood: float | None = None

  @property
  def scores(self) -> dict[str, float | None]:
    """Means over the dimensions; None where nothing varies."""
    return {
      "mean_absolute_error": float(self.mean_absolute_error.mean()),
      "root_mean_squared_error": math.sqrt(float(np.mean(self.root_mean_squared_error**2))),
      "explained": None if math.isnan(self.total_explained) else self.total_explained,
      "log_likelihood": self.log_likelihood,
    }


class DiscreteFidelity(NamedTuple):
  """How often the policy's mode is the held-out action.

  Attributes:
    episodes: held out.
    transitions: compared, M.
    count: int64 ``[A]``, how often each action was taken.
    recall: float64 ``[A]``, how often the policy chooses it where it was taken; NaN where it never was.
    accuracy: the share of all transitions where the policy's action is the one taken.
    log_likelihood: mean log-probability of the held-out actions under the policy, in nats; None of a policy without a
      distribution.
  """

  episodes: int
  transitions: int
  count: np.ndarray
  recall: np.ndarray
  accuracy: float
  log_likelihood: float | None = None

  @property
  def scores(self) -> dict[str, float | None]:
    """Accuracy, the mean recall of the actions that were taken, and the likelihood."""
    recall = float(np.nanmean(self.recall))
    return {"accuracy": self.accuracy, "balanced_accuracy": recall, "log_likelihood": self.log_likelihood}


class MultiDiscreteFidelity(NamedTuple):
  """How often the policy's mode is the held-out action, of several choices at once.

  Attributes:
    episodes: held out.
    transitions: compared, M.
    choices: each by itself, K.
    all_right: the share of all transitions where the policy's choices are all those taken.
    log_likelihood: mean log-probability of all choices together, in nats; None of a policy without a distribution.
  """

  episodes: int
  transitions: int
  choices: tuple[DiscreteFidelity, ...]
  all_right: float
  log_likelihood: float | None = None

  @property
  def scores(self) -> dict[str, float | None]:
    """Means over the choices, how often all are right, and how likely they are together."""
    each = [choice.scores for choice in self.choices]
    means = {name: float(np.mean([scores[name] for scores in each])) for name in ("accuracy", "balanced_accuracy")}
    return means | {"all_right": self.all_right, "log_likelihood": self.log_likelihood}


class FactoredFidelity(NamedTuple):
  """Likeness to held-out actions of several parts, part by part.

  Attributes:
    episodes: held out.
    transitions: compared, M.
    parts: by path, such as "hand/buttons".
  """

  episodes: int
  transitions: int
  parts: "dict[str, ContinuousFidelity | DiscreteFidelity | MultiDiscreteFidelity]"

  @property
  def scores(self) -> dict[str, float | None]:
    """Every part's, such as "hand/buttons/accuracy"."""
    return {f"{path}/{name}": score for path, part in self.parts.items() for name, score in part.scores.items()}


Fidelity = ContinuousFidelity | DiscreteFidelity | MultiDiscreteFidelity | FactoredFidelity


def compare(action: Action, wanted: Tree, chosen: Tree, log_prob: Tree, num_episodes: int) -> Fidelity:
  """The likeness of ``chosen`` to ``wanted``, leaves ``[M, ...]`` as ``action`` says.

  ``log_prob``: of ``wanted``, ``[M]``, or dicts of each part's; None where there is none.

  Raises:
    ValueError: where a choice that was taken is none of the task's.
  """
  if isinstance(action, Mapping):
    parts = {}
    for path, part in jax.tree_util.tree_leaves_with_path(action):
      of = functools.partial(functools.reduce, lambda tree, key: None if tree is None else tree[key.key], path)
      parts[jax.tree_util.keystr(path, simple=True, separator="/")] = compare(
        part, of(wanted), of(chosen), of(log_prob), num_episodes
      )
    return FactoredFidelity(num_episodes, len(jax.tree.leaves(wanted)[0]), parts)
  likelihood = None if log_prob is None else float(np.mean(log_prob, dtype=np.float64))
  if isinstance(action, Continuous):
    found = _continuous(wanted.reshape(len(wanted), -1), chosen.reshape(len(chosen), -1), num_episodes)
    return found._replace(log_likelihood=likelihood)
  if isinstance(action, MultiDiscrete):
    choices = tuple(_discrete(wanted[:, k], chosen[:, k], n, num_episodes) for k, n in enumerate(action.num_actions))
    all_right = float((wanted == chosen).all(axis=1).mean())
    return MultiDiscreteFidelity(num_episodes, len(wanted), choices, all_right, likelihood)
  return _discrete(wanted, chosen, action.num_actions, num_episodes)._replace(log_likelihood=likelihood)


def _continuous(wanted: np.ndarray, chosen: np.ndarray, num_episodes: int) -> ContinuousFidelity:
  wanted = wanted.astype(np.float64)
  error = chosen - wanted
  squared, variance = np.mean(error**2, axis=0), np.var(wanted, axis=0)
  varies = np.ptp(wanted, axis=0) > 0
  explained = np.where(varies, 1 - squared / np.where(varies, variance, 1), np.nan)
  total = 1 - float(squared.sum() / variance.sum()) if varies.any() else math.nan
  return ContinuousFidelity(
    episodes=num_episodes,
    transitions=len(wanted),
    mean_absolute_error=np.mean(np.abs(error), axis=0),
    root_mean_squared_error=np.sqrt(squared),
    explained=explained,
    std=np.sqrt(variance),
    total_explained=total,
  )


def _discrete(wanted: np.ndarray, chosen: np.ndarray, num_actions: int, num_episodes: int) -> DiscreteFidelity:
  if wanted.min() < 0 or wanted.max() >= num_actions:
    raise ValueError(
      f"fidelity: held-out actions go from {wanted.min()} to {wanted.max()}; the task has 0 to {num_actions - 1}"
    )
  wanted, chosen = wanted.astype(np.int64), chosen.astype(np.int64)
  right = wanted == chosen
  count = np.bincount(wanted, minlength=num_actions)
  hits = np.bincount(wanted[right], minlength=num_actions)
  recall = np.where(count > 0, hits / np.maximum(count, 1), np.nan)
  return DiscreteFidelity(num_episodes, len(wanted), count, recall, float(right.mean()))

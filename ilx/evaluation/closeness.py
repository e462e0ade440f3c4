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
  """

  episodes: int
  transitions: int
  mean_absolute_error: np.ndarray
  root_mean_squared_error: np.ndarray
  explained: np.ndarray
  std: np.ndarray
  total_explained: float

  @property
  def scores(self) -> dict[str, float | None]:
    """Means over the dimensions; None where nothing varies."""
    return {
      "mean_absolute_error": float(self.mean_absolute_error.mean()),
      "root_mean_squared_error": math.sqrt(float(np.mean(self.root_mean_squared_error**2))),
      "explained": None if math.isnan(self.total_explained) else self.total_explained,
    }


class DiscreteFidelity(NamedTuple):
  """How often the policy's mode is the held-out action.

  Attributes:
    episodes: held out.
    transitions: compared, M.
    count: int64 ``[A]``, how often each action was taken.
    recall: float64 ``[A]``, how often the policy chooses it where it was taken; NaN where it never was.
    accuracy: the share of all transitions where the policy's action is the one taken.
  """

  episodes: int
  transitions: int
  count: np.ndarray
  recall: np.ndarray
  accuracy: float

  @property
  def scores(self) -> dict[str, float | None]:
    """Accuracy, and the mean recall of the actions that were taken."""
    return {"accuracy": self.accuracy, "balanced_accuracy": float(np.nanmean(self.recall))}


class MultiDiscreteFidelity(NamedTuple):
  """How often the policy's mode is the held-out action, of several choices at once.

  Attributes:
    episodes: held out.
    transitions: compared, M.
    choices: each by itself, K.
    all_right: the share of all transitions where the policy's choices are all those taken.
  """

  episodes: int
  transitions: int
  choices: tuple[DiscreteFidelity, ...]
  all_right: float

  @property
  def scores(self) -> dict[str, float | None]:
    """Means over the choices, and how often all are right."""
    each = [choice.scores for choice in self.choices]
    means = {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}
    return means | {"all_right": self.all_right}


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


def compare(action: Action, wanted: Tree, chosen: Tree, num_episodes: int) -> Fidelity:
  """The likeness of ``chosen`` to ``wanted``, leaves ``[M, ...]`` as ``action`` says.

  Raises:
    ValueError: where a choice that was taken is none of the task's.
  """
  if isinstance(action, Mapping):
    parts = {}
    for path, part in jax.tree_util.tree_leaves_with_path(action):
      of = functools.partial(functools.reduce, lambda tree, key: tree[key.key], path)
      parts[jax.tree_util.keystr(path, simple=True, separator="/")] = compare(
        part, of(wanted), of(chosen), num_episodes
      )
    return FactoredFidelity(num_episodes, len(jax.tree.leaves(wanted)[0]), parts)
  if isinstance(action, Continuous):
    return _continuous(wanted.reshape(len(wanted), -1), chosen.reshape(len(chosen), -1), num_episodes)
  if isinstance(action, MultiDiscrete):
    choices = tuple(_discrete(wanted[:, k], chosen[:, k], n, num_episodes) for k, n in enumerate(action.num_actions))
    return MultiDiscreteFidelity(num_episodes, len(wanted), choices, float((wanted == chosen).all(axis=1).mean()))
  return _discrete(wanted, chosen, action.num_actions, num_episodes)


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

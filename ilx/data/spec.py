"""What a dataset says about its task."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ilx.data.episodes import Episodes
from ilx.data.statistics import statistics
from ilx.types import Continuous, Discrete, Spec


def spec(episodes: Episodes, metadata: Mapping[str, Any] | None = None) -> Spec:
  """The spec that agents are built from, with the statistics of the observations.

  Args:
    episodes: the data.
    metadata: the dataset's ``metadata.json`` (``read_info(...).metadata``); its ``action_low`` and ``action_high``
      (lists ``[A]``) or ``num_actions`` bound the actions. Without them the data do: continuous actions all within
      [-1, 1] give [-1, 1], others their own minimum and maximum per dimension; discrete ones 0 to their maximum.

  Raises:
    ValueError: where the metadata contradict the data.
  """
  metadata = metadata or {}
  action = np.asarray(episodes.action)
  counts = np.ones(len(action), bool)
  counts[np.asarray(episodes.starts)[1:] - 1] = False
  action = action[counts]
  if not len(action):
    raise ValueError("spec: the episodes have no actions")
  return Spec(
    observation=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), episodes.observation),
    action=_discrete(action, metadata) if action.dtype.kind in "iu" else _continuous(action, metadata),
    statistics=statistics(episodes.observation),
  )


def _discrete(action: np.ndarray, metadata: Mapping[str, Any]) -> Discrete:
  if action.ndim != 1:
    raise ValueError(f"spec: integer actions of shape {list(action.shape[1:])} a step; expected one integer")
  low, high = int(action.min()), int(action.max())
  num_actions = int(metadata.get("num_actions", high + 1))
  if low < 0 or high >= num_actions:
    raise ValueError(f"spec: the data have actions from {low} to {high}, the metadata num_actions {num_actions}")
  return Discrete(num_actions)


def _continuous(action: np.ndarray, metadata: Mapping[str, Any]) -> Continuous:
  if action.ndim != 2:
    raise ValueError(f"spec: actions of shape {list(action.shape[1:])} a step; expected [A]")
  if ("action_low" in metadata) != ("action_high" in metadata):
    raise ValueError("spec: the metadata have one of action_low and action_high; both or neither")
  if "action_low" in metadata:
    bounds = Continuous(np.array(metadata["action_low"]), np.array(metadata["action_high"]))
    if bounds.size != action.shape[1]:
      raise ValueError(f"spec: the metadata bound {bounds.size} action dimensions, the data have {action.shape[1]}")
    return bounds
  low, high = action.min(axis=0), action.max(axis=0)
  if low.min() >= -1 and high.max() <= 1:
    return Continuous(-np.ones_like(low), np.ones_like(high))
  # A dimension that never moves still needs an interval.
  still = low == high
  return Continuous(np.where(still, low - 1, low), np.where(still, high + 1, high))

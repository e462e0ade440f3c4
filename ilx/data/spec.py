"""What a dataset says about its task."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ilx.data.episodes import Episodes
from ilx.data.index_format import Index
from ilx.data.statistics import Accumulator, sample, statistics
from ilx.types import Continuous, Discrete, Spec, Statistics, Tree

# Rows of actions looked at together.
_ROWS = 1 << 16


def spec(data: Episodes | Index, metadata: Mapping[str, Any] | None = None, *, frame_stack: int = 0) -> Spec:
  """The spec that agents are built from, with the statistics of the observations.

  Loaded episodes and the index of the split that they come from give the same spec, bit for bit. Of observations of
  more than ``statistics.LARGE`` numbers, pictures above all, some thousand steps are looked at (``statistics.sample``),
  and beyond ``statistics.HUGE`` the statistics are those of the channels. There are no quantiles; ``Index`` has them.

  Args:
    data: the data, or what ``ilx.data.index.read`` says of them.
    metadata: the dataset's ``metadata.json`` (``read_info(...).metadata``); its ``action_low`` and ``action_high``
      (lists ``[A]``) or ``num_actions`` bound the actions. Without them the data do: continuous actions all within
      [-1, 1] give [-1, 1], others their own minimum and maximum per dimension; discrete ones 0 to their maximum.
    frame_stack: as in the views; above 0, observations and statistics are of so many frames, ``[frame_stack, O]``.

  Raises:
    ValueError: where the metadata contradict the data, or the action is no single array ``[A]`` or integer.
  """
  metadata = metadata or {}
  if frame_stack < 0:
    raise ValueError(f"spec: frame_stack is {frame_stack}; at least 0")
  if isinstance(data.action, Mapping):
    names = ", ".join(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in _leaves(data.action))
    raise ValueError(
      f"spec: the action has several fields ({names}) where agents take one array; "
      'load one of them with Selection(action="action/<field>")'
    )
  if isinstance(data, Index):
    observation, action = data.observation, data.action
    of_action, of_observation = data.statistics.get("action"), data.statistics["observation"]._replace(quantiles=None)
  else:
    observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data.observation)
    action = jax.ShapeDtypeStruct(data.action.shape[1:], data.action.dtype)
    steps = np.diff(np.asarray(data.starts))
    of_action = _of_action(data)
    of_observation = statistics(data.observation, rows=sample(steps, len(steps)))
  if of_action is None:
    raise ValueError("spec: the episodes have no actions")
  if frame_stack:
    observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct((frame_stack, *x.shape), x.dtype), observation)
    of_observation = _stacked(of_observation, frame_stack)
  bounds = _discrete if np.dtype(action.dtype).kind in "iu" else _continuous
  return Spec(observation, bounds(action.shape, of_action, metadata), of_observation)


def _leaves(tree: Tree) -> list[tuple[Any, Any]]:
  return jax.tree_util.tree_leaves_with_path(tree)


def _of_action(episodes: Episodes) -> Statistics | None:
  """The statistics of the actions that count, some rows at a time since they may be mapped from a disk."""
  counts = np.ones(episodes.num_steps, bool)
  counts[np.asarray(episodes.starts)[1:] - 1] = False
  accumulator = Accumulator(quantiles=False)
  for start in range(0, len(counts), _ROWS):
    part = slice(start, start + _ROWS)
    accumulator.update(np.asarray(episodes.action[part])[counts[part]])
  return accumulator.result() if accumulator.count else None


def _stacked(found: Statistics, frames: int) -> Statistics:
  """The same of every frame."""
  fields = {
    name: jax.tree.map(lambda x: np.broadcast_to(x, (frames, *np.shape(x))), getattr(found, name))
    for name in ("mean", "std", "min", "max")
  }
  return found._replace(**fields)


def _discrete(shape: tuple[int, ...], found: Statistics, metadata: Mapping[str, Any]) -> Discrete:
  if shape:
    raise ValueError(f"spec: integer actions of shape {list(shape)} a step; expected one integer")
  low, high = int(found.min), int(found.max)
  num_actions = int(metadata.get("num_actions", high + 1))
  if low < 0 or high >= num_actions:
    raise ValueError(f"spec: the data have actions from {low} to {high}, the metadata num_actions {num_actions}")
  return Discrete(num_actions)


def _continuous(shape: tuple[int, ...], found: Statistics, metadata: Mapping[str, Any]) -> Continuous:
  if len(shape) != 1:
    raise ValueError(f"spec: actions of shape {list(shape)} a step; expected [A]")
  if ("action_low" in metadata) != ("action_high" in metadata):
    raise ValueError("spec: the metadata have one of action_low and action_high; both or neither")
  if "action_low" in metadata:
    bounds = Continuous(np.array(metadata["action_low"]), np.array(metadata["action_high"]))
    if bounds.size != shape[0]:
      raise ValueError(f"spec: the metadata bound {bounds.size} action dimensions, the data have {shape[0]}")
    return bounds
  low, high = found.min.astype(np.float32), found.max.astype(np.float32)
  if low.min() >= -1 and high.max() <= 1:
    return Continuous(-np.ones_like(low), np.ones_like(high))
  # A dimension that never moves still needs an interval.
  still = low == high
  return Continuous(np.where(still, low - 1, low), np.where(still, high + 1, high))

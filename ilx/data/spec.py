"""What a dataset says about its task."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ilx.data.episodes import Episodes
from ilx.data.index_format import Index
from ilx.data.statistics import Accumulator, sample, statistics
from ilx.types import Action, Continuous, Discrete, MultiDiscrete, Spec, Statistics, Tree

# Rows of actions looked at together.
_ROWS = 1 << 16

# What bounds actions in metadata.json; of an action of several parts, dicts of them.
BOUNDS = ("action_low", "action_high", "num_actions")


def spec(data: Episodes | Index, metadata: Mapping[str, Any] | None = None, *, frame_stack: int = 0) -> Spec:
  """The spec that agents are built from, with the statistics of the observations.

  Loaded episodes and the index of the split that they come from give the same spec, bit for bit. Of observations of
  more than ``statistics.LARGE`` numbers, pictures above all, some thousand steps are looked at (``statistics.sample``),
  and beyond ``statistics.HUGE`` the statistics are those of the channels. There are no quantiles; ``Index`` has them.

  Args:
    data: the data, or what ``ilx.data.index.read`` says of them.
    metadata: the dataset's ``metadata.json`` (``read_info(...).metadata``); its ``action_low`` and ``action_high``
      (lists ``[A]``) or ``num_actions`` bound the actions. Without them the data do: continuous actions all within
      [-1, 1] give [-1, 1], others their own minimum and maximum per dimension; discrete ones 0 to their maximum. Of
      an action of several parts they are dicts like it; a part that is not in them is bounded by the data. Integers
      ``[K]`` a step are K choices, and ``num_actions`` a list of K; booleans are choices of two.
    frame_stack: as in the views; above 0, observations and statistics are of so many frames, ``[frame_stack, O]``.

  Raises:
    ValueError: where the metadata contradict the data, or an action (a part of it) has more than one axis.
  """
  metadata = metadata or {}
  if frame_stack < 0:
    raise ValueError(f"spec: frame_stack is {frame_stack}; at least 0")
  if isinstance(data, Index):
    observation, action = data.observation, data.action
    of_action, of_observation = data.statistics.get("action"), data.statistics["observation"]._replace(quantiles=None)
  else:
    observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data.observation)
    action = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), data.action)
    steps = np.diff(np.asarray(data.starts))
    of_action = _of_action(data)
    of_observation = statistics(data.observation, rows=sample(steps, len(steps)))
  if of_action is None:
    raise ValueError("spec: the episodes have no actions")
  if frame_stack:
    observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct((frame_stack, *x.shape), x.dtype), observation)
    of_observation = _stacked(of_observation, frame_stack)
  bounds = {name: metadata.get(name) for name in BOUNDS}
  return Spec(observation, _action("the action", action, of_action.min, of_action.max, bounds), of_observation)


def _action(name: str, leaf: Tree, low: Tree, high: Tree, bounds: Mapping[str, Any]) -> Action:
  """The bounds of an action, or of all parts of one, from the least and the largest values in the data."""
  bounds = {field: value for field, value in bounds.items() if value is not None}
  if isinstance(leaf, Mapping):
    if single := [field for field, value in bounds.items() if not isinstance(value, Mapping)]:
      raise ValueError(f"spec: {name} has several parts; the metadata's {single[0]} must be a dict of them")
    return {
      part: _action(
        f"{name}/{part}".removeprefix("the "),
        leaf[part],
        low[part],
        high[part],
        {field: value[part] for field, value in bounds.items() if part in value},
      )
      for part in leaf
    }
  if parted := [field for field, value in bounds.items() if isinstance(value, Mapping)]:
    parts = ", ".join(map(str, bounds[parted[0]]))
    raise ValueError(f"spec: {name} is one part; the metadata's {parted[0]} has several ({parts}), give its own")
  if len(leaf.shape) > 1:
    raise ValueError(f"spec: {name} has shape {list(leaf.shape)} a step; expected [A] or one number")
  return (_discrete if np.dtype(leaf.dtype).kind in "iub" else _continuous)(name, leaf, low, high, bounds)


def _of_action(episodes: Episodes) -> Statistics | None:
  """The statistics of the actions that count, some rows at a time since they may be mapped from a disk."""
  counts = np.ones(episodes.num_steps, bool)
  counts[np.asarray(episodes.starts)[1:] - 1] = False
  accumulator = Accumulator(quantiles=False)
  for start in range(0, len(counts), _ROWS):
    part = slice(start, start + _ROWS)
    accumulator.update(jax.tree.map(lambda x, part=part: np.asarray(x[part])[counts[part]], episodes.action))
  return accumulator.result() if accumulator.count else None


def _stacked(found: Statistics, frames: int) -> Statistics:
  """The same of every frame."""
  fields = {
    name: jax.tree.map(lambda x: np.broadcast_to(x, (frames, *np.shape(x))), getattr(found, name))
    for name in ("mean", "std", "min", "max")
  }
  return found._replace(**fields)


def _discrete(
  name: str, leaf: jax.ShapeDtypeStruct, low: np.ndarray, high: np.ndarray, bounds: Mapping[str, Any]
) -> Discrete | MultiDiscrete:
  low, high = np.asarray(low, np.int64), np.asarray(high, np.int64)
  least = np.ones_like(high) if leaf.dtype == bool else high
  num_actions = np.asarray(bounds.get("num_actions", least + 1))
  whole = num_actions.dtype.kind in "iuf" and np.isfinite(num_actions).all()
  if not whole or np.any(num_actions != np.floor(num_actions)):
    raise ValueError(f"spec: the metadata's num_actions of {name} are {num_actions.tolist()!r}; expected integers")
  num_actions = num_actions.astype(np.int64)
  if num_actions.shape != leaf.shape:
    raise ValueError(
      f"spec: {name} has shape {list(leaf.shape)} a step, the metadata's num_actions {num_actions.tolist()}"
    )
  if np.any(low < 0) or np.any(high >= num_actions):
    raise ValueError(
      f"spec: the data have {name} from {low.tolist()} to {high.tolist()}, "
      f"the metadata num_actions {num_actions.tolist()}"
    )
  return MultiDiscrete(tuple(num_actions.tolist())) if leaf.shape else Discrete(int(num_actions))


def _continuous(
  name: str, leaf: jax.ShapeDtypeStruct, low: np.ndarray, high: np.ndarray, bounds: Mapping[str, Any]
) -> Continuous:
  if ("action_low" in bounds) != ("action_high" in bounds):
    raise ValueError(f"spec: the metadata have one of action_low and action_high of {name}; both or neither")
  if "action_low" in bounds:
    ends = [np.array(bounds[end]) for end in ("action_low", "action_high")]
    if any(end.dtype.kind not in "iuf" for end in ends):
      raise ValueError(f"spec: the metadata's action_low and action_high of {name} are not numbers")
    found = Continuous(*ends)
    if found.low.shape != leaf.shape:
      raise ValueError(f"spec: the metadata bound {found.size} dimensions of {name}, the data have {list(leaf.shape)}")
    return found
  low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
  if low.min() >= -1 and high.max() <= 1:
    return Continuous(-np.ones_like(low), np.ones_like(high))
  # A dimension that never moves still needs an interval.
  still, margin = low == high, np.maximum(1, 1e-6 * np.abs(low))
  return Continuous(np.where(still, low - margin, low), np.where(still, high + margin, high))

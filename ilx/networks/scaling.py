"""Maps between the environment's units and a network's: standardised observations, actions in (-1, 1).

The constants live in the policy's params, so that params are all that play needs.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ilx.networks import encoders
from ilx.types import Action, Array, Continuous, Spec, Tree

# A dimension that hardly varied in the data says nothing about its scale. Without a floor on the standard deviation a
# small drift at play time becomes an enormous input; without the limit a dimension just above the floor still can.
STD_FLOOR = 1e-3
LIMIT = 10.0


class ObservationScale(NamedTuple):
  """Standardisation of an observation tree.

  Attributes:
    mean: float32 ``[O]``; of pictures one number for all pixels.
    std: float32 ``[O]``, floored; likewise.
  """

  mean: Tree
  std: Tree


class ActionScale(NamedTuple):
  """Bounds of continuous actions.

  Attributes:
    low: float32 ``[A]``, or ``[]`` for one number without an axis.
    high: the same.
    quantiles: float32 ``[Q, A]`` (``[Q]``) where actions are scaled by rank, else None.
  """

  low: Array
  high: Array
  quantiles: Array | None = None


def observation_scale(spec: Spec) -> ObservationScale | None:
  """Mean and floored standard deviation from the spec's statistics; None (no scaling) without them.

  Pictures are not standardised by pixel, since a pixel that hardly varied would rule all others: they are divided by
  255, which here is a mean of 0 and a standard deviation of 255.
  """
  if spec.statistics is None:
    return None

  def constant(leaf: jax.ShapeDtypeStruct, x: Array, picture: float) -> jax.Array:
    return jnp.full((), picture, jnp.float32) if encoders.is_picture(leaf) else jnp.array(x, jnp.float32)

  return ObservationScale(
    mean=jax.tree.map(lambda leaf, x: constant(leaf, x, 0.0), spec.observation, spec.statistics.mean),
    std=jax.tree.map(
      lambda leaf, x: jnp.maximum(constant(leaf, x, 255.0), STD_FLOOR), spec.observation, spec.statistics.std
    ),
  )


def action_scale(action: Action) -> ActionScale | dict[str, Tree] | None:
  """The bounds of continuous actions; None for discrete ones; dicts for an action of several parts."""
  if isinstance(action, Mapping):
    return {name: action_scale(part) for name, part in action.items()}
  if not isinstance(action, Continuous):
    return None
  # Copies: params may be donated, the spec's arrays must not be.
  quantiles = None if action.quantiles is None else jnp.array(action.quantiles)
  return ActionScale(low=jnp.array(action.low), high=jnp.array(action.high), quantiles=quantiles)


def standardise(scale: ObservationScale | None, observation: Tree) -> Tree:
  """A float32 tree ``[..., O]`` of standardised leaves, within -10 and 10; uint8 stays what it is until here.

  Without a scale uint8 leaves are divided by 255 and others left alone. The limit, and the floor of 0.001 on standard
  deviations, are in none of the agents' papers.
  """
  if scale is None:
    return jax.tree.map(lambda x: x.astype(jnp.float32) / (255.0 if x.dtype == jnp.uint8 else 1.0), observation)
  return jax.tree.map(
    lambda x, mean, std: jnp.clip((x.astype(jnp.float32) - mean) / std, -LIMIT, LIMIT),
    observation,
    scale.mean,
    scale.std,
  )


def to_unit(scale: ActionScale | dict[str, Tree] | None, action: Tree) -> Tree:
  """Environment's action to the network's: ``[low, high]`` to ``[-1, 1]``; choices pass unchanged, flags as 0 and 1.

  Actions outside the bounds are moved onto them first, as environments do. With quantiles it is the action's rank among
  them: the first is -1, the last 1; of equal ones the middle. Numbers without an axis get one: ``[...]`` to
  ``[..., 1]``.
  """
  if isinstance(action, Mapping):
    return {name: to_unit(scale[name], part) for name, part in action.items()}
  if scale is None:
    return action.astype(jnp.int32) if action.dtype == bool else action
  action = action.astype(jnp.float32)
  scale, action = _with_axis(scale), action[..., None] if scale.low.ndim == 0 else action
  if scale.quantiles is not None:
    return 2.0 * jax.vmap(_rank, (-1, -1), -1)(scale.quantiles, action) - 1.0
  action = jnp.clip(action, scale.low, scale.high)
  return 2.0 * (action - scale.low) / (scale.high - scale.low) - 1.0


def from_unit(scale: ActionScale | dict[str, Tree] | None, action: Tree) -> Tree:
  """Inverse of `to_unit`, clipped to the bounds against rounding and unbounded densities."""
  if isinstance(action, Mapping):
    return {name: from_unit(scale[name], part) for name, part in action.items()}
  if scale is None:
    return action
  full = _with_axis(scale)
  if scale.quantiles is None:
    action = full.low + 0.5 * (action + 1.0) * (full.high - full.low)
  else:
    action = jax.vmap(_at_rank, (-1, -1), -1)(full.quantiles, 0.5 * (action + 1.0))
  action = jnp.clip(action, full.low, full.high)
  return action[..., 0] if scale.low.ndim == 0 else action


def _with_axis(scale: ActionScale) -> ActionScale:
  return jax.tree.map(lambda x: x[..., None], scale) if scale.low.ndim == 0 else scale


def _rank(quantiles: Array, x: Array) -> Array:
  """Where ``x`` (any shape) lies among rising ``quantiles [Q]``, 0 to 1: linear between two, halfway among equals."""
  x = jnp.clip(x, quantiles[0], quantiles[-1])
  below, upto = (jnp.searchsorted(quantiles, x, side=side, method="scan_unrolled") for side in ("left", "right"))
  after = jnp.maximum(below, 1)
  low, high = quantiles[after - 1], quantiles[after]
  between = after - 1 + (x - low) / jnp.where(high > low, high - low, 1.0)
  return jnp.where(upto > below, 0.5 * (below + upto - 1), between) / (len(quantiles) - 1)


def _at_rank(quantiles: Array, rank: Array) -> Array:
  """Inverse of `_rank`: between two quantiles linear; among equals the value whose rank is nearest.

  A common value covers many ranks, and its own is in their middle: near their ends its neighbours' are nearer, however
  rare these are. It never falls.
  """
  last = len(quantiles) - 1
  place = jnp.clip(rank, 0.0, 1.0) * last
  before = jnp.minimum(place.astype(jnp.int32), last)
  low, high = quantiles[before], quantiles[jnp.minimum(before + 1, last)]

  def equals(value: Array) -> tuple[Array, Array]:
    start, end = (jnp.searchsorted(quantiles, value, side=side, method="scan_unrolled") for side in ("left", "right"))
    return start, end - 1

  start, end = equals(low)
  values = jnp.stack([low, quantiles[jnp.maximum(start - 1, 0)], quantiles[jnp.minimum(end + 1, last)]])
  starts, ends = equals(values)
  nearest = jnp.argmin(jnp.abs(0.5 * (starts + ends) - place), axis=0)
  nearest = jnp.take_along_axis(values, nearest[None], axis=0)[0]
  # Between two quantiles, unless the ranks beside belong to one of them already; with equals on both sides nothing says
  # that there is anything in between.
  below, above = (ends[k] - starts[k] for k in (0, 2))
  linear = (high > low) & (place > before) & (jnp.abs(below - above) <= 2) & (jnp.minimum(below, above) == 0)
  return jnp.where(linear, low + (place - before) * (high - low), nearest)

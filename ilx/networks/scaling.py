"""Maps between the environment's units and a network's: standardised observations, actions in (-1, 1).

The constants live in the policy's params, so that params are all that play needs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ilx.networks import encoders
from ilx.types import Array, Continuous, Discrete, Spec, Tree

# A dimension that hardly varied in the data says nothing about its scale. Without a floor on the standard deviation a
# small drift at play time becomes an enormous input; without the limit a dimension just above the floor still can.
_STD_FLOOR = 1e-3
_LIMIT = 10.0


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
    low: float32 ``[A]``.
    high: float32 ``[A]``.
  """

  low: Array
  high: Array


def observation_scale(spec: Spec) -> ObservationScale | None:
  """Mean and floored standard deviation from the spec's statistics; None (no scaling) without them.

  Pictures are not standardised by pixel, since a pixel that hardly varied would rule all others: they are divided by
  255, which here is a mean of 0 and a standard deviation of 255.
  """
  if spec.statistics is None:
    return None

  def constant(leaf: jax.ShapeDtypeStruct, x: Array, picture: float) -> jax.Array:
    return jnp.full((), picture) if encoders.is_picture(leaf) else jnp.array(x, jnp.float32)

  return ObservationScale(
    mean=jax.tree.map(lambda leaf, x: constant(leaf, x, 0.0), spec.observation, spec.statistics.mean),
    std=jax.tree.map(
      lambda leaf, x: jnp.maximum(constant(leaf, x, 255.0), _STD_FLOOR), spec.observation, spec.statistics.std
    ),
  )


def action_scale(action: Continuous | Discrete) -> ActionScale | None:
  """The bounds of continuous actions; None for discrete ones."""
  if isinstance(action, Discrete):
    return None
  # Copies: params may be donated, the spec's arrays must not be.
  return ActionScale(low=jnp.array(action.low), high=jnp.array(action.high))


def standardise(scale: ObservationScale | None, observation: Tree) -> Tree:
  """A float32 tree ``[..., O]`` of standardised leaves; uint8 stays what it is until here.

  Without a scale uint8 leaves are divided by 255 and others left alone.
  """
  if scale is None:
    return jax.tree.map(lambda x: x.astype(jnp.float32) / (255.0 if x.dtype == jnp.uint8 else 1.0), observation)
  return jax.tree.map(
    lambda x, mean, std: jnp.clip((x.astype(jnp.float32) - mean) / std, -_LIMIT, _LIMIT),
    observation,
    scale.mean,
    scale.std,
  )


def to_unit(scale: ActionScale | None, action: Array) -> Array:
  """Environment's action to the network's: ``[low, high]`` to ``[-1, 1]``; discrete actions pass unchanged.

  Actions outside the bounds are moved onto them first, as environments do.
  """
  if scale is None:
    return action
  action = jnp.clip(action, scale.low, scale.high)
  return 2.0 * (action - scale.low) / (scale.high - scale.low) - 1.0


def from_unit(scale: ActionScale | None, action: Array) -> Array:
  """Inverse of `to_unit`, clipped to the bounds against rounding."""
  if scale is None:
    return action
  return jnp.clip(scale.low + 0.5 * (action + 1.0) * (scale.high - scale.low), scale.low, scale.high)

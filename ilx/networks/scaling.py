"""Maps between the environment's units and a network's: standardised observations, actions in (-1, 1).

The constants live in the policy's params, so that params are all that play needs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ilx.types import Array, Continuous, Discrete, Spec, Statistics, Tree

# A dimension that hardly varied in the data says nothing about its scale. Without a floor on the standard deviation a
# small drift at play time becomes an enormous input; without the limit a dimension just above the floor still can.
_STD_FLOOR = 1e-3
_LIMIT = 10.0


class ObservationScale(NamedTuple):
  """Standardisation of an observation tree.

  Attributes:
    mean: float32 ``[O]``.
    std: float32 ``[O]``, floored.
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


def observation_scale(statistics: Statistics | None) -> ObservationScale | None:
  """Mean and floored standard deviation from dataset statistics; None (no scaling) for None."""
  if statistics is None:
    return None
  return ObservationScale(
    mean=jax.tree.map(lambda x: jnp.array(x, jnp.float32), statistics.mean),
    std=jax.tree.map(lambda x: jnp.maximum(jnp.asarray(x, jnp.float32), _STD_FLOOR), statistics.std),
  )


def action_scale(action: Continuous | Discrete) -> ActionScale | None:
  """The bounds of continuous actions; None for discrete ones."""
  if isinstance(action, Discrete):
    return None
  # Copies: params may be donated, the spec's arrays must not be.
  return ActionScale(low=jnp.array(action.low), high=jnp.array(action.high))


def features(scale: ObservationScale | None, observation: Tree, spec: Spec) -> jax.Array:
  """Standardised observation as one flat feature axis.

  Args:
    scale: from `observation_scale`. Without it uint8 leaves (images) are divided by 255, others left alone.
    observation: leaves ``[..., *shape]``, where ``shape`` is the leaf's in ``spec``.
    spec: says which axes are an observation's own and which are batch axes.

  Returns:
    float32 ``[..., F]``, F the number of elements of one observation.
  """
  if scale is None:
    observation = jax.tree.map(lambda x: x / 255.0 if x.dtype == jnp.uint8 else x, observation)
  else:
    observation = jax.tree.map(
      lambda x, mean, std: jnp.clip((x.astype(jnp.float32) - mean) / std, -_LIMIT, _LIMIT),
      observation,
      scale.mean,
      scale.std,
    )

  def flat(x: jax.Array, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    batch = x.shape[: x.ndim - len(leaf.shape)]
    return x.astype(jnp.float32).reshape(*batch, -1)

  return jnp.concatenate(jax.tree.leaves(jax.tree.map(flat, observation, spec.observation)), axis=-1)


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

"""Actions as inputs of networks."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from ilx.types import Action, Discrete, MultiDiscrete, Tree


def features(spec: Action, action: Tree) -> jax.Array:
  """An action in the network's units (``scaling.to_unit``) as float32 ``[..., F]``: one-hot where it is discrete.

  Of several parts, and of several choices, the features are joined, in the order of ``jax.tree.leaves``.
  """
  if isinstance(spec, Mapping):
    return jnp.concatenate([features(spec[name], action[name]) for name in sorted(spec)], axis=-1)
  if isinstance(spec, Discrete):
    return _one_hot(action, spec.num_actions)
  if isinstance(spec, MultiDiscrete):
    choices = [_one_hot(action[..., k], n) for k, n in enumerate(spec.num_actions)]
    return jnp.concatenate(choices, axis=-1)
  return action


def _one_hot(choice: jax.Array, count: int) -> jax.Array:
  return jax.nn.one_hot(choice, count, dtype=jnp.float32)  # without it the widest there is

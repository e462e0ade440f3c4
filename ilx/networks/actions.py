"""Actions as inputs of networks."""

import jax

from ilx.types import Array, Continuous, Discrete


def features(spec: Continuous | Discrete, action: Array) -> jax.Array:
  """An action in the network's units (``scaling.to_unit``) as float32 ``[..., F]``: one-hot where it is discrete."""
  if isinstance(spec, Discrete):
    return jax.nn.one_hot(action, spec.num_actions)
  return action

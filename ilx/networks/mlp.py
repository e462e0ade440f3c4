"""Multi-layer perceptron."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax


class MLP(nn.Module):
  """Dense layers, each followed by layer norm (optional) and an activation.

  The input's trailing axis is the feature axis; every leading axis is a batch axis:
  ``[..., F] -> [..., features[-1]]``.

  Attributes:
    features: width of each layer; an empty sequence makes the module the identity.
    activation: applied after every layer, the last one included.
    layer_norm: normalise before the activation.
  """

  features: Sequence[int]
  activation: Callable[[jax.Array], jax.Array] = nn.relu
  layer_norm: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for width in self.features:
      x = nn.Dense(width)(x)
      if self.layer_norm:
        x = nn.LayerNorm()(x)
      x = self.activation(x)
    return x

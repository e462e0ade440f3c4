"""Multi-layer perceptron."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from ilx.networks.dropout import dropout


class MLP(nn.Module):
  """Dense layers, each followed by layer norm (optional), an activation and dropout (optional).

  The input's trailing axis is the feature axis; every leading axis is a batch axis:
  ``[..., F] -> [..., features[-1]]``.

  Attributes:
    features: width of each layer; an empty sequence makes the module the identity.
    activation: applied after every layer, the last one included.
    layer_norm: normalise before the activation.
    dropout: share of a layer's outputs that are set to zero where ``apply`` is given ``rngs={"dropout": key}``, as in
      training; without a key none are.
  """

  features: Sequence[int]
  activation: Callable[[jax.Array], jax.Array] = nn.relu
  layer_norm: bool = False
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for width in self.features:
      x = nn.Dense(width)(x)
      if self.layer_norm:
        x = nn.LayerNorm()(x)
      x = self.activation(x)
      if self.dropout:
        x = dropout(x, self.dropout, self.make_rng("dropout") if self.has_rng("dropout") else None)
    return x

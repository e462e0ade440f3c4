"""The convolutional network of the deep Q-network."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx import ranges
from ilx.networks.convolution import Conv

# Channels, size of the kernel, stride.
_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))

# The smallest height and width of which all three layers leave something.
SMALLEST = 36


class Nature(nn.Module):
  """Three valid convolutions and a dense layer, a ReLU after each: ``[..., H, W, C] -> [..., features]``.

  84 x 84 become 20 x 20 x 32, 9 x 9 x 64 and 7 x 7 x 64, that is 3,136 numbers before the dense layer.
  Mnih et al. 2015, "Human-level control through deep reinforcement learning", methods, "Model architecture".

  Attributes:
    features: width of the dense layer.
    dtype: of the computation.
  """

  features: int = 512
  dtype: Any = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    ranges.at_least_1(features=self.features)
    ranges.floating(dtype=self.dtype)

  @nn.compact
  def __call__(self, picture: jax.Array) -> jax.Array:
    x = picture
    for i, (channels, size, stride) in enumerate(_LAYERS):
      x = nn.relu(Conv(channels, size, stride, "VALID", self.dtype, name=f"conv_{i}")(x))
    x = x.reshape(*x.shape[:-3], -1)
    return nn.relu(nn.Dense(self.features, dtype=self.dtype, name="dense")(x))

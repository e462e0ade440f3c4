"""The residual network of IMPALA."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx import ranges
from ilx.networks.convolution import Conv


class ResidualBlock(nn.Module):
  """``x + conv(relu(conv(relu(x))))``, of unchanged shape ``[..., H, W, C]``."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = x
    for i in range(2):
      y = Conv(x.shape[-1], 3, dtype=self.dtype, name=f"conv_{i}")(nn.relu(y))
    return x + y


class Impala(nn.Module):
  """Three times a convolution, a max-pooling and residual blocks; a dense layer: ``[..., H, W, C] -> [..., features]``.

  Height and width are halved three times, rounded up: 84 x 84 become 11 x 11 x 32, that is 3,872 numbers before the
  dense layer. Espeholt et al. 2018, "IMPALA", figure 3, right, without its LSTM.

  Attributes:
    width: factor of the number of channels, 1 in the paper.
    channels: of the three sections, before ``width``.
    blocks: residual blocks in each section.
    features: width of the dense layer.
    dtype: of the computation.
  """

  width: int = 1
  channels: tuple[int, ...] = (16, 32, 32)
  blocks: int = 2
  features: int = 256
  dtype: Any = jnp.float32

  def __post_init__(self):
    super().__post_init__()
    ranges.at_least_1(width=self.width, features=self.features)
    ranges.at_least_1(**{f"channels[{i}]": count for i, count in enumerate(self.channels)})
    ranges.whole_at_least_0(blocks=self.blocks)
    ranges.floating(dtype=self.dtype)

  @nn.compact
  def __call__(self, picture: jax.Array) -> jax.Array:
    x = picture
    for i, channels in enumerate(self.channels):
      x = max_pool(Conv(self.width * channels, 3, dtype=self.dtype, name=f"conv_{i}")(x))
      for j in range(self.blocks):
        x = ResidualBlock(self.dtype, name=f"block_{i}_{j}")(x)
    x = nn.relu(x).reshape(*x.shape[:-3], -1)
    return nn.relu(nn.Dense(self.features, dtype=self.dtype, name="dense")(x))


def max_pool(x: jax.Array) -> jax.Array:
  """Maxima of 3 x 3 at stride 2 with padding "SAME": ``[..., H, W, C] -> [..., ceil(H / 2), ceil(W / 2), C]``.

  The numbers of ``flax.linen.max_pool``, one axis after the other and without windows: on a CPU the gradient of a
  reduction over windows takes longer than all convolutions together (four times as long as this one's).
  """
  return _pool_axis(_pool_axis(x, x.ndim - 3), x.ndim - 2)


def _pool_axis(x: jax.Array, axis: int) -> jax.Array:
  """Window i begins at ``2 i``, or one before that where the size is odd: a pair, and the first of the next pair."""

  def pad(x: jax.Array, before: int, after: int) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (before, after)
    return jnp.pad(x, widths, constant_values=-jnp.inf)

  odd = x.shape[axis] % 2
  count = x.shape[axis] // 2 + odd
  pairs = pad(x, odd, 0).reshape(*x.shape[:axis], count, 2, *x.shape[axis + 1 :])
  first, second = (jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in range(2))
  following = pad(jax.lax.slice_in_dim(first, 1, count, axis=axis), 0, 1)
  return jnp.maximum(jnp.maximum(first, second), following)

"""A small vision transformer."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks.convolution import Conv
from ilx.parallel import activations


class Block(nn.Module):
  """A pre-norm layer of attention and MLP, every token seeing every other: ``[..., L, D] -> [..., L, D]``."""

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = activations.batch(x)
    width = x.shape[-1]
    y = nn.LayerNorm(name="attention_norm")(x)
    # Without biases: a key's would change nothing, and its gradient be rounding errors alone, which Adam scales up.
    qkv = nn.DenseGeneral((3, self.heads, width // self.heads), use_bias=False, name="qkv")(y)
    y = jax.nn.dot_product_attention(*(qkv[..., i, :, :] for i in range(3)))
    x = x + nn.DenseGeneral(width, axis=(-2, -1), name="out")(y)
    y = nn.gelu(nn.Dense(4 * width, name="up")(nn.LayerNorm(name="mlp_norm")(x)))
    return x + nn.Dense(width, name="down")(y)


class ViT(nn.Module):
  """Patches as the tokens of a transformer, whose mean is the features: ``[..., H, W, C] -> [..., width]``.

  Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", far smaller, with the mean of all tokens for a class token
  (their appendix D.3). Pictures that the patches do not divide are padded with zeros on all sides.

  Attributes:
    patch: pixels on each side of one.
    width: of a token, D.
    layers: how many.
    heads: of the attention, which divide ``width``.
  """

  patch: int = 8
  width: int = 128
  layers: int = 4
  heads: int = 4

  @nn.compact
  def __call__(self, picture: jax.Array) -> jax.Array:
    if self.width % self.heads:
      raise ValueError(f"ViT: heads={self.heads} do not divide width={self.width}; choose a multiple")
    batch = picture.shape[:-3]
    x = Conv(self.width, self.patch, self.patch, name="patches")(picture)
    x = x.reshape(math.prod(batch), -1, self.width)
    x = x + self.param("positions", nn.initializers.normal(0.02), x.shape[1:], jnp.float32)
    for i in range(self.layers):
      x = Block(self.heads, name=f"block_{i}")(x)
    return nn.LayerNorm(name="norm")(x).mean(axis=-2).reshape(*batch, self.width)

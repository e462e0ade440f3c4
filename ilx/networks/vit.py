"""A small vision transformer."""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx import ranges
from ilx.networks.convolution import Conv
from ilx.networks.transformer import Transformer


class ViT(nn.Module):
  """Patches as the tokens of a transformer, whose mean is the features: ``[..., H, W, C] -> [..., width]``.

  Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", far smaller, with the mean of all tokens for a class token
  (their appendix D.3), and without biases behind the patches: a key's would change nothing, and its gradient be
  rounding errors alone, which Adam scales up. Pictures that the patches do not divide are padded with zeros on all
  sides.

  Attributes:
    patch: pixels on each side of one.
    width: of a token, D.
    layers: how many.
    heads: of the attention, which divide ``width``.
    dtype: of the computation.
    remat: as of ``Transformer``.
  """

  patch: int = 8
  width: int = 128
  layers: int = 4
  heads: int = 4
  dtype: Any = jnp.float32
  remat: Literal["full", "dots"] | None = None

  def __post_init__(self):
    super().__post_init__()
    ranges.at_least_1(patch=self.patch)
    self._transformer(1, parent=None)  # which checks the others

  @nn.compact
  def __call__(self, picture: jax.Array) -> jax.Array:
    batch = picture.shape[:-3]
    x = Conv(self.width, self.patch, self.patch, dtype=self.dtype, name="patches")(picture)
    x = x.reshape(math.prod(batch), -1, self.width)
    x = self._transformer(x.shape[1], name="transformer")(x)
    return x.mean(axis=-2).reshape(*batch, self.width)

  @nn.nowrap
  def _transformer(self, length: int, **where: Any) -> Transformer:
    return Transformer(
      layers=self.layers,
      heads=self.heads,
      width=self.width,
      positions="learnt",
      max_length=length,
      bias=False,
      dtype=self.dtype,
      remat=self.remat,
      # Whole sequences are attended to at play, too, which may be on another device than learning, or exported.
      attention="xla",
      causal=False,
      **where,
    )

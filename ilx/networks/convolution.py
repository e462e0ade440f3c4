"""Convolutions that are as fast in a loop of updates as outside of it."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_NHWC = ("NHWC", "HWIO", "NHWC")
_Padding = tuple[tuple[int, int], tuple[int, int]]


class Conv(nn.Module):
  """A convolution with a bias, ``[..., H, W, C] -> [..., H', W', features]``; parameters as of ``flax.linen.Conv``.

  Attributes:
    features: channels of the output.
    size: of the kernel, in both directions.
    stride: in both directions.
    padding: "SAME" (zeros, as TensorFlow) or "VALID".
    dtype: of the computation; parameters are float32.
  """

  features: int
  size: int
  stride: int = 1
  padding: str = "SAME"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
    batch = x.shape[:-3]
    x = x.reshape(math.prod(batch), *x.shape[-3:]).astype(self.dtype)
    padding = jax.lax.padtype_to_pads(x.shape[1:3], shape[:2], (self.stride, self.stride), self.padding)
    y = convolve(x, kernel.astype(self.dtype), self.stride, tuple(map(tuple, padding))) + bias.astype(self.dtype)
    return y.reshape(*batch, *y.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: _Padding) -> jax.Array:
  """``[N, H, W, C]`` and ``[K, K, C, F]`` to ``[N, H', W', F]``.

  Its gradients are convolutions too, here written with the axes in the order that the forward one has. Those of
  ``jax.lax.conv_general_dilated`` have them in another, which XLA puts right on a CPU, but not within the body of a
  loop: there it took code more than ten times slower (jax 0.10, https://github.com/jax-ml/jax/issues/12868).

  Args:
    x: the pictures.
    kernel: the weights.
    stride: in both directions.
    padding: zeros before and after, of height and width.
  """
  return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=_NHWC)


def _forward(x: jax.Array, kernel: jax.Array, stride: int, padding: _Padding) -> tuple[jax.Array, tuple]:
  return convolve(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: _Padding, kept: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = kept
  # Input, output with the stride's holes, and kernel along height and width.
  sizes = [(x.shape[i], (g.shape[i] - 1) * stride + 1, kernel.shape[i - 1], padding[i - 1][0]) for i in (1, 2)]
  of_kernel = jax.lax.conv_general_dilated(
    x.transpose(3, 1, 2, 0),
    g.transpose(1, 2, 0, 3),
    (1, 1),
    [(before, out + k - 1 - size - before) for size, out, k, before in sizes],
    rhs_dilation=(stride, stride),
    dimension_numbers=_NHWC,
  )
  of_x = jax.lax.conv_general_dilated(
    g,
    jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2),
    (1, 1),
    [(k - 1 - before, size + before - out) for size, out, k, before in sizes],
    lhs_dilation=(stride, stride),
    dimension_numbers=_NHWC,
  )
  return of_x, of_kernel.transpose(1, 2, 0, 3)


convolve.defvjp(_forward, _backward)

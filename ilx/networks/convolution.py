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
  return _conv(x, kernel, (stride, stride), padding, (1, 1))


def _forward(x: jax.Array, kernel: jax.Array, stride: int, padding: _Padding) -> tuple[jax.Array, tuple]:
  return convolve(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: _Padding, kept: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
  x, kernel = kept
  # Input, output with the stride's holes, and kernel along height and width.
  sizes = [(x.shape[i], (g.shape[i] - 1) * stride + 1, kernel.shape[i - 1], padding[i - 1][0]) for i in (1, 2)]
  around = tuple((before, out + k - 1 - size - before) for size, out, k, before in sizes)
  of_kernel = _conv(x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), (1, 1), around, (stride, stride))
  return _of_x(g, kernel, stride, padding, x.shape), of_kernel.transpose(1, 2, 0, 3)


def _of_x(g: jax.Array, kernel: jax.Array, stride: int, padding: _Padding, shape: tuple[int, ...]) -> jax.Array:
  """The gradient to pictures of ``shape``.

  Pixels in one cell of ``stride`` by ``stride`` are computed as channels of one pixel, which makes the convolution one
  without holes: multiplying with zeros in between costs ``stride ** 2`` as much.
  """
  channels, features = kernel.shape[2:]
  cells = -(-kernel.shape[0] // stride)
  more = cells * stride - kernel.shape[0]
  kernel = jnp.pad(kernel, ((0, more), (0, more), (0, 0), (0, 0)))
  kernel = kernel.reshape(cells, stride, cells, stride, channels, features)
  kernel = jnp.flip(kernel, (0, 2)).transpose(0, 2, 5, 1, 3, 4).reshape(cells, cells, features, -1)
  # Of the cells that kernels touch, those before the picture and after it, which are padding, are not computed.
  firsts = [before // stride for before, _ in padding]
  lasts = [(before + size - 1) // stride for (before, _), size in zip(padding, shape[1:3], strict=True)]
  touched = [g.shape[1] + cells - 1, g.shape[2] + cells - 1]
  around = tuple((cells - 1 - firsts[i], cells - 1 - max(0, touched[i] - 1 - lasts[i])) for i in (0, 1))
  y = _conv(g, kernel, (1, 1), around, (1, 1))
  count, height, width, _ = y.shape
  y = y.reshape(count, height, width, stride, stride, channels).transpose(0, 1, 3, 2, 4, 5)
  y = y.reshape(count, height * stride, width * stride, channels)
  # What is left of padding is cut off; what no kernel touched has no gradient.
  cuts = [before % stride for before, _ in padding]
  edges = [(-cuts[i], shape[i + 1] + cuts[i] - y.shape[i + 1], 0) for i in (0, 1)]
  return jax.lax.pad(y, jnp.zeros((), y.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


convolve.defvjp(_forward, _backward)


def _conv(
  x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: _Padding, dilation: tuple[int, int]
) -> jax.Array:
  """As of jax, but for several kernels under ``vmap``, such as those of many seeds, one convolution after the other.

  jax makes one in groups of channels of them, of which a GPU's library has no gradient to kernels.
  """

  @jax.custom_batching.custom_vmap
  def one(x: jax.Array, kernel: jax.Array) -> jax.Array:
    how = {"rhs_dilation": dilation, "dimension_numbers": _NHWC}
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **how)

  @one.def_vmap
  def many(size: int, batched: list[bool], x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, bool]:
    if not batched[1]:
      y = one(x.reshape(-1, *x.shape[2:]), kernel)
      return y.reshape(size, -1, *y.shape[1:]), True
    if not batched[0]:
      return jax.lax.map(lambda kernel: one(x, kernel), kernel), True
    return jax.lax.map(lambda both: one(*both), (x, kernel)), True

  return one(x, kernel)

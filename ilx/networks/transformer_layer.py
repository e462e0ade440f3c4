"""One layer of the transformer: attention and an MLP, each behind a norm and beside a residual connection."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks import attention
from ilx.networks.attention import ALL
from ilx.networks.dropout import dropout
from ilx.parallel import activations

# GPT-2's.
INIT_STD = 0.02
NORM_EPSILON = 1e-5


class Shared(NamedTuple):
  """What all layers are given alike.

  Attributes:
    rotation: cosine and sine of the angles of every token, or None.
    mask: bool, the keys that may be attended to, or None for all: of a whole sequence ``[B, 1, 1, L]``, beside
      causality; of tokens that extend a cache of S ``[B, 1, n, S]``.
    slots: int32 ``[B, n]`` of the cache that the tokens are written to, beyond its end for none; None without a cache.
  """

  rotation: tuple[jax.Array, jax.Array] | None = None
  mask: jax.Array | None = None
  slots: jax.Array | None = None


class PerLayer(NamedTuple):
  """What each layer has of its own beside parameters.

  Attributes:
    dropout: a key, or None for no dropout.
    cache: of keys and values, or None.
  """

  dropout: jax.Array | None = None
  cache: attention.Cached | None = None


class Layer(nn.Module):
  """One pre-norm layer; attributes as of ``Transformer``."""

  heads: int
  hidden: int
  layers: int
  dropout: float
  attention_dropout: float
  activation: Callable[[jax.Array], jax.Array]
  bias: bool
  dtype: Any
  attention: str
  causal: bool

  @nn.compact
  def __call__(
    self, x: jax.Array, own: PerLayer, shared: Shared, read: slice = ALL
  ) -> tuple[jax.Array, attention.Cached | None]:
    """``[B, L, D]`` to the same of the tokens in ``read``, and the new cache where there is one."""
    x = activations.batch(x)
    keys = (None,) * 3 if own.dropout is None else jax.random.split(own.dropout, 3)
    same = {"bias": self.bias, "dtype": self.dtype, "out_std": INIT_STD / math.sqrt(2 * self.layers)}
    norm = {"epsilon": NORM_EPSILON, "use_bias": self.bias, "dtype": self.dtype}
    attend = Attention(self.heads, self.attention_dropout, self.attention, self.causal, name="attention", **same)
    h, written = attend(nn.LayerNorm(name="attention_norm", **norm)(x), own._replace(dropout=keys[0]), shared, read)
    x = x[:, read] + dropout(h, self.dropout, keys[1])
    mlp = MLP(self.hidden, self.activation, name="mlp", **same)
    h = mlp(nn.LayerNorm(name="mlp_norm", **norm)(x))
    return x + dropout(h, self.dropout, keys[2]), written


class Attention(nn.Module):
  """Self-attention: ``qkv/kernel [width, heads, 3, head_dim]`` and ``out/kernel [heads, head_dim, width]``."""

  heads: int
  dropout: float
  implementation: str
  causal: bool
  bias: bool
  dtype: Any
  out_std: float

  @nn.compact
  def __call__(
    self, x: jax.Array, own: PerLayer, shared: Shared, read: slice = ALL
  ) -> tuple[jax.Array, attention.Cached | None]:
    """``[B, L, width]`` to the same of the tokens in ``read``, and the cache with the keys and values of all."""
    width = x.shape[-1]
    qkv = Dense((self.heads, 3, width // self.heads), bias=self.bias, dtype=self.dtype, name="qkv")(x)
    query, key, value = (qkv[..., i, :] for i in range(3))
    if shared.rotation is not None:
      query, key = attention.rotate(query, *shared.rotation), attention.rotate(key, *shared.rotation)
    if own.cache is None:
      written = None
      rate = 0.0 if own.dropout is None else self.dropout
      how = {"causal": self.causal, "implementation": self.implementation, "read": read}
      y = attention.attend(query, key, value, shared.mask, rate, own.dropout, **how)
    else:
      written = attention.write(own.cache, key, value, shared.slots)
      y = attention.cached(query[:, read], written, shared.mask[:, :, read])
    out = Dense((width,), inputs=2, bias=self.bias, dtype=self.dtype, std=self.out_std, name="out")
    return out(y), written


class MLP(nn.Module):
  """Two dense layers: ``up/kernel [width, hidden]`` and ``down/kernel [hidden, width]``."""

  hidden: int
  activation: Callable[[jax.Array], jax.Array]
  bias: bool
  dtype: Any
  out_std: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    h = self.activation(Dense((self.hidden,), bias=self.bias, dtype=self.dtype, name="up")(x))
    return Dense((x.shape[-1],), bias=self.bias, dtype=self.dtype, std=self.out_std, name="down")(h)


class Dense(nn.Module):
  """A linear map of the last axes, as a product of two matrices.

  In the form whose gradients XLA's CPU compiler is best at: flattened, since for weights that are multiplied with more
  than two axes the cotangent is copied transposed, and their gradient takes 1.6 times as long; and with the transpose
  where the kernel is tall, as a tall gradient takes 1.9 times as long as a wide one.

  Attributes:
    features: axes of the result.
    inputs: how many axes are mapped.
    bias: whether there is one.
    dtype: of the computation; parameters are float32.
    std: of the initial kernel, which is normal.
  """

  features: tuple[int, ...]
  inputs: int = 1
  bias: bool = True
  dtype: Any = jnp.float32
  std: float = INIT_STD

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, given = x.shape[: x.ndim - self.inputs], x.shape[x.ndim - self.inputs :]
    rows, columns = math.prod(given), math.prod(self.features)
    kernel = self.param("kernel", nn.initializers.normal(self.std), (*given, *self.features), jnp.float32)
    x, matrix = x.reshape(-1, rows).astype(self.dtype), kernel.reshape(rows, columns).astype(self.dtype)
    if rows > columns:
      y = jax.lax.dot_general(x, jax.lax.optimization_barrier(matrix.T), (((1,), (1,)), ((), ())))
    else:
      y = x @ matrix
    if self.bias:
      bias = self.param("bias", nn.initializers.zeros, self.features, jnp.float32)
      y = y + bias.reshape(columns).astype(self.dtype)
    return y.reshape(*batch, *self.features)

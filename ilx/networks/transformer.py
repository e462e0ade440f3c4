"""A causal transformer: pre-norm, one scan over its layers, and a cache of keys and values for play."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks import attention as attention_lib

REMAT = {
  "full": None,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Cache(NamedTuple):
  """Keys and values of the tokens seen so far; rows fill independently of each other.

  Attributes:
    key: ``[layers, B, length, heads, head_dim]`` in the compute dtype, rotated where positions are rotary.
    value: ``[layers, B, length, heads, head_dim]``.
    count: int32 ``[B]``, tokens held: slots from there on mean nothing. Setting it to 0 empties a row.
  """

  key: jax.Array
  value: jax.Array
  count: jax.Array


class Shared(NamedTuple):
  """What all layers are given alike.

  Attributes:
    rotation: cosine and sine of the angles of every token, or None.
    mask: bool ``[B or 1, 1, L or 1, S]``, the keys that may be attended to, or None for all.
    slots: int32 ``[B, L]`` of the cache that the tokens are written to, beyond its end for none; None without a cache.
    count: int32 ``[B]``, tokens that the cache holds, or None.
  """

  rotation: tuple[jax.Array, jax.Array] | None = None
  mask: jax.Array | None = None
  slots: jax.Array | None = None
  count: jax.Array | None = None


class PerLayer(NamedTuple):
  """What each layer has of its own beside parameters; leading axis ``[layers]`` outside the scan.

  Attributes:
    dropout: a key, or None for no dropout.
    key, value: the cache ``[B, S, heads, head_dim]``, or None.
  """

  dropout: jax.Array | None = None
  key: jax.Array | None = None
  value: jax.Array | None = None


class Attention(nn.Module):
  """Causal self-attention; parameters ``qkv`` ``[width, 3, heads, head_dim]`` and ``out``."""

  heads: int
  dropout: float
  bias: bool
  out_init: Callable
  dtype: Any
  implementation: str

  @nn.compact
  def __call__(self, x: jax.Array, own: PerLayer, shared: Shared) -> tuple[jax.Array, tuple]:
    width = x.shape[-1]
    dense = {"use_bias": self.bias, "dtype": self.dtype}
    qkv = nn.DenseGeneral((3, self.heads, width // self.heads), kernel_init=_INIT, name="qkv", **dense)(x)
    query, key, value = (qkv[..., i, :, :] for i in range(3))
    if shared.rotation is not None:
      query, key = attention_lib.rotate(query, *shared.rotation), attention_lib.rotate(key, *shared.rotation)
    if shared.slots is None:
      y = attention_lib.causal(
        query, key, value, shared.mask, self.dropout, own.dropout, implementation=self.implementation
      )
      written = ()
    else:
      key = attention_lib.write(own.key, key, shared.slots, shared.count)
      value = attention_lib.write(own.value, value, shared.slots, shared.count)
      y = jax.nn.dot_product_attention(query, key, value, mask=shared.mask)
      written = (key, value)
    return nn.DenseGeneral(width, axis=(-2, -1), kernel_init=self.out_init, name="out", **dense)(y), written


class MLP(nn.Module):
  """Two dense layers, ``up`` and ``down``."""

  hidden: int
  activation: Callable[[jax.Array], jax.Array]
  bias: bool
  out_init: Callable
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    dense = {"use_bias": self.bias, "dtype": self.dtype}
    h = self.activation(nn.Dense(self.hidden, kernel_init=_INIT, name="up", **dense)(x))
    return nn.Dense(x.shape[-1], kernel_init=self.out_init, name="down", **dense)(h)


class Layer(nn.Module):
  """One pre-norm layer, in the form that ``nn.scan`` takes."""

  of: dict[str, Any]

  @nn.compact
  def __call__(self, x: jax.Array, own: PerLayer, shared: Shared) -> tuple[jax.Array, tuple]:
    c = self.of
    keys = (None,) * 3 if own.dropout is None else jax.random.split(own.dropout, 3)
    same = {"bias": c["bias"], "out_init": c["out_init"], "dtype": c["dtype"]}
    attention = Attention(c["heads"], c["attention_dropout"], implementation=c["attention"], name="attention", **same)
    norm = {"dtype": c["dtype"], "use_bias": c["bias"], "epsilon": 1e-5}
    h, written = attention(nn.LayerNorm(name="attention_norm", **norm)(x), own._replace(dropout=keys[0]), shared)
    x = x + dropout(h, c["dropout"], keys[1])
    h = MLP(c["hidden"], c["activation"], name="mlp", **same)(nn.LayerNorm(name="mlp_norm", **norm)(x))
    return x + dropout(h, c["dropout"], keys[2]), written


class Transformer(nn.Module):
  """A causal transformer over embedded tokens; embeddings and heads are its user's.

  Parameters are float32 whatever ``dtype``. Those of all layers are stacked, ``[layers, ...]``; placement rules may
  name them as ``layers/attention/qkv/kernel``, ``layers/attention/out/kernel``, ``layers/mlp/up/kernel``,
  ``layers/mlp/down/kernel``, ``layers/attention_norm/scale`` and ``norm/scale``.

  Initialised as GPT-2: normal(0.02), the layers that write to the residual stream scaled by ``1 / sqrt(2 layers)``.

  Attributes:
    layers: how many.
    heads: of the attention, which divide ``width``.
    width: of the residual stream, D.
    hidden: of the MLPs, default ``4 width``.
    dropout: rate, of what every attention and MLP adds to the residual stream.
    attention_dropout: rate, of attention weights.
    activation: of the MLPs.
    positions: "rotary" (Su et al. 2021), "learnt" (a table of ``max_length``), or None where tokens carry theirs. They
      count real tokens: padding does not shift them.
    max_length: of learnt positions.
    bias: whether dense layers and norms have biases.
    dtype: of the computation. Sums of squares, softmax and angles are float32 anyway.
    remat: what the backward pass computes again instead of keeping it: None nothing, "dots" all but the results of
      matmuls with weights, "full" everything but the input of each layer.
    attention: "xla", "cudnn", or "auto"; see ``attention.causal``.
  """

  layers: int
  heads: int
  width: int
  hidden: int | None = None
  dropout: float = 0.0
  attention_dropout: float = 0.0
  activation: Callable[[jax.Array], jax.Array] = nn.gelu
  positions: Literal["rotary", "learnt"] | None = "rotary"
  max_length: int = 1024
  bias: bool = True
  dtype: Any = jnp.float32
  remat: Literal["full", "dots"] | None = None
  attention: str = "auto"

  def __call__(self, x: jax.Array, mask: jax.Array | None = None, deterministic: bool = True) -> jax.Array:
    """Embedded tokens to features.

    Args:
      x: ``[B, L, D]``.
      mask: bool ``[B, L]``, true where a token is real; padding may stand anywhere. It is never attended to, and its
        own outputs are finite but mean nothing. None: every token is real, or padding stands only on the right, where
        nothing real can see it; that is the fastest.
      deterministic: False for dropout, with a key ``rngs={"dropout": ...}``.

    Returns:
      ``[B, L, D]`` in ``dtype``; token t depends on the tokens up to t alone.

    Raises:
      ValueError: for more tokens than learnt positions.
    """
    length = x.shape[1]
    keys = None
    if not deterministic and max(self.dropout, self.attention_dropout) > 0:
      keys = jax.random.split(self.make_rng("dropout"), self.layers)
    if mask is None:
      position, mask = jnp.arange(length)[None], None
    else:
      position, mask = jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0), mask[:, None, None, :]
    return self._apply(x, PerLayer(dropout=keys), Shared(mask=mask), position, length)[0]

  def extend(self, x: jax.Array, cache: Cache, valid: jax.Array) -> tuple[jax.Array, Cache]:
    """Appends a few tokens to what the cache holds: the outputs that ``__call__`` would give for them.

    Args:
      x: ``[B, n, D]``; later tokens see earlier ones.
      cache: from ``make_cache`` or an earlier call. The tokens must fit: what is beyond its length is lost.
      valid: bool ``[B, n]``; others take no slot, and their outputs mean nothing.

    Returns:
      The outputs ``[B, n, D]`` and the new cache. Never any dropout.
    """
    length = cache.key.shape[2]
    last = cache.count[:, None] + jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1
    slots = jnp.where(valid, last, length)
    mask = (jnp.arange(length) <= last[..., None])[:, None]
    own = PerLayer(key=cache.key, value=cache.value)
    shared = Shared(mask=mask, slots=slots, count=cache.count)
    y, (key, value) = self._apply(x, own, shared, jnp.maximum(last, 0), length)
    return y, Cache(key, value, last[:, -1] + 1)

  @nn.nowrap
  def make_cache(self, batch_size: int, length: int) -> Cache:
    """An empty cache for ``length`` tokens a row."""
    shape = (self.layers, batch_size, length, self.heads, self.width // self.heads)
    return Cache(jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype), jnp.zeros(batch_size, jnp.int32))

  @nn.compact
  def _apply(
    self, x: jax.Array, own: PerLayer, shared: Shared, position: jax.Array, length: int
  ) -> tuple[jax.Array, tuple]:
    self._check(x, length)
    x = x.astype(self.dtype)
    if self.positions == "learnt":
      table = self.param("positions", _INIT, (self.max_length, self.width), jnp.float32)
      x = x + table[position].astype(self.dtype)
    elif self.positions == "rotary":
      shared = shared._replace(rotation=attention_lib.rotation(position, self.width // self.heads))
    fields = ("heads", "dropout", "attention_dropout", "activation", "bias", "dtype", "attention")
    of = {name: getattr(self, name) for name in fields}
    of["hidden"] = self.hidden or 4 * self.width
    of["out_init"] = nn.initializers.normal(0.02 / math.sqrt(2 * self.layers))
    layer = Layer
    if self.remat is not None:
      layer = nn.remat(Layer, policy=REMAT[self.remat], prevent_cse=False)
    stack = nn.scan(
      layer,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(0, nn.broadcast),
      length=self.layers,
    )
    x, written = stack(of, name="layers")(x, own, shared)
    return nn.LayerNorm(epsilon=1e-5, use_bias=self.bias, dtype=self.dtype, name="norm")(x), written

  @nn.nowrap
  def _check(self, x: jax.Array, length: int) -> None:
    if self.width % self.heads:
      raise ValueError(f"heads={self.heads} do not divide width={self.width}; choose a multiple")
    if self.positions not in ("rotary", "learnt", None):
      raise ValueError(f"positions={self.positions!r}; choose 'rotary', 'learnt' or None")
    if self.positions == "rotary" and self.width // self.heads % 2:
      raise ValueError(f"rotary positions need an even size of heads; width={self.width}, heads={self.heads}")
    if self.positions == "learnt" and length > self.max_length:
      raise ValueError(f"{length} tokens are more than max_length={self.max_length} learnt positions; raise max_length")
    if self.remat is not None and self.remat not in REMAT:
      raise ValueError(f"remat={self.remat!r}; choose None, {', '.join(map(repr, REMAT))}")
    if x.shape[-1] != self.width:
      raise ValueError(f"tokens have size {x.shape[-1]}; the transformer's width is {self.width}")


_INIT = nn.initializers.normal(0.02)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
  """``x`` with entries zeroed at ``rate`` and the others scaled up by ``1 / (1 - rate)``; without a key, ``x``."""
  if key is None or rate == 0.0:
    return x
  kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
  return jnp.where(kept, x / (1.0 - rate), 0.0).astype(x.dtype)

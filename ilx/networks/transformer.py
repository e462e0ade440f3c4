"""A transformer: pre-norm, its layers' parameters stacked, and a cache of keys and values for play."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx import ranges
from ilx.networks import attention as attention_lib
from ilx.networks.transformer_layer import ALL, INIT_STD, NORM_EPSILON, Layer, PerLayer, Shared

# Up to so many layers are compiled one after the other: a loop has to gather what its backward pass needs in larger
# arrays, which on a CPU costs DT's update a tenth of its time; and the last of few layers is worth shortening.
_UNROLLED = 4
# What `jax.checkpoint` keeps.
_REMAT = {
  "full": None,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Cache(NamedTuple):
  """Keys and values of the tokens seen so far; rows fill independently of each other.

  Attributes:
    layers: of each layer, in the compute dtype, keys rotated where positions are rotary. One array of all layers would
      be copied to be read and written.
    count: int32 ``[B]``, tokens held; what slots from there on have does not count. A count of 0 empties a row.
  """

  layers: tuple[attention_lib.Cached, ...]
  count: jax.Array


class Transformer(nn.Module):
  """A transformer over embedded tokens, causal unless told otherwise; embeddings and heads are its user's.

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
    attention: "xla", "cudnn", or "auto"; see ``attention.attend``.
    causal: whether a token sees those up to itself alone; else it sees all, and none can be added to a cache.
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
  causal: bool = True

  def __post_init__(self):
    super().__post_init__()
    ranges.at_least_1(layers=self.layers, heads=self.heads, width=self.width)
    ranges.from_0_to_below_1(dropout=self.dropout, attention_dropout=self.attention_dropout)
    if self.width % self.heads:
      raise ValueError(f"heads={self.heads} do not divide width={self.width}; choose a multiple")
    if self.positions not in ("rotary", "learnt", None):
      raise ValueError(f"positions={self.positions!r}; choose 'rotary', 'learnt' or None")
    if self.positions == "rotary" and self.width // self.heads % 2:
      raise ValueError(f"rotary positions need an even size of heads; width={self.width}, heads={self.heads}")
    ranges.floating(dtype=self.dtype)
    if self.remat is not None and self.remat not in _REMAT:
      raise ValueError(f"remat={self.remat!r}; choose None, {', '.join(map(repr, _REMAT))}")
    if self.attention not in attention_lib.IMPLEMENTATIONS:
      raise ValueError(f"attention={self.attention!r}; choose one of {', '.join(attention_lib.IMPLEMENTATIONS)}")

  def __call__(
    self, x: jax.Array, mask: jax.Array | None = None, deterministic: bool = True, read: slice = ALL
  ) -> jax.Array:
    """Embedded tokens to features.

    Args:
      x: ``[B, L, D]``.
      mask: bool ``[B, L]``, true where a token is real; padding may stand anywhere. It is never attended to, and its
        own outputs are finite but mean nothing. None: every token is real, or padding stands only on the right, where
        nothing real can see it; that is the fastest.
      deterministic: False for dropout, with a key ``rngs={"dropout": ...}``.
      read: the tokens whose features are wanted; of others the last of few layers computes queries,
        keys and values alone.

    Returns:
      ``[B, L, D]`` in ``dtype``, of the tokens in ``read``; token t of a causal one depends on the tokens up to t
      alone.

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
    return self._apply(x, PerLayer(dropout=keys), None, Shared(mask=mask), position, length, read)[0]

  def extend(self, x: jax.Array, cache: Cache, valid: jax.Array, read: slice = ALL) -> tuple[jax.Array, Cache]:
    """Appends a few tokens to what the cache holds: the outputs that ``__call__`` would give for them.

    Args:
      x: ``[B, n, D]``; later tokens see earlier ones.
      cache: from ``make_cache`` or an earlier call. The tokens must fit: what is beyond its length is lost.
      valid: bool ``[B, n]``; others take no slot, and their outputs mean nothing.
      read: as of ``__call__``.

    Returns:
      The outputs ``[B, n, D]``, of the tokens in ``read``, and the new cache. Never any dropout.

    Raises:
      ValueError: where it is not causal: what earlier tokens see would change.
    """
    if not self.causal:
      raise ValueError("extend: the transformer is not causal, so that every token would change what is cached")
    length = cache.layers[0].value.shape[2]
    last = cache.count[:, None] + jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1
    slots = jnp.where(valid, last, length + jnp.arange(x.shape[1]))
    mask = (jnp.arange(length) <= last[..., None])[:, None]
    position = jnp.maximum(last, 0)
    y, layers = self._apply(x, PerLayer(), cache.layers, Shared(mask=mask, slots=slots), position, length, read)
    return y, Cache(layers, last[:, -1] + 1)

  @nn.nowrap
  def make_cache(self, batch_size: int, length: int) -> Cache:
    """An empty cache for ``length`` tokens a row."""
    size = self.width // self.heads
    shapes = attention_lib.Cached((batch_size, self.heads, size, length), (batch_size, self.heads, length, size))
    layers = (attention_lib.Cached(*(jnp.zeros(shape, self.dtype) for shape in shapes)) for _ in range(self.layers))
    return Cache(tuple(layers), jnp.zeros(batch_size, jnp.int32))

  @nn.compact
  def _apply(
    self,
    x: jax.Array,
    own: PerLayer,
    caches: tuple[attention_lib.Cached, ...] | None,
    shared: Shared,
    position: jax.Array,
    length: int,
    read: slice,
  ) -> tuple[jax.Array, tuple[attention_lib.Cached, ...] | None]:
    """``own``: leading axis ``[layers]``."""
    if x.shape[-1] != self.width:
      raise ValueError(f"tokens have size {x.shape[-1]}; the transformer's width is {self.width}")
    if self.positions == "learnt" and length > self.max_length:
      raise ValueError(f"{length} tokens are more than max_length={self.max_length} learnt positions; raise max_length")
    x = x.astype(self.dtype)
    if self.positions == "learnt":
      table = self.param("positions", nn.initializers.normal(INIT_STD), (self.max_length, self.width), jnp.float32)
      x = x + jnp.asarray(table)[position].astype(self.dtype)
    elif self.positions == "rotary":
      shared = shared._replace(rotation=attention_lib.rotation(position, self.width // self.heads))
    same = ("heads", "layers", "dropout", "attention_dropout", "activation", "bias", "dtype", "attention", "causal")
    attributes = {name: getattr(self, name) for name in same}
    layer = Layer(hidden=self.hidden or 4 * self.width, parent=None, **attributes)

    def first_values(key: jax.Array) -> Any:
      plain, keys = layer.clone(attention="xla"), jax.random.split(key, self.layers)  # cuDNN's need not be batched
      return jax.vmap(lambda key: plain.init(key, x, PerLayer(), Shared())["params"])(keys)

    # Outside of a loop the compiler would see that remat computes the same twice, and keep it after all. A loop would
    # copy caches.
    unrolled = caches is not None or (self.layers <= _UNROLLED and self.remat is None)

    def step(read: slice) -> Callable[[jax.Array, Any], tuple[jax.Array, attention_lib.Cached | None]]:
      def apply(x: jax.Array, given: Any) -> tuple[jax.Array, attention_lib.Cached | None]:
        params, own = given
        return layer.apply({"params": params}, x, own, shared, read)

      return apply if self.remat is None else jax.checkpoint(apply, policy=_REMAT[self.remat], prevent_cse=False)

    each = self.param("layers", first_values), own
    if unrolled:
      written = []
      for i in range(self.layers):
        params, mine = jax.tree.map(lambda a, i=i: a[i], each)
        mine = mine._replace(cache=caches[i] if caches else None)
        x, new = step(read if i == self.layers - 1 else ALL)(x, (params, mine))
        written.append(new)
    else:
      # A last layer outside of the loop would have the parameters of all others copied.
      x, written = jax.lax.scan(step(ALL), x, each)
      x = x[:, read]
    y = nn.LayerNorm(epsilon=NORM_EPSILON, use_bias=self.bias, dtype=self.dtype, name="norm")(x)
    return y, tuple(written) if caches else None

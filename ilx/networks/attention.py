"""Attention: over whole sequences, causal or not, over a cache, and rotary positions."""

from typing import Any, NamedTuple

import jax
import jax.extend
import jax.numpy as jnp

from ilx.networks.dropout import dropout
from ilx.parallel import replicas

IMPLEMENTATIONS = ("auto", "xla", "cudnn")
# Tokens to read: every one.
ALL = slice(None)
# Logits of what must not be seen; finite, so that rows which see nothing are too.
_UNSEEN = -1e30


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array | None = None,
  rate: float = 0.0,
  dropout_key: jax.Array | None = None,
  *,
  causal: bool = True,
  implementation: str = "auto",
  read: slice = ALL,
) -> jax.Array:
  """Attention over whole sequences, scaled by ``1 / sqrt(size)``, with softmax in float32.

  ``jax.nn.dot_product_attention``, whose own choice is always XLA's; so the choice is made here. cuDNN's flash
  attention, which keeps no ``[L, L]`` weights, is for bfloat16 and float16 on NVIDIA's GPUs. Causality costs it
  nothing, whereas a mask would be a dense bias ``[B, heads, L, L]``: better pad on the right and give none. Dropout of
  attention weights is neither's: it is computed here, with all weights in memory.

  Args:
    query, key, value: ``[B, L, heads, size]``.
    mask: bool ``[B, 1, 1, L]``, which keys are real, or None for all.
    rate: of dropout.
    dropout_key: for it.
    causal: whether a token sees those up to itself alone; else it sees all.
    implementation: "xla"; "cudnn"; or "auto", which is cuDNN where there is no mask and the default backend, dtype
      and shapes allow it; on replicas ("pmap") it is XLA's, as jax gives cuDNN one mesh alone.
    read: the tokens whose outputs are wanted; those of others are not computed, but by cuDNN.

  Returns:
    ``[B, L, heads, size]`` of the tokens in ``read``; finite, if meaningless, where nothing may be seen.

  Raises:
    ValueError: where cuDNN is asked for with a mask.
  """
  if implementation == "auto":
    alone = mask is None and not replicas.many()
    implementation = "cudnn" if alone and _cudnn_can(query) else "xla"
  if implementation == "cudnn" and mask is not None:
    raise ValueError('attention="cudnn" takes no mask: pad on the right, or choose "xla"')
  length = query.shape[1]
  if rate == 0.0 and (implementation == "cudnn" or len(range(length)[read]) == length):
    how = {"is_causal": causal, "implementation": implementation}
    return jax.nn.dot_product_attention(query, key, value, mask=mask, **how)[:, read]
  seen = jnp.ones((1, 1, length, length), bool)
  if causal:
    seen = jnp.tril(seen)
  seen, query = seen[:, :, read], query[:, read]
  if mask is not None:
    seen = seen & mask
  if rate == 0.0:
    return jax.nn.dot_product_attention(query, key, value, mask=seen, implementation="xla")
  return _with_dropout(query, key, value, seen, rate, dropout_key)


class Cached(NamedTuple):
  """Keys and values of S tokens, in the order in which matmuls read them: nothing is copied to attend to them.

  Attributes:
    key: ``[B, heads, size, S]``.
    value: ``[B, heads, S, size]``.
  """

  key: jax.Array
  value: jax.Array


def write(cache: Cached, key: jax.Array, value: jax.Array, slots: jax.Array) -> Cached:
  """The cache with new tokens, where XLA can in the same memory.

  Args:
    cache: of S tokens.
    key, value: ``[B, n, heads, size]``.
    slots: int ``[B, n]``, where they go, no two of a row to the same; those at or beyond S are not written.
  """
  rows = jnp.arange(slots.shape[0])[:, None]  # which an exported policy does not know
  # What nobody attends to any more has the weight 0, and 0 times NaN would be NaN in the next episode.
  key, value = (jnp.nan_to_num(x).astype(y.dtype) for x, y in zip((key, value), cache, strict=True))
  how = {"mode": "drop", "unique_indices": True}
  return Cached(cache.key.at[rows, :, :, slots].set(key, **how), cache.value.at[rows, :, slots].set(value, **how))


def cached(query: jax.Array, cache: Cached, mask: jax.Array) -> jax.Array:
  """Attention of a few tokens ``[B, n, heads, size]`` over a cache, as of ``attend``; mask bool ``[B, 1, n, S]``."""
  size = query.shape[-1]
  logits = jnp.matmul(query.swapaxes(1, 2), cache.key, preferred_element_type=jnp.float32) * size**-0.5
  weights = jax.nn.softmax(jnp.where(mask, logits, _UNSEEN), axis=-1).astype(cache.value.dtype)
  return jnp.matmul(weights, cache.value).swapaxes(1, 2)


def rotation(position: jax.Array, size: int, base: float = 10_000.0) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine, float32 ``[..., 1, size / 2]``, of the angles ``position base^(-2i / size)`` (Su et al. 2021)."""
  frequency = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  angle = position[..., None, None].astype(jnp.float32) * frequency
  return jnp.cos(angle), jnp.sin(angle)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Turns the pairs ``(x[i], x[i + size / 2])`` of ``[..., heads, size]`` by the angles of ``rotation``."""
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _with_dropout(
  query: jax.Array, key: jax.Array, value: jax.Array, seen: jax.Array, rate: float, dropout_key: jax.Array
) -> jax.Array:
  batch_size, length, heads, size = query.shape
  # Batches of matrices: einsums over axes that are not in order leave the CPU's compiler with copies to make.
  query, key, value = (x.swapaxes(1, 2).reshape(-1, x.shape[1], size) for x in (query, key, value))
  logits = jnp.matmul(query, key.swapaxes(1, 2), preferred_element_type=jnp.float32) * size**-0.5
  logits = logits.reshape(batch_size, heads, length, -1)
  weights = jax.nn.softmax(jnp.where(seen, logits, _UNSEEN), axis=-1)
  weights = dropout(weights, rate, dropout_key).astype(value.dtype).reshape(-1, length, value.shape[1])
  return (weights @ value).reshape(batch_size, heads, length, size).swapaxes(1, 2)


def _cudnn_can(query: jax.Array) -> bool:
  size = query.shape[-1]
  fits = query.dtype in (jnp.bfloat16, jnp.float16) and size % 8 == 0 and size <= 128
  return fits and _has_flash_attention(jax.extend.backend.get_backend())


def _has_flash_attention(backend: Any) -> bool:
  """Whether the backend is of NVIDIA's GPUs from Ampere on."""
  if "cuda" not in backend.platform_version:
    return False
  return all(float(device.compute_capability) >= 8.0 for device in backend.local_devices())

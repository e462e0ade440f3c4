"""Attention: causal over whole sequences, over a cache, and rotary positions."""

import jax
import jax.extend
import jax.numpy as jnp

from ilx.networks.dropout import dropout

IMPLEMENTATIONS = ("auto", "xla", "cudnn")
# Logits of what must not be seen; finite, so that rows which see nothing are too.
_UNSEEN = -1e30


def causal(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array | None = None,
  rate: float = 0.0,
  dropout_key: jax.Array | None = None,
  *,
  implementation: str = "auto",
) -> jax.Array:
  """Causal attention over whole sequences, scaled by ``1 / sqrt(size)``, with softmax in float32.

  ``jax.nn.dot_product_attention``, whose own choice is always XLA's; so the choice is made here. cuDNN's flash
  attention, which keeps no ``[L, L]`` weights, is for bfloat16 and float16 on NVIDIA's GPUs. Causality costs it
  nothing, whereas it reads a mask as a dense bias ``[B, 1, L, L]``: better pad on the right and give none. Dropout of
  attention weights is neither's: it is computed here, with all weights in memory.

  Args:
    query, key, value: ``[B, L, heads, size]``.
    mask: bool ``[B, 1, 1, L]``, which keys are real, or None for all.
    rate: of dropout.
    dropout_key: for it.
    implementation: "xla"; "cudnn"; or "auto", which is cuDNN where the default device, dtype and shapes allow it.

  Returns:
    ``[B, L, heads, size]``; finite, if meaningless, where nothing may be seen.
  """
  if rate > 0.0:
    return _with_dropout(query, key, value, mask, rate, dropout_key)
  if implementation == "auto":
    implementation = "cudnn" if _cudnn_can(query, mask) else "xla"
  return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=True, implementation=implementation)


def cached(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
  """Attention of a few tokens ``[B, n, heads, size]`` over a cache ``[B, S, heads, size]``; mask ``[B, 1, n, S]``."""
  return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="xla")


def write(buffer: jax.Array, new: jax.Array, slots: jax.Array, count: jax.Array) -> jax.Array:
  """A buffer with new entries, in one pass over it.

  Args:
    buffer: ``[B, S, ...]``.
    new: ``[B, n, ...]``.
    slots: int ``[B, n]``, where they go; those at or beyond S are not written.
    count: int ``[B]``, entries that the buffer holds: what lies behind is zeroed, so that equal memories are equal
      arrays.
  """
  at = jnp.arange(buffer.shape[1])

  def where(condition, a, b):
    return jnp.where(condition.reshape(*buffer.shape[:2], *(1,) * (buffer.ndim - 2)), a, b)

  buffer = where(at < count[:, None], buffer, jnp.zeros((), buffer.dtype))
  for i in range(new.shape[1]):
    buffer = where(at == slots[:, i, None], new[:, i, None], buffer)
  return buffer


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
  query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, rate: float, dropout_key: jax.Array
) -> jax.Array:
  batch_size, length, heads, size = query.shape
  # Batches of matrices: einsums over axes that are not in order leave the CPU's compiler with copies to make.
  query, key, value = (x.swapaxes(1, 2).reshape(-1, length, size) for x in (query, key, value))
  logits = jnp.matmul(query, key.swapaxes(1, 2), preferred_element_type=jnp.float32) * size**-0.5
  logits = logits.reshape(batch_size, heads, length, length)
  seen = jnp.tril(jnp.ones((length, length), bool))
  if mask is not None:
    seen = seen & mask
  weights = jax.nn.softmax(jnp.where(seen, logits, _UNSEEN), axis=-1)
  weights = dropout(weights, rate, dropout_key).astype(value.dtype).reshape(-1, length, length)
  return (weights @ value).reshape(batch_size, heads, length, size).swapaxes(1, 2)


def _cudnn_can(query: jax.Array, mask: jax.Array | None) -> bool:
  _, length, _, size = query.shape
  fits = query.dtype in (jnp.bfloat16, jnp.float16) and size % 8 == 0 and size <= 128
  # With a bias its backward pass wants even lengths.
  return fits and (mask is None or length % 2 == 0) and "cuda" in jax.extend.backend.get_backend().platform_version

"""Attention: causal over whole sequences, and the pieces that a cache needs."""

import jax
import jax.extend
import jax.numpy as jnp


def rotation(position: jax.Array, size: int, base: float = 10_000.0) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine, float32 ``[..., 1, size / 2]``, of the angles ``position base^(-2i / size)`` (Su et al. 2021)."""
  frequency = base ** (-jnp.arange(0, size, 2, dtype=jnp.float32) / size)
  angle = position[..., None, None].astype(jnp.float32) * frequency
  return jnp.cos(angle), jnp.sin(angle)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Turns the pairs ``(x[i], x[i + size / 2])`` of ``[..., heads, size]`` by the angles of ``rotation``."""
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def causal(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array | None,
  rate: float,
  dropout_key: jax.Array | None,
  *,
  implementation: str = "auto",
) -> jax.Array:
  """Causal attention ``[B, L, heads, size]``, scaled by ``1 / sqrt(size)``, the softmax in float32.

  Args:
    query, key, value: ``[B, L, heads, size]``.
    mask: bool ``[B, 1, 1, L]``, which keys are real, or None.
    rate: of dropout among attention weights.
    dropout_key: None for none.
    implementation: "xla"; "cudnn", flash attention on NVIDIA GPUs, for bfloat16 and float16 without dropout; or
      "auto", which takes cuDNN where the default device is such a GPU and shapes and dtypes allow it. To cuDNN a mask
      is a dense bias ``[B, 1, L, L]`` to read; causality alone costs nothing. Dropout is computed here, with weights
      ``[B, heads, L, L]`` in memory.
  """
  if dropout_key is not None and rate > 0.0:
    return _with_dropout(query, key, value, mask, rate, dropout_key)
  if implementation == "auto":
    implementation = "cudnn" if _cudnn_can(query, mask) else "xla"
  return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=True, implementation=implementation)


def _cudnn_can(query: jax.Array, mask: jax.Array | None) -> bool:
  _, length, _, size = query.shape
  fits = query.dtype in (jnp.bfloat16, jnp.float16) and size % 8 == 0 and size <= 128
  # With a bias cuDNN wants even lengths.
  return fits and (mask is None or length % 2 == 0) and "cuda" in jax.extend.backend.get_backend().platform_version


def _with_dropout(query, key, value, mask, rate, dropout_key):
  logits = jnp.einsum("btnh,bsnh->bnts", query, key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
  seen = jnp.tril(jnp.ones(logits.shape[-2:], bool))
  if mask is not None:
    seen = seen & mask
  weights = jax.nn.softmax(jnp.where(seen, logits, -1e30), axis=-1)
  kept = jax.random.bernoulli(dropout_key, 1.0 - rate, weights.shape)
  weights = jnp.where(kept, weights / (1.0 - rate), 0.0).astype(value.dtype)
  return jnp.einsum("bnts,bsnh->btnh", weights, value)


def write(buffer: jax.Array, new: jax.Array, slots: jax.Array, count: jax.Array) -> jax.Array:
  """A buffer with new entries, in one pass.

  Args:
    buffer: ``[B, S, ...]``.
    new: ``[B, n, ...]``.
    slots: int ``[B, n]``, where they go; those at or beyond S are not written.
    count: int ``[B]``, entries that the buffer holds: what lies behind is zeroed, so that equal
      memories are equal arrays.
  """
  at = jnp.arange(buffer.shape[1])

  def where(condition, a, b):
    return jnp.where(condition.reshape(*buffer.shape[:2], *(1,) * (buffer.ndim - 2)), a, b)

  buffer = where(at < count[:, None], buffer, 0.0)
  for i in range(new.shape[1]):
    buffer = where(at == slots[:, i, None], new[:, i, None], buffer)
  return buffer

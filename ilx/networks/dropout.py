"""Dropout."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
  """Dropout: entries zeroed at ``rate``, the others scaled up by ``1 / (1 - rate)``; without a key, ``x``.

  Of 16 random bits an entry, as drawing them is what it costs: the rate is met within 1e-5.
  """
  if key is None or rate == 0.0:
    return x
  words = jax.random.bits(key, (-(-x.size // 2),), jnp.uint32)
  bits = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[: x.size].reshape(x.shape)
  return jnp.where(bits >= round(rate * 2**16), x / (1.0 - rate), 0.0).astype(x.dtype)

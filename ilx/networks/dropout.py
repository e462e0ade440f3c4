"""Dropout."""

import math

import jax
import jax.numpy as jnp

from ilx.parallel import replicas


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
  """Dropout: entries zeroed at ``rate``, the others scaled up by ``1 / (1 - rate)``; without a key, ``x``.

  ``x`` has the batch's axis first.

  Of 16 random bits an entry, as drawing them is what it costs: the rate is met within 1e-5.
  """
  if key is None or rate == 0.0:
    return x
  bits = replicas.draw(_bits, key, x.shape)
  dropped = min(round(rate * 2**16), 2**16 - 1)
  return jnp.where(bits >= dropped, x / (1.0 - rate), 0.0).astype(x.dtype)


def _bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Uniform uint16."""
  size = math.prod(shape)
  words = jax.random.bits(key, (-(-size // 2),), jnp.uint32)
  return jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size].reshape(shape)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.networks.dropout import dropout


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_drops_at_the_rate_and_keeps_the_mean(rate):
  x = jnp.full((501, 401), 2.0)
  y = np.asarray(dropout(x, rate, jax.random.key(0)))
  kept = y != 0.0
  np.testing.assert_allclose(y[kept], 2.0 / (1.0 - rate), rtol=1e-6)
  assert abs(kept.mean() - (1.0 - rate)) < 5 * np.sqrt(rate * (1 - rate) / x.size)
  # Neighbours, which share random words, are independent.
  assert abs(np.corrcoef(kept.ravel()[:-1:2], kept.ravel()[1::2])[0, 1]) < 5 / np.sqrt(x.size / 2)


def test_without_a_key_or_a_rate_nothing_happens():
  x = jnp.ones(3)
  assert dropout(x, 0.5, None) is x and dropout(x, 0.0, jax.random.key(0)) is x


def test_keeps_the_dtype():
  assert dropout(jnp.ones(3, jnp.bfloat16), 0.5, jax.random.key(0)).dtype == jnp.bfloat16

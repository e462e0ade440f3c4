import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from float64_layers import conv, dense, relu

from ilx.networks import impala


def _size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def test_shapes_are_the_papers():
  shapes = jax.eval_shape(impala.Impala().init, jax.random.key(0), jnp.zeros((72, 96, 3)))["params"]
  convolutions = [layer for layer in jax.tree.leaves(shapes) if len(layer.shape) == 4]
  assert len(convolutions) == 15  # "15 convolutional layers"
  # Three halvings of the paper's 72 x 96 pixels.
  assert shapes["dense"]["kernel"].shape == (9 * 12 * 32, 256)
  first = 3 * 3 * 3 * 16 + 16 + 4 * (9 * 16 * 16 + 16)
  second = 9 * 16 * 32 + 32 + 4 * (9 * 32 * 32 + 32)
  third = 5 * (9 * 32 * 32 + 32)
  # With an LSTM of 256 and the language's of 64 the paper's 1.6 million parameters.
  assert _size(shapes) == first + second + third + 9 * 12 * 32 * 256 + 256
  assert shapes["block_0_1"]["conv_1"]["kernel"].shape == (3, 3, 16, 16)


def test_width_multiplies_channels():
  shapes = jax.eval_shape(impala.Impala(width=4).init, jax.random.key(0), jnp.zeros((84, 84, 4)))["params"]
  assert shapes["conv_0"]["kernel"].shape == (3, 3, 4, 64)
  assert shapes["block_2_1"]["conv_0"]["kernel"].shape == (3, 3, 128, 128)
  assert shapes["dense"]["kernel"].shape == (11 * 11 * 128, 256)


def _block(x, params):
  return x + conv(relu(conv(relu(x), params["conv_0"], padding=1)), params["conv_1"], padding=1)


def test_a_residual_block_agrees_with_the_definition():
  x = np.random.default_rng(0).normal(size=(6, 5, 4))
  block = impala.ResidualBlock()
  variables = jax.tree.map(lambda x: x + 0.01, block.init(jax.random.key(1), jnp.asarray(x, jnp.float32)))
  np.testing.assert_allclose(
    block.apply(variables, x.astype(np.float32)), _block(x, variables["params"]), rtol=1e-4, atol=1e-5
  )


def _pool(x):
  """3 x 3 at stride 2, as TensorFlow's SAME: the first window begins before the picture only where its size is odd."""
  out = np.full((-(-x.shape[0] // 2), -(-x.shape[1] // 2), x.shape[2]), -np.inf)
  for i in range(out.shape[0]):
    for j in range(out.shape[1]):
      top, left = 2 * i - x.shape[0] % 2, 2 * j - x.shape[1] % 2
      out[i, j] = x[max(top, 0) : top + 3, max(left, 0) : left + 3].max(axis=(0, 1))
  return out


def test_forward_agrees_with_the_definition():
  picture = np.random.default_rng(0).uniform(size=(11, 8, 3))
  network = impala.Impala(channels=(4, 5), blocks=1, features=16)
  variables = jax.jit(network.init)(jax.random.key(1), jnp.asarray(picture, jnp.float32))
  params = variables["params"]
  x = picture
  for i in range(2):
    x = _block(_pool(conv(x, params[f"conv_{i}"], padding=1)), params[f"block_{i}_0"])
  expected = relu(dense(relu(x).reshape(-1), params["dense"]))
  assert 0 < np.sum(expected > 0) < len(expected)
  np.testing.assert_allclose(
    jax.jit(network.apply)(variables, picture.astype(np.float32)), expected, rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 2), (21, 3)])
def test_max_pool_is_flaxs(size):
  x = jax.random.normal(jax.random.key(0), (2, *size, 3))

  def flax(x):
    return nn.max_pool(x, (3, 3), (2, 2), "SAME")

  np.testing.assert_array_equal(impala.max_pool(x), flax(x))
  np.testing.assert_array_equal(impala.max_pool(x[0]), flax(x)[0])
  weight = jax.random.normal(jax.random.key(1), flax(x).shape)
  ours, theirs = (jax.grad(lambda x, f=f: jnp.sum(weight * f(x)))(x) for f in (impala.max_pool, flax))
  np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)

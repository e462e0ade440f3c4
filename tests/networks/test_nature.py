import jax
import jax.numpy as jnp
import numpy as np
from float64_layers import conv, dense, relu

from ilx.networks import nature


def _size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def test_shapes_are_the_papers():
  shapes = jax.eval_shape(nature.Nature().init, jax.random.key(0), jnp.zeros((84, 84, 4)))["params"]
  assert {name: layer["kernel"].shape for name, layer in shapes.items()} == {
    "conv_0": (8, 8, 4, 32),
    "conv_1": (4, 4, 32, 64),
    "conv_2": (3, 3, 64, 64),
    "dense": (3136, 512),
  }
  # With a layer for Breakout's four actions the 1,686,180 parameters that are known of DQN.
  assert _size(shapes) == 1_686_180 - (512 * 4 + 4)


def test_forward_agrees_with_the_definition():
  picture = np.random.default_rng(0).uniform(size=(44, 40, 3))
  network = nature.Nature(features=16)
  variables = jax.jit(network.init)(jax.random.key(1), jnp.asarray(picture, jnp.float32))
  variables = jax.tree.map(lambda x: x + 0.01, variables)  # biases that count
  params = variables["params"]
  x = relu(conv(picture, params["conv_0"], stride=4))
  x = relu(conv(x, params["conv_1"], stride=2))
  x = relu(conv(x, params["conv_2"]))
  expected = relu(dense(x.reshape(-1), params["dense"]))
  assert 0 < np.sum(expected > 0) < len(expected)
  np.testing.assert_allclose(
    jax.jit(network.apply)(variables, picture.astype(np.float32)), expected, rtol=1e-4, atol=1e-5
  )


def test_the_smallest_picture():
  def left(height):
    """Numbers behind the convolutions."""
    try:
      shapes = jax.eval_shape(nature.Nature().init, jax.random.key(0), jnp.zeros((height, nature.SMALLEST, 1)))
    except ZeroDivisionError:  # of older versions of flax, where nothing is left
      return 0
    return shapes["params"]["dense"]["kernel"].shape[0]

  assert left(nature.SMALLEST) == 64 and left(nature.SMALLEST - 1) == 0

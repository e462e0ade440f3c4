import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import flops
from ilx.networks.convolution import convolve


def test_products_are_counted_through_jit_vmap_and_gradients():
  x, w = jnp.ones((8, 3)), jnp.ones((3, 5))
  assert flops.of(lambda x, w: x @ w, x, w) == 2 * 8 * 3 * 5
  assert flops.of(jax.jit(lambda x, w: x @ w), x, w) == 2 * 8 * 3 * 5
  assert flops.of(jax.vmap(lambda x, w: x @ w, in_axes=(None, 0)), x, jnp.ones((4, 3, 5))) == 4 * 2 * 8 * 3 * 5
  # Forward, and backward to the weights alone.
  assert flops.of(jax.grad(lambda w, x: jnp.sum((x @ w) ** 2)), w, x) == 2 * 2 * 8 * 3 * 5


def test_loops_and_branches():
  x = jnp.ones((8, 8))
  assert flops.of(lambda x: jax.lax.scan(lambda c, _: (c @ x, None), x, None, length=3)[0], x) == 3 * 2 * 8**3
  assert flops.of(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x, x), x) == 8**3


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups):
  image, kernel = jnp.ones((2, 10, 10, 4)), jnp.ones((3, 3, 4 // groups, 6))
  found = flops.of(
    lambda x, k: jax.lax.conv_general_dilated(
      x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    ),
    image,
    kernel,
  )
  assert found == 2 * (2 * 8 * 8 * 6) * (3 * 3 * 4 / groups)


@pytest.mark.parametrize("of_picture", [False, True])
def test_gradients_of_strided_convolutions(of_picture):
  """Each costs what the forward one does, borders aside; that of a picture that is only read is not computed."""
  image, kernel = jnp.ones((2, 40, 40, 4)), jnp.ones((4, 4, 4, 6))

  def loss(kernel, image):
    return jnp.sum(convolve(image, kernel, 2, ((0, 0), (0, 0))) ** 2)

  forward = 2 * (2 * 19 * 19 * 6) * (4 * 4 * 4)
  found = flops.of(jax.grad(loss, argnums=(0, 1) if of_picture else 0), kernel, image)
  assert found == pytest.approx((3 if of_picture else 2) * forward, rel=0.05)

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from ilx.networks.convolution import Conv


@pytest.mark.parametrize(
  ("size", "stride", "padding"),
  [
    *((3, 1, "SAME"), (3, 1, "VALID"), (4, 2, "VALID"), (8, 4, "VALID"), (4, 4, "SAME"), (3, 2, "SAME")),
    *((5, 3, "SAME"), (5, 3, "VALID"), (2, 3, "VALID"), (1, 2, "SAME"), (7, 2, "SAME"), (8, 4, "SAME")),
  ],
)
def test_values_and_gradients_are_flaxs(size, stride, padding):
  x = jax.random.normal(jax.random.key(0), (2, 17, 14, 3))
  ours = Conv(5, size, stride, padding)
  theirs = nn.Conv(5, (size, size), (stride, stride), padding=padding)
  variables = jax.jit(ours.init)(jax.random.key(1), x)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, theirs.init(jax.random.key(1), x))
  weight = jnp.cos(jnp.arange(1000.0))

  def compare(network):
    def value(variables, x):
      y = network.apply(variables, x)
      return jnp.sum(y.reshape(-1)[:1000] * weight[: y.size]), y

    return jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))(variables, x)

  (of_variables, of_x), y = compare(ours)
  (expected_of_variables, expected_of_x), expected = compare(theirs)
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(of_x, expected_of_x, rtol=1e-4, atol=1e-4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), of_variables, expected_of_variables)


def test_batch_axes_are_kept():
  x = jax.random.normal(jax.random.key(0), (2, 3, 6, 7, 1))
  variables = Conv(4, 3).init(jax.random.key(1), x)
  found = Conv(4, 3).apply(variables, x)
  assert found.shape == (2, 3, 6, 7, 4)
  np.testing.assert_allclose(Conv(4, 3).apply(variables, x[1, 2]), found[1, 2], rtol=1e-5, atol=1e-6)


def test_gradients_have_the_forward_ones_order_of_axes():
  """Or a CPU computes them many times slower within a loop."""
  x = jnp.ones((2, 12, 12, 3))
  variables = Conv(4, 4, 2, "VALID").init(jax.random.key(0), x)
  gradient = jax.grad(lambda v, x: Conv(4, 4, 2, "VALID").apply(v, x).sum(), argnums=(0, 1))
  jaxpr = jax.make_jaxpr(gradient)(variables, x)

  def orders(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == "conv_general_dilated":
        yield tuple(equation.params["dimension_numbers"])
      for inner in core.jaxprs_in_params(equation.params):
        yield from orders(inner)

  found = list(orders(jaxpr.jaxpr))
  assert len(found) == 3
  assert set(found) == {((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))}


def test_inputs_of_another_precision_are_promoted():
  x = jax.random.normal(jax.random.key(0), (2, 9, 9, 3)).astype(jnp.bfloat16)
  layer = Conv(4, 3)
  params = layer.init(jax.random.key(1), x)
  np.testing.assert_array_equal(layer.apply(params, x), layer.apply(params, x.astype(jnp.float32)))


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_of_several_networks_each_is_its_own(axes):
  """Many seeds at once: not as groups of channels, of which GPUs have no gradient to kernels."""
  layer = Conv(4, 4, 2, "VALID")
  seeds = jax.random.split(jax.random.key(1), 3) if axes[0] == 0 else jax.random.key(1)
  x = jax.random.normal(jax.random.key(0), (3, 2, 12, 12, 3) if axes[1] == 0 else (2, 12, 12, 3))

  def init(key):
    return layer.init(key, jnp.zeros((2, 12, 12, 3)))

  variables = jax.vmap(init)(seeds) if axes[0] == 0 else init(seeds)

  def gradients(variables, x):
    return jax.value_and_grad(lambda v, x: jnp.sum(layer.apply(v, x) ** 3), argnums=(0, 1))(variables, x)

  several = jax.vmap(gradients, axes)
  found = jax.jit(several)(variables, x)
  for seed in range(3):
    own, seen = (
      jax.tree.map(lambda leaf, axis=axis, seed=seed: leaf if axis is None else leaf[seed], tree)
      for axis, tree in zip(axes, (variables, x), strict=True)
    )
    alone = jax.jit(gradients)(own, seen)
    jax.tree.map(lambda a, b, s=seed: np.testing.assert_allclose(a[s], b, rtol=1e-4, atol=1e-4), found, alone)
  assert set(re.findall(r"feature_group_count=(\d+)", str(jax.make_jaxpr(several)(variables, x)))) == {"1"}

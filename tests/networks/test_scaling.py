import jax
import jax.numpy as jnp
import numpy as np

from ilx.networks import scaling
from ilx.types import Continuous, Discrete, Spec, Statistics


def test_actions_round_trip_and_reach_the_bounds():
  scale = scaling.action_scale(Continuous(np.array([-2.0, 0.0]), np.array([2.0, 10.0])))
  action = jnp.array([[-2.0, 0.0], [2.0, 10.0], [1.0, 7.5]])
  unit = scaling.to_unit(scale, action)
  np.testing.assert_allclose(unit, [[-1, -1], [1, 1], [0.5, 0.5]], atol=1e-6)
  np.testing.assert_allclose(scaling.from_unit(scale, unit), action, atol=1e-5)
  np.testing.assert_array_equal(scaling.from_unit(scale, jnp.array([[1.001, -1.001]])), [[2.0, 0.0]])


def test_discrete_actions_pass_unchanged():
  assert scaling.action_scale(Discrete(3)) is None
  np.testing.assert_array_equal(scaling.to_unit(None, jnp.array([2])), [2])


def test_bytes_are_scaled_to_one_without_statistics():
  found = scaling.standardise(None, {"a": jnp.full((5, 2, 2, 1), 255, jnp.uint8), "b": jnp.full((5,), 7)})
  np.testing.assert_allclose(found["a"], np.ones((5, 2, 2, 1)))
  np.testing.assert_allclose(found["b"], np.full(5, 7.0))
  assert found["b"].dtype == jnp.float32


def test_standardisation():
  statistics = Statistics(2, mean=np.array([1.0, 2.0]), std=np.array([2.0, 4.0]), min=None, max=None)
  spec = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2), statistics)
  scale = scaling.observation_scale(spec)
  np.testing.assert_allclose(scaling.standardise(scale, jnp.array([[3.0, -2.0]])), [[1.0, -1.0]])


def test_pictures_are_scaled_to_one_whatever_their_statistics():
  ones = np.ones((16, 16))
  statistics = Statistics(
    2, mean={"a": 200 * ones, "b": np.ones(2)}, std={"a": 0 * ones, "b": np.ones(2)}, min=0, max=0
  )
  leaves = {"a": jax.ShapeDtypeStruct((16, 16), jnp.uint8), "b": jax.ShapeDtypeStruct((2,), jnp.uint8)}
  scale = scaling.observation_scale(Spec(leaves, Discrete(2), statistics))
  found = scaling.standardise(scale, {"a": jnp.full((3, 16, 16), 255, jnp.uint8), "b": jnp.zeros((3, 2), jnp.uint8)})
  np.testing.assert_allclose(found["a"], np.ones((3, 16, 16)))
  np.testing.assert_allclose(found["b"], -np.ones((3, 2)))

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


def test_features_of_a_tree_keep_batch_axes():
  observation = {"a": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((), jnp.float32)}
  spec = Spec(observation, Discrete(2))
  values = {"a": jnp.arange(24.0).reshape(4, 2, 3), "b": jnp.full((4,), 9.0)}
  found = scaling.features(None, values, spec)
  assert found.shape == (4, 7)
  np.testing.assert_array_equal(found[0], [0, 1, 2, 3, 4, 5, 9])
  assert scaling.features(None, jax.tree.map(lambda x: x[0], values), spec).shape == (7,)


def test_images_are_scaled_to_one_without_statistics():
  spec = Spec(jax.ShapeDtypeStruct((2, 2, 1), jnp.uint8), Discrete(2))
  found = scaling.features(None, jnp.full((5, 2, 2, 1), 255, jnp.uint8), spec)
  np.testing.assert_allclose(found, np.ones((5, 4)))


def test_standardisation():
  statistics = Statistics(2, mean=np.array([1.0, 2.0]), std=np.array([2.0, 4.0]), min=None, max=None)
  spec = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2), statistics)
  scale = scaling.observation_scale(statistics)
  np.testing.assert_allclose(scaling.features(scale, jnp.array([[3.0, -2.0]]), spec), [[1.0, -1.0]])

"""Made-up data is what its spec says."""

import jax
import jax.numpy as jnp
import numpy as np

import ilx
from ilx import testing
from ilx.types import Discrete, Spec


def test_observations_have_the_moments_of_the_spec():
  spec = testing.continuous_spec()
  seen = testing.fake_episodes(spec, num_episodes=200).observation
  mean, std = spec.statistics.mean, spec.statistics.std
  assert seen.shape == (200 * 21, 5) and seen.dtype == np.float32
  np.testing.assert_allclose(seen.mean(0), mean, atol=5 * std.max() / np.sqrt(len(seen)))
  np.testing.assert_allclose(seen.std(0), std, rtol=0.05)
  np.testing.assert_array_equal(seen[:, -1], 4.0)  # the dimension that does not vary


def test_observations_without_statistics_have_a_mean_of_0_and_a_deviation_of_1():
  seen = {"bytes": jax.ShapeDtypeStruct((4,), jnp.uint8), "numbers": jax.ShapeDtypeStruct((4,), jnp.float32)}
  found = testing.fake_episodes(Spec(seen, Discrete(2)), num_episodes=200).observation
  np.testing.assert_allclose(found["numbers"].mean(0), 0.0, atol=0.1)
  np.testing.assert_allclose(found["numbers"].std(0), 1.0, rtol=0.05)
  assert found["bytes"].dtype == np.uint8 and (found["bytes"].min(), found["bytes"].max()) == (0, 255)


def test_statistics_change_the_observations_alone():
  spec = testing.continuous_spec()
  scaled, plain = (testing.fake_episodes(of) for of in (spec, spec._replace(statistics=None)))
  np.testing.assert_array_equal(scaled.action, plain.action)
  np.testing.assert_array_equal(scaled.reward, plain.reward)
  expected = spec.statistics.mean + spec.statistics.std * plain.observation
  np.testing.assert_allclose(scaled.observation, expected, rtol=1e-5, atol=1e-5)


def test_single_frames_have_the_statistics_of_one():
  episodes = testing.fake_episodes(testing.continuous_spec())
  single, stacked = (ilx.data.spec(episodes, frame_stack=frames) for frames in (0, 4))
  found = testing.single_frames(stacked)
  assert found.observation == single.observation
  jax.tree.map(np.testing.assert_array_equal, found.statistics, single.statistics)
  assert testing.single_frames(stacked._replace(statistics=None)).statistics is None

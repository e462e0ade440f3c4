import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx import testing
from ilx.networks import compound, scaling
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


def test_actions_of_several_parts_round_trip():
  spec = testing.factored_spec().action
  scale = scaling.action_scale(spec)
  action = testing.fake_episodes(testing.factored_spec()).action
  unit = scaling.to_unit(scale, jax.tree.map(jnp.asarray, action))
  n = len(action["weapon"])
  # A number without an axis gets one.
  assert unit["hand"]["trigger"].shape == (n, 1) and unit["stick"].shape == (n, 2)
  np.testing.assert_allclose(unit["hand"]["trigger"][:, 0], action["hand"]["trigger"] / 5 - 1, atol=1e-6)
  assert unit["weapon"].dtype == jnp.int32 and unit["hand"]["buttons"].dtype == jnp.int32
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), scaling.from_unit(scale, unit), action)


def test_ranks_among_quantiles_by_hand():
  # Five quantiles of two dimensions: four equal parts of [-1, 1]. A third of the second's data are at 0.
  quantiles = np.array([[0, -1], [1, 0], [3, 0], [4, 0], [8, 5]], np.float32)
  scale = scaling.action_scale(Continuous(np.array([-10.0, -10]), np.array([10.0, 10]), quantiles))
  action = jnp.array([[0, -1], [0.5, -0.5], [1, 0], [2, 2.5], [8, 5], [-3, -3], [9, 9]])
  unit = scaling.to_unit(scale, action)
  ranks = [[0, 0], [0.5, 0.5], [1, 2], [1.5, 3.5], [4, 4], [0, 0], [4, 4]]
  np.testing.assert_allclose(unit, np.array(ranks) / 2 - 1, atol=1e-6)
  # Back again, but for what lies beyond the data; a number outside [-1, 1] is the last of them.
  np.testing.assert_allclose(scaling.from_unit(scale, unit)[:5], action[:5], atol=1e-6)
  np.testing.assert_allclose(scaling.from_unit(scale, jnp.array([[-1.5, 1.5]])), [[0, 5]])


def test_ranks_of_a_number_without_an_axis():
  scale = scaling.action_scale(Continuous(0.0, 10.0, np.array([0.0, 1.0, 10.0])))
  unit = scaling.to_unit(scale, jnp.array([1.0, 5.5]))
  np.testing.assert_allclose(unit, [[0.0], [0.5]])
  np.testing.assert_allclose(scaling.from_unit(scale, unit), [1.0, 5.5])


@pytest.mark.parametrize("quantiles", [[[0.0], [2.0]], [[0.5], [0.0]], [[0.0]], [0.0, 1.0]])
def test_quantiles_that_do_not_fit_the_bounds_are_refused(quantiles):
  with pytest.raises(ValueError, match="quantiles"):
    Continuous(np.array([-1.0]), np.array([1.0]), np.array(quantiles))


def test_bytes_are_scaled_to_one_without_statistics():
  found = scaling.standardise(None, {"a": jnp.full((5, 2, 2, 1), 255, jnp.uint8), "b": jnp.full((5,), 7)})
  np.testing.assert_allclose(found["a"], np.ones((5, 2, 2, 1)))
  np.testing.assert_allclose(found["b"], np.full(5, 7.0))
  assert found["b"].dtype == jnp.float32


@pytest.mark.parametrize(
  ("values", "shares", "bins"),
  [
    ([-1, 0, 1], [0.02, 0.96, 0.02], 16),
    ([0, 1], [0.97, 0.03], 16),
    ([0, 1], [0.995, 0.005], 256),
    ([0, 1], [0.5, 0.5], 9),
  ],
)
def test_rare_values_beside_common_ones_have_bins_that_play_them(values, shares, bins):
  data = np.repeat(np.array(values, np.float32), np.round(np.array(shares) * 1000).astype(int))[:, None]
  quantiles = np.quantile(data, np.linspace(0, 1, 513), axis=0, method="inverted_cdf")
  scale = scaling.action_scale(Continuous(np.array([-2.0]), np.array([2.0]), quantiles))
  dist = compound.Discretised(jnp.zeros((1, bins)))
  action = jnp.array(values, jnp.float32)[:, None]
  index = dist.bin(scaling.to_unit(scale, action))
  assert len(set(index[:, 0].tolist())) == len(values)
  np.testing.assert_array_equal(scaling.from_unit(scale, dist.centre(index)), action)


def test_higher_ranks_are_no_smaller_actions():
  rng = np.random.default_rng(0)
  some = [rng.choice([0.0, 0.0, 0.5, *rng.uniform(-1, 1, size)], 33) for size in (1, 2, 5, 20)]
  tables = [np.repeat([0.0, 0.5, 1.0], counts) for counts in ((50, 1, 50), (10, 1, 2), (2, 2, 9), (1, 40, 1))] + some
  for table in tables:
    quantiles = np.sort(np.asarray(table, np.float32))
    scale = scaling.action_scale(Continuous(np.array([-1.0]), np.array([1.0]), quantiles[:, None]))
    found = np.asarray(scaling.from_unit(scale, jnp.linspace(-1, 1, 5001)[:, None]))[:, 0]
    assert np.diff(found).min() >= -1e-6
    # Every number of the data is what its own rank stands for.
    there = np.unique(quantiles)[:, None]
    np.testing.assert_allclose(scaling.from_unit(scale, scaling.to_unit(scale, jnp.asarray(there))), there, atol=1e-6)


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

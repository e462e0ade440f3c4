import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from ilx import testing
from ilx.networks import heads, scaling
from ilx.types import Continuous


def _episodes(action):
  """One episode; the last row does not count."""
  n = len(action)
  return ilx.data.from_columns(
    observation=np.zeros((n, 1), np.float32),
    action=action,
    reward=np.zeros(n, np.float32),
    discount=np.ones(n, np.float32),
    is_terminal=np.zeros(n, bool),
    starts=[0, n],
  )


def _skewed(size=4097):
  """Two dimensions with uneven densities."""
  rng = np.random.default_rng(0)
  return np.stack([rng.exponential(size=size), rng.normal(size=size) ** 3], axis=1).astype(np.float32)


@pytest.mark.parametrize("bins", [4, 64, 10])
def test_bins_of_ranked_actions_hold_equal_shares_of_the_data(bins):
  episodes = _episodes(_skewed())
  spec = ilx.data.rank_actions(ilx.data.spec(episodes), episodes)
  dist = heads.make(spec.action, "discretised", bins=bins, binning="quantile")
  scale = scaling.action_scale(spec.action)
  action = jnp.asarray(episodes.action[:-1])
  bin_of = dist.apply(dist.init(jax.random.key(0), jnp.zeros(1)), jnp.zeros(1)).bin
  for dimension in range(2):
    counts = np.bincount(bin_of(scaling.to_unit(scale, action))[:, dimension], minlength=bins)
    np.testing.assert_allclose(counts, len(action) / bins, atol=8 if 512 % bins == 0 else 0.1 * len(action) / bins)


def test_a_bin_stands_for_its_median():
  episodes = _episodes(_skewed())
  spec = ilx.data.rank_actions(ilx.data.spec(episodes), episodes)
  scale = scaling.action_scale(spec.action)
  centre = scaling.from_unit(scale, jnp.array([[2 * 0.5 / 4 - 1, 2 * 3.5 / 4 - 1]]))
  expected = [np.quantile(episodes.action[:-1, 0], 1 / 8), np.quantile(episodes.action[:-1, 1], 7 / 8)]
  np.testing.assert_allclose(centre[0], expected, rtol=1e-2)


def test_common_numbers_are_kept_exactly():
  rng = np.random.default_rng(0)
  action = np.where(rng.random((1001, 1)) < 0.4, -1.0, 1.0).astype(np.float32)
  action[::50] = rng.uniform(-1, 1, (21, 1))
  episodes = _episodes(action)
  spec = ilx.data.rank_actions(ilx.data.spec(episodes), episodes)
  scale = scaling.action_scale(spec.action)
  dist = heads.DiscretisedHead(1, 8)
  made = dist.apply(dist.init(jax.random.key(0), jnp.zeros(1)), jnp.zeros(1))
  played = scaling.from_unit(scale, made.centre(made.bin(scaling.to_unit(scale, jnp.array([[-1.0], [1.0]])))))
  np.testing.assert_array_equal(played, [[-1], [1]])


def test_only_steps_that_count_and_only_continuous_parts():
  action = np.array([[1.0], [2.0], [99.0]], np.float32)
  spec = ilx.data.spec(_episodes(action))
  # Half of the two that count are 1; of all three, moved onto the bounds, a third.
  assert ilx.data.rank_actions(spec, _episodes(action)).action.quantiles[256] == 1
  factored = testing.factored_spec()
  ranked = ilx.data.rank_actions(factored, testing.fake_episodes(factored)).action
  assert ranked["weapon"] == factored.action["weapon"]
  assert ranked["hand"]["trigger"].quantiles.shape == (513,) and ranked["stick"].quantiles.shape == (513, 2)
  with pytest.raises(ValueError, match="no continuous action"):
    ilx.data.rank_actions(testing.discrete_spec(), testing.fake_episodes(testing.discrete_spec()))


def test_streamed_data_have_the_quantiles_of_their_episodes(tmp_path):
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(tmp_path, name="fake", metadata={}) as recorder:
    for length in (12, 1, 5):
      recorder.add(
        ilx.data.episode(np.zeros((length + 1, 3)), rng.normal(size=(length, 2)), np.zeros(length), terminal=True)
      )
  loaded = ilx.data.load(recorder.path)
  spec = ilx.data.spec(loaded)
  assert isinstance(spec.action, Continuous)
  expected = ilx.data.rank_actions(spec, loaded).action.quantiles
  np.testing.assert_array_equal(
    ilx.data.rank_actions(spec, ilx.data.streamed(recorder.path)).action.quantiles, expected
  )


def test_what_is_not_learnt_from_has_no_rank(tmp_path):
  """Episodes without weight, wherever the data are, and records of one step, which others write."""
  with ilx.data.Recorder(tmp_path, name="fake", metadata={}) as recorder:
    for value in (0.9, -0.9, 0.9):
      recorder.add(ilx.data.episode(np.zeros((5, 3)), np.full((4, 1), value), np.zeros(4), terminal=True))
  loaded, weights = ilx.data.load(recorder.path), np.array([0.0, 2.0, 0.0])
  spec, streamed = ilx.data.spec(loaded), ilx.data.streamed(recorder.path)
  (source,) = streamed.sources
  of_one_step = source._replace(index=source.index._replace(length=np.array([0, 4, 0])))
  for data in (
    ilx.data.weighted(loaded, weights),
    ilx.data.streamed(recorder.path, weights=weights),
    dataclasses.replace(streamed, sources=(of_one_step,)),
  ):
    assert np.unique(ilx.data.rank_actions(spec, data).action.quantiles) == pytest.approx([-0.9])
  nothing = source._replace(index=source.index._replace(length=np.zeros(3, np.int64)))
  with pytest.raises(ValueError, match="no transition"):
    ilx.data.rank_actions(spec, dataclasses.replace(streamed, sources=(nothing,)))


def test_weights_of_a_stream(tmp_path):
  with ilx.data.Recorder(tmp_path, name="fake", metadata={}) as recorder:
    for _ in range(3):
      recorder.add(ilx.data.episode(np.zeros((5, 3)), np.zeros((4, 1)), np.zeros(4), terminal=True))
  np.testing.assert_array_equal(ilx.data.streamed(recorder.path).weights, [1, 1, 1])
  np.testing.assert_array_equal(ilx.data.streamed(recorder.path, weights=np.array([0, 1, 2.0])).weights, [0, 0.5, 1])

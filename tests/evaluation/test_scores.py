import numpy as np
import pytest
import scipy.stats

from ilx.evaluation import scores


def test_summary_of_one_policy_by_hand():
  got = scores.summary([8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 27.0])
  assert got["mean"] == 7.0
  assert got["median"] == 4.5
  assert got["iqm"] == (3 + 4 + 5 + 6) / 4
  assert got["std"] == pytest.approx(np.sqrt((1 + 36 + 25 + 16 + 9 + 4 + 1 + 400) / 8))
  assert (got["min"], got["max"]) == (1.0, 27.0)
  assert all(isinstance(x, float) for x in [got["mean"], *got["mean_ci95"], *got["iqm_ci95"]])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100])
def test_iqm_is_scipys_trimmed_mean(size):
  values = np.random.default_rng(size).normal(size=(3, size))
  np.testing.assert_allclose(scores.iqm(values), scipy.stats.trim_mean(values, 0.25, axis=None))
  np.testing.assert_allclose(scores.iqm(values, axis=1), scipy.stats.trim_mean(values, 0.25, axis=1))


def test_intervals_agree_with_scipys_bootstrap():
  returns = np.random.default_rng(0).gamma(2.0, 100.0, size=80)
  got = scores.summary(returns, resamples=20_000)
  for statistic, interval in ((np.mean, got["mean_ci95"]), (scores.iqm, got["iqm_ci95"])):
    theirs = scipy.stats.bootstrap(
      (returns,), statistic, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # Two bootstraps of 20,000 differ by a percent or so of the width.
    np.testing.assert_allclose(interval, theirs, atol=0.03 * (theirs.high - theirs.low))


def test_interval_over_seeds_holds_the_luck_of_training():
  """Episodes that are all alike within a seed: only the choice of seeds varies, so it is a bootstrap of their means."""
  means = np.asarray([10.0, 20.0, 60.0, 70.0, 90.0])
  got = scores.summary(np.repeat(means[:, None], 40, axis=1), resamples=20_000)
  theirs = scipy.stats.bootstrap(
    (means,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
  ).confidence_interval
  np.testing.assert_allclose(got["mean_ci95"], theirs, atol=2.0)


def test_bootstrap_in_blocks_is_the_same_distribution(monkeypatch):
  returns = np.random.default_rng(0).normal(size=(2, 50))
  whole = scores.summary(returns, resamples=4000)
  monkeypatch.setattr(scores, "_BLOCK", 333)
  in_blocks = scores.summary(returns, resamples=4000)
  np.testing.assert_allclose(whole["mean_ci95"], in_blocks["mean_ci95"], atol=0.05)
  assert scores._bootstrap(returns, 10, np.random.default_rng(0))[0].shape == (10,)


def test_summary_is_deterministic():
  returns = np.random.default_rng(0).normal(size=30)
  assert scores.summary(returns, seed=3) == scores.summary(returns, seed=3)
  assert scores.summary(returns, seed=3)["mean_ci95"] != scores.summary(returns, seed=4)["mean_ci95"]


def test_one_episode_has_a_point_interval():
  got = scores.summary([5.0])
  assert got["mean_ci95"] == got["iqm_ci95"] == (5.0, 5.0)
  assert got["std"] == 0.0


@pytest.mark.parametrize(
  ("returns", "message"), [([], "empty"), (np.zeros((2, 2, 2)), "shape"), ([1.0, np.nan, np.inf], "2 of 3")]
)
def test_summary_refuses(returns, message):
  with pytest.raises(ValueError, match=message):
    scores.summary(returns)


def test_an_interval_needs_resamples():
  with pytest.raises(ValueError, match="resamples=0 must be at least 1"):
    scores.summary([1.0, 2.0], resamples=0)


def test_normalized_by_hand():
  assert scores.normalized(75.0, random=50.0, expert=150.0) == 25.0
  np.testing.assert_array_equal(scores.normalized(np.asarray([-280.0, 12_000.0]), -280.0, 12_000.0), [0.0, 100.0])
  with pytest.raises(ValueError, match="equals the random"):
    scores.normalized(1.0, random=2.0, expert=2.0)


def test_seeds_draw_their_episodes_each_for_itself():
  low, high = scores.summary(np.tile([0.0, 1.0], (20, 1)))["mean_ci95"]
  assert 0.3 < low < 0.4 and 0.6 < high < 0.7

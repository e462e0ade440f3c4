import numpy as np
import pytest

from ilx.evaluation.budget import budget


def test_one_episode_finds_an_average_policy_and_many_the_best():
  returns = np.array([[0.0] * 3, [10.0] * 3, [20.0] * 3, [70.0] * 3])
  found = budget(returns, episodes=40, searches=4000)
  assert found.value[0] == pytest.approx(25.0, abs=1.5)  # whichever was drawn first
  # Of two without replacement the better: 12 ordered pairs, 10 * 2 + 20 * 4 + 70 * 6 = 520.
  assert found.value[1] == pytest.approx(520 / 12, abs=1.5)
  np.testing.assert_array_equal(found.value[3:], 70.0)  # returns tell them apart, and all were played once
  assert found.low[0] == 0.0 and found.high[0] == 70.0 and found.low[3] == found.high[3] == 70.0


def test_a_search_has_no_more_policies_than_it_draws():
  returns = np.arange(50.0)[:, None]
  found = budget(returns, episodes=30, policies=2, searches=5000)
  assert found.value[0] == pytest.approx(24.5, abs=0.7)
  np.testing.assert_allclose(found.value[2:], found.value[2])
  assert found.value[-1] == pytest.approx(2 / 3 * 51 - 1, abs=0.7)  # the expected larger of two of 0..49


def test_noise_costs_episodes_and_units_do_not_matter():
  rng = np.random.default_rng(0)
  means = np.array([0.0, 1.0])
  noisy = budget(means[:, None] + rng.normal(size=(2, 400)), episodes=300, searches=2000)
  assert 0.6 < noisy.value[2] < 0.9  # chance may mislead at first
  assert noisy.value[-1] > 0.97
  rng = np.random.default_rng(0)
  scaled = budget(1e3 * (means[:, None] + rng.normal(size=(2, 400))) - 500, episodes=300, searches=2000)
  np.testing.assert_allclose(scaled.value, 1e3 * noisy.value - 500, rtol=1e-6, atol=1e-6)


def test_exploring_recovers_from_a_bad_first_episode():
  # The better policy loses its first episode half the time; who never explores would stay with the other.
  returns = np.array([[1.0, 1.0], [0.0, 4.0]])
  greedy = budget(returns, episodes=200, searches=2000, exploration=0.0)
  curious = budget(returns, episodes=200, searches=2000)
  assert greedy.value[-1] < 1.7
  assert curious.value[-1] > 1.9


@pytest.mark.parametrize(
  ("returns", "options", "said"),
  [
    (np.zeros(3), {}, r"got shape \(3,\)"),
    (np.full((2, 2), np.nan), {}, "finite"),
    (np.zeros((2, 2)), {"episodes": 0}, "at least 1"),
    (np.zeros((2, 2)), {"exploration": -1.0}, "at least 0"),
  ],
)
def test_bad_input_is_said(returns, options, said):
  with pytest.raises(ValueError, match=said):
    budget(returns, **options)


def test_its_bands_hold_95_percent():
  found = budget(np.arange(101.0)[:, None], episodes=1, policies=101, searches=20_000)
  np.testing.assert_allclose([found.low[0], found.high[0]], [2.5, 97.5], atol=1.5)


def _searched(returns, episodes, searches, exploration):
  """Search by upper confidence bounds, written once more: the mean return of what would be chosen."""
  rng, total = np.random.default_rng(9), np.zeros(episodes)
  for _ in range(searches):
    sums, plays = np.zeros(2), np.zeros(2)
    for t in range(1, episodes + 1):
      if (plays == 0).any():
        arm = rng.choice(np.flatnonzero(plays == 0))
      else:
        bound = sums / plays / np.ptp(returns) + np.sqrt(exploration * np.log(t) / plays)
        arm = rng.choice(np.flatnonzero(bound == bound.max()))
      sums[arm] += rng.choice(returns[arm])
      plays[arm] += 1
      mean = np.where(plays > 0, sums / np.maximum(plays, 1), -np.inf)
      total[t - 1] += returns[rng.choice(np.flatnonzero(mean == mean.max()))].mean()
  return total / searches


def test_the_bonus_is_that_of_upper_confidence_bounds():
  returns = np.array([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 8.0]])
  found = budget(returns, episodes=30, searches=40_000, exploration=0.1).value
  np.testing.assert_allclose(found, _searched(returns, 30, 3000, 0.1), atol=0.045)

import math

import numpy as np
import pytest

from ilx.evaluation.visitation import visitation


def _walks(seed, episodes=20, shift=0.0, scale=1.0):
  rng = np.random.default_rng(seed)
  return [
    {"b": scale * (rng.normal(size=(100, 2)) + shift), "a": rng.normal(size=(100,)) + shift} for _ in range(episodes)
  ]


def test_one_dimension_is_the_mean_difference_of_sorted_values():
  demonstrator = [np.array([[0.0], [4.0]]), np.array([[4.0], [8.0]])]  # mean 4, std sqrt(8)
  policy = [np.array([[1.0], [5.0], [5.0], [9.0]])]
  assert visitation(policy, demonstrator).distance == pytest.approx(1 / math.sqrt(8))
  assert visitation(policy, demonstrator).within == pytest.approx(4 / math.sqrt(8))


def test_a_shift_by_a_standard_deviation():
  found = visitation(_walks(0, shift=1.0), _walks(1), projections=500)
  assert found.distance == pytest.approx(1.0, rel=0.1)
  assert found.within < 0.15


def test_units_do_not_matter():
  here, there = (
    visitation(_walks(0, shift=0.5), _walks(1)),
    visitation(_walks(0, shift=0.5, scale=1e3), _walks(1, scale=1e3)),
  )
  np.testing.assert_allclose(there, here, rtol=1e-6)


def test_who_does_the_same_is_as_near_as_the_demonstrator_to_itself():
  found = visitation(_walks(2), _walks(3))
  assert found.distance < 1.5 * found.within
  assert visitation(_walks(3), _walks(3)).distance == 0.0


def test_the_length_of_episodes_does_not_matter():
  demonstrator = _walks(4)
  pieces = [{name: x[a : a + 25] for name, x in walk.items()} for walk in demonstrator for a in range(0, 100, 25)]
  assert visitation(pieces, demonstrator).distance == 0.0


def test_a_dimension_that_does_not_vary_counts_in_its_own_units():
  found = visitation([np.full((4, 1), 3.0)], [np.full((4, 1), 1.0)])
  assert found.distance == pytest.approx(2.0)
  assert math.isnan(found.within)


def test_bad_input_is_said():
  with pytest.raises(ValueError, match="policy have 2 dimensions, the demonstrator's 3"):
    visitation([np.zeros((4, 2))], [np.zeros((4, 3))])
  with pytest.raises(ValueError, match="no episodes"):
    visitation([], [np.zeros((4, 3))])


def test_distances_are_in_the_deviations_of_the_data():
  rng = np.random.default_rng(0)
  shown = [rng.normal(size=(500, 1)) for _ in range(4)]
  assert visitation([10 * x for x in shown], shown).distance == pytest.approx(9 * np.sqrt(2 / np.pi), rel=0.05)


def test_episodes_that_drift_are_compared_in_turns():
  rng = np.random.default_rng(0)
  drift = [rng.normal(size=(200, 2)) + 5 * number for number in range(8)]
  assert visitation(drift, drift).within == pytest.approx(5 / np.concatenate(drift).std(0).mean(), rel=0.1)

"""Columns, with two tiny episodes by hand: one that ends by itself, one cut by a time limit."""

import numpy as np
import pytest

from ilx.data.episodes import from_columns, lengths, returns
from ilx.data.views import transitions


def build(**changed):
  """Episode 0: three transitions, terminal. Episode 1: two, a time limit. Last rows hold values that must not count."""
  columns = {
    "observation": np.arange(7, dtype=np.float32)[:, None] * 10,
    "action": np.arange(7, dtype=np.float32)[:, None],
    "reward": np.array([1, 2, 3, 99, 10, 20, 99], np.float32),
    "discount": np.array([1, 0.5, 1, 0, 1, 1, 0], np.float32),
    "is_terminal": np.array([0, 0, 0, 1, 0, 0, 0], bool),
    "starts": [0, 4, 7],
  }
  return from_columns(**{**columns, **changed})


def test_counts():
  episodes = build()
  assert (episodes.num_episodes, episodes.num_steps, episodes.num_transitions) == (2, 7, 5)
  np.testing.assert_array_equal(lengths(episodes), [3, 2])
  assert episodes.starts.dtype == np.int64


def test_rows_are_all_but_the_last_of_every_episode():
  rows = build().rows
  assert rows.dtype == np.int32
  np.testing.assert_array_equal(rows, [0, 1, 2, 4, 5])


def test_returns_leave_out_the_last_step():
  np.testing.assert_array_equal(returns(build()), [6, 30])


def test_an_episode_of_one_step_has_no_transition():
  episodes = build(starts=[0, 4, 6, 7])
  np.testing.assert_array_equal(episodes.rows, [0, 1, 2, 4])
  np.testing.assert_array_equal(lengths(episodes), [3, 1, 0])
  np.testing.assert_array_equal(returns(episodes), [6, 10, 0])


@pytest.mark.parametrize(
  ("name", "value", "problem"),
  [
    (
      "observation",
      np.array([1.7e12] * 7).astype(np.int64),
      "observation is 1700000000000 at step 0 of episode 0, .*int32",
    ),
    (
      "observation",
      {"t": np.array([0, 0, 0, 0, 0, 0, -(2**31) - 1])},
      "observation/t is -2147483649 at step 2 of episode 1",
    ),
    ("observation", np.array([[0, 0], [0, 2**32]] + [[0, 0]] * 5, np.uint64), "4294967296 at step 1 .*uint32"),
    ("action", np.array([0, 0, 0, 0, 2**31, 0, 0]), "action is 2147483648 at step 0 of episode 1"),
    (
      "reward",
      np.array([0, 0, 1e39, 0, 0, 0, 0]),
      r"reward is 1e\+39 at step 2 of episode 0, which float32 cannot hold",
    ),
    ("reward", [0, 0, 1e39, 0, 0, 0, 0], "reward is 1e.39 at step 2"),
    ("discount", np.array([1, 1e39, 1, 0, 1, 1, 0]), "discount is 1e.39 at step 1"),
    ("observation", np.array([np.nan, np.inf, 1e39, 0, 0, 0, 0]), "observation is 1e.39 at step 2"),
    ("extras", {"x": np.array([0, -1e300, 0, 0, 0, 0, 0])}, r"extras/x is -1e\+300 at step 1"),
  ],
)
def test_numbers_that_would_become_others_on_a_device(name, value, problem):
  with pytest.raises(ValueError, match=problem):
    build(**{name: value})


def test_wide_numbers_that_fit_stay():
  ends = np.array([2**31 - 1, -(2**31), 0, 2**40, 0, 0, -(2**40)])
  assert build(action=ends).action.dtype == np.int64  # an episode's last action carries no meaning
  assert build(reward=np.array([0, 0, 0, 1e300, 0, 0, np.nan])).reward.dtype == np.float32
  assert build(discount=np.array([1, 1, 1, 1e300, 1, 1, 0])).discount.dtype == np.float32
  assert build(is_terminal=np.array([0, 0, 0, 2**40, 0, 0, 0])).is_terminal[3]
  observation = np.array([np.nan, np.inf, 3e38, 0, 0, 0, 0])
  np.testing.assert_array_equal(build(observation=observation).observation, observation)


@pytest.mark.parametrize(
  ("starts", "problem"),
  [([0, 4], "number of steps, 7"), ([1, 7], "from 0"), ([0], "from 0"), ([0, 4, 4, 7], "episode 1 is empty")],
)
def test_starts_that_split_nothing(starts, problem):
  with pytest.raises(ValueError, match=problem):
    build(starts=starts)


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"observation": np.zeros((6, 1))}, r"observation has shape \(6, 1\) where reward has 7 steps"),
    ({"observation": {"a": np.zeros(7), "b": np.zeros(3)}}, r"observation/b has shape \(3,\)"),
    ({"action": np.zeros((8, 1))}, "action has shape"),
    ({"discount": np.ones(2)}, "discount has shape"),
    ({"reward": np.ones((7, 1))}, r"reward has shape \[7, 1\]; expected \[7\], a number a step"),
    (
      {"is_terminal": np.array([0, 1, 0, 0, 0, 0, 0], bool)},
      "is_terminal is true at row 1, which is no",
    ),
  ],
)
def test_columns_that_disagree_are_named(changed, message):
  with pytest.raises(ValueError, match=message):
    build(**changed)


def test_flags_and_rewards_of_other_types():
  """As D4RL's files have them; ~ of an integer would be no "not"."""
  flags = np.array([0, 0, 0, 1, 0, 0, 1], np.uint8)
  episodes = build(is_terminal=flags, reward=np.arange(7), discount=np.ones(7, np.float64))
  assert episodes.is_terminal.dtype == bool and episodes.reward.dtype == episodes.discount.dtype == np.float32
  np.testing.assert_array_equal(transitions(episodes, episodes.rows).discount, [1, 1, 0, 1, 0])

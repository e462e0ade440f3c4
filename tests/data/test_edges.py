"""What is easily mistaken at the edges of episodes, of weights and of samples of the data."""

import numpy as np
import pytest

import ilx
from ilx.data import ranks, sampling
from ilx.data.episodes import from_columns, returns
from ilx.data.mixing import mixture
from ilx.data.statistics import statistics
from ilx.data.views import Transitions
from ilx.data.windows import Windows
from ilx.types import Continuous, Spec


def _two(**changed):
  """Episodes of four and of two actions, the first of which ended the task."""
  columns = {
    "observation": np.arange(8, dtype=np.float32)[:, None] * 10,
    "action": np.arange(1, 9, dtype=np.float32)[:, None],
    "reward": np.array([1, 2, 4, 8, 99, 10, 20, 99], np.float32),
    "discount": np.array([1, 0.5, 1, 1, 77, 1, 1, 77], np.float32),
    "is_terminal": np.array([0, 0, 0, 0, 1, 0, 0, 0], bool),
    "starts": [0, 5, 8],
  }
  return from_columns(**columns | changed)


def test_returns_to_go_may_be_discounted():
  view = Windows(2, discount=0.5)
  windows = view.take(view.prepare(_two()), np.array([0, 5]))
  # Half of what follows, and at the second step half once more, as the data's own discount is 0.5 there.
  assert windows.returns_to_go.tolist() == [[4, 6], [20, 20]]


def test_several_steps_without_discount_are_one():
  view = Transitions(n_step=2, discount=0.0)
  step = view.take(view.prepare(_two()), np.array([0, 1]))
  assert step.reward.tolist() == [1, 2] and np.isfinite(step.discount).all()


def test_last_steps_have_no_discount():
  prepared = Transitions(n_step=2, discount=0.9).prepare(_two())
  assert prepared.extras["n_step_discount"][[4, 7]].tolist() == [0, 0]


def test_weights_given_anew_bring_nothing_back():
  once = sampling.weighted(_two(), np.array([0.0, 1.0]))
  assert sampling.weighted(once, np.array([1.0, 1.0])).rows.tolist() == [5, 6]


def test_weights_that_differ_little_differ():
  assert sampling.make_table(np.array([0, 1]), np.array([1.0, 1.005])) is not None


def test_datasets_with_other_columns_are_not_mixed():
  plain = _two()
  for other in ({}, {"x": np.zeros((8, 2), np.float32)}):
    with pytest.raises(ValueError, match="extras/x: "):
      mixture({"a": plain.replace(extras={"x": np.zeros(8, np.float32)}), "b": plain.replace(extras=other)})


def test_the_step_before_the_last_is_not_terminal():
  with pytest.raises(ValueError, match="is_terminal is true at row 3"):
    _two(is_terminal=np.array([0, 0, 0, 1, 0, 0, 0, 0], bool))


def test_last_actions_mean_nothing():
  _two(action={"x": np.array([0, 0, 0, 0, 2**40, 0, 0, 2**40])})


def test_returns_are_exact():
  count = 30
  episodes = from_columns(
    observation=np.zeros(count),
    action=np.zeros(count),
    reward=np.array([2.0**24] + [1.0] * (count - 1), np.float32),
    discount=np.ones(count),
    is_terminal=np.zeros(count, bool),
    starts=[0, count],
  )
  assert returns(episodes).dtype == np.float64 and returns(episodes).tolist() == [2**24 + count - 2]


def test_statistics_of_matrices_are_of_every_number():
  values = np.arange(3 * 5000 * 4, dtype=np.float64).reshape(3, 5000, 4) % 4
  np.testing.assert_allclose(statistics(values).mean, np.full((5000, 4), 1.5))


def test_ranks_are_of_rows_from_everywhere(monkeypatch):
  monkeypatch.setattr(ranks, "_ROWS", 100)
  x = np.arange(1001, dtype=np.float32)[:, None]
  columns = {"discount": np.ones(1001), "is_terminal": np.zeros(1001, bool), "starts": [0, 1001]}
  episodes = from_columns(observation=x, action=x, reward=x[:, 0], **columns)
  found = ranks.rank_actions(Spec(None, Continuous([0.0], [2000.0])), episodes).action.quantiles[:, 0]
  np.testing.assert_allclose(found[[0, 256, 512]], [0, 500, 999], atol=10)


def test_ranks_are_of_episodes_from_everywhere(monkeypatch, tmp_path):
  monkeypatch.setattr(ranks, "_EPISODES", 3)
  with ilx.data.Recorder(tmp_path, name="fake", metadata={}) as recorder:
    for value in range(9):
      recorder.add(ilx.data.episode(np.zeros((5, 3)), np.full((4, 1), value / 10), np.zeros(4), terminal=True))
  spec = ranks.rank_actions(Spec(None, Continuous([0.0], [1.0])), ilx.data.streamed(recorder.path))
  assert np.unique(spec.action.quantiles).tolist() == pytest.approx([0, 0.4, 0.8])

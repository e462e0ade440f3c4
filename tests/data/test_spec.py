import jax
import numpy as np
import pytest

from ilx.data.episodes import from_columns
from ilx.data.spec import spec
from ilx.types import Continuous, Discrete


def _episodes(action):
  """Two episodes of three and two steps; what stands in the last rows must not count."""
  return from_columns(
    observation={"x": np.arange(10, dtype=np.float32).reshape(5, 2)},
    action=np.asarray(action),
    reward=np.zeros(5, np.float32),
    discount=np.ones(5, np.float32),
    is_terminal=np.zeros(5, bool),
    starts=[0, 3, 5],
  )


def _bounds(found):
  assert isinstance(found.action, Continuous)
  return found.action.low.tolist(), found.action.high.tolist()


def test_actions_within_one_get_the_unit_box():
  found = spec(_episodes(np.array([[0.5], [-0.2], [9], [0.1], [-9]], np.float32)))
  assert _bounds(found) == ([-1], [1])
  assert found.observation["x"] == jax.ShapeDtypeStruct((2,), np.float32)
  assert found.statistics.count == 5
  np.testing.assert_allclose(found.statistics.mean["x"], [4, 5])


def test_larger_actions_get_their_own_range_and_a_still_one_an_interval():
  found = spec(_episodes(np.array([[0.5, 2], [-3, 2], [9, 9], [1, 2], [-9, 9]], np.float32)))
  assert _bounds(found) == ([-3, 1], [1, 3])


def test_metadata_bound_actions():
  episodes = _episodes(np.zeros((5, 2), np.float32))
  assert _bounds(spec(episodes, {"action_low": [-2, -3], "action_high": [2, 3]})) == ([-2, -3], [2, 3])
  with pytest.raises(ValueError, match="bound 1 action dimensions, the data have 2"):
    spec(episodes, {"action_low": [-2], "action_high": [2]})


def test_discrete_actions():
  episodes = _episodes(np.array([0, 2, 7, 1, 7], np.int32))
  assert spec(episodes).action == Discrete(3)
  assert spec(episodes, {"num_actions": 4}).action == Discrete(4)
  with pytest.raises(ValueError, match="from 0 to 2, the metadata num_actions 2"):
    spec(episodes, {"num_actions": 2})


def test_negative_actions_are_no_choice():
  with pytest.raises(ValueError, match="from -1 to 2"):
    spec(_episodes(np.array([-1, 2, 7, 1, 7], np.int32)))


@pytest.mark.parametrize("action", [np.zeros((5, 2), np.int32), np.zeros((5, 2, 2), np.float32)])
def test_shapes_that_are_no_action(action):
  with pytest.raises(ValueError, match="a step; expected"):
    spec(_episodes(action))

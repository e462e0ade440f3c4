import sys

import jax
import numpy as np
import pytest

import ilx
from ilx.data import index, rlds
from ilx.data.episodes import from_columns
from ilx.data.spec import spec
from ilx.types import Continuous, Discrete, MultiDiscrete


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
  with pytest.raises(ValueError, match=r"bound 1 dimensions of the action, the data have \[2\]"):
    spec(episodes, {"action_low": [-2], "action_high": [2]})


def test_discrete_actions():
  episodes = _episodes(np.array([0, 2, 7, 1, 7], np.int32))
  assert spec(episodes).action == Discrete(3)
  assert spec(episodes, {"num_actions": 4}).action == spec(episodes, {"num_actions": 4.0}).action == Discrete(4)
  with pytest.raises(ValueError, match="from 0 to 2, the metadata num_actions 2"):
    spec(episodes, {"num_actions": 2})


def test_negative_actions_are_no_choice():
  with pytest.raises(ValueError, match="from -1 to 2"):
    spec(_episodes(np.array([-1, 2, 7, 1, 7], np.int32)))


@pytest.mark.parametrize("action", [np.zeros((5, 2, 2), np.int32), np.zeros((5, 2, 2), np.float32)])
def test_shapes_that_are_no_action(action):
  with pytest.raises(ValueError, match="a step; expected"):
    spec(_episodes(action))


def _record(root, action=None, picture=None):
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(root, name="fake", metadata={}) as recorder:
    for length in (30, 1, 12):
      observation = {"state": rng.standard_normal((length + 1, 3)) * 5}
      if picture:
        observation["picture"] = rng.integers(0, 256, (length + 1, *picture), np.uint8)
      drawn = rng.standard_normal((length, 2)) * [1, 0] if action is None else rng.integers(0, action, length)
      recorder.add(ilx.data.episode(observation, drawn, np.zeros(length), terminal=True))
  return rlds.read_info(recorder.path)


@pytest.mark.parametrize("frame_stack", [0, 1, 4])
@pytest.mark.parametrize(
  ("action", "picture"), [(None, None), (5, (7, 7, 3)), (None, (40, 40, 1)), (None, (80, 80, 3)), (None, (150, 150))]
)
def test_streamed_and_loaded_data_have_one_spec(tmp_path, monkeypatch, action, picture, frame_stack):
  monkeypatch.setattr(index, "_RECORDS", 1)
  monkeypatch.setattr(sys.modules["ilx.data.statistics"], "SAMPLE", 7)
  info = _record(tmp_path, action, picture)
  streamed = spec(index.read(info), frame_stack=frame_stack)
  loaded = spec(ilx.data.load(info.directory), frame_stack=frame_stack)
  assert streamed.observation == loaded.observation
  if action:
    assert streamed.action == loaded.action
  else:
    assert _bounds(streamed) == _bounds(loaded)
  assert jax.tree.structure(streamed.statistics) == jax.tree.structure(loaded.statistics)
  jax.tree.map(np.testing.assert_array_equal, streamed.statistics, loaded.statistics)
  shapes = jax.tree.map(lambda x: x.shape, loaded.observation, is_leaf=lambda x: hasattr(x, "shape"))
  for name in ("mean", "std", "min", "max"):
    assert jax.tree.map(np.shape, getattr(loaded.statistics, name)) == shapes
  assert shapes["state"] == ((frame_stack, 3) if frame_stack else (3,))


def test_stacked_frames_have_each_the_statistics_of_one():
  found, single = spec(_episodes(np.zeros((5, 2))), frame_stack=3), spec(_episodes(np.zeros((5, 2))))
  assert found.observation["x"] == jax.ShapeDtypeStruct((3, 2), np.float32)
  for frame in found.statistics.std["x"]:
    np.testing.assert_array_equal(frame, single.statistics.std["x"])
  with pytest.raises(ValueError, match="frame_stack is -1"):
    spec(_episodes(np.zeros((5, 2))), frame_stack=-1)


def test_many_blocks_of_actions(monkeypatch):
  monkeypatch.setattr(sys.modules["ilx.data.spec"], "_ROWS", 2)
  action = np.array([[0.5, 2], [-3, 2], [9, 9], [1, 2], [-9, 9]], np.float32)
  assert _bounds(spec(_episodes(action))) == ([-3, 1], [1, 3])


def _parts():
  """A stick, three buttons, whether to jump, one number, and one choice; the last rows do not count."""
  return {
    "arm": {"stick": np.array([[0.5, 3], [0, -3], [9, 9], [-0.5, 2], [9, 9]], np.float32)},
    "buttons": np.array([[0, 2, 0], [1, 0, 0], [9, 9, 9], [0, 1, 0], [9, 9, 9]], np.int32),
    "jump": np.zeros(5, bool),
    "gas": np.array([0, 1, 99, 4, 99], np.float32),
    "weapon": np.array([0, 3, 99, 1, 99], np.int32),
  }


def test_an_action_of_several_parts():
  found = spec(_episodes(np.zeros(5)).replace(action=_parts())).action
  assert set(found) == {"arm", "buttons", "jump", "gas", "weapon"}
  assert found["buttons"] == MultiDiscrete((2, 3, 1))
  assert (found["jump"], found["weapon"]) == (Discrete(2), Discrete(4))
  stick, gas = found["arm"]["stick"], found["gas"]
  assert (stick.low.tolist(), stick.high.tolist()) == ([-0.5, -3], [0.5, 3])
  assert (gas.low.tolist(), gas.high.tolist(), gas.size) == (0.0, 4.0, 1)


def test_metadata_bound_the_parts_that_they_name():
  bounds = {
    "num_actions": {"buttons": [2, 5, 2]},
    "action_low": {"arm": {"stick": [-4, -4]}},
    "action_high": {"arm": {"stick": [4, 4]}},
  }
  found = spec(_episodes(np.zeros(5)).replace(action=_parts()), bounds).action
  assert (found["buttons"], found["weapon"]) == (MultiDiscrete((2, 5, 2)), Discrete(4))
  assert found["arm"]["stick"].low.tolist() == [-4, -4]
  nothing = {"num_actions": None, "action_low": {"gas": None}, "action_high": {"gas": None}}
  assert spec(_episodes(np.zeros(5)).replace(action=_parts()), nothing).action["weapon"] == Discrete(4)


def test_a_still_dimension_of_large_numbers_has_an_interval():
  found = spec(_episodes(np.full((5, 1), 3e7, np.float32))).action
  assert found.low < 3e7 < found.high


@pytest.mark.parametrize(
  ("bounds", "message"),
  [
    ({"num_actions": 4}, "the action has several parts; the metadata's num_actions must be a dict"),
    ({"num_actions": {"buttons": [2, 2, 2]}}, r"action/buttons from \[0, 0, 0\] to \[1, 2, 0\], .* \[2, 2, 2\]"),
    ({"num_actions": {"buttons": 5}}, r"action/buttons has shape \[3\] a step, the metadata's num_actions 5"),
    ({"action_low": {"gas": 0}}, "one of action_low and action_high of action/gas; both or neither"),
    ({"action_low": {"arm": [1, 2]}}, "action/arm has several parts; the metadata's action_low must be"),
    ({"num_actions": {"weapon": float("inf")}}, r"num_actions of action/weapon are inf; expected integers"),
    ({"num_actions": {"weapon": 4.9}}, r"num_actions of action/weapon are 4.9; expected integers"),
    ({"num_actions": {"weapon": "4"}}, r"num_actions of action/weapon are '4'; expected integers"),
    ({"num_actions": {"weapon": 10**20}}, r"num_actions of action/weapon are 10+; expected integers"),
    ({"action_low": {"gas": "a"}, "action_high": {"gas": "b"}}, "action_low and action_high of action/gas are not"),
    ({"num_actions": {"weapon": {"a": 2}}}, r"action/weapon is one part; the metadata's num_actions has several \(a\)"),
  ],
)
def test_metadata_that_do_not_fit_the_parts(bounds, message):
  with pytest.raises(ValueError, match=message):
    spec(_episodes(np.zeros(5)).replace(action=_parts()), bounds)


def test_several_choices_a_step():
  assert spec(_episodes(_parts()["buttons"])).action == MultiDiscrete((2, 3, 1))


def test_recorded_parts_have_one_spec_streamed_and_loaded(tmp_path):
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(tmp_path, name="parts", metadata={"num_actions": {"buttons": [2, 2, 7]}}) as recorder:
    for length in (12, 1, 5):
      action = {
        "buttons": rng.integers(0, 2, (length, 3)),
        "stick": rng.uniform(-3, 3, (length, 2)),
        "fire": np.zeros(length, bool),  # never, which does not make it a choice of one
      }
      recorder.add(ilx.data.episode(rng.normal(size=(length + 1, 3)), action, np.zeros(length), terminal=True))
  info = rlds.read_info(recorder.path)
  streamed, loaded = (
    spec(index.read(info), info.metadata).action,
    spec(ilx.data.load(info.directory), info.metadata).action,
  )
  assert streamed["buttons"] == loaded["buttons"] == MultiDiscrete((2, 2, 7))
  assert streamed["fire"] == loaded["fire"] == Discrete(2)
  np.testing.assert_array_equal(streamed["stick"].high, loaded["stick"].high)
  assert 1 < loaded["stick"].high.max() <= 3


def test_episodes_without_actions():
  episodes = from_columns(
    observation=np.zeros((2, 3)),
    action=np.zeros((2, 1)),
    reward=np.zeros(2),
    discount=np.ones(2),
    is_terminal=np.zeros(2, bool),
    starts=[0, 1, 2],
  )
  with pytest.raises(ValueError, match="no actions"):
    spec(episodes)

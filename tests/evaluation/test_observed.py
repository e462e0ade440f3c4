"""Parts of observations: beside the whole that the environments themselves give."""

import json

import envpool
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.evaluation import environments, matching, observed, random_policy
from ilx.evaluation.acting import Policy
from ilx.evaluation.playing import play
from ilx.types import Discrete, Spec

GRID, ROBOT, KITCHEN = "MiniGrid-DoorKey-5x5-v0", "FetchPush-v4", "FrankaKitchen-v1"
VECTOR = ["observation", "achieved_goal", "desired_goal"]
TURN = Policy(
  lambda params, carry, step, key: (jnp.full(step.reward.shape, 1, jnp.int32), carry), lambda batch_size: ()
)


def _array(*shape, dtype=np.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize(
  ("env_id", "wanted", "expected"),
  [
    (GRID, "image", _array(7, 7, 3, dtype=np.uint8)),
    (ROBOT, VECTOR, _array(31)),
    (GRID, ["direction", "image"], _array(148, dtype=np.int32)),
    (ROBOT, {"all": VECTOR, "goal": {"wanted": "desired_goal"}}, {"all": _array(31), "goal": {"wanted": _array(3)}}),
    (KITCHEN, ["achieved_goal/kettle", "desired_goal/kettle"], _array(14)),
    (KITCHEN, "achieved_goal", {
      **{f"{name} burner": _array(2) for name in ("bottom", "top")},
      **{name: _array(2) for name in ("hinge cabinet", "light switch")},
      **{name: _array(1) for name in ("microwave", "slide cabinet")},
      "kettle": _array(7),
    }),
  ],
)  # fmt: skip
def test_the_spec_is_of_what_is_seen(env_id, wanted, expected):
  spec = environments.spec(env_id, observation=wanted)
  assert spec.observation == expected
  assert spec.action == environments.spec(env_id).action
  env = environments.make(env_id, 2, 0, observation=wanted)
  first = environments.observe(env.reset()[0])
  assert jax.tree.map(lambda x: _array(*x.shape[1:], dtype=x.dtype), first) == expected
  assert env.spec == spec


def _episodes(env_id, observation, **options):
  found = {}
  env = environments.make(env_id, 3, 5, batch_size=options.pop("batch_size", None), observation=observation, **options)
  play(TURN, None, env, episodes=5, on_episode=found.__setitem__)
  return [found[index].observation for index in range(5)]


@pytest.mark.parametrize("options", [{}, {"action_repeat": 3}, {"batch_size": 2}])
def test_what_is_seen_is_what_envpool_gives(options):
  """Each slot beside an environment of its own, over the ends of episodes."""
  whole = {"image": "image", "vector": ["direction", "image"]}
  seen, images = (_episodes(GRID, wanted, max_episode_steps=8, **options) for wanted in (whole, "image"))
  for slot, seed in enumerate(environments.slot_seeds(5, 3)):
    env = envpool.make(GRID, "gymnasium", num_envs=1, seed=int(seed), max_episode_steps=8)
    every, steps = options.get("action_repeat", 1), [env.reset()[0]]
    for episode in range(slot, 5, 3):
      if episode != slot:
        steps = [env.step(np.array([1], np.int32))[0]]
      steps += [env.step(np.array([1], np.int32))[0] for _ in range(8)]
      steps = steps[:1] + [steps[min(t + every, 8)] for t in range(0, 8, every)]
      expected = np.concatenate([step["image"] for step in steps])
      vectors = [np.append(step["direction"], step["image"].ravel()) for step in steps]
      assert expected.std() > 0
      np.testing.assert_array_equal(seen[episode]["image"], expected)
      np.testing.assert_array_equal(images[episode], expected)
      np.testing.assert_array_equal(seen[episode]["vector"], vectors)
      assert images[episode].dtype == np.uint8


def test_what_is_left_to_the_task():
  options = {"observation": "image", "action_repeat": 2, "max_episode_steps": 9}
  assert environments.repetitions(GRID, options) == (2, {"max_episode_steps": 9})
  assert environments.time_limit(GRID, **options) == 9


@pytest.mark.parametrize(
  ("wanted", "message"),
  [
    ("depth", r"DoorKey.*: option 'observation': .* no part 'depth'; there are direction, image, mission"),
    ("image/x", "no part 'image/x'"),
    (["image", "depth"], "no part 'depth'"),
    ({"a": {"b": "depth"}}, "no part 'depth'"),
    *((bad, "DoorKey.* is .*; expected the name") for bad in (3, "", [], [1], {}, {"a": None}, [["image"]])),
  ],
)
def test_wrong_options_are_told(wanted, message):
  options = {"observation": wanted}
  for call in (lambda: environments.spec(GRID, **options), lambda: environments.make(GRID, 1, 0, **options)):
    with pytest.raises(ValueError, match=message):
      call()


def test_parts_that_are_not_there_to_be_named():
  with pytest.raises(ValueError, match=r"CartPole-v1: .*no part 'obs'; they are one array"):
    environments.spec("CartPole-v1", observation="obs")
  with pytest.raises(ValueError, match=r"'desired_goal' has the parts bottom burner, .*; name those to be joined"):
    environments.spec(KITCHEN, observation=["desired_goal"])


def _told(observation, env_id):
  spec = environments.spec(env_id)
  with pytest.raises(ValueError, match="does not fit") as error:
    matching.check_spec(spec._replace(observation=observation), spec, env_id)
  return str(error.value)


@pytest.mark.parametrize(
  ("env_id", "observation"),
  [
    (GRID, _array(7, 7, 3, dtype=np.uint8)),
    (GRID, {"image": _array(7, 7, 3, dtype=np.uint8)}),
    (KITCHEN, {"desired_goal": {"kettle": _array(7)}, "observation": _array(59)}),
  ],
)
def test_a_part_of_what_is_shown_is_told_how_to_be_seen(env_id, observation):
  """What the message says fits."""
  option = json.loads("{" + _told(observation, env_id).partition("name it in env_kwargs, {")[2].removesuffix("."))
  spec = environments.spec(env_id, **option)
  matching.check_spec(spec._replace(observation=observation), spec)


def test_what_else_may_be_done_where_parts_differ():
  told = _told(_array(31), ROBOT)
  assert "(achieved_goal, desired_goal, observation)" in told and "in the dataset's order" in told
  assert "under names of its own" in _told({"rgb": _array(7, 7, 3, dtype=np.uint8)}, GRID)
  assert "env_kwargs" not in _told({name: _array(2) for name in VECTOR}, ROBOT)  # other shapes are another task's
  assert "env_kwargs" not in _told(_array(3), "CartPole-v1")
  assert "env_kwargs" not in _told({"state": _array(4)}, "CartPole-v1")


def test_stacked_frames():
  def frames(ours, theirs):
    return matching.stacked(Spec(ours, Discrete(2)), Spec(theirs, Discrete(2)))

  screen, stack = _array(84, 84, dtype=np.uint8), _array(4, 84, 84, dtype=np.uint8)
  assert frames(screen, stack) == 4
  assert frames({"a": screen, "b": _array(3)}, {"a": stack, "b": _array(4, 3)}) == 4
  for ours in (_array(84, 84), stack, {"a": screen}, _array(84, dtype=np.uint8)):
    assert frames(ours, stack) is None
  assert frames(screen, {"a": stack}) is None
  assert frames(screen, _array()) is None


@pytest.mark.parametrize(
  ("recorded", "given", "expected"),
  [
    ({"x": 1}, {"y": 2}, {"y": 2}),
    ({"x": 1}, {}, {}),
    ({"x": 1}, {"observation": "a"}, {"x": 1, "observation": "a"}),
    ({"x": 1, "observation": "a"}, {"y": 2}, {"y": 2, "observation": "a"}),
    ({"x": 1, "observation": "a"}, {}, {"observation": "a"}),
    ({"x": 1, "observation": "a"}, {"observation": "b"}, {"x": 1, "observation": "b"}),
    ({"x": 1, "observation": "a"}, {"observation": None}, {"x": 1}),
    ({"observation": "a"}, {"observation": None, "y": 2}, {"y": 2}),
  ],
)
def test_options_in_place_of_others(recorded, given, expected):
  assert observed.instead(recorded, given) == expected


def test_none_is_all_there_is():
  assert environments.spec(GRID, observation=None) == environments.spec(GRID)
  assert sorted(environments.make(GRID, 1, 0, observation=None).reset()[0]) == ["direction", "image", "mission"]


def test_names_with_a_slash():
  """As gymnasium's spaces may have them."""
  seen = {"agent/pos": np.ones((2, 3)), "agent": {"pos": {"x/y": np.zeros((2, 1))}}}
  assert observed.select(seen, "agent/pos") is seen["agent/pos"]
  assert observed.select(seen, "agent/pos/x/y") is seen["agent"]["pos"]["x/y"]
  assert all(observed.select(seen, name) is not None for name in observed.names(seen))


def test_the_random_policy_plays_on():
  env = environments.make(GRID, 2, 0, observation="image", max_episode_steps=5)
  played = play(random_policy(env.spec), (), env, episodes=4, key=jax.random.key(0))
  assert played.lengths.tolist() == [5] * 4

"""Parts of observations: beside the whole that the environments themselves give."""

import json

import envpool
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.evaluation import environments, matching, random_policy
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
    *((bad, "DoorKey.* is .*; expected the name") for bad in (3, None, "", [], [1], {}, {"a": None}, [["image"]])),
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


def test_a_spec_that_does_not_fit_says_how_to_see_parts():
  def told(observation, env_id):
    with pytest.raises(ValueError, match="does not fit") as error:
      matching.check_spec(Spec(observation, environments.spec(env_id).action), environments.spec(env_id), env_id)
    return str(error.value)

  assert json.dumps({"observation": "image"}) in told(_array(7, 7, 3, dtype=np.uint8), GRID)
  assert json.dumps({"observation": sorted(VECTOR)}) in told(_array(31), ROBOT)
  assert "env_kwargs" in told({"image": _array(7, 7, 3, dtype=np.uint8)}, GRID)
  assert "env_kwargs" not in told({name: _array(2) for name in VECTOR}, ROBOT)  # other shapes are another task's
  assert "env_kwargs" not in told(_array(3), "CartPole-v1")
  matching.check_spec(Spec(_array(7, 7, 3, dtype=np.uint8), Discrete(7)), environments.spec(GRID, observation="image"))


def test_the_random_policy_plays_on():
  env = environments.make(GRID, 2, 0, observation="image", max_episode_steps=5)
  played = play(random_policy(env.spec), (), env, episodes=4, key=jax.random.key(0))
  assert played.lengths.tolist() == [5] * 4

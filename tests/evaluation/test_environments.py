import re
import sys
import time
import warnings

import av
import jax
import numpy as np
import pytest

import ilx
from ilx.evaluation import environments, matching, play, random_policy
from ilx.types import Continuous, Discrete, MultiDiscrete, Spec


def _spec(observation=(17,), dtype=np.float32, action=None):
  action = action or Continuous(np.full(6, -1.0), np.full(6, 1.0))
  return Spec(jax.ShapeDtypeStruct(observation, dtype), action)


FAMILIES = (
  "HalfCheetah-v5 Pendulum-v1 LunarLander-v3 LunarLanderContinuous-v3 FrozenLake-v1 CheetahRun-v1 MiniGrid-Empty-5x5-v0"
)


@pytest.mark.parametrize("env_id", FAMILIES.split())
def test_spec_is_what_the_environment_returns(env_id):
  spec = environments.spec(env_id)
  env = environments.make(env_id, 3, seed=0)
  observation = environments.observe(env.reset()[0])
  jax.tree.map(
    lambda s, x: np.testing.assert_equal((x.shape, x.dtype), ((3, *s.shape), s.dtype)), spec.observation, observation
  )
  assert spec.statistics is None


def test_spec_of_actions():
  action = environments.spec("Pendulum-v1").action
  assert isinstance(action, Continuous)
  assert (action.low.tolist(), action.high.tolist()) == ([-2.0], [2.0])
  assert environments.spec("HalfCheetah-v5").action.size == 6
  assert environments.spec("LunarLander-v3").action == Discrete(4)


def test_actions_that_are_no_vector_and_no_choice_are_refused():
  with pytest.raises(ValueError, match=r"SearchAndRescue-v0: actions are float32 \(2, 2\)"):
    environments.spec("SearchAndRescue-v0")


@pytest.mark.parametrize(("env_id", "choices"), [("RubiksCube-v0", (6, 1, 3)), ("Connector-v2", (5,) * 10)])
def test_several_choices_at_once(env_id, choices):
  """Bounds that differ from choice to choice, and one for all."""
  spec = environments.spec(env_id)
  assert spec.action == MultiDiscrete(choices)
  collected = []
  env = environments.make(env_id, 2, 0)
  policy = random_policy(spec)
  play(policy, None, env, episodes=2, key=jax.random.key(0), on_episode=lambda _, one: collected.append(one.action))
  actions = np.concatenate(collected)
  assert actions.shape[1:] == (len(choices),) and actions.dtype == np.int32
  assert np.all((actions >= 0) & (actions < np.array(choices))) and np.all(actions.max(axis=0) == np.array(choices) - 1)


def test_slots_have_the_documented_seeds():
  import envpool

  seeds = environments.slot_seeds(5, 4)
  observations = environments.make("CartPole-v1", 4, seed=5).reset()[0]
  for seed, observation in zip(seeds, observations, strict=True):
    alone = envpool.make("CartPole-v1", "gymnasium", num_envs=1, seed=int(seed))
    np.testing.assert_array_equal(alone.reset()[0][0], observation)


def test_neighbouring_seeds_share_no_slot():
  slots = np.concatenate([environments.slot_seeds(seed, 64) for seed in range(20)])
  assert len(np.unique(slots)) == 20 * 64
  np.testing.assert_array_equal(environments.slot_seeds(3, 100)[:64], environments.slot_seeds(3, 64))
  assert slots.min() >= 0
  assert slots.max() < 2**31


@pytest.mark.parametrize(
  ("env_id", "nearest"),
  [
    ("halfcheetah-v5", "'HalfCheetah-v5' or"),
    ("HalfCheetah-v9", "'HalfCheetah-v5' or 'HalfCheetah-v4'"),
    ("LunarLandr-v3", "'LunarLander-v3'"),
    ("zzzzzz", "none of the"),
  ],
)
def test_unknown_id_names_the_nearest(env_id, nearest):
  environments.version()  # the first import of EnvPool takes a second or two
  start = time.perf_counter()
  for call in (lambda: environments.spec(env_id), lambda: environments.make(env_id, 2, 0)):
    with pytest.raises(ValueError, match=f"Unknown environment id '{env_id}'.*{nearest}"):
      call()
  assert time.perf_counter() - start < 1.0


def test_unknown_option_names_the_nearest():
  with pytest.raises(ValueError, match="Hopper-v5 has no option 'max_episode_step'; did you mean 'max_episode_steps'"):
    environments.make("Hopper-v5", 1, 0, max_episode_step=3)
  with pytest.raises(ValueError, match=r"CartPole-v1 has no option 'foo'; there are .*max_episode_steps") as found:
    environments.make("CartPole-v1", 1, 0, foo=3)
  assert "num_envs" not in str(found.value)


@pytest.mark.parametrize(
  ("option", "message"),
  [
    ({"max_episode_steps": "abc"}, "CartPole-v1: an option has a wrong type among {'max_episode_steps': 'abc'}"),
    ({"max_episode_steps": 0}, "CartPole-v1: max_episode_steps=0 must be at least 1"),
  ],
)
def test_wrong_options_are_named_wherever_they_are_read(option, message):
  for call in (
    lambda: environments.spec("CartPole-v1", **option),
    lambda: environments.time_limit("CartPole-v1", **option),
    lambda: environments.make("CartPole-v1", 1, 0, **option),
  ):
    with pytest.raises(ValueError, match=re.escape(message)):
      call()


def test_tasks_that_limit_each_episode_on_their_own(tmp_path):
  """EnvPool's BabyAI says 0: progress counts finished episodes, and a video shows more than its first frame."""
  name = "BabyAI-GoToLocal-v0"
  assert environments.time_limit(name) is None and environments.time_limit("HalfCheetah-v5") == 1000
  policy, told = random_policy(environments.spec(name)), []
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    result = ilx.evaluate(policy, None, name, episodes=4, seed=0, sample=True, progress=told.append)
  assert max(result.lengths) == 64 and told[-1] == 1.0 and np.all(np.isfinite(told))
  path = ilx.evaluation.record_video(policy, None, name, tmp_path / "one.mp4", seed=0, sample=True)
  with av.open(path) as film:
    assert sum(1 for _ in film.decode(video=0)) > 10


def test_missing_envpool_is_one_clear_error(monkeypatch):
  monkeypatch.setitem(sys.modules, "envpool", None)
  with pytest.raises(ImportError, match="pip install envpool"):
    environments.spec("CartPole-v1")


def test_check_spec_accepts_other_dtypes_of_a_kind_and_other_bounds():
  matching.check_spec(_spec(), environments.spec("HalfCheetah-v5"))
  matching.check_spec(
    _spec(dtype=np.float64, action=Continuous(np.full(6, -0.5), np.full(6, 0.5))), environments.spec("HalfCheetah-v5")
  )


@pytest.mark.parametrize(
  ("dataset", "message"),
  [
    (
      _spec(observation=(18,)),
      r"observation is float of shape \(18,\) in the dataset but float of shape \(17,\) in Half",
    ),
    (_spec(dtype=np.uint8), "observation is integer"),
    (_spec(action=Continuous(np.zeros(3), np.ones(3))), "action is continuous of size 3 .* size 6 in HalfCheetah-v5"),
    (_spec(action=Discrete(6)), "action is discrete with 6 choices in the dataset but continuous of size 6"),
    (
      _spec(action={"stick": Continuous(-np.ones(2), np.ones(2)), "keys": MultiDiscrete((2, 3))}),
      r"action/keys is 2 choices with \(2, 3\) in the dataset but absent in .* action is absent in the dataset",
    ),
    (
      Spec({"position": jax.ShapeDtypeStruct((17,), np.float32)}, Discrete(2)),
      r"observation\['position'\] is float of shape \(17,\) in the dataset but absent .* action",
    ),
  ],
)
def test_check_spec_says_what_differs(dataset, message):
  with pytest.raises(ValueError, match=message):
    matching.check_spec(dataset, environments.spec("HalfCheetah-v5"), "HalfCheetah-v5")

"""What is counted of play: seeds, slots, steps, successes, carries."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.evaluation import environments
from ilx.evaluation.acting import Policy, random_policy
from ilx.evaluation.rollout import evaluate
from ilx.types import Continuous, MultiDiscrete, Spec, Step

SHORT = {"env_kwargs": {"max_episode_steps": 5}}


class _Bell(gymnasium.Env):
  """A success at the first step alone."""

  observation_space, action_space = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    self.steps = 0
    return np.zeros(1, np.float32), {}

  def step(self, action):
    self.steps += 1
    return np.zeros(1, np.float32), 1.0, False, False, {"success": self.steps == 1}


class _Stale(_Bell):
  """No success, but a reset that tells of one."""

  def reset(self, *, seed=None, options=None):
    self.steps = 1
    return np.zeros(1, np.float32), {"success": True}


class _Shifted(_Bell):
  action_space = gymnasium.spaces.Discrete(2, start=1)


@pytest.fixture(autouse=True, scope="module")
def registered():
  kinds = {"Bell-v0": _Bell, "Stale-v0": _Stale, "Shifted-v0": _Shifted}
  for name, kind in kinds.items():
    gymnasium.register(name, entry_point=kind, max_episode_steps=4)
  yield
  for name in kinds:
    del gymnasium.registry[name]


def _stay(params, carry, step, key):
  return jnp.zeros(step.reward.shape, jnp.int32), carry


@pytest.mark.parametrize("times", [1, 2])
def test_a_success_at_any_of_repeated_steps_is_one(times):
  policy = Policy(_stay, lambda size: ())
  found = evaluate(policy, None, "gymnasium:Bell-v0", episodes=1, env_kwargs={"action_repeat": times})
  assert found.successes.tolist() == [True]


def test_what_a_reset_tells_is_no_success():
  found = evaluate(Policy(_stay, lambda size: ()), None, "gymnasium:Stale-v0", episodes=3, num_envs=1)
  assert found.successes.tolist() == [False] * 3


def test_choices_that_do_not_begin_at_0_are_refused():
  with pytest.raises(ValueError, match="ilx plays"):
    environments.spec("gymnasium:Shifted-v0")


def test_slots_of_a_host_are_its_own_where_parts_are_observed():
  whole, later = (
    environments.make("CheetahRun-v1", count, 0, *first, observation="position").reset()[0]
    for count, first in ((3, ()), (2, (1,)))
  )
  np.testing.assert_array_equal(later, whole[1:])


def test_steps_are_those_of_every_slot():
  policy = Policy(lambda params, carry, step, key: (jnp.zeros((len(step.reward), 1)), carry), lambda size: ())
  # Two rounds of five actions and a reset between them; the second slot goes on.
  assert evaluate(policy, None, "Pendulum-v1", episodes=3, num_envs=2, **SHORT).env_steps == 2 * (5 + 1 + 5)
  assert 11 <= evaluate(policy, None, "Pendulum-v1", episodes=3, num_envs=2, batch_size=1, **SHORT).env_steps <= 23


def test_samples_follow_from_the_seed():
  policy, seen = random_policy(environments.spec("Pendulum-v1")), ([], [])
  for seed, found in enumerate(seen):
    kwargs = {"sample": True, "on_episode": lambda _, episode, found=found: found.append(episode.action), **SHORT}
    evaluate(policy, None, "Pendulum-v1", episodes=1, seed=seed, **kwargs)
  assert not np.intersect1d(seen[0][0], seen[1][0]).size


def test_parts_of_random_actions_are_independent():
  action = {"a": Continuous([-1.0], [1.0]), "b": Continuous([-1.0], [1.0]), "c": MultiDiscrete((2, 5))}
  step = Step(np.zeros((2000, 1)), np.zeros(2000), np.zeros(2000, bool))
  policy = random_policy(Spec(jax.ShapeDtypeStruct((1,), np.float32), action))
  drawn, _ = policy.act(None, (), step, jax.random.key(0))
  assert abs(np.corrcoef(drawn["a"][:, 0], drawn["b"][:, 0])[0, 1]) < 0.1
  for k, count in enumerate((2, 5)):
    np.testing.assert_allclose(np.bincount(drawn["c"][:, k], minlength=count) / 2000, 1 / count, atol=0.05)


def test_carries_begin_as_the_policy_says():
  policy = Policy(
    lambda params, carry, step, key: ((0.01 * carry)[:, None], carry + 1), lambda size: jnp.full(size, 7.0)
  )
  seen = ([], [])
  for size, found in zip((None, 1), seen, strict=True):
    kwargs = {"on_episode": lambda _, episode, found=found: found.append(episode.action[:, 0].tolist()), **SHORT}
    evaluate(policy, None, "Pendulum-v1", episodes=2, num_envs=2, batch_size=size, **kwargs)
  assert seen[0] == seen[1] and seen[0][0][0] == pytest.approx(0.07)

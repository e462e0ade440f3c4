"""Repeated actions: beside loops that repeat them by hand."""

import envpool
import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.evaluation import environments
from ilx.evaluation.acting import Policy
from ilx.evaluation.playing import play
from ilx.evaluation.repeated import Repeated
from ilx.evaluation.rollout import evaluate

BALANCE = Policy(
  lambda params, carry, step, key: ((step.observation[:, 2] + step.observation[:, 3] > 0).astype(jnp.int32), carry),
  lambda batch_size: (),
)
TROT = Policy(lambda params, carry, step, key: (0.5 * step.observation[:, 2:8], carry), lambda batch_size: ())


def _by_hand(env, choose, times, episodes):
  """Rewards that each action earned, an array for every episode; ``env`` steps one slot."""
  found, observation = [], env.reset()[0]
  for episode in range(episodes):
    if episode:  # an environment that has ended begins anew with the next step, whatever the action
      observation = env.step(choose(observation))[0]
    rewards, ended = [], False
    while not ended:
      action, earned = choose(observation), np.float32(0)
      for _ in range(times):
        observation, reward, terminated, truncated, _ = env.step(action)
        earned, ended = earned + np.float32(reward[0]), bool(terminated[0] or truncated[0])
        if ended:
          break
      rewards.append(earned)
    found.append(np.array(rewards))
  return found


@pytest.mark.parametrize(("env_id", "policy", "choose", "times", "kwargs"), [
  ("CartPole-v1", BALANCE, lambda x: (x[:, 2] + x[:, 3] > 0).astype(np.int32), 3, {"max_episode_steps": 50}),
  ("HalfCheetah-v5", TROT, lambda x: np.clip(x[:, 2:8].astype(np.float32) * np.float32(0.5), -1, 1), 4,
   {"max_episode_steps": 30}),
])  # fmt: skip
def test_beside_a_loop(env_id, policy, choose, times, kwargs):
  """CartPole falls in the middle of repetitions; of HalfCheetah the time limit is no multiple of them."""
  collected = []
  env = environments.make(env_id, 3, 5, **kwargs, action_repeat=times)
  played = play(policy, None, env, episodes=8, on_episode=lambda _, episode: collected.append(episode))
  for slot, seed in enumerate(environments.slot_seeds(5, 3)):
    plain = envpool.make(env_id, "gymnasium", num_envs=1, seed=int(seed), **kwargs)
    expected = _by_hand(plain, choose, times, len(range(slot, 8, 3)))
    for episode, length, rewards in zip(collected[slot::3], played.lengths[slot::3], expected, strict=True):
      np.testing.assert_array_equal(episode.reward, rewards)
      assert length == len(rewards) == len(episode.action) == len(episode.observation) - 1
  result = evaluate(policy, None, env_id, episodes=8, num_envs=3, seed=5, env_kwargs={**kwargs, "action_repeat": times})
  np.testing.assert_array_equal(result.returns, played.returns)
  assert env.config["max_episode_steps"] == -(-kwargs["max_episode_steps"] // times)
  assert environments.time_limit(env_id, **kwargs, action_repeat=times) == kwargs["max_episode_steps"]


def test_tasks_of_gymnasium_too():
  kwargs = {"max_episode_steps": 50, "action_repeat": 3}
  result = evaluate(BALANCE, None, "gymnasium:CartPole-v1", episodes=4, num_envs=2, seed=1, env_kwargs=kwargs)
  for slot, seed in enumerate(environments.slot_seeds(1, 2)):
    make = lambda: gymnasium.make("CartPole-v1", max_episode_steps=50)  # noqa: E731
    plain = gymnasium.vector.SyncVectorEnv([make], autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP)
    reset = plain.reset
    plain.reset = lambda reset=reset, seed=seed: reset(seed=int(seed))
    expected = _by_hand(plain, lambda x: (x[:, 2] + x[:, 3] > 0).astype(np.int32), 3, 2)
    assert result.returns[slot::2].tolist() == [rewards.sum() for rewards in expected]
    assert result.lengths[slot::2].tolist() == [len(rewards) for rewards in expected]


class Bell:
  """Two slots, of which ``success`` sounds at the second step of every four, as EnvPool would tell it."""

  num_envs, spec, config = 2, None, {"max_episode_steps": 8}

  def __init__(self):
    self.t = np.zeros(2, int)

  def step(self, action, slots=(0, 1)):
    slots = np.asarray(slots)
    self.t[slots] += 1
    ended = (self.t[slots] == 7) & (slots == 1)
    return self.t[slots][:, None] + 0.0, action, ended, ended & False, {"success": self.t[slots] % 4 == 2, "x": 1}


def test_a_success_at_any_of_the_steps_counts():
  env = Repeated(Bell(), 4)
  observation, reward, terminated, _, info = env.step(np.array([1.0, 2.0]))
  assert observation[:, 0].tolist() == [4, 4]
  assert reward.tolist() == [4, 8]
  assert info["success"].tolist() == [True, True]
  observation, reward, terminated, _, info = env.step(np.array([1.0, 2.0]))
  assert observation[:, 0].tolist() == [8, 7]
  assert reward.tolist() == [4, 6]
  assert terminated.tolist() == [False, True]
  observation, reward, *_ = env.step(np.array([1.0, 2.0]))  # the second slot begins anew, once
  assert observation[:, 0].tolist() == [12, 8]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "gymnasium:CartPole-v1"])
@pytest.mark.parametrize("times", [0, 1.5, True, "2"])
def test_a_number_that_is_none(env_id, times):
  for call in (
    lambda: environments.make(env_id, 1, 0, action_repeat=times),
    lambda: environments.spec(env_id, action_repeat=times),
  ):
    with pytest.raises(ValueError, match=r"action_repeat is .*; expected a whole number of at least 1"):
      call()


def test_an_option_of_the_task_itself_is_left_to_it():
  env = environments.make("AlohaHandOver-v1", 1, 0, action_repeat=2)
  assert env.config["action_repeat"] == 2
  assert not isinstance(env, Repeated)

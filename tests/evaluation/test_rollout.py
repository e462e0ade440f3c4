import os
import subprocess
import sys
import weakref

import envpool
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from ilx.evaluation import environments, playing
from ilx.evaluation.acting import Policy, random_policy
from ilx.evaluation.playing import play
from ilx.evaluation.rollout import evaluate
from ilx.testing import fake_episodes
from ilx.types import Step


def _policy(choose):
  """A policy without memory or parameters."""
  return Policy(lambda params, carry, step, key: (choose(step), carry), lambda batch_size: ())


def _balance(observation):
  """CartPole: push towards where the pole falls."""
  return (observation[:, 2] + observation[:, 3] > 0).astype(np.int32)


def _half_good_act(params, carry, step, key):
  """Balances in episodes that start with the pole to the right; in the others pushes one way. Remembers which."""
  good = jnp.where(step.is_first, step.observation[:, 2] > 0, carry)
  return jnp.where(good, _balance(step.observation), 0), good


HALF_GOOD = Policy(_half_good_act, lambda batch_size: jnp.zeros(batch_size, bool))
BANG = _policy(lambda step: jnp.where(step.observation[:, 2:3] > 0, -2.0, 2.0))  # Pendulum
TROT = _policy(lambda step: step.observation[:, 2:8] * 0.5)  # HalfCheetah; no rounding whatever the batch size
STAY = _policy(lambda step: jnp.zeros(step.reward.shape, jnp.int32))


def _episodes_of(policy, env_id, *, num_envs, episodes, seed=0, **env_kwargs):
  collected = []
  env = environments.make(env_id, num_envs, seed, **env_kwargs)
  returns, lengths, _, _ = play(
    policy, None, env, episodes=episodes, on_episode=lambda i, episode: collected.append((i, episode))
  )
  assert [i for i, _ in collected] == list(range(episodes))
  return [episode for _, episode in collected], returns, lengths


def _one_by_one(env_id, choose, seed, episodes, **env_kwargs):
  """Returns and lengths of one environment played by the plainest loop there is."""
  env = envpool.make(env_id, "gymnasium", num_envs=1, seed=int(seed), **env_kwargs)
  returns, lengths = [], []
  observation, _ = env.reset()
  for episode in range(episodes):
    if episode:
      observation, *_ = env.step(choose(observation.astype(np.float32)))
    total, count, ended = 0.0, 0, False
    while not ended:
      observation, reward, terminated, truncated, _ = env.step(choose(observation.astype(np.float32)))
      total, count, ended = total + float(reward[0]), count + 1, bool(terminated[0] or truncated[0])
    returns.append(total)
    lengths.append(count)
  return returns, lengths


@pytest.mark.parametrize(
  ("env_id", "policy", "choose", "env_kwargs"),
  [
    ("CartPole-v1", _policy(lambda step: _balance(step.observation)), _balance, {"max_episode_steps": 60}),
    ("CartPole-v1", STAY, lambda observation: np.zeros(1, np.int32), {}),
    ("Pendulum-v1", BANG, lambda observation: np.where(observation[:, 2:3] > 0, -2.0, 2.0), {}),
    ("LunarLander-v3", STAY, lambda observation: np.zeros(1, np.int32), {}),
    (
      "HalfCheetah-v5",
      TROT,
      lambda observation: np.clip(observation[:, 2:8] * np.float32(0.5), -1, 1).astype(np.float64),
      {"max_episode_steps": 50},
    ),
  ],
)
def test_returns_are_those_of_a_plain_loop(env_id, policy, choose, env_kwargs):
  """Seven episodes over three slots: 3, 2 and 2 of them."""
  result = evaluate(policy, None, env_id, episodes=7, seed=11, num_envs=3, env_kwargs=env_kwargs)
  for slot, seed in enumerate(environments.slot_seeds(11, 3)):
    returns, lengths = _one_by_one(env_id, choose, seed, len(range(slot, 7, 3)), **env_kwargs)
    np.testing.assert_array_equal(result.returns[slot::3], returns)
    np.testing.assert_array_equal(result.lengths[slot::3], lengths)
  assert result.returns.dtype == np.float64
  assert result.lengths.dtype == np.int64
  assert result.env_id == env_id
  assert result.env_version == envpool.__version__
  assert result.seconds > 0
  assert result.env_steps >= result.lengths.sum()


def test_short_episodes_are_not_favoured():
  """Half of the episodes last 200 steps, half about 9: who counts the first 128 to finish sees hardly a long one."""
  num_envs = episodes = 128
  kwargs = {"num_envs": num_envs, "env_kwargs": {"max_episode_steps": 200}}
  result = evaluate(HALF_GOOD, None, "CartPole-v1", episodes=episodes, **kwargs)
  more = evaluate(HALF_GOOD, None, "CartPole-v1", episodes=4 * episodes, **kwargs)
  np.testing.assert_array_equal(result.returns, more.returns[:episodes])

  finished_at = np.cumsum(more.lengths.reshape(-1, num_envs) + 1, axis=0)
  first_to_finish = more.returns[np.argsort(finished_at, axis=None, kind="stable")[:episodes]]
  assert abs(result.returns.mean() - (200 + 9.5) / 2) < 25  # three standard errors
  assert first_to_finish.mean() < 0.2 * result.returns.mean()


def test_carry_and_reward_follow_the_episodes():
  """The action is 0.01 times the number of the step since the first, plus a trace of the reward before."""

  def act(params, carry, step, key):
    count = jnp.where(step.is_first, 0, carry + 1)
    return (0.01 * count + 0.001 * step.reward)[:, None], count

  policy = Policy(act, lambda batch_size: jnp.full(batch_size, 77))
  episodes, _, _ = _episodes_of(policy, "Pendulum-v1", num_envs=2, episodes=5, max_episode_steps=6)
  for episode in episodes:
    before = np.concatenate([[0.0], episode.reward[:-1]])
    np.testing.assert_allclose(episode.action[:, 0], 0.01 * np.arange(6) + 0.001 * before, rtol=1e-5)


def test_collected_episodes_are_whole():
  episodes, returns, lengths = _episodes_of(HALF_GOOD, "CartPole-v1", num_envs=3, episodes=8, seed=2)
  starts = [episode.observation[0].tolist() for episode in episodes]
  assert len(set(map(tuple, starts))) == 8
  for episode, score, length in zip(episodes, returns, lengths, strict=True):
    assert episode.observation.shape == (length + 1, 4)
    assert episode.action.shape == episode.reward.shape == (length,)
    assert episode.reward.sum(dtype=np.float64) == score
    assert np.abs(episode.observation[0]).max() <= 0.05  # CartPole starts near zero
    fell = abs(episode.observation[-1, 2]) > 0.2094 or abs(episode.observation[-1, 0]) > 2.4
    assert episode.is_terminal == fell == (length < 500)
    # The cart moves by its velocity: rows are consecutive, with none skipped or doubled.
    x, velocity = episode.observation[:, 0], episode.observation[:, 1]
    np.testing.assert_allclose(x[1:], x[:-1] + 0.02 * velocity[:-1], atol=1e-5)


def test_collected_dtypes_are_those_of_datasets():
  (episode, *_), _, _ = _episodes_of(TROT, "HalfCheetah-v5", num_envs=2, episodes=2, max_episode_steps=5)
  assert {episode.observation.dtype, episode.action.dtype, episode.reward.dtype} == {np.dtype(np.float32)}
  assert not episode.is_terminal
  (episode, *_), _, _ = _episodes_of(STAY, "CartPole-v1", num_envs=1, episodes=1)
  assert episode.action.dtype == np.int32
  assert episode.is_terminal


def test_collecting_a_dictionary_of_observations():
  policy = _policy(lambda step: jnp.zeros((step.reward.shape[0], 6)))
  (episode, *_), _, _ = _episodes_of(policy, "CheetahRun-v1", num_envs=2, episodes=2, max_episode_steps=4)
  assert {name: x.shape for name, x in episode.observation.items()} == {"position": (5, 8), "velocity": (5, 9)}


def test_same_seed_same_bits():
  policy = random_policy(environments.spec("HalfCheetah-v5"))
  kwargs = {"episodes": 5, "num_envs": 4, "sample": True, "env_kwargs": {"max_episode_steps": 20}}
  first, second, other = (evaluate(policy, None, "HalfCheetah-v5", seed=seed, **kwargs) for seed in (3, 3, 4))
  np.testing.assert_array_equal(first.returns, second.returns)
  assert not np.intersect1d(first.returns, other.returns).size
  assert len(np.unique(first.returns)) == 5


def test_random_policy_covers_the_actions():
  spec = environments.spec("LunarLander-v3")
  step = Step(np.zeros((4000, 8)), np.zeros(4000), np.zeros(4000, bool))
  action, _ = random_policy(spec).act(None, (), step, jax.random.key(0))
  np.testing.assert_allclose(np.bincount(action) / 4000, 0.25, atol=0.03)
  action, _ = random_policy(environments.spec("Pendulum-v1")).act(None, (), step, jax.random.key(0))
  assert action.shape == (4000, 1)
  assert -2 <= action.min() < -1.99 < 1.99 < action.max() <= 2
  with pytest.raises(ValueError, match="sample=True"):
    evaluate(random_policy(spec), None, "LunarLander-v3", episodes=1)


def test_every_step_draws_anew():
  collected = []
  env = environments.make("Pendulum-v1", 2, 0, max_episode_steps=50)
  policy = random_policy(environments.spec("Pendulum-v1"))
  play(policy, None, env, episodes=2, key=jax.random.key(0), on_episode=lambda _, episode: collected.append(episode))
  assert len(np.unique(np.concatenate([episode.action for episode in collected]))) == 100


def test_act_is_compiled_once():
  traces = []

  def act(params, carry, step, key):
    traces.append(step.reward.shape)
    return params * jnp.ones((step.reward.shape[0], 1)), carry

  policy = Policy(act, lambda batch_size: ())
  kwargs = {"episodes": 4, "env_kwargs": {"max_episode_steps": 3}}
  for weight in (0.5, 1.5):
    evaluate(policy, jnp.float32(weight), "Pendulum-v1", **kwargs)
  assert traces == [(4,)]


def test_default_slots_play_equal_shares():
  seen = []

  def act(params, carry, step, key):
    seen.append(step.reward.shape[0])
    return jnp.zeros((step.reward.shape[0], 1)), carry

  evaluate(Policy(act, lambda batch_size: ()), None, "Pendulum-v1", episodes=100, env_kwargs={"max_episode_steps": 2})
  assert seen == [50]


def test_continuous_actions_are_clipped():
  """HalfCheetah's control cost counts what it is given, so an action of 3 would cost nine times that of 1."""
  kwargs = {"episodes": 2, "env_kwargs": {"max_episode_steps": 20}}
  one, three = (
    evaluate(_policy(lambda step, a=a: jnp.full((2, 6), a)), None, "HalfCheetah-v5", **kwargs) for a in (1.0, 3.0)
  )
  np.testing.assert_array_equal(one.returns, three.returns)
  episodes, *_ = _episodes_of(
    _policy(lambda step: jnp.full((1, 1), -9.0)), "Pendulum-v1", num_envs=1, episodes=1, max_episode_steps=3
  )
  assert episodes[0].action.min() == episodes[0].action.max() == -2.0


@pytest.mark.parametrize(
  ("env_id", "choose", "message"),
  [
    ("Pendulum-v1", lambda step: jnp.full((3, 1), jnp.nan), "policy produced NaN"),
    ("Pendulum-v1", lambda step: jnp.zeros(3), r"shape \(3,\); the environment takes \(3, 1\)"),
    ("CartPole-v1", lambda step: jnp.full(3, 2), "chose action 2; the environment has 0 to 1"),
    ("CartPole-v1", lambda step: jnp.full(3, -1), "chose action -1"),
    ("CartPole-v1", lambda step: jnp.zeros(3), "float32; the environment takes integers"),
    ("CartPole-v1", lambda step: jnp.zeros((3, 2), int), r"shape \(3, 2\)"),
  ],
)
def test_wrong_actions_are_refused(env_id, choose, message):
  with pytest.raises(ValueError, match=message):
    evaluate(_policy(choose), None, env_id, episodes=3)


def test_progress_rises_to_one(monkeypatch):
  monkeypatch.setattr(playing, "_REPORT_SECONDS", 0.0)
  seen = []
  evaluate(
    BANG, None, "Pendulum-v1", episodes=5, num_envs=2, progress=seen.append, env_kwargs={"max_episode_steps": 10}
  )
  assert seen == sorted(seen)
  assert len(seen) > 20
  assert seen[:2] == [0.0, pytest.approx(2 * 1 / 10 / 5)]
  assert seen[-1] == 1.0


def test_memory_of_trajectories_is_bounded():
  """One slot's episode after the other: batches that nobody needs any more are let go."""
  from ilx.evaluation.trajectories import Trajectories

  class Batch(np.ndarray):
    """Can be referred to weakly."""

  collected, batches = [], []
  trajectories = Trajectories(2, 100, lambda i, episode: collected.append(i))
  is_first, slots = np.zeros(2, bool), np.arange(2)
  for t in range(200):
    batch = np.full((2, 1), t).view(Batch)
    batches.append(weakref.ref(batch))
    trajectories.before(slots, batch, np.zeros(2, int))
    trajectories.after(slots, np.full((2, 1), t + 1), np.zeros(2), is_first)
    is_first = np.full(2, t % 4 == 3)
    if is_first[0]:
      for slot in range(2):
        trajectories.end(slot, 2 * (t // 4) + slot, False)
    del batch
    assert sum(kept() is not None for kept in batches) <= 6
  assert collected == list(range(100))


_ON_EIGHT_DEVICES = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from ilx.evaluation import Policy, evaluate

assert jax.device_count() == 8
weights = np.arange(16, dtype=np.float32).reshape(8, 2) / 16
policy = Policy(lambda params, carry, step, key: (step.observation[:, :2] @ params[2:4, :1], carry), lambda size: ())
for axis_type in (AxisType.Auto, AxisType.Explicit):
  mesh = jax.make_mesh((8,), ("data",), axis_types=(axis_type,))
  for spec in (PartitionSpec(), PartitionSpec("data")):
    placed = jax.device_put(weights, NamedSharding(mesh, spec))
    sharded, alone = (evaluate(policy, params, "Pendulum-v1", episodes=3).returns for params in (placed, weights))
    np.testing.assert_array_equal(sharded, alone)
"""


def test_sharded_params_score_the_same():
  environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
  subprocess.run([sys.executable, "-c", _ON_EIGHT_DEVICES], check=True, env=environment)


def test_episodes_must_be_positive():
  with pytest.raises(ValueError, match="episodes must be >= 1, got 0"):
    evaluate(STAY, None, "CartPole-v1", episodes=0)
  with pytest.raises(ValueError, match="num_envs must be >= 1, got 0"):
    evaluate(STAY, None, "CartPole-v1", episodes=1, num_envs=0)


def test_success_is_what_the_environment_tells_at_any_step():
  """Beside a plain loop over its infos; of tasks that tell nothing it is None."""
  env_id, kwargs, episodes, seed = "PointMaze_Open-v3", {"max_episode_steps": 60}, 9, 1
  towards = _policy(lambda step: 5 * (step.observation["desired_goal"] - step.observation["achieved_goal"]))
  result = evaluate(towards, None, env_id, episodes=episodes, num_envs=3, seed=seed, env_kwargs=kwargs)
  env = environments.make(env_id, 3, seed, **kwargs)
  observation, ended, done, found = env.reset()[0], np.zeros(3, bool), np.zeros(3, bool), [[], [], []]
  while min(map(len, found)) < 3:
    action = np.clip(5 * (observation["desired_goal"] - observation["achieved_goal"]), -1, 1)
    observation, _, terminated, truncated, info = env.step(action)
    done = np.where(ended, False, done | (info["success"] > 0))
    ended = terminated | truncated
    for slot in np.flatnonzero(ended):
      found[slot].append(bool(done[slot]))
  assert result.successes.tolist() == [found[i % 3][i // 3] for i in range(episodes)]
  assert 0 < result.successes.sum() < episodes
  assert evaluate(STAY, None, "CartPole-v1", episodes=2).successes is None


def test_slots_that_step_apart_play_the_same_episodes():
  """The policy remembers something of every episode, and acts for two of five slots at a time."""
  kwargs = {"num_envs": 5, "episodes": 23, "seed": 2}
  together, returns, lengths = _episodes_of(HALF_GOOD, "CartPole-v1", **kwargs)
  apart, returns_apart, lengths_apart = _episodes_of(HALF_GOOD, "CartPole-v1", batch_size=2, **kwargs)
  assert 8 < min(lengths) < 20 < 400 < max(lengths)  # very uneven
  np.testing.assert_array_equal(returns_apart, returns)
  np.testing.assert_array_equal(lengths_apart, lengths)
  for one, other in zip(apart, together, strict=True):
    jax.tree.map(np.testing.assert_array_equal, one, other)
  result = evaluate(HALF_GOOD, None, "CartPole-v1", batch_size=2, **kwargs)
  np.testing.assert_array_equal(result.returns, returns)


def test_a_transformer_remembers_each_slot_that_steps_apart():
  spec = environments.spec("CartPole-v1")
  agent = ilx.agents.bc_transformer(spec, length=4, layers=1, width=16, heads=2)
  batch = agent.view.take(agent.view.prepare(fake_episodes(spec)), np.arange(4))
  params = jax.jit(agent.init)(jax.random.key(3), batch).params
  kwargs = {"num_envs": 4, "episodes": 8, "env_kwargs": {"max_episode_steps": 40}}
  together, apart = (evaluate(agent, params, "CartPole-v1", batch_size=size, **kwargs) for size in (None, 3))
  np.testing.assert_array_equal(apart.lengths, together.lengths)
  assert len(set(together.lengths)) > 2


def test_the_noise_of_slots_that_step_apart_is_their_own():
  policy = random_policy(environments.spec("Pendulum-v1"))
  kwargs = {"num_envs": 4, "episodes": 9, "sample": True, "batch_size": 3, "env_kwargs": {"max_episode_steps": 7}}
  first, second = (evaluate(policy, None, "Pendulum-v1", seed=1, **kwargs) for _ in range(2))
  np.testing.assert_array_equal(first.returns, second.returns)
  collected = []
  env = environments.make("Pendulum-v1", 4, 1, 0, 3, max_episode_steps=7)
  play(policy, None, env, episodes=9, key=jax.random.key(1), on_episode=lambda _, e: collected.append(e.action))
  assert len(np.unique(np.concatenate(collected))) == 9 * 7


@pytest.mark.parametrize(("env_id", "kwargs", "message"), [
  ("CartPole-v1", {"num_envs": 4, "batch_size": 5}, "batch_size=5 must be 1 to 4"),
  ("CartPole-v1", {"num_envs": 4, "batch_size": 0}, "batch_size=0 must be 1 to 4"),
  ("CartPole-v1", {"num_envs": 4, "batch_size": 2, "env_kwargs": {"action_repeat": 2}}, "leave out one of them"),
  ("gymnasium:CartPole-v1", {"num_envs": 4, "batch_size": 2}, "leave out batch_size"),
])  # fmt: skip
def test_batches_that_cannot_be_had(env_id, kwargs, message):
  with pytest.raises(ValueError, match=message):
    evaluate(STAY, None, env_id, episodes=8, **kwargs)

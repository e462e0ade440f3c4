"""PPO: advantages by hand, masking, and that updates improve a policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.demos import ppo

G, L = ppo.DISCOUNT, ppo.DISCOUNT * ppo.TRACE_DECAY


def _rollout(reward, *, terminated=(), truncated=(), invalid=(), observation=None, action=None, log_prob=None):
  shape = reward.shape

  def at(rows):
    flags = np.zeros(shape, bool)
    flags[list(rows)] = True
    return flags

  return ppo.Rollout(
    observation=np.zeros((shape[0] + 1, shape[1], 1), np.float32) if observation is None else observation,
    action=np.zeros(shape, np.int32) if action is None else action,
    log_prob=np.zeros(shape, np.float32) if log_prob is None else log_prob,
    reward=reward.astype(np.float32),
    terminated=at(terminated),
    truncated=at(truncated),
    valid=~at(invalid),
  )


REWARD = np.array([[1.0], [2.0], [0.0], [4.0]])
VALUE = np.array([[0.5], [0.25], [3.0], [7.0], [1.5]])


def test_advantages_bootstrap_from_the_last_observation_of_a_time_limit():
  # Steps 0 and 1 are an episode, step 2 only resets, step 3 starts another.
  got = ppo.advantages(_rollout(REWARD, truncated=[1], invalid=[2]), jnp.asarray(VALUE))
  second = 2.0 + G * 3.0 - 0.25
  first = 1.0 + G * 0.25 - 0.5 + L * second
  np.testing.assert_allclose(got[:, 0], [first, second, 0.0, 4.0 + G * 1.5 - 7.0], rtol=1e-5)


def test_advantages_do_not_bootstrap_from_a_terminal_step():
  got = ppo.advantages(_rollout(REWARD, terminated=[1], invalid=[2]), jnp.asarray(VALUE))
  second = 2.0 - 0.25
  first = 1.0 + G * 0.25 - 0.5 + L * second
  np.testing.assert_allclose(got[:, 0], [first, second, 0.0, 4.0 + G * 1.5 - 7.0], rtol=1e-5)


@pytest.fixture
def learner():
  opt = ppo.optimizer(50)
  return ppo.init(jax.random.key(0), 1, 2, opt), opt


def test_resets_teach_nothing(learner):
  state, opt = learner
  rng = np.random.default_rng(0)
  reward = rng.normal(size=(16, 2))
  observation = rng.normal(size=(17, 2, 1)).astype(np.float32)
  rollout = _rollout(reward, terminated=[4], invalid=[5], observation=observation)
  reward[5] += 100.0
  action = rollout.action.copy()
  action[5] = 1
  other = _rollout(reward, terminated=[4], invalid=[5], observation=observation, action=action)
  updated = [ppo.update(jax.tree.map(jnp.copy, state), r, num_actions=2, opt=opt).params for r in (rollout, other)]
  jax.tree.map(np.testing.assert_array_equal, *updated)


def test_update_prefers_the_action_that_pays(learner):
  state, opt = learner
  network, observation = ppo.policy_network(2), np.ones((9, 16, 1), np.float32)

  def probability(state):
    return float(jax.nn.softmax(network.apply(state.params["actor"], observation[0, 0]).logits)[1])

  assert probability(state) == pytest.approx(0.5, abs=0.05)
  for i in range(20):
    dist = network.apply(state.params["actor"], observation[:-1])
    action = dist.sample(jax.random.key(i))
    ends = range(8)  # every step is an episode
    rollout = _rollout(
      np.asarray(action == 1),
      terminated=ends,
      observation=observation,
      action=np.asarray(action),
      log_prob=np.asarray(dist.log_prob(action)),
    )
    state = ppo.update(state, rollout, num_actions=2, opt=opt)
  assert probability(state) > 0.9


def test_train_yields_at_whole_updates_and_at_the_end():
  counted = []
  snapshots = list(ppo.train("CartPole-v1", seed=0, env_steps=5000, snapshot_every=4000, on_step=counted.append))
  per_update = ppo.NUM_ENVS * ppo.ROLLOUT_STEPS
  assert [step for step, _ in snapshots] == counted == [per_update, 2 * per_update]
  first, second = (params["params"]["torso"]["Dense_0"]["kernel"] for _, params in snapshots)
  assert np.all(np.isfinite(second))
  assert np.any(first != second)

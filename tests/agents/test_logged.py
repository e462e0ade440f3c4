"""Metrics are what their names say; losses are tested with the agents' equations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilx import testing
from ilx.agents import bc, iql, rebrac, td3_bc
from ilx.data.views import transitions
from ilx.types import Step

SPEC = testing.continuous_spec()
SIZE = 8


def _batch(next_action=False):
  episodes = testing.fake_episodes(SPEC)
  batch = jax.tree.map(jnp.asarray, transitions(episodes, np.arange(SIZE)))
  if next_action:
    batch = batch._replace(next_action=jnp.asarray(episodes.action[1 : SIZE + 1]), next_is_last=jnp.zeros(SIZE, bool))
  return batch


def _unit(action):
  return 2 * (action - SPEC.action.low) / (SPEC.action.high - SPEC.action.low) - 1


def test_of_iql():
  batch = _batch()
  agent = iql(SPEC, hidden=(8,), temperature=0.5, optimizer=optax.sgd(0.0))  # nothing moves
  state = agent.init(jax.random.key(0), batch)
  _, metrics = agent.update(state, batch)
  items = [agent.update(state, jax.tree.map(lambda x, i=i: x[i : i + 1], batch))[1] for i in range(SIZE)]
  each = {name: np.array([item[name] for item in items]) for name in metrics}
  np.testing.assert_allclose(metrics["weight"], np.exp(0.5 * each["advantage"]).mean(), rtol=1e-4)
  np.testing.assert_allclose(metrics["v"], each["v"].mean(), rtol=1e-4)
  expectile = np.where(each["advantage"] > 0, 0.7, 0.3)
  np.testing.assert_allclose(each["value_loss"], expectile * each["advantage"] ** 2, rtol=1e-3)
  elsewhere = batch._replace(next_observation=jnp.zeros_like(batch.next_observation))
  np.testing.assert_allclose(metrics["v"], agent.update(state, elsewhere)[1]["v"], rtol=1e-5)
  # The mean of both Q, of which the advantage takes the smaller, as the targets do; these are still the same.
  assert each["q"].std() > 0 and np.all(each["q"] - each["v"] >= each["advantage"] - 1e-5)


@pytest.mark.parametrize("make", [td3_bc, rebrac])
def test_of_agents_with_a_policy_of_one_action(make):
  batch = _batch(next_action=make is rebrac)
  agent = make(SPEC, hidden=(8,), policy_delay=1, policy_noise=0.0)
  state = agent.init(jax.random.key(0), batch)
  state = state._replace(params=state.params._replace(network=jax.tree.map(lambda x: x + 0.1, state.params.network)))

  def played(observation):
    step = Step(observation, batch.reward, jnp.zeros(SIZE, bool))
    return _unit(agent.act(state.params, (), step, None)[0])

  _, metrics = agent.update(state, batch)
  np.testing.assert_allclose(metrics["loss"], metrics["critic_loss"] + metrics["policy_loss"], rtol=1e-5)
  square = jnp.square(played(batch.observation) - _unit(batch.action))
  np.testing.assert_allclose(metrics["bc_loss"], square.mean() if make is td3_bc else square.sum(-1).mean(), rtol=1e-4)
  richer = agent.update(state, batch._replace(reward=batch.reward + 5.0))[1]
  np.testing.assert_allclose(metrics["q"], richer["q"], rtol=1e-5)  # of the critics, not of what they learn from
  if make is rebrac:
    _, metrics = agent.update(state._replace(target_policy=state.params.network), batch)
    square = jnp.square(played(batch.next_observation) - _unit(batch.next_action))
    np.testing.assert_allclose(metrics["penalty"], square.sum(-1).mean(), rtol=1e-3)


def test_the_norm_of_the_gradient():
  batch, agent = _batch(), bc(SPEC, hidden=(8,), optimizer=optax.sgd(1.0))
  state = agent.init(jax.random.key(0), batch)
  after, metrics = agent.update(state, batch)
  moved = jax.tree.map(jnp.subtract, state.params.network, after.params.network)
  np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(moved), rtol=1e-4)

"""Networks see standardised observations and actions in [-1, 1], in learning and at play; users see neither."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx import testing
from ilx.agents import bc_transformer, dt
from ilx.networks import encoders, heads, scaling
from ilx.networks.history import HistoryPolicy
from ilx.networks.transformer import Transformer
from ilx.types import Step

SPEC = testing.continuous_spec()
SIZES = {"layers": 1, "heads": 2, "width": 16}


def _windows(agent, count, length=9):
  data = agent.view.prepare(testing.fake_episodes(SPEC, length=length))
  return jax.tree.map(jnp.asarray, agent.view.take(data, np.arange(count)))


@pytest.mark.parametrize("positions", ["rotary", "learnt"])
def test_windows_and_play_are_likely_as_the_bare_network_says(positions):
  agent = bc_transformer(SPEC, length=4, actions=True, head="gaussian", positions=positions, dropout=0.0, **SIZES)
  batch = _windows(agent, 5)
  state = jax.jit(agent.init)(jax.random.key(0), batch)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.4, x.shape), x.dtype), state.params.network)
  state = state._replace(params=state.params._replace(network=variables))
  transformer = Transformer(**SIZES, positions=positions, max_length=8)
  network = HistoryPolicy(transformer, heads.make(SPEC.action, "gaussian"), encoders.make(SPEC.observation), True)
  mean, std = SPEC.statistics.mean, np.maximum(SPEC.statistics.std, 1e-3)
  observation = np.clip((np.asarray(batch.observation) - mean) / std, -10, 10).astype(np.float32)
  low, high = SPEC.action.low, SPEC.action.high
  unit = (2 * (np.asarray(batch.action) - low) / (high - low) - 1).astype(np.float32)
  dist = network.apply(variables, observation, unit)
  expected = dist.log_prob(unit)
  loss = jax.jit(agent.update)(state, batch)[1]["loss"]
  np.testing.assert_allclose(loss, -expected[batch.mask].mean(), rtol=1e-4)
  carry, act, log_prob = agent.carry(5), jax.jit(agent.act), jax.jit(agent.log_prob)
  for t in range(4):
    step = Step(batch.observation[:, t], np.zeros(5, np.float32), np.full(5, t == 0))
    action, _ = act(state.params, carry, step, None)
    found, carry = log_prob(state.params, carry, step, batch.action[:, t])
    np.testing.assert_allclose(found, expected[:, t], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(action, low + (dist.mode()[:, t] + 1) / 2 * (high - low), rtol=1e-3, atol=1e-3)


def test_what_is_remembered_of_a_sample_is_what_was_played():
  """A sample beyond the bounds is played, and remembered, as the bound."""
  agent = bc_transformer(SPEC, length=4, actions=True, head="gaussian", dropout=0.0, **SIZES)
  batch = _windows(agent, 8)
  params = jax.jit(agent.init)(jax.random.key(0), batch).params
  step = Step(batch.observation[:, 0], np.zeros(8, np.float32), np.ones(8, bool))
  action, after = agent.act(params, agent.carry(8), step, jax.random.key(1))
  assert np.isin(action, [SPEC.action.low, SPEC.action.high]).any()
  _, expected = agent.log_prob(params, agent.carry(8), step, action)
  np.testing.assert_allclose(after.previous, expected.previous, rtol=1e-4, atol=1e-5)


def test_likelihood_of_decision_transformers_is_of_actions_in_the_unit_box():
  agent = dt(SPEC, target_return=1.0, head="gaussian", length=4, **SIZES)
  batch = _windows(agent, 6)
  params = jax.jit(agent.init)(jax.random.key(0), batch).params
  step = Step(batch.observation[:, 0], jnp.zeros(6), jnp.ones(6, bool))
  mode, _ = agent.act(params, agent.carry(6), step, None)
  of_mode, of_data = (agent.log_prob(params, agent.carry(6), step, x)[0] for x in (mode, batch.action[:, 0]))
  most = -1.5 * np.log(2 * np.pi)  # of three dimensions, with the deviation of 1 that there is at first
  np.testing.assert_allclose(of_mode, most, rtol=1e-4)
  z = scaling.to_unit(params.action, batch.action[:, 0]) - scaling.to_unit(params.action, mode)
  np.testing.assert_allclose(of_data, most - 0.5 * jnp.square(z).sum(-1), rtol=1e-3)

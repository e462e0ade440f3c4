"""Rates of dropout, as given to an agent, are those of its network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx import testing
from ilx.agents import bc_transformer, dt
from ilx.networks import encoders, heads, mlp, scaling
from ilx.networks.decision_transformer import DecisionTransformer
from ilx.networks.history import HistoryPolicy
from ilx.networks.transformer import Transformer

SPEC = testing.continuous_spec()
SIZES = {"layers": 1, "heads": 2, "width": 16}
RATES = {"dropout": 0.4, "attention_dropout": 0.2}


@pytest.mark.parametrize("name", ["bc_transformer", "dt"])
def test_every_rate_reaches_its_place(name):
  parts = heads.make(SPEC.action), encoders.make(SPEC.observation)
  if name == "dt":
    agent = dt(SPEC, target_return=1.0, return_scale=1.0, length=4, **SIZES, **RATES)
    transformer = Transformer(**SIZES, **RATES, activation=jax.nn.relu, positions=None)
    network = DecisionTransformer(transformer, *parts, 1000, RATES["dropout"])
  else:
    agent = bc_transformer(SPEC, length=4, actions=True, **SIZES, **RATES)
    network = HistoryPolicy(Transformer(**SIZES, **RATES), *parts, True, RATES["dropout"])
  data = agent.view.prepare(testing.fake_episodes(SPEC, length=9))
  batch = jax.tree.map(jnp.asarray, agent.view.take(data, np.arange(5)))
  state = jax.jit(agent.init)(jax.random.key(0), batch)
  params = state.params._replace(network=jax.tree.map(lambda x: 3 * x, state.params.network))
  unit = scaling.to_unit(params.action, batch.action)
  given = [scaling.standardise(params.observation, batch.observation), unit]
  if name == "dt":
    given += [batch.returns_to_go, batch.time_step]
  rngs = {"dropout": jax.random.fold_in(state.key, 0)}
  square = jnp.square(network.apply(params.network, *given, deterministic=False, rngs=rngs).mode() - unit)
  expected = square.mean(-1) if name == "dt" else 0.5 * square.sum(-1)
  _, metrics = jax.jit(agent.update)(state._replace(params=params), batch)
  np.testing.assert_allclose(metrics["loss"], expected[batch.mask].mean(), rtol=1e-4)


def test_mlps_drop_at_their_rate():
  torso, x = mlp.MLP((4000,), activation=lambda x: x, dropout=0.4), jnp.ones((50, 3))
  y = torso.apply(torso.init(jax.random.key(0), x), x, rngs={"dropout": jax.random.key(1)})
  np.testing.assert_allclose(np.mean(np.asarray(y) == 0), 0.4, atol=0.01)

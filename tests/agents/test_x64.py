"""Agents in programs of others, who may have set ``jax_enable_x64``: what is float32 here is so there, too."""

import jax
import jax.numpy as jnp
import pytest

import ilx
from ilx import testing
from ilx.types import MultiDiscrete

SPEC = testing.continuous_spec()
_SMALL = {"length": 4, "layers": 1, "heads": 1, "width": 8}
AGENTS = {
  "bc": {"hidden": (8,)},
  "chunked_bc": {"hidden": (8,), "length": 3},
  "bc_transformer": {**_SMALL, "actions": True},
  "dt": {**_SMALL, "target_return": 3.0, "return_scale": 1.0},
  "td3_bc": {"hidden": (8,)},
  "iql": {"hidden": (8,)},
  "rebrac": {"hidden": (8,)},
}


def _dtypes(agent, spec):
  """Of all that an agent has learnt after an update, by name."""
  episodes = agent.view.prepare(testing.fake_episodes(spec))
  batch = agent.view.take(episodes, episodes.rows[:4])
  key = jax.random.key(0)

  def learnt(key):
    return agent.update(agent.init(key, batch), batch)

  return {jax.tree_util.keystr(path): x.dtype for path, x in jax.tree.leaves_with_path(jax.eval_shape(learnt, key))}


KINDS = {
  "continuous": SPEC,
  "discrete": testing.discrete_spec(),
  "several": SPEC._replace(action=MultiDiscrete((2, 3))),
  "factored": testing.factored_spec(),
}
EACH = [(name, kind) for name in AGENTS for kind in KINDS if kind == "continuous" or name not in ("td3_bc", "rebrac")]


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_nothing_that_is_learnt_is_wider(name, kind):
  usual = _dtypes(getattr(ilx.agents, name)(KINDS[kind], **AGENTS[name]), KINDS[kind])
  with jax.enable_x64(True):
    assert _dtypes(getattr(ilx.agents, name)(KINDS[kind], **AGENTS[name]), KINDS[kind]) == usual


@pytest.mark.parametrize("head", ["gaussian", "tanh_gaussian", "gaussian_mixture", "discretised"])
def test_heads_are_no_wider(head):
  usual = _dtypes(ilx.agents.bc(SPEC, head=head, hidden=(8,)), SPEC)
  with jax.enable_x64(True):
    assert _dtypes(ilx.agents.bc(SPEC, head=head, hidden=(8,)), SPEC) == usual


@pytest.mark.parametrize("encoder", ["nature", "impala", "vit"])
def test_encoders_are_no_wider(encoder):
  spec = SPEC._replace(observation=jax.ShapeDtypeStruct((40, 40, 3), jnp.uint8), statistics=None)
  usual = _dtypes(ilx.agents.bc(spec, encoder=encoder, hidden=(8,)), spec)
  with jax.enable_x64(True):
    assert _dtypes(ilx.agents.bc(spec, encoder=encoder, hidden=(8,)), spec) == usual


@pytest.mark.parametrize(("name", "kind"), EACH)
def test_updates_and_actions_can_be_scanned(name, kind):
  with jax.enable_x64(True):
    agent = getattr(ilx.agents, name)(KINDS[kind], **AGENTS[name])
    episodes = agent.view.prepare(testing.fake_episodes(KINDS[kind]))
    batch = agent.view.take(episodes, episodes.rows[:4])
    reward = jnp.zeros(2, jnp.float64)  # as environments of Gymnasium give it
    step = ilx.Step(jnp.zeros((2, *SPEC.observation.shape), jnp.float32), reward, jnp.zeros(2, bool))

    def program(key):
      state, _ = jax.lax.scan(lambda state, _: agent.update(state, batch), agent.init(key, batch), None, length=2)
      _, actions = jax.lax.scan(
        lambda carry, _: agent.act(state.params, carry, step, None)[::-1], agent.carry(2), None, length=2
      )
      return actions

    actions = jax.eval_shape(program, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(actions)} <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}

"""Programs for devices that the tests need not have: what every agent does can be compiled for them."""

import functools

import jax
import jax.numpy as jnp
import pytest

import ilx
from ilx import testing

SPEC = testing.continuous_spec()
_SMALL = {"length": 4, "layers": 2, "heads": 1, "width": 16, "dtype": jnp.bfloat16}
AGENTS = {
  "bc": {"hidden": (8,)},
  "chunked_bc": {"hidden": (8,), "length": 3},
  "bc_transformer": {**_SMALL, "actions": True},
  "dt": {**_SMALL, "target_return": 3.0, "return_scale": 1.0, "attention_dropout": 0.0, "dropout": 0.0},
  "td3_bc": {"hidden": (8,)},
  "iql": {"hidden": (8,)},
  "rebrac": {"hidden": (8,)},
}
TRANSFORMERS = ("bc_transformer", "dt")


def _program(function, platform, *args):
  # A function of its own: whatever is traced a second time must not be what was traced for another device.
  return jax.jit(lambda *args: function(*args)).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def _learnt(name, **kwargs):
  agent = getattr(ilx.agents, name)(SPEC, **AGENTS[name], **kwargs)
  episodes = agent.view.prepare(testing.fake_episodes(SPEC))
  batch = agent.view.take(episodes, episodes.rows[:4])
  return agent, batch, jax.eval_shape(agent.init, jax.random.key(0), batch)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", AGENTS)
def test_updates_and_actions(name, platform):
  agent, batch, state = _learnt(name)
  _program(agent.update, platform, state, batch)
  observation = jax.tree.map(lambda x: jnp.zeros((4, *x.shape), x.dtype), SPEC.observation)
  step = ilx.types.Step(observation, jnp.zeros(4), jnp.ones(4, bool))
  _program(agent.act, platform, state.params, jax.eval_shape(lambda: agent.carry(4)), step, jax.random.key(0))


@pytest.mark.parametrize("remat", [None, "dots", "full"])
@pytest.mark.parametrize("seeds", [None, 2])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_with_the_attention_of_cudnn(cudnn, name, seeds, remat):
  jax.clear_caches()  # of attention as it is traced for this device
  agent, batch, state = _learnt(name, remat=remat)
  update = agent.update
  if seeds is not None:
    update = jax.vmap(update)
    wider = functools.partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype))
    batch, state = wider(batch), wider(state)
  assert "__cudnn$fmha" in _program(update, "cuda", state, batch)

"""Both strategies, on any number of devices, learn the same: every agent, noise, padding and many seeds included."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ilx
from ilx import testing
from ilx.data.views import Transitions
from ilx.training import programs
from ilx.types import Agent

STEPS, BATCH = 4, 16
SPEC = testing.continuous_spec()
PICTURES = ilx.Spec(jax.ShapeDtypeStruct((16, 16, 3), jnp.uint8), ilx.types.Discrete(3))
SMALL = {"hidden": (8,)}
TINY = {"layers": 1, "heads": 2, "width": 8, "length": 4}
# Plain gradient steps: Adam would magnify the rounding of gradients that are nearly zero.
OPTIMIZER = {"optimizer": optax.sgd(0.05, momentum=0.9)}

AGENTS = {
  "bc": (SPEC, lambda: ilx.agents.bc(SPEC, **SMALL, **OPTIMIZER)),
  "bc of pictures, shifted": (
    PICTURES,
    lambda: ilx.agents.augmented(ilx.agents.bc(PICTURES, encoder="flat", **SMALL, **OPTIMIZER), PICTURES, pixels=2),
  ),
  "chunked_bc": (SPEC, lambda: ilx.agents.chunked_bc(SPEC, length=4, **SMALL, **OPTIMIZER)),
  "bc_transformer": (SPEC, lambda: ilx.agents.bc_transformer(SPEC, **TINY, dropout=0.2, **OPTIMIZER)),
  "dt": (
    SPEC,
    lambda: ilx.agents.dt(SPEC, target_return=1.0, return_scale=10.0, **TINY, **OPTIMIZER),
  ),
  "td3_bc": (SPEC, lambda: ilx.agents.td3_bc(SPEC, **SMALL, **OPTIMIZER)),
  "iql": (SPEC, lambda: ilx.agents.iql(SPEC, dropout=0.2, **SMALL, optimizer=optax.sgd(1e-3))),
  "rebrac": (SPEC, lambda: ilx.agents.rebrac(SPEC, **SMALL, optimizer=optax.sgd(1e-3))),
}


def test_every_agent_is_here():
  assert {name.split()[0] for name in AGENTS} == set(ilx.agents.__all__) - {"augmented", "averaged", "frozen"}


@pytest.mark.parametrize("name", AGENTS)
def test_strategies_and_numbers_of_devices_change_rounding_only(name):
  spec, make = AGENTS[name]
  agent = make()
  data = jax.tree.map(jnp.asarray, agent.view.prepare(testing.fake_episodes(spec)))
  first = jax.jit(lambda key: agent.init(key, agent.view.sample(key, data, BATCH)))(jax.random.key(1))
  expected = None
  for strategy in ("jit", "pmap"):
    for devices in (1, 2, 4, 8):
      mesh = _mesh(devices)
      state, episodes = jax.device_put((jax.tree.map(jnp.copy, first), data), ilx.parallel.replicated(mesh))
      program = programs.make_program(agent, BATCH, mesh, strategy=strategy)
      state, sums = program(state, episodes, jax.random.key(2), STEPS)
      # What rounding took is another matter on every number of devices.
      found = jax.tree.map(np.asarray, (state._replace(key=None), sums._replace(rest=None)))
      expected = expected or found
      chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=2e-6)
  assert not np.array_equal(*(jax.tree.leaves(tree.params.network)[-1] for tree in (first, expected[0])))


@pytest.mark.parametrize("seeds", [None, 3])
def test_strategies_agree_on_batches_from_the_host_and_on_many_seeds(seeds):
  agent = ilx.agents.td3_bc(SPEC, **SMALL, **OPTIMIZER)
  runs = [_train(agent, SPEC, 4, strategy, tier=tier, seeds=seeds) for strategy in ("jit", "pmap") for tier in TIERS]
  for run in runs[1:]:
    chex.assert_trees_all_close(run, runs[0], rtol=1e-4, atol=2e-6)


TIERS = ("device", "host")


def test_an_agent_that_forgets_the_mean_is_refused():
  def init(key, batch):
    del key
    return State(jnp.zeros(batch.observation.shape[-1]), jnp.zeros((), jnp.int32))

  def update(state, batch):
    gradient = jax.grad(lambda w: jnp.mean((batch.observation @ w - batch.reward) ** 2))(state.params)
    return State(state.params - 0.1 * gradient, state.step + 1), {"loss": jnp.zeros(())}

  agent = Agent(init, update, act=None, carry=None, view=Transitions())
  _train(agent, SPEC, 4, "jit")
  with pytest.raises(ValueError, match=r"params of the state differs between devices.*strategy='jit'"):
    _train(agent, SPEC, 4, "pmap")


def test_a_jitted_update_hears_of_no_replicas_after_pmap():
  """jit keeps traces: what was traced on replicas is not to be used for seeds that have a device each."""
  agent = ilx.agents.td3_bc(SPEC, **SMALL, **OPTIMIZER)
  expected = _train(agent, SPEC, 2, "jit", seeds=2)
  agent = agent._replace(update=jax.jit(agent.update))
  _train(agent, SPEC, 2, "pmap", batch_size=2 * BATCH)  # a device's part is as large as a seed's batch
  chex.assert_trees_all_close(_train(agent, SPEC, 2, "jit", seeds=2), expected, rtol=1e-4, atol=2e-6)


def test_pmap_wants_a_mesh_of_replicas():
  mesh = ilx.parallel.make_mesh(data=4, fsdp=2)
  agent = ilx.agents.bc(SPEC, **SMALL)
  with pytest.raises(ValueError, match="fsdp=1 and tensor=1"):
    ilx.train(agent, testing.fake_episodes(SPEC), steps=1, batch_size=16, mesh=mesh, strategy="pmap")
  with pytest.raises(ValueError, match="strategy='gspmd'"):
    ilx.train(agent, testing.fake_episodes(SPEC), steps=1, strategy="gspmd")


class State(NamedTuple):
  params: jax.Array
  step: jax.Array


def _mesh(devices):
  return jax.sharding.Mesh(np.array(jax.devices()[:devices]).reshape(devices, 1, 1), ilx.parallel.mesh.AXES)


def _train(agent, spec, devices, strategy, **kwargs):
  """The parameters, and what was logged."""
  rows = {}

  def log(step, row):
    rows[step] = {name: value for name, value in row.items() if name.startswith("train/")}

  sizes = {"steps": STEPS, "batch_size": BATCH, "log_every": 2, "seed": 1} | kwargs
  data = testing.fake_episodes(spec)
  state = ilx.train(agent, data, mesh=_mesh(devices), strategy=strategy, on_progress=log, **sizes)
  assert sorted(rows) == [2, 4]
  return jax.tree.map(np.asarray, (state.params, rows))

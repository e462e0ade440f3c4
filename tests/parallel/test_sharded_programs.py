"""What is compiled where parameters are divided: parts are made and gathered where they are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx import agents, parallel, testing
from ilx.parallel import placement
from ilx.training import lowering, states
from ilx.training import seeds as seeds_lib

SPEC = testing.continuous_spec()
# Everything but scalars is divided where it can be.
RULES = placement.default_rules(small=32)
BATCH = 16


@pytest.fixture(scope="module")
def agent():
  """Enough layers for a loop over them."""
  return agents.bc_transformer(SPEC, length=4, layers=5, heads=2, width=16)


@pytest.fixture(scope="module")
def batch(agent):
  """Shapes of one."""
  episodes = agent.view.prepare(testing.fake_episodes(SPEC))
  return jax.eval_shape(lambda: jax.tree.map(jnp.asarray, agent.view.take(episodes, np.arange(BATCH))))


def test_no_device_makes_more_than_its_part(agent, batch):
  """The program that initialises holds parts only, and sends nothing around."""
  mesh = parallel.make_mesh(fsdp=8)
  placed = states.place(agent, batch, mesh, RULES)
  init = jax.jit(
    lambda key: agent.init(key, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch)),
    out_shardings=states.shardings(placed.one),
  )
  compiled = init.lower(jax.eval_shape(lambda: jax.random.key(0))).compile()
  whole_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(placed.one))
  found = compiled.memory_analysis()
  assert found.output_size_in_bytes < 0.2 * whole_bytes
  assert found.temp_size_in_bytes < 0.2 * whole_bytes
  assert not any(name in compiled.as_text() for name in ("all-gather", "all-reduce", "all-to-all"))


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"strategy": "pmap", "mesh": {"fsdp": 2}}, "strategy='pmap' has all parameters on every device"),
    ({"strategy": "gspmd"}, "strategy='gspmd': expected 'jit' or 'pmap'"),
    ({"tier": "disk"}, "tier='disk': expected 'auto', 'device' or 'host'"),
    ({"batch_size": 0, "seeds": 8}, "batch_size=0 must be at least 1"),
    ({"batch_size": 12}, "batch_size=12 does not divide among 8 devices"),
  ],
)
def test_what_would_not_run_is_not_lowered(agent, kwargs, message):
  mesh = parallel.make_mesh(**kwargs.pop("mesh", {}))
  with pytest.raises(ValueError, match=message):
    lowering.lower(agent, testing.fake_episodes(SPEC), mesh=mesh, **{"batch_size": 8} | kwargs)


def test_parameters_travel_activations_stay(agent, batch):
  """Over fsdp the compiled update gathers kernels; what it sends around has no axis of the batch's items."""
  lowered = lowering.lower_fed(agent, batch, mesh=parallel.make_mesh(fsdp=8), rules=RULES)
  sent = [line for line in lowered.program.compile().as_text().splitlines() if " all-gather(" in line]
  assert any("f32[16,64]" in line for line in sent)
  assert not any("[16,4," in line for line in sent)


def test_seeds_that_are_not_spread_are_divided_as_one_is(agent, batch):
  mesh = parallel.make_mesh(fsdp=4, tensor=2)
  one, state = states.place(agent, batch, mesh, RULES, seeds_lib.plan(3, mesh))
  for x, many in zip(jax.tree.leaves(one.params), jax.tree.leaves(state.params), strict=True):
    assert many.shape == (3, *x.shape)
    assert many.sharding.spec == (jax.P(None, *x.sharding.spec) if x.sharding.spec else jax.P())
  # Where parameters are to be divided they are, though every device could have a seed of its own.
  assert not seeds_lib.plan(8, mesh).spread
  replicas = parallel.make_mesh()
  spread = states.place(agent, batch, replicas, RULES, seeds_lib.plan(8, replicas)).state
  assert {x.sharding.spec for x in jax.tree.leaves(spread.params)} == {jax.P(("data", "fsdp", "tensor"))}

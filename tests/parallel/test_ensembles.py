"""Many critics, some on each device."""

import chex
import jax
import numpy as np
import optax
import pytest

import ilx
from ilx import testing
from ilx.parallel import placement

SPEC = testing.continuous_spec()
AGENTS = {
  "iql": lambda: ilx.agents.iql(SPEC, num_critics=4, hidden=(8,), optimizer=optax.sgd(1e-3, momentum=0.9)),
  "td3_bc": lambda: ilx.agents.td3_bc(SPEC, num_critics=4, hidden=(8,), optimizer=optax.sgd(1e-2, momentum=0.9)),
  "rebrac": lambda: ilx.agents.rebrac(SPEC, num_critics=4, hidden=(8,), optimizer=optax.sgd(1e-3, momentum=0.9)),
}


@pytest.mark.parametrize("name", AGENTS)
def test_critics_are_spread_over_devices_and_learn_what_they_learn_on_one(name):
  agent, states = AGENTS[name](), []
  for sizes in ((1, 1, 1), (2, 1, 4)):
    count = int(np.prod(sizes))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]).reshape(sizes), ilx.parallel.mesh.AXES)
    states.append(ilx.train(agent, testing.fake_episodes(SPEC), steps=4, batch_size=16, log_every=4, mesh=mesh))
  one, spread = states
  chex.assert_trees_all_close(
    *(jax.tree.map(np.asarray, state._replace(key=None)) for state in (spread, one)), rtol=1e-4, atol=2e-6
  )
  found = 0
  for path, leaf in jax.tree_util.tree_leaves_with_path(spread):
    if "ensemble" in placement.name_of(path):
      found += 1
      assert leaf.shape[0] == 4 and {shard.data.shape[0] for shard in leaf.addressable_shards} == {1}
  # Both networks and the momenta, of a layer and of the values.
  assert found >= 12


def test_critics_that_do_not_divide_are_whole():
  place = placement.leading("tensor", small=4)
  sizes = {"data": 1, "fsdp": 2, "tensor": 4}
  assert place((3, 8, 6), sizes) == jax.sharding.PartitionSpec(None, "fsdp")
  assert place((8, 2), sizes) == jax.sharding.PartitionSpec("tensor")
  assert place((8, 6, 4), sizes) == jax.sharding.PartitionSpec("tensor", "fsdp")

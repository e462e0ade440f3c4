"""A policy of a billion parameters, compiled for as many emulated devices as this process has; see `scaling`.

python -m experiments.results.scaled DATA FSDP TENSOR
"""

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.results import hlo
from ilx import agents, parallel
from ilx.parallel import placement
from ilx.testing import continuous_spec, fake_episodes
from ilx.training import lowering

# Of the transformer; steps and windows are a device's.
LAYERS, WIDTH, HEADS, LENGTH, WINDOWS, REMAT = 20, 2048, 16, 1024, 16, "full"


def measure(data: int, fsdp: int, tensor: int) -> dict[str, Any]:
  """Compiles the update for a mesh of all devices: what a device holds, and the bytes that collectives send."""
  spec = continuous_spec(17, 6)
  agent = agents.bc_transformer(
    spec, length=LENGTH, layers=LAYERS, width=WIDTH, heads=HEADS, dropout=0.0, dtype=jnp.bfloat16, remat=REMAT
  )
  episodes = agent.view.prepare(fake_episodes(spec, num_episodes=1, length=LENGTH))
  window = agent.view.take(episodes, np.zeros(1, np.int32))
  size = WINDOWS * data * fsdp * tensor
  batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype), window)
  mesh = parallel.make_mesh(data=data, fsdp=fsdp, tensor=tensor)
  lowered = lowering.lower_fed(agent, batch, mesh=mesh)
  compiled = lowered.program.compile()
  plan = compiled.memory_analysis()
  leaves = jax.tree.leaves(lowered.state)
  return {
    "mesh": [data, fsdp, tensor],
    "parameters": sum(x.size for x in jax.tree.leaves(lowered.state.params)),
    "small": placement.SMALL,
    "state": placement.bytes_per_device(lowered.state),
    "whole": placement.bytes_per_device([x for x in leaves if x.sharding.is_fully_replicated]),
    "intermediate": plan.temp_size_in_bytes,
    "optimised": sum(one.bytes * one.times for one in hlo.collectives(compiled.as_text())),
    "jax": jax.__version__,
  }


def model_flops() -> float:
  """Of one device in one update."""
  return WINDOWS * LENGTH * (6 * 12 * LAYERS * WIDTH**2 + 6 * LAYERS * LENGTH * WIDTH)


if __name__ == "__main__":
  if len(sys.argv) != 4 or not all(word.isdigit() for word in sys.argv[1:]):
    sys.exit(__doc__)
  print(json.dumps(measure(*map(int, sys.argv[1:]))))

"""Updates as the trainer makes them between two logs, to be timed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import ilx
from ilx.parallel import make_mesh
from ilx.parallel.mesh import AXES, replicated
from ilx.training.programs import make_program


def one_device() -> Mesh:
  """A mesh of a single device, as what updates stand beside, a matmul, is computed by one."""
  mesh = make_mesh()
  return Mesh(mesh.devices.reshape(-1)[:1].reshape(1, 1, 1), AXES, axis_types=mesh.axis_types)


def repeated_updates(
  agent: ilx.Agent, data: ilx.data.Episodes, batch_size: int, mesh: Mesh | None = None
) -> Callable[[int], None]:
  """``call(n)`` makes ``n`` updates by the trainer's own program, on data that are on the mesh (None: one device)."""
  mesh = mesh or one_device()
  program, state = make_program(agent, batch_size, mesh), initial_state(agent, data, batch_size, mesh)

  def call(n: int) -> None:
    nonlocal state
    state, sums = jax.block_until_ready(program(state, data, jax.random.key(0), n))
    if not np.isfinite(sums.metrics["loss"]):
      raise FloatingPointError(f"the loss is {sums.metrics['loss']} at batch {batch_size}")

  return call


def initial_state(agent: ilx.Agent, data: ilx.data.Episodes, batch_size: int, mesh: Mesh | None = None) -> Any:
  """Fresh, and where the trainer has it."""
  return jax.device_put(_initial(agent, data, batch_size), replicated(mesh or one_device()))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _initial(agent: ilx.Agent, data: ilx.data.Episodes, batch_size: int) -> Any:
  return agent.init(jax.random.key(0), agent.view.sample(jax.random.key(0), data, batch_size))


def copied(state: Any) -> Any:
  """The program is given the memory of its state, so each needs one of its own."""
  return jax.tree.map(jnp.copy, state)

"""The device programs: many updates from one log to the next, with the data on the device or fed from the host."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ilx.data.episodes import Episodes
from ilx.parallel import mesh as mesh_lib
from ilx.types import Agent, Tree


def make_program(agent: Agent, batch_size: int, mesh: Mesh) -> Callable[[Any, Episodes, jax.Array, int], Any]:
  """For data on the device: ``(state, episodes, key, length) -> (state, sums of the metrics)``.

  Makes ``length`` updates, each on a batch drawn with ``fold_in(key, state.step)``. The state is donated. ``length`` is
  an argument of the compiled program, not a constant in it: one compilation serves every length.
  """
  everywhere, divided = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)

  def one_update(episodes: Episodes, key: jax.Array, state: Any) -> tuple[Any, dict[str, jax.Array]]:
    batch = agent.view.sample(jax.random.fold_in(key, state.step), episodes, batch_size)
    return agent.update(state, jax.lax.with_sharding_constraint(batch, divided))

  def program(state, episodes, key, length):
    shapes = jax.eval_shape(one_update, episodes, key, state)[1]
    return _repeat(lambda _, state: one_update(episodes, key, state), state, _zeros(shapes), length)

  return jax.jit(program, donate_argnums=0, out_shardings=everywhere)


def make_fed_program(agent: Agent, mesh: Mesh) -> Callable[[Any, Any, Tree, int], Any]:
  """For batches from the host: ``(state, sums, stack, length) -> (state, sums of the metrics)``.

  Makes ``length`` updates on the first batches of ``stack``, leaves ``[K, B, ...]``. State and sums are donated.
  """
  everywhere = mesh_lib.replicated(mesh)

  def program(state, sums, stack, length):
    return _repeat(lambda i, state: agent.update(state, jax.tree.map(lambda x: x[i], stack)), state, sums, length)

  return jax.jit(program, donate_argnums=(0, 1), out_shardings=everywhere)


def make_sums(agent: Agent, mesh: Mesh, state: Any, batch: Tree) -> Any:
  """The metrics' sums before the first update, on all devices; of ``state`` and ``batch`` the shapes count alone."""
  shapes = jax.eval_shape(agent.update, state, batch)[1]
  return jax.jit(lambda: _zeros(shapes), out_shardings=mesh_lib.replicated(mesh))()


def _repeat(update: Callable[[Any, Any], tuple[Any, Any]], state: Any, sums: Any, length: Any) -> tuple[Any, Any]:
  def body(i, carry):
    state, sums = carry
    state, metrics = update(i, state)
    return state, jax.tree.map(jnp.add, sums, metrics)

  return jax.lax.fori_loop(0, length, body, (state, sums))


def _zeros(shapes: Any) -> Any:
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

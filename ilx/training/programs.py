"""The device programs: many updates from one log to the next, with the data on the device or fed from the host."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilx.data.episodes import Episodes
from ilx.parallel import mesh as mesh_lib
from ilx.training import seeds as seeds_lib
from ilx.training.seeds import Seeds
from ilx.types import Agent, Tree

# (data, one seed's key or stack, update of this call, state.step) -> its batch.
_Draw = Callable[[Any, Any, jax.Array, jax.Array], Tree]


def make_program(
  agent: Agent, batch_size: int, mesh: Mesh, seeds: Seeds | None = None
) -> Callable[[Any, Episodes, jax.Array, int], Any]:
  """For data on the device: ``(state, episodes, key, length) -> (state, sums of the metrics)``.

  Makes ``length`` updates, each on a batch drawn with ``fold_in(key, state.step)``. The state is donated. ``length`` is
  an argument of the compiled program, not a constant in it: one compilation serves every length.

  With ``seeds`` the state is a stacked one, and keys and sums have a leading axis ``[S]``.
  """
  divided = mesh_lib.batch_sharding(mesh)

  def draw(episodes: Episodes, key: jax.Array, i: jax.Array, step: jax.Array) -> Tree:
    del i
    return agent.view.sample(jax.random.fold_in(key, step), episodes, batch_size)

  run = _program(agent, draw, mesh, seeds, divided)

  def program(state, episodes, key, length):
    return run(state, None, episodes, key, length)

  return _compiled(program, mesh, seeds, donate=(0,))


def make_fed_program(agent: Agent, mesh: Mesh, seeds: Seeds | None = None) -> Callable[[Any, Any, Tree, int], Any]:
  """For batches from the host: ``(state, sums, stack, length) -> (state, sums of the metrics)``.

  Makes ``length`` updates on the first batches of ``stack``, leaves ``[K, B, ...]``, with ``seeds``
  ``[S, K, B, ...]``. State and sums are donated.
  """

  def draw(data: None, stack: Tree, i: jax.Array, step: jax.Array) -> Tree:
    del data, step
    return jax.tree.map(lambda x: x[i], stack)

  run = _program(agent, draw, mesh, seeds, None)

  def program(state, sums, stack, length):
    return run(state, sums, None, stack, length)

  return _compiled(program, mesh, seeds, donate=(0, 1))


def make_sums(agent: Agent, mesh: Mesh, state: Any, batch: Tree, seeds: Seeds | None = None) -> Callable[[], Any]:
  """Makes the metrics' sums before the first update, placed as the fed program leaves them.

  Of ``state`` and ``batch``, which are of one seed, the shapes count alone.
  """
  shapes = jax.eval_shape(agent.update, state, batch)[1]
  if seeds:
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds.count, *x.shape), x.dtype), shapes)
  return jax.jit(lambda: _zeros(shapes), out_shardings=NamedSharding(mesh, seeds_lib.partition(seeds)))


def _program(agent: Agent, draw: _Draw, mesh: Mesh, seeds: Seeds | None, divided: NamedSharding | None) -> Callable:
  """``(state, sums or None, data, source, length) -> (state, sums)``."""
  if seeds is None:
    return lambda *args: _repeat(agent.update, draw, divided, *args)
  if seeds.spread:
    divided = None  # a device has whole batches
  run = _batched if seeds.batched else _one_by_one

  def program(state, sums, data, source, length):
    def local(*args):
      return run(agent, draw, divided, *args)

    if not seeds.spread:
      return local(state, sums, data, source, length)
    whole, parts = PartitionSpec(), seeds_lib.partition(seeds)
    where = seeds_lib.partitions(state, seeds)
    return jax.shard_map(
      local,
      mesh=mesh,
      in_specs=(where, parts, whole, parts, whole),
      out_specs=(where, parts),
      check_vma=False,  # agents know nothing of devices
    )(state, sums, data, source, length)

  return program


def _batched(agent: Agent, draw: _Draw, divided: NamedSharding | None, state, *args) -> tuple[Any, Any]:
  """The same update of all seeds at once; their step stays a scalar, so that what depends on it is no select."""
  axes = seeds_lib.axes(state)
  update = jax.vmap(agent.update, in_axes=(axes, 0), out_axes=(axes, 0))
  if divided is not None:
    divided = NamedSharding(divided.mesh, PartitionSpec(None, *divided.spec))
  return _repeat(update, jax.vmap(draw, in_axes=(None, 0, None, None)), divided, state, *args)


def _one_by_one(
  agent: Agent, draw: _Draw, divided: NamedSharding | None, state, sums, data, source, length
) -> tuple[Any, Any]:
  """All updates of the first seed, then all of the next."""
  shared, count = seeds_lib.is_shared(state), len(jax.tree.leaves(source)[0])

  def one_seed(_, own):
    state, sums, source = own
    return None, _repeat(agent.update, draw, divided, state, sums, data, source, length)

  state = jax.tree.map(lambda s, x: jnp.broadcast_to(x, (count, *x.shape)) if s else x, shared, state)
  _, (state, sums) = jax.lax.scan(one_seed, None, (state, sums, source))
  return jax.tree.map(lambda s, x: x[0] if s else x, shared, state), sums


def _repeat(update: Callable, draw: _Draw, divided: NamedSharding | None, state, sums, data, source, length) -> Any:
  def one_update(i, state):
    batch = draw(data, source, i, state.step)
    return update(state, batch if divided is None else jax.lax.with_sharding_constraint(batch, divided))

  def body(i, carry):
    state, sums = carry
    state, metrics = one_update(i, state)
    return state, jax.tree.map(jnp.add, sums, metrics)

  if sums is None:
    sums = _zeros(jax.eval_shape(one_update, 0, state)[1])
  return jax.lax.fori_loop(0, length, body, (state, sums))


def _zeros(shapes: Any) -> Any:
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _compiled(program: Callable, mesh: Mesh, seeds: Seeds | None, donate: tuple[int, ...]) -> Callable:
  if seeds and seeds.spread:
    return jax.jit(program, donate_argnums=donate)
  return jax.jit(program, donate_argnums=donate, out_shardings=mesh_lib.replicated(mesh))

"""The device programs: many updates from one log to the next, with the data on the device or fed from the host."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilx.data import sampling
from ilx.data.episodes import Episodes
from ilx.parallel import activations, compiling, replicas
from ilx.parallel import mesh as mesh_lib
from ilx.training import nonfinite
from ilx.training import seeds as seeds_lib
from ilx.training.seeds import Seeds
from ilx.types import Agent, Tree

# (data, one seed's key or stack, update of this call, state.step) -> its batch.
_Draw = Callable[[Any, Any, jax.Array, jax.Array], Tree]
# (length, body, carry) -> carry.
_Loop = Callable[[jax.Array, Callable[[jax.Array, Any], Any], Any], Any]

# How devices share an update. "jit": the compiler divides it, by where state and batch are (GSPMD). "pmap": every
# device has all parameters and updates on its part of the batch; gradients are averaged by name (`replicas`).
Strategy = Literal["jit", "pmap"]

# The axis of "pmap". Not one of the mesh's: an update that is itself under jit is traced once for the same names of
# axes, and seeds that are spread over the mesh would take over the means over replicas.
_REPLICAS = "replicas"

# Updates after which a GPU's loop asks the host.
_GROUP = 16


def fit(mesh: Mesh, strategy: Strategy, seeds: int | None, batch_size: int) -> Seeds | None:
  """How so many seeds are computed on a mesh; None where no number of them is given.

  Raises:
    ValueError: for a mesh, a strategy, a number of seeds or a size of batches that would not run.
  """
  mesh_lib.check_axes(mesh)
  if strategy not in ("jit", "pmap"):
    raise ValueError(f"strategy={strategy!r}: expected 'jit' or 'pmap'")
  if strategy == "pmap" and mesh.size != mesh.shape["data"]:
    raise ValueError(
      "strategy='pmap' has all parameters on every device: the mesh must have fsdp=1 and tensor=1; choose "
      "strategy='jit' to divide parameters"
    )
  many = None if seeds is None else seeds_lib.plan(seeds, mesh)
  if not (many and many.spread):
    mesh_lib.check_batch_size(mesh, batch_size)
  elif batch_size < 1:
    raise ValueError(f"batch_size={batch_size} must be at least 1")
  return many


def make_program(
  agent: Agent, batch_size: int, mesh: Mesh, seeds: Seeds | None = None, strategy: Strategy = "jit", where: Any = None
) -> Callable[[Any, Episodes, jax.Array, int], Any]:
  """For data on the device: ``(state, episodes, key, length, sums) -> (state, sums of the metrics)``.

  Makes ``length`` updates, each on a batch drawn with ``fold_in(key, state.step)``. The state is donated. ``length`` is
  an argument of the compiled program, not a constant in it: one compilation serves every length. ``sums`` are those of
  the updates before, which are gone on with; by default there are none. They know of metrics alone, see ``make_look``.

  With ``seeds`` the state is a stacked one, and keys and sums have a leading axis ``[S]``. The state stays ``where`` it
  is (shardings of its leaves; None: everywhere).
  """
  agent, divided = nonfinite.scalars(agent), mesh_lib.batch_sharding(mesh)

  def draw(episodes: Episodes, key: jax.Array, i: jax.Array, step: jax.Array) -> Tree:
    del i
    rows = sampling.draw(jax.random.fold_in(key, step), episodes, batch_size)
    return agent.view.take(episodes, replicas.part(rows))

  run = _program(agent, draw, mesh, seeds, divided, strategy, PartitionSpec(), look=False)

  def program(state, episodes, key, length, sums=None):
    return run(state, sums, episodes, key, length)

  return _compiled(program, mesh, seeds, where, donate=(0,))


def make_fed_program(
  agent: Agent, mesh: Mesh, seeds: Seeds | None = None, strategy: Strategy = "jit", where: Any = None
) -> Callable[[Any, Any, Tree, int], Any]:
  """For batches from the host: ``(state, sums, stack, length) -> (state, sums of the metrics)``.

  Makes ``length`` updates on the first batches of ``stack``, leaves ``[K, B, ...]``, with ``seeds``
  ``[S, K, B, ...]``. State and sums are donated.
  """

  agent = nonfinite.scalars(agent)

  def draw(data: None, stack: Tree, i: jax.Array, step: jax.Array) -> Tree:
    del data, step
    return jax.tree.map(lambda x: x[i], stack)

  stacks = PartitionSpec(*(None,) * (2 if seeds else 1), _REPLICAS)
  run = _program(agent, draw, mesh, seeds, None, strategy, stacks)

  def program(state, sums, stack, length):
    return run(state, sums, None, stack, length)

  return _compiled(program, mesh, seeds, where, donate=(0, 1))


def make_look(mesh: Mesh, seeds: Seeds | None = None) -> tuple[Callable[[Any], jax.Array], Callable[..., Any]]:
  """``nonfinite.finite`` of a state, of many seeds ``[S, leaves]``, and ``nonfinite.look``, compiled."""

  def finite(state: Any) -> jax.Array:
    return jax.vmap(nonfinite.finite, in_axes=(seeds_lib.axes(state),))(state) if seeds else nonfinite.finite(state)

  where = NamedSharding(mesh, seeds_lib.partition(seeds))
  return jax.jit(finite, out_shardings=where), jax.jit(nonfinite.look, out_shardings=where)


def make_sums(agent: Agent, mesh: Mesh, state: Any, batch: Tree, seeds: Seeds | None = None) -> Callable[[], Any]:
  """Makes the metrics' sums before the first update, placed as the fed program leaves them.

  Of ``state`` and ``batch``, which are of one seed, the shapes count alone.
  """
  shapes = jax.eval_shape(nonfinite.scalars(agent).update, state, batch)[1]
  if seeds:
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((seeds.count, *x.shape), x.dtype), shapes)
  shape = (seeds.count,) if seeds else ()
  return jax.jit(lambda: nonfinite.zeros(shapes, shape), out_shardings=NamedSharding(mesh, seeds_lib.partition(seeds)))


def _program(
  agent: Agent,
  draw: _Draw,
  mesh: Mesh,
  seeds: Seeds | None,
  divided: NamedSharding | None,
  strategy: Strategy,
  source_spec: PartitionSpec,
  look: bool = True,
) -> Callable:
  """``(state, sums or None, data, source, length) -> (state, sums)``.

  ``source_spec``: of sources, on replicas; ``look``: whether the sums say if the state is still finite.
  """
  repeat = functools.partial(_repeat, make_loop(mesh.devices.flat[0].platform), look)
  run = functools.partial(_single if seeds is None else _batched if seeds.batched else _one_by_one, repeat)
  whole = PartitionSpec()

  def program(state, sums, data, source, length):
    devices = mesh
    if seeds and seeds.spread:
      parts, where, axis = seeds_lib.partition(seeds), seeds_lib.partitions(state, seeds), None
      of_source = parts
    elif strategy == "pmap":
      parts, where, axis, of_source = whole, whole, _REPLICAS, source_spec
      devices = Mesh(mesh.devices.reshape(-1), _REPLICAS)
    else:
      with activations.on(mesh):
        return run(agent, draw, divided, state, sums, data, source, length)

    def local(*args):
      with replicas.across(axis) if axis else contextlib.nullcontext():
        return run(agent, draw, None, *args)  # a device has what it computes

    return jax.shard_map(
      local,
      mesh=devices,
      in_specs=(where, parts, whole, of_source, whole),
      out_specs=(where, parts),
      check_vma=False,  # agents know nothing of devices; `replicas.check_equal` looks
    )(state, sums, data, source, length)

  return program


def make_loop(platform: str) -> _Loop:
  """``(length, body, carry) -> carry`` after ``carry = body(i, carry)`` for every ``i`` below ``length``.

  On a GPU XLA's loops come back to the host after every pass, to learn whether there is another, unless the program
  itself says how many there are; small updates would mostly wait. So they are made in groups there, and those that make
  no group one by one, which is the same computation and gives the same bits.
  """

  def one_by_one(length: jax.Array, body: Callable, carry: Any) -> Any:
    return jax.lax.fori_loop(0, length, body, carry)

  def in_groups(length: jax.Array, body: Callable, carry: Any) -> Any:
    def group(k: jax.Array, carry: Any) -> Any:
      return jax.lax.fori_loop(0, _GROUP, lambda i, carry: body(k * _GROUP + i, carry), carry)

    groups = length // _GROUP
    return jax.lax.fori_loop(groups * _GROUP, length, body, jax.lax.fori_loop(0, groups, group, carry))

  return in_groups if platform in ("gpu", "cuda", "rocm") else one_by_one


def _single(repeat: Callable, agent: Agent, *args) -> tuple[Any, Any]:
  return repeat(agent.update, nonfinite.finite, *args)


def _batched(
  repeat: Callable, agent: Agent, draw: _Draw, divided: NamedSharding | None, state, *args
) -> tuple[Any, Any]:
  """The same update of all seeds at once; their step stays a scalar, so that what depends on it is no select."""
  axes = seeds_lib.axes(state)
  update = jax.vmap(agent.update, in_axes=(axes, 0), out_axes=(axes, 0))
  if divided is not None:
    divided = NamedSharding(divided.mesh, PartitionSpec(None, *divided.spec))
  finite = jax.vmap(nonfinite.finite, in_axes=(axes,))
  return repeat(update, finite, jax.vmap(draw, in_axes=(None, 0, None, None)), divided, state, *args)


def _one_by_one(
  repeat: Callable, agent: Agent, draw: _Draw, divided: NamedSharding | None, state, sums, data, source, length
) -> tuple[Any, Any]:
  """All updates of the first seed, then all of the next."""
  shared, count = seeds_lib.is_shared(state), len(jax.tree.leaves(source)[0])

  def one_seed(_, own):
    state, sums, source = own
    return None, repeat(agent.update, nonfinite.finite, draw, divided, state, sums, data, source, length)

  state = jax.tree.map(lambda s, x: jnp.broadcast_to(x, (count, *x.shape)) if s else x, shared, state)
  _, (state, sums) = jax.lax.scan(one_seed, None, (state, sums, source))
  return jax.tree.map(lambda s, x: x[0] if s else x, shared, state), sums


def _repeat(
  loop: _Loop,
  look: bool,
  update: Callable,
  finite: Callable,
  draw: _Draw,
  divided: NamedSharding | None,
  state,
  sums,
  data,
  source,
  length,
) -> Any:
  """``length`` updates; metrics are means over all replicas, where there are any."""

  def one_update(i, state):
    batch = draw(data, source, i, state.step)
    state, metrics = update(state, batch if divided is None else jax.lax.with_sharding_constraint(batch, divided))
    return state, replicas.mean(metrics)

  def body(i, carry):
    state, sums = carry
    state, metrics = one_update(i, state)
    return state, nonfinite.add(sums, metrics, state.step)

  before = finite(state)
  if sums is None:
    sums = nonfinite.zeros(jax.eval_shape(one_update, 0, state)[1], before.shape[:-1])
  state, sums = loop(length, body, (state, sums))
  return state, nonfinite.look(sums, before, finite(state), state.step) if look else sums


def _compiled(program: Callable, mesh: Mesh, seeds: Seeds | None, where: Any, donate: tuple[int, ...]) -> Callable:
  jit = functools.partial(jax.jit, program, donate_argnums=donate, compiler_options=compiling.options())
  if seeds and seeds.spread:
    return jit()
  everywhere = mesh_lib.replicated(mesh)
  return jit(out_shardings=(everywhere if where is None else where, everywhere))

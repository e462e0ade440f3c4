"""Many seeds in one program: their states stacked to one, and where each seed is computed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilx.parallel import mesh as mesh_lib
from ilx.types import Tree


class Seeds(NamedTuple):
  """How many seeds are trained in one program, and how.

  Attributes:
    count: S, at least 1.
    spread: every device has ``S / devices`` whole seeds and hears of no other; else every device has all seeds and a
      part of each one's batch.
    batched: updates of the seeds are made at once, by ``vmap``; else one seed after the other makes all updates of a
      call, in a loop.
  """

  count: int
  spread: bool
  batched: bool


def key(seed: int) -> jax.Array:
  """From which all of a run is drawn. Threefry's, whatever ``JAX_DEFAULT_PRNG_IMPL`` says.

  Of other generators (rbg) what is drawn depends on how many are drawn at once and on which device: neither would many
  seeds at once be those of single runs, nor a batch the same on the host as on a device.
  """
  return jax.random.key(seed, impl="threefry2x32")


def plan(count: int, mesh: Mesh) -> Seeds:
  """Seeds are spread where each device gets as many and parameters are not to be divided, and batched but on CPUs.

  A CPU is busy with one seed's matmuls and has caches for one seed's parameters: on one core ten seeds took 9.9 (BC,
  batch 256), 10.1 (BC, batch 8) and 10.2 times (IQL) the processor time of one when made one after the other, and 11.3,
  12.6 and 11.6 times when batched. Accelerators wait for small matmuls.

  Raises:
    ValueError: where the number is no integer or below 1.
  """
  if isinstance(count, bool) or not isinstance(count, int) or count < 1:
    raise ValueError(f"seeds={count!r} must be an integer of at least 1, the number of seeds")
  whole = mesh.size == mesh.shape["data"]
  return Seeds(count, whole and count % mesh.size == 0, mesh.devices.flat[0].platform != "cpu")


def axes(state: Any) -> Any:
  """For every leaf of a state of many seeds the axis of the seeds, 0; None for ``state.step``, which they share."""
  return jax.tree.map(lambda shared: None if shared else 0, is_shared(state))


def is_shared(state: Any) -> Any:
  """Which leaf of a state is ``state.step``: all seeds have made as many updates, whatever they have learnt."""
  step = getattr(state, "step", None)
  return jax.tree.map(lambda leaf: leaf is step, state)


def one_seed(tree: Tree, index: int) -> Tree:
  """The state (or the params) of one seed out of those of many.

  Args:
    tree: what ``ilx.train(..., seeds=S)`` returns, or a part of it: leaves ``[S, ...]``, and ``state.step``, ``[]``.
    index: which of the seeds, from 0: that of ``seed + index``.

  Raises:
    IndexError: where there are not so many seeds.
    ValueError: for a tree that is one seed's alone.
  """
  counts = {len(x) for x in jax.tree.leaves(tree) if x.ndim}
  if len(counts) > 1:
    raise ValueError("one_seed: the leaves have no common leading axis; expected the state of a run of many seeds")
  count = max(counts, default=0)
  if not 0 <= index < count:
    raise IndexError(f"one_seed: index={index}; there are {count} seeds, from 0")
  return jax.tree.map(lambda x: x[index] if x.ndim else x, tree)


def partition(seeds: Seeds | None) -> PartitionSpec:
  """Of arrays with the seeds' axis first."""
  return PartitionSpec(mesh_lib.AXES) if seeds and seeds.spread else PartitionSpec()


def partitions(state: Any, seeds: Seeds) -> Any:
  """Of every leaf of a state of many seeds."""
  return jax.tree.map(lambda shared: PartitionSpec() if shared else partition(seeds), is_shared(state))


def served(seeds: Seeds, mesh: Mesh) -> list[int]:
  """The seeds, from 0, whose batches this host has to make."""
  everywhere = NamedSharding(mesh, partition(seeds)).addressable_devices_indices_map((seeds.count,))
  return sorted({seed for (part,) in everywhere.values() for seed in range(seeds.count)[part]})


def stacked(state: Any, seeds: Seeds, mesh: Mesh) -> Any:
  """Shapes and shardings of the states of all seeds as one, given one seed's.

  Where seeds are not spread, leaves are divided as those of one seed are, and the axis of the seeds is not.
  """

  def leaf(shared: bool, spec: PartitionSpec, x: Any) -> jax.ShapeDtypeStruct:
    own = getattr(x.sharding, "spec", PartitionSpec())
    if own and not (shared or seeds.spread):
      spec = PartitionSpec(None, *own)
    shape = x.shape if shared else (seeds.count, *x.shape)
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=NamedSharding(mesh, spec))

  return jax.tree.map(leaf, is_shared(state), partitions(state, seeds), state)


def stack(states: Sequence[Any], seeds: Seeds, mesh: Mesh) -> Any:
  """One state of many, on the devices where its seeds are computed."""
  shardings = jax.tree.map(lambda x: x.sharding, stacked(states[0], seeds, mesh))
  shared = is_shared(states[0])

  def joined(states):
    return jax.tree.map(lambda shared, *x: x[0] if shared else jnp.stack(x), shared, *states)

  return jax.jit(joined, out_shardings=shardings)(states)

"""One mesh for everything: axes ``data``, ``fsdp`` and ``tensor``."""

import math
from collections.abc import Collection, Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ilx.types import Array, Tree

AXES = ("data", "fsdp", "tensor")
# Those among whose devices a batch is divided.
BATCH_AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
  """A mesh over all devices, in the order of `jax.make_mesh` where with it the hosts' parts of a batch lie together.

  Batches are placed by `batch_sharding`, states by the rules of `placement`. What it makes is a ``jax.sharding.Mesh``,
  for which a function of the name ``Mesh`` would be taken.

  Args:
    data: copies of the parameters that each see a part of the batch; -1 for as many as there are devices left.
    fsdp: devices that each see a part of the batch, and over which parameters can be divided.
    tensor: devices that see the same part of the batch, and over which parameters can be divided.

  Raises:
    ValueError: when the sizes do not multiply to the number of devices.
  """
  count = len(jax.devices())
  fixed = fsdp * tensor
  if data == -1 and fixed > 0 and count % fixed == 0:
    data = count // fixed
  if min(data, fsdp, tensor) < 1 or math.prod((data, fsdp, tensor)) != count:
    raise ValueError(f"mesh: data={data} x fsdp={fsdp} x tensor={tensor} is not the number of devices, {count}")
  auto = (AxisType.Auto,) * len(AXES)  # the compiler places intermediate values (GSPMD)
  mesh = jax.make_mesh((data, fsdp, tensor), AXES, axis_types=auto)
  try:
    share(mesh)
  except ValueError:
    # Neighbours in the network of a TPU's chips may be of different hosts; a host makes its part of a batch as a whole.
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    mesh = Mesh(np.array(devices).reshape(data, fsdp, tensor), AXES, axis_types=auto)
  return mesh


def check_axes(mesh: Mesh) -> None:
  """Raises ValueError unless it is a mesh with the axes of `make_mesh`."""
  if not isinstance(mesh, Mesh):
    raise ValueError(f"mesh is a {type(mesh).__name__}; expected a jax.sharding.Mesh, as of ilx.parallel.make_mesh")
  if set(mesh.axis_names) != set(AXES):
    raise ValueError(f"mesh: its axes are {mesh.axis_names}; expected {AXES}, as of ilx.parallel.make_mesh")
  if set(mesh.axis_types) != {AxisType.Auto}:
    raise ValueError(f"mesh: its axes are {mesh.axis_types}; expected all Auto, as of ilx.parallel.make_mesh")


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def everywhere(tree: Tree, mesh: Mesh) -> Tree:
  """Arrays that every process has alike, whole on every device of the mesh."""
  sharding = replicated(mesh)
  if sharding.is_fully_addressable:
    return jax.device_put(tree, sharding)

  def leaf(x: Array) -> jax.Array:
    # `jax.device_put` would send them all to every process, to see whether they are the same.
    x = np.asarray(x)
    x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype), copy=False)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

  return jax.tree.map(leaf, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis is divided among the devices of ``data`` and ``fsdp``."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def share(mesh: Mesh) -> tuple[int, int]:
  """``(h, H)``: the devices of this process hold part h, from 0, of H equal parts of every batch.

  H is the number of processes, or less: those whose devices differ in ``tensor`` alone hold the same part.

  Raises:
    ValueError: in every process, where one holds items that do not lie together, or more than another.
  """
  count = mesh.shape["data"] * mesh.shape["fsdp"]
  held: dict[int, set[int]] = {}
  for device, (part,) in batch_sharding(mesh).devices_indices_map((count,)).items():
    held.setdefault(device.process_index, set()).add(part.indices(count)[0])
  return shares(held, count)[jax.process_index()]


def shares(held: Mapping[int, Collection[int]], count: int) -> dict[int, tuple[int, int]]:
  """`share` of every process, given which of ``count`` parts it holds."""
  size = len(next(iter(held.values())))
  for process, parts in held.items():
    first = min(parts)
    if sorted(parts) != list(range(first, first + size)) or first % size:
      raise ValueError(
        f"mesh: the devices of process {process} hold parts {sorted(parts)} of {count} of a batch; order the devices "
        "such that each process holds as many, side by side, as in ilx.parallel.make_mesh"
      )
  return {process: (min(parts) // size, count // size) for process, parts in held.items()}


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
  """Raises ValueError, naming the nearest sizes that fit, unless the batch divides evenly."""
  parts = mesh.shape["data"] * mesh.shape["fsdp"]
  if batch_size < 1 or batch_size % parts:
    below = batch_size // parts * parts
    near = f"{below} or {below + parts}" if below > 0 else f"{parts}"
    raise ValueError(f"batch_size={batch_size} does not divide among {parts} devices; use {near}")

"""One mesh for everything: axes ``data``, ``fsdp`` and ``tensor``."""

import math

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")
# Those among whose devices a batch is divided.
BATCH_AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
  """A mesh over all devices.

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
  # Auto: the compiler places intermediate values (GSPMD).
  return jax.make_mesh((data, fsdp, tensor), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_axes(mesh: Mesh) -> None:
  """Raises ValueError unless the mesh has the axes of `make_mesh`."""
  if set(mesh.axis_names) != set(AXES):
    raise ValueError(f"mesh: its axes are {mesh.axis_names}; expected {AXES}, as of ilx.parallel.make_mesh")


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis is divided among the devices of ``data`` and ``fsdp``."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def check_batch_size(mesh: Mesh, batch_size: int) -> None:
  """Raises ValueError, naming the nearest sizes that fit, unless the batch divides evenly."""
  parts = mesh.shape["data"] * mesh.shape["fsdp"]
  if batch_size < 1 or batch_size % parts:
    below = batch_size // parts * parts
    near = f"{below} or {below + parts}" if below > 0 else f"{parts}"
    raise ValueError(f"batch_size={batch_size} does not divide among {parts} devices; use {near}")

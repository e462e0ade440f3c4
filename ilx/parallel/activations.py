"""Where activations live while parameters are divided: with the items of the batch that they belong to.

The compiler places intermediate values by what they are made from. Where a parameter is divided over ``fsdp`` and the
batch is, too, it may as well divide features and send activations around, which are larger than parameters. Networks
that are large say with `batch` that it is not to be so; parameters are then gathered where they are used.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilx.parallel import mesh as mesh_lib

_MESH: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("activations", default=None)


@contextlib.contextmanager
def on(mesh: Mesh) -> Iterator[None]:
  """What is traced within has its activations on ``mesh``; without parameters to divide nothing is changed."""
  token = _MESH.set(mesh if mesh.shape["fsdp"] * mesh.shape["tensor"] > 1 else None)
  try:
    yield
  finally:
    _MESH.reset(token)


def batch(x: jax.Array) -> jax.Array:
  """Activations ``[B, ...]``: B divided among the devices of ``data`` and ``fsdp`` where it can be, the rest whole."""
  mesh = _MESH.get()
  if mesh is None or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
    return x
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(mesh_lib.BATCH_AXES)))

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding

from ilx import parallel
from ilx.parallel import mesh as mesh_lib


def test_default_is_data_parallel_over_all_devices():
  mesh = parallel.make_mesh()
  assert dict(mesh.shape) == {"data": len(jax.devices()), "fsdp": 1, "tensor": 1}


def test_data_takes_what_is_left():
  assert dict(parallel.make_mesh(fsdp=2, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}


@pytest.mark.parametrize("sizes", [{"data": 3}, {"fsdp": 3}, {"data": 16}, {"fsdp": 0}, {"fsdp": -1}])
def test_sizes_must_fit_the_devices(sizes):
  with pytest.raises(ValueError, match="number of devices, 8"):
    parallel.make_mesh(**sizes)


def test_batch_is_divided_and_the_rest_replicated():
  mesh = parallel.make_mesh(data=4, fsdp=2)
  x = jnp.zeros((16, 3))
  assert jax.device_put(x, parallel.batch_sharding(mesh)).addressable_shards[0].data.shape == (2, 3)
  assert jax.device_put(x, parallel.replicated(mesh)).addressable_shards[0].data.shape == (16, 3)


@pytest.mark.parametrize(("sizes", "order", "expected"), [
  ({}, range(8), [(0, 2), (1, 2)]),
  ({}, range(8)[::-1], [(1, 2), (0, 2)]),
  ({"fsdp": 2, "tensor": 2}, range(8), [(0, 2), (1, 2)]),
  ({"tensor": 8}, range(8), [(0, 1), (0, 1)]),
  ({"fsdp": 2, "tensor": 4}, [0, 1, 4, 5, 2, 3, 6, 7], [(0, 1), (0, 1)]),
])  # fmt: skip
def test_processes_hold_parts_of_a_batch(sizes, order, expected, monkeypatch):
  """Of two processes with four devices each."""
  mesh = parallel.make_mesh(**sizes)
  mesh = Mesh(np.array(jax.devices())[list(order)].reshape(mesh.devices.shape), mesh_lib.AXES)
  where = NamedSharding.devices_indices_map
  for process in range(2):
    own = set(jax.devices()[4 * process : 4 * process + 4])
    monkeypatch.setattr(
      NamedSharding,
      "addressable_devices_indices_map",
      lambda self, shape, own=own: {device: index for device, index in where(self, shape).items() if device in own},
    )
    assert mesh_lib.share(mesh) == expected[process]


def test_parts_that_do_not_lie_together_are_refused(monkeypatch):
  parts = {i: (slice(i, i + 1),) for i in (0, 2)}
  monkeypatch.setattr(NamedSharding, "addressable_devices_indices_map", lambda self, shape: parts)
  with pytest.raises(ValueError, match=r"hold parts \[0, 2\] of 8 of a batch; order the devices"):
    mesh_lib.share(parallel.make_mesh())


def test_batch_size_errors_name_sizes_that_fit():
  mesh = parallel.make_mesh()
  mesh_lib.check_batch_size(mesh, 64)
  with pytest.raises(ValueError, match="batch_size=100 does not divide among 8 devices; use 96 or 104"):
    mesh_lib.check_batch_size(mesh, 100)
  with pytest.raises(ValueError, match="use 8"):
    mesh_lib.check_batch_size(mesh, 3)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

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


@pytest.mark.parametrize(
  ("held", "count", "expected"),
  [
    ({0: {0, 1, 2, 3}, 1: {4, 5, 6, 7}}, 8, {0: (0, 2), 1: (1, 2)}),
    ({0: {2, 3}, 1: {0, 1}}, 4, {0: (1, 2), 1: (0, 2)}),  # devices in another order than processes
    ({0: {0}, 1: {0}}, 1, {0: (0, 1), 1: (0, 1)}),  # a tensor axis over both
    ({0: {0}, 1: {0}, 2: {1}, 3: {1}}, 2, {0: (0, 2), 1: (0, 2), 2: (1, 2), 3: (1, 2)}),
    ({0: {0, 1}, 1: {0, 1}}, 2, {0: (0, 1), 1: (0, 1)}),
  ],
)
def test_processes_hold_parts_of_a_batch(held, count, expected):
  assert mesh_lib.shares(held, count) == expected


@pytest.mark.parametrize(
  ("held", "count", "process"),
  [
    ({0: {0, 2}, 1: {1, 3}}, 4, 0),
    ({0: {0, 1}, 1: {2, 4}, 2: {3, 5}}, 6, 1),
    ({0: {0, 1, 2, 3}, 1: {4, 5}, 2: {6, 7}}, 8, 1),
    ({0: {0}, 1: {1, 2}, 2: {3}}, 4, 1),
  ],
)
def test_parts_that_do_not_lie_together_are_refused_by_all(held, count, process):
  with pytest.raises(ValueError, match=rf"process {process} hold parts .* of {count} of a batch; order the devices"):
    mesh_lib.shares(held, count)


def test_processes_are_in_order_where_a_batch_would_be_scattered(monkeypatch):
  """As on TPUs, whose neighbouring chips may be of different hosts."""
  devices = jax.devices()

  def by_network(shape, names, axis_types):
    return Mesh(np.array(devices[::2] + devices[1::2]).reshape(shape), names, axis_types=axis_types)

  def share(mesh):
    if [device.id for device in mesh.devices.flat] != sorted(device.id for device in devices):
      raise ValueError("scattered")

  monkeypatch.setattr(jax, "make_mesh", by_network)
  assert parallel.make_mesh(fsdp=2).devices.flat[1] == devices[2]  # of one host nothing is scattered
  monkeypatch.setattr(mesh_lib, "share", share)
  mesh = parallel.make_mesh(fsdp=2)
  assert list(mesh.devices.flat) == devices and dict(mesh.shape) == {"data": 4, "fsdp": 2, "tensor": 1}
  mesh_lib.check_axes(mesh)


def test_one_process_holds_all_of_a_batch():
  assert mesh_lib.share(parallel.make_mesh(fsdp=2, tensor=2)) == (0, 1)


def test_batch_size_errors_name_sizes_that_fit():
  mesh = parallel.make_mesh()
  mesh_lib.check_batch_size(mesh, 64)
  with pytest.raises(ValueError, match="batch_size=100 does not divide among 8 devices; use 96 or 104"):
    mesh_lib.check_batch_size(mesh, 100)
  with pytest.raises(ValueError, match="use 8"):
    mesh_lib.check_batch_size(mesh, 3)


def test_parts_of_two_processes_do_not_overlap():
  with pytest.raises(ValueError, match="process 1 hold parts"):
    mesh_lib.shares({0: {0, 1}, 1: {1, 2}, 2: {2, 3}}, 4)


def test_batches_divide_among_data_and_fsdp():
  mesh = parallel.make_mesh(data=2, fsdp=4)
  mesh_lib.check_batch_size(mesh, 8)
  with pytest.raises(ValueError, match="does not divide among 8 devices"):
    mesh_lib.check_batch_size(mesh, 4)

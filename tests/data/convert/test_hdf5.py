import multiprocessing
import os
import pickle

import h5py
import numpy as np
import pytest

from ilx.data.convert import fields
from ilx.data.convert.hdf5 import File


@pytest.fixture
def path(tmp_path):
  with h5py.File(tmp_path / "a.hdf5", "w") as file:
    file["rows"] = np.arange(20.0).reshape(10, 2)
    file.create_dataset("packed", data=np.zeros((5000, 3)), compression="gzip")
    file["group/deep/number"] = np.int32(7)
    file["text"] = ["a", "bc"]
    file["group"].attrs.update({"name": "Ann", "count": np.int64(3), "raw": np.bytes_(b"x")})
  return tmp_path / "a.hdf5"


def change(path, function):
  with h5py.File(path, "a") as file:
    function(file)
  return File(path)


@pytest.mark.parametrize("keep", [False, True])
def test_reads(path, keep):
  file = File(path, keep=keep)
  for _ in range(2):
    np.testing.assert_array_equal(file.read("rows", 3, 5), [[6, 7], [8, 9]])
  assert file.read("group/deep/number") == 7 and file.read("text").tolist() == [b"a", b"bc"]
  assert file.names() == ["group", "packed", "rows", "text"] and file.datasets("group") == ["deep/number"]
  assert [file.kind(name) for name in ("group", "rows", "absent", "rows/x")] == [
    "group",
    "dataset",
    "nothing",
    "nothing",
  ]
  assert file.attributes("group") == ["count", "name", "raw"]
  assert [file.attribute("group", name) for name in ("name", "count", "raw", "absent")] == ["Ann", 3, "x", None]
  assert (file.shape("packed"), file.dtype("rows")) == ((5000, 3), np.float64)


def second_row(file):
  return file.read("rows", 1, 2).tolist()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reads_in_other_processes(path, method):
  file = File(path, keep=True)
  assert file.read("rows").shape == (10, 2)
  assert len(pickle.dumps(file)) < 300
  with multiprocessing.get_context(method).Pool(1) as pool:
    assert pool.apply_async(second_row, (file,)).get(120) == [[2.0, 3.0]]


inherited: list[File] = []


def inherited_reads():
  return inherited[0].read("rows", 1, 2).tolist(), inherited[0]._opened[0] == os.getpid()


def test_a_forked_process_opens_the_file_again(path):
  inherited[:] = [File(path, keep=True)]
  inherited[0].read("rows")
  with multiprocessing.get_context("fork").Pool(1) as pool:
    assert pool.apply_async(inherited_reads).get(120) == ([[2.0, 3.0]], True)


def test_what_is_not_there(path):
  file = File(path)
  for name, message in [
    ("rows/x", "has no 'rows/x'"),
    ("group", "'group' is no dataset"),
    ("absent", "has no 'absent'"),
  ]:
    with pytest.raises(ValueError, match=rf"a.hdf5: {message}"):
      file.read(name)
  with pytest.raises(ValueError, match="'rows' is no group"):
    file.names("rows")


def test_nothing_outside_the_file_is_read(path, tmp_path):
  secret = tmp_path / "secret.hdf5"
  with h5py.File(secret, "w") as file:
    file["rows"] = np.ones(3)
  (tmp_path / "raw.bin").write_bytes(bytes(80))

  def link(file):
    file["external"] = h5py.ExternalLink(str(secret), "/rows")
    file["soft"] = h5py.SoftLink("/rows")
    layout = h5py.VirtualLayout((3,), float)
    layout[:] = h5py.VirtualSource(str(secret), "rows", (3,))
    file.create_virtual_dataset("virtual", layout)
    file.create_dataset("raw", (10,), float, external=[(str(tmp_path / "raw.bin"), 0, 80)])

  file = change(path, link)
  for name in ("external", "soft"):
    with pytest.raises(ValueError, match=f"'{name}' is a link elsewhere"):
      file.read(name)
  for name in ("virtual", "raw"):
    with pytest.raises(ValueError, match=f"dataset '{name}' is kept in other files"):
      file.read(name)


def test_more_than_the_file_can_hold(path):
  def claim(file):
    file.create_dataset("huge", (1 << 40,), np.float64, chunks=(1 << 16,), compression="gzip")
    file.create_dataset("unwritten", (1 << 40,), np.float64, chunks=(1 << 20,))
    chunk = file.create_dataset("chunk", (10,), np.float64, chunks=(1 << 24,), maxshape=(None,), compression="gzip")
    chunk[:] = 1

  file = change(path, claim)
  for name in ("huge", "unwritten"):
    with pytest.raises(ValueError, match=rf"a.hdf5: dataset '{name}' declares 8796093022208 bytes"):
      file.shape(name)
  assert file.read("packed").nbytes == 120_000  # zeros are packed a thousandfold


def test_damage(path, tmp_path):
  content = path.read_bytes()
  for size in (0, 8, len(content) // 2, len(content) - 1):
    path.write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"a.hdf5: not an HDF5 file, or a damaged one"):
      File(path).names()
  with pytest.raises(FileNotFoundError):
    File(tmp_path / "absent.hdf5").names()
  with pytest.raises(IsADirectoryError):
    File(tmp_path).names()


def test_a_damaged_chunk(tmp_path):
  path = tmp_path / "a.hdf5"
  with h5py.File(path, "w") as file:
    data = np.random.default_rng(0).normal(size=(1000, 3))
    place = (
      file.create_dataset("rows", data=data, compression="gzip", chunks=(1000, 3)).id.get_chunk_info(0).byte_offset
    )
  content = bytearray(path.read_bytes())
  content[place + 1000] ^= 0xFF
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r"a.hdf5: dataset 'rows' cannot be read"):
    File(path).read("rows")


def test_circles_of_groups(path):
  def circle(file):
    file["group/again"] = file["group"]

  with pytest.raises(ValueError, match="nested too deeply"):
    change(path, circle).datasets("group")


def test_fields():
  assert fields.numbers(np.arange(3), "x").dtype == np.int32
  assert fields.numbers(np.ones(3, np.float16), "x", 3).dtype == np.float32
  for value, message in [
    (np.array([1, 1 << 40]), "x has integers outside int32"),
    (np.array([1.0, np.nan]), "x is NaN or infinite in float32 at step 1"),
    (np.array([1e300]), "x is NaN or infinite"),
    (np.array(["a"]), "expected numbers"),
    (np.float32(1), "expected numbers"),
  ]:
    with pytest.raises(ValueError, match=message):
      fields.numbers(value, "x")
  with pytest.raises(ValueError, match=r"expected numbers \[4, ...\]"):
    fields.numbers(np.ones(3), "x", 4)
  with pytest.raises(ValueError, match="expected one number a step"):
    fields.vector(np.ones((3, 2)), "x")
  with pytest.raises(ValueError, match="a further field is named 'reward'"):
    fields.complete(np.ones((2, 1)), None, np.ones((2, 1)), np.ones(2), terminal=True, extras={"reward": np.ones(2)})
  assert fields.nested({"a/b": 1, "a/c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}

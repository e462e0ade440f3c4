import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from ilx.data.convert import archive


def npy(array, shape=None) -> bytes:
  """The bytes of an npy file, optionally with a header that claims another shape."""
  out = io.BytesIO()
  header = np.lib.format.header_data_from_array_1_0(array)
  np.lib.format.write_array_header_1_0(out, header | ({} if shape is None else {"shape": shape}))
  return out.getvalue() + array.tobytes()


def zipped(path, members: dict[str, bytes], compression=zipfile.ZIP_DEFLATED):
  with zipfile.ZipFile(path, "w", compression) as file:
    for name, data in members.items():
      file.writestr(f"{name}.npy", data)
  return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_wrote(tmp_path, save):
  path = tmp_path / "a.npz"
  arrays = {
    "x": np.arange(6.0).reshape(2, 3),
    "flags": np.array([True, False]),
    "meta": np.array("{}"),
    "e": np.zeros(0),
  }
  save(path, **arrays)
  assert archive.keys(path) == ["e", "flags", "meta", "x"]
  loaded = archive.load(path, ["x", "flags", "meta", "e"])
  for key, value in arrays.items():
    np.testing.assert_array_equal(loaded[key], value)
    assert loaded[key].dtype == value.dtype


def test_missing_file_and_key(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file"):
    archive.keys(tmp_path / "none.npz")
  np.savez(tmp_path / "a.npz", x=np.zeros(2))
  with pytest.raises(KeyError, match="no array 'y'"):
    archive.load(tmp_path / "a.npz", ["y"])


def test_not_an_npz(tmp_path):
  (tmp_path / "a.npz").write_bytes(b"not a zip at all")
  with pytest.raises(ValueError, match=r"a\.npz: not an npz file"):
    archive.keys(tmp_path / "a.npz")


def test_object_arrays_are_refused_unread(tmp_path):
  np.savez(tmp_path / "a.npz", infos=np.array([{"a": 1}], object), x=np.zeros(2))
  with pytest.raises(ValueError, match="'infos' holds pickled Python objects"):
    archive.load(tmp_path / "a.npz", ["infos"])
  assert archive.load(tmp_path / "a.npz", ["x"])["x"].shape == (2,)


def test_structured_arrays_are_refused(tmp_path):
  np.savez(tmp_path / "a.npz", x=np.zeros(2, [("a", "f4")]))
  with pytest.raises(ValueError, match="array 'x' has dtype"):
    archive.load(tmp_path / "a.npz", ["x"])


@pytest.mark.parametrize("shape", [(10**9, 100), (1,), (-2, -3)])
def test_a_header_that_lies_about_its_size(tmp_path, shape):
  path = zipped(tmp_path / "a.npz", {"x": npy(np.zeros((2, 3)), shape)})
  tracemalloc.start()
  with pytest.raises(ValueError, match="array 'x' declares shape"):
    archive.load(path, ["x"])
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 1 << 20


def test_a_directory_that_lies_about_its_size(tmp_path):
  # header and directory agree on 8 GB, which 100 bytes on disk cannot hold
  path = zipped(tmp_path / "a.npz", {"x": npy(np.zeros(2), (10**9,))})
  data = bytearray(path.read_bytes())
  entry = data.index(b"PK\x01\x02")
  data[entry + 24 : entry + 28] = struct.pack("<I", 128 + 8 * 10**8)
  path.write_bytes(data)
  with pytest.raises(ValueError, match="more than the file of"):
    archive.load(path, ["x"])


def test_a_bomb_is_refused_by_its_total(tmp_path):
  np.savez_compressed(tmp_path / "a.npz", x=np.zeros(200_000), y=np.zeros(200_000))
  assert len(archive.load(tmp_path / "a.npz", ["x"], max_bytes=2_000_000)) == 1
  with pytest.raises(ValueError, match="more than max_bytes=2000000"):
    archive.load(tmp_path / "a.npz", ["x", "y"], max_bytes=2_000_000)


def test_a_flipped_byte_and_a_truncated_file(tmp_path):
  path = tmp_path / "a.npz"
  np.savez(path, x=np.arange(1000.0))
  data = bytearray(path.read_bytes())
  data[4000] ^= 0xFF
  path.write_bytes(data)
  with pytest.raises(ValueError, match=r"a\.npz: array 'x' cannot be read"):
    archive.load(path, ["x"])
  path.write_bytes(data[:-400])
  with pytest.raises(ValueError, match=r"a\.npz"):
    archive.load(path, ["x"])


def test_other_compressions_are_refused(tmp_path):
  path = zipped(tmp_path / "a.npz", {"x": npy(np.zeros(2))}, zipfile.ZIP_LZMA)
  with pytest.raises(ValueError, match="compressed in a way"):
    archive.load(path, ["x"])


def test_no_damage_gets_past_as_another_error(tmp_path):
  path = tmp_path / "a.npz"
  np.savez_compressed(path, x=np.arange(20.0), flags=np.zeros(20, bool))
  intact, rng = path.read_bytes(), np.random.default_rng(0)
  refused = 0
  for _ in range(300):
    damaged = bytearray(intact)
    damaged[rng.integers(len(damaged))] ^= int(rng.integers(1, 256))
    path.write_bytes(damaged)
    try:
      archive.load(path, [key for key in archive.keys(path) if key in ("x", "flags")])
    except ValueError as error:
      assert str(path) in str(error)  # noqa: PT017
      refused += 1
  assert refused > 100

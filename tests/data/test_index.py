import errno
import hashlib
import os
import sys
import threading

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ilx
from ilx.data import index, index_format, rlds
from ilx.data.rlds import Selection
from ilx.data.statistics import QUANTILES

_LENGTHS = (3, 1, 5, 2, 4)


def _record(root, name="fake", image=None, lengths=_LENGTHS, num_actions=None):
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(root, name=name, metadata={}, episodes_per_shard=2) as recorder:
    for number, length in enumerate(lengths):
      observation = {"state": rng.standard_normal((length + 1, 3)).astype(np.float32)}
      if image is not None:
        observation["image"] = rng.integers(0, 256, (length + 1, *image), np.uint8)
      action = rng.standard_normal((length, 2)).astype(np.float32)
      if num_actions:
        action = rng.integers(0, num_actions, length, np.int32)
      episode = ilx.data.episode(observation, action, rng.standard_normal(length), terminal=number % 2 == 0)
      # What stands in the last row must not count.
      episode["action"][-1] = 77
      episode["reward"][-1] = 99
      recorder.add(episode)
  return rlds.read_info(recorder.path)


def _kept(info):
  return sorted(path for path in (info.directory / ".ilx").rglob("index-*") if path.suffix != ".lock")


def _assert_same(a, b):
  """Equal but for quantiles, which roll dice where there are many rows (here there are few)."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    if isinstance(x, jax.ShapeDtypeStruct):
      assert x == y
    else:
      np.testing.assert_array_equal(x, y)
      assert np.asarray(x).dtype == np.asarray(y).dtype


def test_says_what_the_loaded_data_say(tmp_path):
  info = _record(tmp_path)
  found, data = index.read(info), ilx.data.load(info.directory)
  assert found.length.tolist() == list(_LENGTHS)
  np.testing.assert_array_equal(found.episode_return, ilx.data.returns(data))
  assert found.is_terminal.tolist() == [True, False, True, False, True]
  assert (found.num_episodes, found.num_steps) == (5, 20)
  assert found.observation == {"state": jax.ShapeDtypeStruct((3,), np.float32)}
  assert found.action == jax.ShapeDtypeStruct((2,), np.float32)
  for name, values in (
    ("observation", data.observation["state"]),
    ("action", data.action[data.rows]),
    ("reward", data.reward[data.rows]),
  ):
    statistics = found.statistics[name]
    values = values.astype(np.float64)
    mean, std = (x["state"] if name == "observation" else x for x in (statistics.mean, statistics.std))
    assert statistics.count == len(values)
    np.testing.assert_allclose(mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(axis=0), rtol=1e-12)
  np.testing.assert_array_equal(found.statistics["action"].max, data.action[data.rows].max(axis=0))
  # Exact for few rows.
  quantiles = np.quantile(data.reward[data.rows], QUANTILES, method="inverted_cdf")
  np.testing.assert_array_equal(found.statistics["reward"].quantiles, quantiles)


@pytest.mark.parametrize("records", [1, 2, 3])
def test_the_same_bits_however_it_is_read(tmp_path, monkeypatch, records):
  info = _record(tmp_path, image=(40, 40, 3))
  monkeypatch.setattr(sys.modules["ilx.data.statistics"], "SAMPLE", 3)  # of which episodes, is not the reader's choice
  whole = index.build(info)
  monkeypatch.setattr(index, "_RECORDS", records)
  _assert_same(index.build(info), whole)
  monkeypatch.setattr(index, "_BYTES", 1)
  _assert_same(index.build(info), whole)


def test_kept_and_read_again(tmp_path, monkeypatch):
  info = _record(tmp_path, image=(4, 4, 3))
  seen = []
  first = index.read(info, progress=lambda episodes, steps: seen.append((episodes, steps)))
  assert seen == [(5, 20)]
  monkeypatch.setattr(index, "build", lambda *_: pytest.fail("built again"))
  _assert_same(index.read(info), first)
  _assert_same(index.read(info, "train[:100%]", Selection(lazy=True, extras=("reward",))), first)
  assert len(_kept(info)) == 1


def test_kept_by_split_and_selection(tmp_path):
  info = _record(tmp_path, image=(4, 4, 3))
  part = index.read(info, "train[1:3]")
  assert part.length.tolist() == [1, 5]
  state = index.read(info, selection=Selection(observation="observation/state"))
  assert state.observation == jax.ShapeDtypeStruct((3,), np.float32)
  assert index.read(info).num_episodes == 5
  assert len(_kept(info)) == 3


def test_another_state_of_the_dataset_has_another_index(tmp_path):
  info = _record(tmp_path)
  index.read(info)
  shard = info.splits["train"].files[0]
  shard.touch()
  index.read(info)
  assert len(_kept(info)) == 2


@pytest.mark.parametrize("place", [0, 30, 70, -3, "cut", "empty"])
def test_a_damaged_one_is_named_and_made_anew(tmp_path, place):
  info = _record(tmp_path)
  first = index.read(info)
  (path,) = _kept(info)
  content = bytearray(path.read_bytes())
  if isinstance(place, int):
    content[place] ^= 1
  path.write_bytes({"cut": content[:-5], "empty": b""}.get(place, content))
  with pytest.warns(UserWarning, match=f"{path} is damaged"):
    again = index.read(info)
  _assert_same(again, first)
  _assert_same(index.read(info), first)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_mutation_goes_unnoticed(data):
  content = bytearray(index_format.encode(_index()))
  for _ in range(data.draw(st.integers(1, 3))):
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
  if bytes(content) != index_format.encode(_index()):
    with pytest.raises(ValueError, match="checksum"):
      index_format.decode(bytes(content))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_a_right_checksum_covers_is_checked_too(data):
  """Somebody's own file: an index or a ValueError, whatever it says."""
  _, body = index_format.encode(_index()).split(b"\n", 1)
  body = bytearray(body)
  for _ in range(data.draw(st.integers(1, 3))):
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.sampled_from(b'0123456789-{}[]",:e.<ix \xff'))
  content = hashlib.sha256(body).hexdigest().encode() + b"\n" + bytes(body)
  try:
    found = index_format.decode(content)
  except ValueError:
    return
  assert found.length.nbytes <= len(content)


@pytest.mark.parametrize("size", ["1e400", "1" + "0" * 30, "-1", '"x"', "[1]", "null", "[" * 100_000])
def test_sizes_that_are_none(size):
  _, body = index_format.encode(_index()).split(b"\n", 1)
  changed = body.replace(b'"kept": [2]', b'"kept": [' + size.encode() + b"]", 1)
  assert changed != body
  with pytest.raises(ValueError):  # noqa: PT011 (whichever)
    index_format.decode(hashlib.sha256(changed).hexdigest().encode() + b"\n" + changed)


@pytest.mark.parametrize(
  ("old", "new"),
  [
    (b'"shape": [2], "kept": [2]', b'"shape": [3], "kept": [2]'),
    (b'"dtype": "<i8"', b'"dtype": "<f8"'),
    (b'"dtype": "<f4"', b'"dtype": "04,f4"'),  # which NumPy would evaluate
    (b'"shape": [2]}', b'"shape": ["a"]}'),
    (b'"version": 2', b'"version": 3'),
  ],
)
def test_what_it_says_of_itself_is_checked(old, new):
  _, body = index_format.encode(_index()).split(b"\n", 1)
  assert old in body
  changed = body.replace(old, new, 1)
  with pytest.raises(ValueError):  # noqa: PT011 (whichever)
    index_format.decode(hashlib.sha256(changed).hexdigest().encode() + b"\n" + changed)


def _index():
  statistics = ilx.data.statistics(np.array([[1.0, 2.0], [3.0, 5.0]]))
  leaf = jax.ShapeDtypeStruct((2,), np.float32)
  length = np.array([1, 2])
  return index.Index(length, length * 0.5, length > 1, {"observation": statistics}, {"x": leaf}, leaf)


def test_one_of_several_makes_it(tmp_path, monkeypatch):
  info = _record(tmp_path)
  built, found = [], []
  build = index.build
  monkeypatch.setattr(index, "build", lambda *args: built.append(1) or build(*args))
  threads = [threading.Thread(target=lambda: found.append(index.read(info))) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert (len(built), len(found)) == (1, 4)
  for other in found[1:]:
    _assert_same(other, found[0])


def test_an_interrupted_one_leaves_nothing(tmp_path, monkeypatch):
  info = _record(tmp_path)

  def interrupt(*_):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    index.read(info, progress=interrupt)
  monkeypatch.setattr(index.derived.files, "sync_folder", interrupt)
  monkeypatch.setattr(index.derived.os, "fsync", interrupt)
  with pytest.raises(KeyboardInterrupt):
    index.read(info)
  assert _kept(info) == []


def test_what_a_killed_process_left_is_removed(tmp_path):
  info = _record(tmp_path)
  path = index.where(info)
  left = path.with_name(f"{path.name}.0123abcd.incomplete")
  left.parent.mkdir(parents=True)
  left.write_bytes(b"part")
  index.read(info)
  assert _kept(info) == [path]


def test_a_dataset_that_changes_meanwhile_has_no_index(tmp_path):
  info = _record(tmp_path)
  with pytest.raises(ValueError, match="changed while it was read"):
    index.read(info, progress=lambda *_: info.splits["train"].files[0].touch())
  assert _kept(info) == []


def test_where_it_cannot_be_written(tmp_path):
  info = _record(tmp_path)
  (info.directory / ".ilx").write_text("in the way")
  with pytest.warns(UserWarning, match=r"cannot write .*index-.*Not a directory"):
    found = index.read(info)
  _assert_same(found, index.build(info))


def test_where_there_is_no_room(tmp_path, monkeypatch):
  info = _record(tmp_path)

  def full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(index.derived.os, "fsync", full)
  with pytest.warns(UserWarning, match=r"cannot write .*index-.*No space left"):
    found = index.read(info)
  _assert_same(found, index.build(info))
  assert _kept(info) == []


def test_a_dataset_that_cannot_be_read_is_no_matter_of_room(tmp_path, monkeypatch):
  info = _record(tmp_path)

  def broken(*_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))

  monkeypatch.setattr(index.rlds, "read_records", broken)
  with pytest.raises(OSError, match="Input/output error"):
    index.read(info)


def test_a_kept_one_serves_those_who_may_only_read(tmp_path, monkeypatch):
  info = _record(tmp_path)
  first = index.read(info)
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path / "root"))
  monkeypatch.setattr(index.derived.os, "access", lambda *_: False)
  monkeypatch.setattr(index, "build", lambda *_: pytest.fail("built again"))
  _assert_same(index.read(info), first)


def test_a_missing_shard_is_named(tmp_path):
  info = _record(tmp_path)
  info.splits["train"].files[1].unlink()
  with pytest.raises(FileNotFoundError, match="00001-of-00003 is missing"):
    index.read(info)


def test_an_unknown_split_is_named(tmp_path):
  info = _record(tmp_path)
  with pytest.raises(ValueError, match=f"{info.directory}: no split 'test'"):
    index.read(info, "test")


def test_discrete_actions(tmp_path):
  found = index.read(_record(tmp_path, num_actions=4))
  assert found.action == jax.ShapeDtypeStruct((), np.int32)
  assert 0 <= found.statistics["action"].min <= found.statistics["action"].max <= 3


def test_large_pictures_are_sampled_and_take_little_room(tmp_path, monkeypatch):
  monkeypatch.setattr(sys.modules["ilx.data.statistics"], "SAMPLE", 10)
  info = _record(tmp_path, image=(100, 100, 3))
  found = index.read(info).statistics["observation"]
  assert found.count == 20
  image = ilx.data.load(info.directory).observation["image"]
  values = image[[0, 2, 4, 5, 6, 9, 13, 14, 16, 18]].astype(np.float64)
  assert found.mean["image"].shape == (100, 100, 3)
  np.testing.assert_allclose(found.mean["image"][0, 0], values.mean(axis=(0, 1, 2)), rtol=1e-12)
  np.testing.assert_allclose(found.std["image"][9, 9], values.std(axis=(0, 1, 2)), rtol=1e-12)
  assert np.isnan(found.quantiles["image"]).all()
  assert not np.isnan(found.quantiles["state"]).any()
  assert _kept(info)[0].stat().st_size < 5000

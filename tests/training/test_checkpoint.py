import errno
import json
import os
import shutil
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.training import manifest
from ilx.training.checkpoint import CheckpointError, Checkpoints, UnusableCheckpoint


def _state(value):
  return {
    "w": jnp.full((3, 2), float(value)),
    "key": jax.random.key(int(value)),
    "none": None,
    "step": jnp.int32(value),
  }


def _plain(state):
  return jax.tree.map(np.asarray, state | {"key": jax.random.key_data(state["key"])})


def _names(path):
  return sorted(p.name for p in path.iterdir())


def _save(path, *steps, **kwargs):
  with Checkpoints(path, **kwargs) as checkpoints:
    for step in steps:
      checkpoints.save(step, _state(step))


def _resume(path):
  """The step resumed from, and the warnings of it."""
  with Checkpoints(path) as checkpoints, warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    step = checkpoints.newest()
    state = checkpoints.restore(step, _state(0))
  chex.assert_trees_all_equal(_plain(state), _plain(_state(step)))
  return step, [str(x.message) for x in caught if x.category is UserWarning]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """Three checkpoints to copy."""
  path = tmp_path_factory.mktemp("checkpoints")
  _save(path, 10, 20, 30)
  return path


@pytest.fixture
def copy(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / "checkpoints")


def test_round_trip_keeps_the_newest(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.newest() is None
    for step in (1, 2, 3):
      checkpoints.save(step, _state(step))
    checkpoints.wait()
    chex.assert_trees_all_equal(_plain(checkpoints.restore(3, _state(0))), _plain(_state(3)))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.newest() == 3
  assert _names(tmp_path) == ["2", "3"]


def test_those_of_certain_steps_stay(tmp_path):
  _save(tmp_path, 5, 10, 15, 20, 25, keep=1, keep_every=10)
  assert _names(tmp_path) == ["10", "20", "25"]


def test_the_state_may_be_donated_at_once(tmp_path):
  overwrite = jax.jit(lambda x: jax.tree.map(lambda y: y * 0 - 1, x), donate_argnums=0)
  state = {"w": jnp.ones((1000, 1000))}
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, state)
    for _ in range(5):
      state = overwrite(state)
    checkpoints.wait()
    restored = checkpoints.restore(1, state)
  assert float(restored["w"].min()) == 1.0


def test_good_ones_are_read_without_a_word(copy):
  assert _resume(copy) == (30, [])


def _files(folder):
  return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_flipped_bit_anywhere_is_seen(copy):
  """In every file, in several places: the manifest's own included."""
  for path in _files(copy / "30"):
    good = path.read_bytes()
    for place in sorted({0, len(good) // 3, len(good) // 2, len(good) - 1}) if good else ():
      path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
      assert manifest.check(copy / "30") is not None, (path, place)
    path.write_bytes(good)
  assert manifest.check(copy / "30") is None


def test_a_missing_or_shorter_file_is_named(copy):
  for path in _files(copy / "30"):
    good = path.read_bytes()
    if good:
      path.write_bytes(good[: len(good) // 2])
      assert path.name in manifest.check(copy / "30")
    path.unlink()
    if path.name != "manifest.json":
      assert f"{path.name} is missing" in manifest.check(copy / "30")
    path.write_bytes(good)


def _flip(folder):
  path = max(_files(folder / "state" / "d"), key=lambda p: p.stat().st_size)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  return path.name


def test_a_damaged_one_is_named_and_kept_and_the_one_before_used(copy):
  name = _flip(copy / "30")
  step, messages = _resume(copy)
  assert step == 20
  assert len(messages) == 1 and str(copy / "30") in messages[0] and f"{name} is damaged" in messages[0]
  assert _names(copy) == ["10", "20", "30.damaged"]
  # The step is saved again, and damaged again: both are kept.
  _save(copy, 30)
  assert _resume(copy) == (30, [])
  _flip(copy / "30")
  assert _resume(copy)[0] == 20
  assert _names(copy) == ["10", "20", "30.damaged", "30.damaged-2"]


def test_several_may_be_damaged(copy):
  _flip(copy / "30")
  (copy / "20" / "state" / "_METADATA").unlink()
  step, messages = _resume(copy)
  assert step == 10 and len(messages) == 2 and "_METADATA is missing" in messages[0]


def test_one_without_its_manifest_was_cut_short(copy):
  (copy / "30" / "manifest.json").unlink()
  step, messages = _resume(copy)
  assert step == 20 and "cut short" in messages[0]
  (copy / "40").mkdir()
  assert _resume(copy)[0] == 20


def test_where_none_is_good_none_is_touched(copy):
  for step in (10, 20, 30):
    _flip(copy / str(step))
  before = {path: path.read_bytes() for path in _files(copy)}
  with Checkpoints(copy) as checkpoints, pytest.raises(CheckpointError, match=r"none was changed") as caught:
    checkpoints.newest()
  assert all(str(copy / str(step)) in str(caught.value) for step in (10, 20, 30))
  assert {path: path.read_bytes() for path in _files(copy)} == before


def test_runs_without_manifests_go_on(copy):
  for step in (10, 20, 30):
    (copy / str(step) / "manifest.json").unlink()
  assert _resume(copy) == (30, [])
  for path in _files(copy / "30" / "state"):
    path.unlink()
  with Checkpoints(copy) as checkpoints:
    with pytest.raises(UnusableCheckpoint) as caught:
      checkpoints.restore(checkpoints.newest(), _state(0))
    checkpoints.reject(30, caught.value.reason)
    assert checkpoints.newest() == 20
    with pytest.warns(UserWarning, match="30 is not used"):
      checkpoints.restore(20, _state(0))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"w": jnp.ones((3, 3))}, r"w is float32\[3, 2\] there where this run's is float32\[3, 3\]"),
    ({"w": jnp.ones((3, 2), jnp.bfloat16)}, r"w is float32\[3, 2\] there where this run's is bfloat16\[3, 2\]"),
    ({"more": {"x": jnp.ones(1)}}, "it lacks more/x"),
    ({"step": None}, "it has step"),
  ],
)
def test_arrays_that_are_not_the_runs_are_named(saved, change, message):
  with Checkpoints(saved) as checkpoints, pytest.raises(UnusableCheckpoint, match=message):
    checkpoints.restore(30, _state(0) | change)


def test_what_a_kill_leaves_is_removed(copy):
  (copy / "40.orbax-checkpoint-tmp-17" / "state").mkdir(parents=True)
  (copy / "5.removed").mkdir()
  assert _resume(copy) == (30, [])
  assert _names(copy) == ["10", "20", "30"]


def test_a_full_disk_is_named_and_earlier_checkpoints_stay(tmp_path, monkeypatch):
  """When the manifest is written, too, which happens in the background."""
  from orbax.checkpoint import v1 as ocp

  def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")

  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, _state(1))
    checkpoints.wait()
    with monkeypatch.context() as patch:
      patch.setattr(ocp, "save_async", full)
      with pytest.raises(CheckpointError, match=r"2: the disk is full"):
        checkpoints.save(2, _state(2))
    with monkeypatch.context() as patch:
      patch.setattr(manifest, "write", full)
      checkpoints.save(3, _state(3))
      with pytest.raises(CheckpointError, match=r"3: the disk is full"):
        checkpoints.wait()
  with monkeypatch.context() as patch:
    patch.setattr(manifest, "write", full)
    with pytest.raises(CheckpointError, match=r"4: the disk is full"), Checkpoints(tmp_path) as checkpoints:
      checkpoints.save(4, _state(4))  # the last one, for which nobody waits but the end
  assert _resume(tmp_path) == (1, []) and _names(tmp_path) == ["1"]


def test_a_manifest_is_written_last(copy, monkeypatch):
  """A kill in the middle of writing it leaves none."""
  (copy / "30" / "manifest.json").unlink()

  def killed(self, target):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(type(copy), "rename", killed)
    with pytest.raises(KeyboardInterrupt):
      manifest.write(copy / "30")
  assert not manifest.exists(copy / "30") and _resume(copy)[0] == 20


def test_a_manifest_lists_every_file(copy):
  listed = json.loads((copy / "30" / "manifest.json").read_text())["files"]
  there = {os.path.relpath(path, copy / "30"): path.stat().st_size for path in _files(copy / "30")}
  assert {name: facts["bytes"] for name, facts in listed.items()} == {
    name: size for name, size in there.items() if name != "manifest.json"
  }
  (copy / "30" / "state" / "more").write_text("x")
  assert manifest.check(copy / "30") == "state/more does not belong there"


def test_another_seed_does_not_go_on(tmp_path):
  with Checkpoints(tmp_path, seed=3) as checkpoints:
    checkpoints.save(10, _state(10))
  assert manifest.seed_of(tmp_path / "10") == 3
  with Checkpoints(tmp_path, seed=4) as checkpoints, pytest.raises(ValueError, match=r"10 is of a run with seed=3"):
    checkpoints.restore(10, _state(0))
  for seed in (3, None):
    with Checkpoints(tmp_path, seed=seed) as checkpoints:
      assert checkpoints.newest() == 10 and checkpoints.restore(10, _state(0))
  path = tmp_path / "10" / "manifest.json"
  path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
  assert manifest.check(tmp_path / "10") == "manifest.json is damaged"


@pytest.mark.parametrize("place", ["checkpoints", "checkpoints/5.orbax-checkpoint-tmp"])
def test_a_folder_that_cannot_be_made_is_an_error_before_orbax_begins(tmp_path, monkeypatch, place):
  """Its threads keep the process for minutes."""
  from orbax.checkpoint import v1 as ocp

  monkeypatch.setattr(ocp, "save_async", lambda *args: pytest.fail("began"))
  (tmp_path / place).parent.mkdir(exist_ok=True)
  (tmp_path / place).write_text("in the way")
  with Checkpoints(tmp_path / "checkpoints") as checkpoints, pytest.raises(CheckpointError, match=r"checkpoints/5: "):
    checkpoints.save(5, _state(5))


def test_numbers_that_cannot_be_are_named(tmp_path):
  with pytest.raises(ValueError, match="keep=0 must be at least 1"):
    Checkpoints(tmp_path, keep=0)

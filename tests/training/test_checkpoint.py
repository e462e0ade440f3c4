import errno

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.training.checkpoint import CheckpointError, Checkpoints


def _state(value):
  return {"w": jnp.full((3, 2), value), "key": jax.random.key(int(value)), "none": None, "step": jnp.int32(value)}


def test_round_trip_keeps_the_newest(tmp_path):
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.latest_step is None
    for step in (1, 2, 3):
      checkpoints.save(step, _state(step))
    checkpoints.wait()
    restored = checkpoints.restore(3, _state(0))
  np.testing.assert_array_equal(restored["w"], np.full((3, 2), 3.0))
  assert jnp.array_equal(jax.random.key_data(restored["key"]), jax.random.key_data(jax.random.key(3)))
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step == 3
  assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]


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


def test_other_shapes_are_refused(tmp_path):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, {"w": jnp.ones(3)})
    checkpoints.wait()
    with pytest.raises(CheckpointError, match=r"could not read checkpoint .*1"):
      checkpoints.restore(1, {"w": jnp.ones(4)})
    with pytest.raises(CheckpointError, match=r"could not read checkpoint .*1"):
      checkpoints.restore(1, {"other": jnp.ones(3)})


def test_a_full_disk_is_named_and_earlier_checkpoints_stay(tmp_path, monkeypatch):
  with Checkpoints(tmp_path) as checkpoints:
    checkpoints.save(1, {"w": jnp.ones(3)})
    checkpoints.wait()

    def full(*args, **kwargs):
      raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
      patch.setattr(checkpoints._checkpointer, "save_async", full)
      with pytest.raises(CheckpointError, match=r"2: the disk is full"):
        checkpoints.save(2, {"w": jnp.ones(3)})
    assert float(checkpoints.restore(1, {"w": jnp.zeros(3)})["w"].sum()) == 3.0

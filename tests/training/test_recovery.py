"""Through ilx.train: what happens to a run whose checkpoints, folder or process something happens to."""

import os
import signal
import subprocess
import sys
import threading

import chex
import jax
import numpy as np
import pytest

import ilx
from ilx import testing, training
from ilx.data import stream
from ilx.training import checkpoint, manifest, trainer

SPEC = testing.continuous_spec()


@pytest.fixture(scope="module")
def agent():
  return ilx.agents.bc(SPEC, hidden=(4,))


@pytest.fixture(scope="module")
def episodes():
  return testing.fake_episodes(SPEC)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
  """A dataset that is read while it is learnt from, in blocks: more items than a few batches have."""
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(tmp_path_factory.mktemp("data"), name="made-up") as recorder:
    for _ in range(40):
      observation = rng.normal(size=(31, 5)).astype(np.float32)
      action = rng.uniform(-1, 1, size=(30, 3)).astype(np.float32)
      recorder.add(ilx.data.episode(observation, action, np.zeros(30, np.float32), terminal=False))
  return stream.open(recorder.path)


def _train(agent, data, **kwargs):
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor"))
  defaults = {"steps": 40, "batch_size": 8, "log_every": 5, "checkpoint_every": 10, "mesh": mesh}
  return ilx.train(agent, data, **(defaults | kwargs))


def _plain(state):
  return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


@pytest.fixture(scope="module")
def whole(agent, episodes):
  return _plain(_train(agent, episodes))


def _damage(folder):
  for path in folder.rglob("*"):
    if path.is_file() and path.parent.name == "d":
      path.write_bytes(path.read_bytes()[:-1])


def _interrupt_at(step):
  return lambda at, row: os.kill(os.getpid(), signal.SIGTERM) if at == step else None


@pytest.mark.parametrize(("minutes", "found"), [(1e-9, 30), (10.0, 0), (0.0, 0)])
def test_time_without_a_checkpoint_is_followed_by_one(agent, episodes, whole, tmp_path, minutes, found):
  def crash(step, row):
    if step == 35:
      raise KeyError("crash")

  kwargs = {"workdir": tmp_path, "checkpoint_every": 40, "checkpoint_minutes": minutes}
  with pytest.raises(KeyError, match="crash"):
    _train(agent, episodes, on_progress=crash, **kwargs)
  starts = []
  state = _train(agent, episodes, logs=lambda step: starts.append(step) or [], **kwargs)
  assert starts == [found]
  chex.assert_trees_all_equal(_plain(state), whole)


def test_time_counts_from_the_last_checkpoint(agent, episodes, tmp_path, monkeypatch):
  """Rows are a minute apart: of five updates each, with a checkpoint every third and after two minutes without."""
  now = [0.0]

  def clock():
    now[0] += 1e-6
    return now[0]

  monkeypatch.setattr(trainer.time, "perf_counter", clock)

  def minute(step, row):
    now[0] += 60.0

  options = {"checkpoint_every": 15, "checkpoint_minutes": 2, "steps": 65, "keep": 99}
  _train(agent, episodes, workdir=tmp_path, on_progress=minute, **options)
  assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == [10, 15, 25, 30, 40, 45, 55, 60, 65]


def test_a_damaged_checkpoint_costs_the_updates_since_the_one_before(agent, episodes, whole, tmp_path):
  with pytest.raises(training.Interrupted, match="35 of 40 updates are saved"):
    _train(agent, episodes, workdir=tmp_path, on_progress=_interrupt_at(35))
  folder = tmp_path / "checkpoints"
  _damage(folder / "35")
  (folder / "30" / "manifest.json").unlink()
  starts = []
  with pytest.warns(UserWarning, match="is not used") as caught:
    state = _train(agent, episodes, workdir=tmp_path, logs=lambda step: starts.append(step) or [])
  messages = sorted(str(x.message) for x in caught if "is not used" in str(x.message))
  assert "checkpoints/30 is" in messages[0] and "checkpoints/35 is" in messages[1]
  assert starts == [20]
  chex.assert_trees_all_equal(_plain(state), whole)
  assert {"30", "40", "30.damaged", "35.damaged"} <= {path.name for path in folder.iterdir()}


def test_a_streamed_run_goes_on_bit_for_bit_where_it_stood(agent, streamed, tmp_path):
  """In the middle of a group of batches, of a block of episodes and of an epoch; from one that is damaged, too."""
  rows = {}
  kwargs = {"batch_size": 16, "steps": 120, "log_every": 7, "checkpoint_every": 14}
  expected = _plain(_train(agent, streamed, **kwargs, on_progress=lambda step, row: rows.update({step: row})))
  for stop in (21, 91):
    with pytest.raises(training.Interrupted, match=f"{stop} of 120"):
      _train(agent, streamed, **kwargs, workdir=tmp_path, on_progress=_interrupt_at(stop))
  _damage(tmp_path / "checkpoints" / "91")
  again = {}
  with pytest.warns(UserWarning, match="91 is not used"):
    state = _train(agent, streamed, **kwargs, workdir=tmp_path, on_progress=lambda step, row: again.update({step: row}))
  chex.assert_trees_all_equal(_plain(state), expected)
  assert min(again) == 91 and [again[step]["train/loss"] for step in again] == [
    rows[step]["train/loss"] for step in rows if step >= 91
  ]


def test_a_checkpoint_of_another_state_is_passed_over_and_refused_where_there_is_no_other(
  agent, episodes, whole, tmp_path
):
  other = ilx.agents.bc(SPEC, hidden=(5,))
  _train(other, episodes, workdir=tmp_path, steps=20)
  before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
  with pytest.raises(training.CheckpointError, match=r"(?s)none was changed.*/10:.*float32\[4, 3\].*/20:"):
    _train(agent, episodes, workdir=tmp_path)
  assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before

  _train(agent, episodes, workdir=tmp_path / "own", steps=10)
  (tmp_path / "checkpoints" / "20").rename(tmp_path / "own" / "checkpoints" / "20")
  with pytest.warns(UserWarning, match=r"20 is not used: .*params/network"):
    state = _train(agent, episodes, workdir=tmp_path / "own")
  chex.assert_trees_all_equal(_plain(state), whole)


def test_a_folder_that_another_process_trains_in_is_refused(agent, episodes, tmp_path):
  hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
  command = [sys.executable, "-c", hold, str(tmp_path / ".lock")]
  with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
    holder.stdout.readline()
    with pytest.raises(training.FolderInUseError, match=f"{tmp_path} is in use"):
      _train(agent, episodes, workdir=tmp_path)
    holder.communicate(b"\n")
  assert not (tmp_path / "checkpoints").exists()
  _train(agent, episodes, workdir=tmp_path, steps=5)


@pytest.mark.parametrize("keep_every", [0, 20])
def test_checkpoints_that_are_kept(agent, episodes, tmp_path, keep_every):
  _train(agent, episodes, workdir=tmp_path, keep=1, keep_every=keep_every, checkpoint_every=5)
  assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == ({"20", "40"} if keep_every else {"40"})


def test_a_signal_while_the_program_is_compiled_saves_after_one_interval(agent, episodes, tmp_path):
  def update(state, batch):
    os.kill(os.getpid(), signal.SIGTERM)  # when it is traced
    return agent.update(state, batch)

  before = signal.signal(signal.SIGTERM, lambda *_: None)  # traced again, the second signal comes here
  try:
    with pytest.raises(training.Interrupted, match="5 of 40 updates are saved"):
      _train(agent._replace(update=update), episodes, workdir=tmp_path)
  finally:
    signal.signal(signal.SIGTERM, before)
  assert manifest.check(tmp_path / "checkpoints" / "5") is None


def test_a_signal_while_a_checkpoint_is_written_waits_for_it(agent, episodes, tmp_path, monkeypatch):
  write, told = manifest.write, threading.Event()

  def slow(folder, seed):
    if not told.is_set():
      told.set()
      os.kill(os.getpid(), signal.SIGTERM)
    write(folder, seed)

  monkeypatch.setattr(checkpoint.manifest, "write", slow)
  with pytest.raises(training.Interrupted) as caught:
    _train(agent, episodes, workdir=tmp_path, steps=2_000)
  step = int(str(caught.value).split("; ")[1].split()[0])
  assert manifest.check(tmp_path / "checkpoints" / str(step)) is None

"""Evaluations while training goes on."""

import os
import signal
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx import agents, testing, training
from ilx.training import logs
from ilx.types import Discrete, Spec

SPEC = Spec(jax.ShapeDtypeStruct((3,), jnp.float32), Discrete(2))


@pytest.fixture(scope="module")
def agent():
  return agents.bc(SPEC, hidden=(8,))


@pytest.fixture(scope="module")
def episodes():
  return testing.fake_episodes(SPEC)


def _train(agent, episodes, workdir, **kwargs):
  options = {"steps": 60, "batch_size": 16, "log_every": 10, "checkpoint_every": 30, "evaluate_every": 20}
  open_logs = lambda step: [logs.JsonlLog(workdir / "log.jsonl", step)]  # noqa: E731
  workdir.mkdir(exist_ok=True)
  return training.train(agent, episodes, workdir=workdir, logs=open_logs, **(options | kwargs))


def _norm(params, step):
  return {"norm": float(sum(np.abs(np.asarray(x)).sum() for x in jax.tree.leaves(params))), "step": step}


def _rows(workdir):
  rows = logs.read_jsonl(workdir / "log.jsonl")
  timed = ("seconds", "updates_per_second")
  return sorted(tuple((k, v) for k, v in row.items() if k not in timed) for row in rows)


def test_updates_go_on_meanwhile_and_all_is_as_without(agent, episodes, tmp_path):
  """The evaluation of update 20 does not end before update 30 is made: the params are its own."""
  progressed, began = threading.Event(), []

  def evaluate(params, step):
    began.append((step, threading.current_thread() is threading.main_thread()))
    if step == 20:
      assert progressed.wait(60)
    return _norm(params, step)

  on_progress = lambda step, row: progressed.set() if step == 30 and "train/loss" in row else None  # noqa: E731
  state = _train(agent, episodes, tmp_path / "beside", evaluate=evaluate, evaluate_beside=True, on_progress=on_progress)
  alone = _train(agent, episodes, tmp_path / "alone", evaluate=_norm)
  chex.assert_trees_all_equal(*(jax.tree.map(np.asarray, one.params) for one in (state, alone)))
  assert _rows(tmp_path / "beside") == _rows(tmp_path / "alone")
  assert began == [(20, False), (40, False), (60, True)]  # nothing goes on beside the last


def test_a_checkpoint_waits_for_the_evaluations_before_it(agent, episodes, tmp_path):
  """Whoever resumes from it does not make them again, so their rows must be there."""
  may_end = threading.Event()

  def evaluate(params, step):
    del params
    assert step >= 60 or may_end.wait(60)
    return {"x": step}

  timer = threading.Timer(1.0, may_end.set)
  timer.start()
  seen = []

  def on_progress(step, row):
    there = [path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")]
    seen.append((step, "eval/x" in row, "30" in there))

  _train(agent, episodes, tmp_path, evaluate=evaluate, evaluate_beside=True, on_progress=on_progress)
  assert (20, True, False) in seen
  assert may_end.is_set()


def test_what_an_evaluation_raises_is_raised(agent, episodes, tmp_path):
  def evaluate(params, step):
    raise KeyError("no environment")

  with pytest.raises(KeyError, match="no environment"):
    _train(agent, episodes, tmp_path, evaluate=evaluate, evaluate_beside=True)
  assert not any("eval/x" in row for row in logs.read_jsonl(tmp_path / "log.jsonl"))
  _train(agent, episodes, tmp_path, evaluate=_norm, evaluate_beside=True)
  assert [row["step"] for row in logs.read_jsonl(tmp_path / "log.jsonl") if "eval/norm" in row] == [20, 40, 60]


def test_a_signal_waits_for_the_evaluation_and_nothing_is_lost(agent, episodes, tmp_path):
  may_end = threading.Event()

  def evaluate(params, step):
    if step == 20:
      os.kill(os.getpid(), signal.SIGTERM)
      threading.Timer(0.5, may_end.set).start()
      assert may_end.wait(60)
    return _norm(params, step)

  with pytest.raises(training.Interrupted):
    _train(agent, episodes, tmp_path / "beside", evaluate=evaluate, evaluate_beside=True, steps=100_000)
  assert [row["step"] for row in logs.read_jsonl(tmp_path / "beside" / "log.jsonl") if "eval/norm" in row] == [20]


def test_an_evaluation_that_a_signal_breaks_loses_no_update(agent, episodes, tmp_path):
  """Its workers may have got the signal too."""

  def evaluate(params, step):
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(0.2)  # Python's main thread handles it
    raise BrokenPipeError("a worker is gone")

  with pytest.raises(training.Interrupted, match="are saved"), pytest.warns(UserWarning, match="SIGTERM.*a worker"):
    _train(agent, episodes, tmp_path, evaluate=evaluate, evaluate_beside=True, steps=100_000, checkpoint_every=100_000)
  assert len([path for path in (tmp_path / "checkpoints").glob("*") if path.name.isdigit()]) == 1


def test_an_evaluation_that_finds_nothing_writes_nothing(agent, episodes, tmp_path):
  _train(agent, episodes, tmp_path, evaluate=lambda params, step: None, evaluate_beside=True)
  assert {row["step"] for row in logs.read_jsonl(tmp_path / "log.jsonl")} == {*range(10, 61, 10)}


def test_it_needs_the_cpu(agent, episodes, tmp_path, monkeypatch):
  def none(backend=None):
    if backend == "cpu":
      raise RuntimeError("Unknown backend cpu")
    return jax.devices()

  monkeypatch.setattr("ilx.training.beside.jax.local_devices", none)
  with pytest.raises(RuntimeError, match=r"play on the CPU.*,cpu"):
    _train(agent, episodes, tmp_path, evaluate=_norm, evaluate_beside=True)


def test_several_processes_evaluate_together(agent, episodes, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(ValueError, match="evaluate_beside: several processes share the episodes"):
    _train(agent, episodes, tmp_path, evaluate=_norm, evaluate_beside=True)


def test_an_error_of_training_leaves_no_evaluation_behind(agent, episodes, tmp_path):
  """What is ready is logged all the same."""

  def crash(step, row):
    if step == 30:
      raise KeyError("crash")

  with pytest.raises(KeyError, match="crash"):
    _train(agent, episodes, tmp_path, evaluate=_norm, evaluate_beside=True, on_progress=crash)
  assert [row["step"] for row in logs.read_jsonl(tmp_path / "log.jsonl") if "eval/norm" in row] == [20]
  assert not [thread for thread in threading.enumerate() if thread.name.startswith("evaluation of")]

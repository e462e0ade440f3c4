import os
import signal
import threading
import time
import warnings

import chex
import jax
import numpy as np
import optax
import pytest

import ilx
from ilx import testing, training
from ilx.training import feed, logs, tiers

SPEC = testing.continuous_spec()


@pytest.fixture(scope="module")
def agent():
  return ilx.agents.bc(SPEC, hidden=(16,))


@pytest.fixture(scope="module")
def episodes():
  return testing.fake_episodes(SPEC)


def _train(agent, episodes, **kwargs):
  defaults = {"steps": 40, "batch_size": 16, "log_every": 10, "checkpoint_every": 20}
  return ilx.train(agent, episodes, **(defaults | kwargs))


def _plain(state):
  return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


@pytest.fixture(scope="module")
def reference(agent, episodes):
  return _plain(_train(agent, episodes))


def test_a_seed_fixes_the_run(agent, episodes, reference):
  chex.assert_trees_all_equal(_plain(_train(agent, episodes)), reference)
  other = _plain(_train(agent, episodes, seed=1))
  assert not np.array_equal(jax.tree.leaves(other.params)[0], jax.tree.leaves(reference.params)[0])


def test_where_logs_and_checkpoints_fall_changes_nothing(agent, episodes, reference, tmp_path):
  state = _train(agent, episodes, workdir=tmp_path, log_every=7, checkpoint_every=9)
  chex.assert_trees_all_equal(_plain(state), reference)


def test_one_device_and_eight_agree_to_rounding(agent, episodes, reference):
  one = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor"))
  chex.assert_trees_all_close(_plain(_train(agent, episodes, mesh=one)), reference, rtol=1e-3, atol=1e-5)


def test_it_is_the_plain_loop(agent, episodes, reference):
  """The program with its sampling, against a loop that a user would write."""
  init_key, sample_key = jax.random.split(jax.random.key(0))
  data = jax.device_put(episodes)
  state = agent.init(init_key, agent.view.sample(init_key, data, 16))
  for i in range(40):
    state, _ = jax.jit(agent.update)(state, agent.view.sample(jax.random.fold_in(sample_key, i), data, 16))
  chex.assert_trees_all_close(_plain(state), reference, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_next_call_goes_on_bit_for_bit(agent, episodes, reference, tmp_path, number):
  def stop_at_ten(step, row):
    del row
    if step == 10:
      os.kill(os.getpid(), number)

  with pytest.raises(training.Interrupted, match=r"10 of 40 updates are saved") as caught:
    _train(agent, episodes, workdir=tmp_path, on_progress=stop_at_ten, checkpoint_every=40)
  assert caught.value.signal == number
  steps = []
  state = _train(agent, episodes, workdir=tmp_path, on_progress=lambda step, row: steps.append(step))
  assert steps == [20, 30, 40]
  chex.assert_trees_all_equal(_plain(state), reference)


def test_a_crash_resumes_from_the_last_checkpoint_bit_for_bit(agent, episodes, reference, tmp_path):
  def crash(step, row):
    del row
    if step == 30:
      raise KeyError("crash")

  with pytest.raises(KeyError, match="crash"):
    _train(agent, episodes, workdir=tmp_path, on_progress=crash)
  starts = []
  state = _train(agent, episodes, workdir=tmp_path, logs=lambda step: starts.append(step) or [])
  assert starts == [20]
  chex.assert_trees_all_equal(_plain(state), reference)


def test_a_signal_does_not_wait_for_an_evaluation(agent, episodes, tmp_path):
  def evaluate(params, step):
    del params, step
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("went on evaluating")

  with (
    warnings.catch_warnings(action="error", category=UserWarning),
    pytest.raises(training.Interrupted, match="20 of 40 updates are saved"),
  ):
    _train(agent, episodes, workdir=tmp_path, evaluate=evaluate, evaluate_every=20, checkpoint_every=40)


def test_logs_and_evaluations_come_when_they_are_due(agent, episodes, tmp_path):
  _train(
    agent,
    episodes,
    steps=45,
    evaluate=lambda params, step: {"return_mean": float(step)},
    evaluate_every=20,
    logs=lambda step: [logs.JsonlLog(tmp_path / "log.jsonl", step)],
  )
  rows = logs.read_jsonl(tmp_path / "log.jsonl")
  assert [row["step"] for row in rows if "train/loss" in row] == [10, 20, 30, 40, 45]
  assert [row["eval/return_mean"] for row in rows if "eval/return_mean" in row] == [20.0, 40.0, 45.0]
  assert all(np.isfinite(row["train/loss"]) for row in rows if "train/loss" in row)


def test_an_evaluation_that_fails_loses_no_update_and_is_made_up(agent, episodes, tmp_path):
  def fail(params, step):
    raise KeyError("no environment")

  def open_logs(step):
    return [logs.JsonlLog(tmp_path / "log.jsonl", step)]

  kwargs = {"workdir": tmp_path, "evaluate_every": 20, "checkpoint_every": 20, "logs": open_logs}
  with pytest.raises(KeyError, match="no environment"):
    _train(agent, episodes, evaluate=fail, **kwargs)
  evaluated = []
  _train(agent, episodes, evaluate=lambda params, step: evaluated.append(step) or {"x": 1.0}, **kwargs)
  assert evaluated == [20, 40]
  _train(agent, episodes, evaluate=lambda params, step: evaluated.append(step) or {"x": 2.0}, **kwargs)
  assert evaluated == [20, 40, 40]
  rows = logs.read_jsonl(tmp_path / "log.jsonl")
  assert [(row["step"], row.get("eval/x")) for row in rows] == [
    (10, None), (20, None), (20, 1.0), (30, None), (40, None), (40, 2.0)
  ]  # fmt: skip


def test_logged_metrics_are_means_over_the_updates(agent, episodes):
  rows = {}
  _train(agent, episodes, steps=3, log_every=3, on_progress=lambda step, row: rows.update({step: row}))
  one_by_one = []
  _train(agent, episodes, steps=3, log_every=1, on_progress=lambda step, row: one_by_one.append(row["train/loss"]))
  np.testing.assert_allclose(rows[3]["train/loss"], np.mean(one_by_one), rtol=1e-5)


def test_divergence_stops_the_run_and_is_not_saved(episodes, tmp_path):
  agent = ilx.agents.bc(SPEC, hidden=(16,), head="tanh_gaussian", optimizer=optax.sgd(float("nan")))
  with pytest.raises(FloatingPointError, match=r"train/\w+ is not finite in update 2:"):
    _train(agent, episodes, workdir=tmp_path, checkpoint_every=10)
  assert not (tmp_path / "checkpoints" / "10").exists()


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"batch_size": 30}, "batch_size=30 does not divide among 8 devices; use 24 or 32"),
    ({"steps": 0}, "steps=0 must be at least 1"),
    ({"log_every": 0}, "log_every=0 must be at least 1"),
    ({"evaluate_every": -1}, "evaluate_every=-1 must be at least 0"),
    ({"steps": 1e2}, r"steps=100\.0 must be an integer"),
    ({"log_every": 10.0}, r"log_every=10\.0 must be an integer"),
  ],
)
def test_arguments_that_cannot_be_are_named(agent, episodes, kwargs, message):
  with pytest.raises(ValueError, match=message):
    _train(agent, episodes, **kwargs)


def test_a_mesh_of_other_axes_is_refused(agent, episodes):
  with pytest.raises(ValueError, match=r"mesh: its axes are \('x',\); expected \('data', 'fsdp', 'tensor'\)"):
    _train(agent, episodes, mesh=jax.make_mesh((8,), ("x",)))


def test_integers_of_numpy_are_integers(agent, episodes, tmp_path):
  sizes = {"steps": np.int64(20), "batch_size": np.int32(16), "log_every": np.int64(8), "seed": np.int64(0)}
  _train(agent, episodes, **sizes, workdir=tmp_path, logs=lambda step: [logs.JsonlLog(tmp_path / "log.jsonl", step)])
  assert [row["step"] for row in logs.read_jsonl(tmp_path / "log.jsonl")][-1] == 20


def test_a_finished_run_trains_no_more_and_fewer_steps_are_refused(agent, episodes, reference, tmp_path):
  _train(agent, episodes, workdir=tmp_path)
  state = _train(agent, episodes, workdir=tmp_path, on_progress=lambda step, row: pytest.fail("trained again"))
  chex.assert_trees_all_equal(_plain(state), reference)
  with pytest.raises(ValueError, match="is at step 40, beyond steps=30"):
    _train(agent, episodes, workdir=tmp_path, steps=30)


def test_data_on_the_host_gives_the_same_run_to_rounding(agent, episodes, reference):
  """The batches are the same bits; the program around them is another."""
  chex.assert_trees_all_close(_plain(_train(agent, episodes, tier="host")), reference, rtol=1e-3, atol=1e-5)


def test_data_on_the_host_resumes_bit_for_bit(agent, episodes, tmp_path):
  whole = _plain(_train(agent, episodes, tier="host"))

  def crash(step, row):
    del row
    if step == 30:
      raise KeyError("crash")

  with pytest.raises(KeyError, match="crash"):
    _train(agent, episodes, tier="host", workdir=tmp_path, on_progress=crash)
  chex.assert_trees_all_equal(_plain(_train(agent, episodes, tier="host", workdir=tmp_path)), whole)


def test_what_the_data_raises_is_raised_and_the_thread_ends(agent, episodes):
  class Broken:
    def batches(self, view, batch_size, seed, *, start=0, host=(0, 1)):
      for _ in range(7):
        yield view.take(episodes, episodes.rows[:batch_size])
      raise ValueError("shard 3 is damaged")

  with pytest.raises(ValueError, match="shard 3 is damaged"):
    _train(agent, Broken())
  assert not [thread for thread in threading.enumerate() if thread.name == "ilx-feed"]


@pytest.mark.parametrize("batches", [1, 25, 32, 39])
def test_data_that_ends_is_an_error(agent, episodes, batches):
  class Short:
    def batches(self, view, batch_size, seed, *, start=0, host=(0, 1)):
      for _ in range(batches):
        yield view.take(episodes, episodes.rows[:batch_size])

  with pytest.raises(RuntimeError, match="ended in the middle"):
    _train(agent, Short())


@pytest.mark.parametrize("wrong", [0, 3])
def test_batches_of_another_size_are_refused(agent, episodes, wrong):
  """Of the first one the shapes of all are taken."""

  class Odd:
    def batches(self, view, batch_size, seed, *, start=0, host=(0, 1)):
      data = view.prepare(episodes)
      while True:
        yield view.take(data, np.asarray(data.rows[: batch_size - (start == wrong)]))
        start += 1

  with pytest.raises(ValueError, match=r"a batch of the Odd that was given: observation has the shape \(7, .* 8 items"):
    ilx.train(agent, Odd(), steps=5, batch_size=8)


def test_a_feed_that_ended_does_not_block(episodes):
  batches = iter([{"x": np.zeros((8, 1))}])
  with feed.Feed([batches], [1], 1, ilx.parallel.make_mesh()) as stacks:
    assert len(list(stacks)) == 1 and list(stacks) == []


def test_closing_a_feed_waits_for_its_thread(episodes):
  def slow():
    while True:
      time.sleep(0.05)
      yield {"x": np.zeros((8, 1))}

  with feed.Feed([slow()], iter(lambda: 1, 0), 1, ilx.parallel.make_mesh()) as stacks:
    next(stacks)
  assert not stacks._thread.is_alive()


def test_a_feed_whose_source_is_stuck_is_left(monkeypatch):
  """Whatever ends the loop: an error there, or a second Ctrl-C."""
  released = threading.Event()

  def stuck():
    yield {"x": np.zeros((8, 1))}
    released.wait()

  monkeypatch.setattr(feed, "_GRACE", 0.2)
  with feed.Feed([stuck()], iter(lambda: 1, 0), 1, ilx.parallel.make_mesh()) as stacks:
    next(stacks)
  assert stacks._thread.is_alive()
  released.set()


def test_the_tier_goes_by_free_memory(agent, episodes, monkeypatch):
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(episodes))
  monkeypatch.setattr(tiers, "free_memory", lambda: 2 * size * jax.local_device_count())
  assert tiers.fits(episodes)
  monkeypatch.setattr(tiers, "free_memory", lambda: (2 * size - 2) * jax.local_device_count())
  assert not tiers.fits(episodes)
  fed = []
  monkeypatch.setattr(tiers, "_fed", lambda *args: fed.append(args) or (_ for _ in ()).throw(KeyError("fed")))
  with pytest.raises(KeyError, match="fed"):
    _train(agent, episodes)


def test_a_tier_that_does_not_exist_is_refused(agent, episodes):
  with pytest.raises(ValueError, match="tier='disk'"):
    _train(agent, episodes, tier="disk")

import os
import signal
import threading
import time
import types
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

import ilx
from ilx import testing, training
from ilx.training import feed, logs, memory, tiers

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


def test_only_what_happens_divides_the_updates_between_logs(agent, episodes, tmp_path):
  def steps(**kwargs):
    found = []
    _train(agent, episodes, log_every=35, on_progress=lambda step, row: found.append(step), **kwargs)
    return found

  assert steps(checkpoint_every=20, evaluate_every=25) == [35, 40]
  assert steps(checkpoint_every=20, workdir=tmp_path) == [20, 35, 40]
  assert steps(evaluate_every=25, evaluate=lambda params, step: None) == [25, 35, 40]


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
    ({"steps": 2**31}, "steps=2147483648 must be at most 2147482648: updates are counted in int32"),
    ({"log_every": 0}, "log_every=0 must be at least 1"),
    ({"evaluate_every": -1}, "evaluate_every=-1 must be at least 0"),
    ({"steps": 1e2}, r"steps=100\.0 must be an integer"),
    ({"log_every": 10.0}, r"log_every=10\.0 must be an integer"),
    ({"keep": 2.5}, r"keep=2\.5 must be an integer"),
    ({"keep": float("nan")}, "keep=nan must be an integer"),
    ({"keep_every": "4"}, "keep_every='4' must be an integer"),
    ({"data_timeout": float("nan")}, "data_timeout=nan must be at least 0"),
    ({"seed": -1}, "seed=-1: seeds are from 0 to 4294967295"),
    ({"seed": 2**32}, "seed=4294967296: seeds are from 0"),
    ({"seed": 2**32 - 2, "seeds": 3}, "seed=4294967294: seeds are from 0 .* all of them"),
    ({"mesh": {"data": 8}}, r"mesh is a dict; expected a jax\.sharding\.Mesh, as of ilx\.parallel\.make_mesh"),
    (
      {"mesh": jax.make_mesh((8, 1, 1), ("data", "fsdp", "tensor"), axis_types=(AxisType.Explicit,) * 3)},
      "mesh: its axes are .*Explicit.*; expected all Auto",
    ),
  ],
)
def test_arguments_that_cannot_be_are_named(agent, episodes, kwargs, message):
  with pytest.raises(ValueError, match=message):
    _train(agent, episodes, **kwargs)


def test_a_mesh_of_other_axes_is_refused(agent, episodes):
  with pytest.raises(ValueError, match=r"mesh: its axes are \('x',\); expected \('data', 'fsdp', 'tensor'\)"):
    _train(agent, episodes, mesh=jax.make_mesh((8,), ("x",)))


@pytest.mark.parametrize("data", [None, "cartpole-expert"])
def test_data_that_are_none_are_refused(agent, data):
  with pytest.raises(
    ValueError, match=rf"data is {data!r}; expected episodes, as of ilx\.data\.load\(name\), or a stream"
  ):
    _train(agent, data)


@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize("kwargs", [{}, {"strategy": "pmap"}, {"seeds": 2, "batch_size": 8}, {"seeds": 8}], ids=str)
def test_metrics_of_any_type_have_their_means(agent, episodes, tier, kwargs):
  def update(state, batch):
    state, metrics = agent.update(state, batch)
    odd = state.step % 2 == 1
    others = {"flag": odd, "count": 2_000_000 + state.step, "half": jnp.bfloat16(1) * odd, "large": jnp.float16(6e4)}
    return state, metrics | others

  rows = []
  odd = agent._replace(update=update)
  sizes = {"steps": 2000, "log_every": 2000, "checkpoint_every": 2000}
  _train(odd, episodes, **sizes, tier=tier, on_progress=lambda step, row: rows.append(row), **kwargs)
  found = {name: rows[0][f"train/{name}"] for name in ("flag", "count", "half", "large")}
  assert found == pytest.approx({"flag": 0.5, "count": 2_001_000.5, "half": 0.5, "large": 6e4}, rel=1e-5)


@pytest.mark.parametrize("tier", ["device", "host"])
def test_a_metric_that_is_no_scalar_is_named(agent, episodes, tier):
  def update(state, batch):
    return state, {"loss": jnp.zeros(3)}

  with pytest.raises(ValueError, match=r"metric 'loss' has the shape \(3,\); expected a scalar"):
    _train(agent._replace(update=update), episodes, tier=tier)


class _Failing:
  """A log that cannot be closed, or not be written evaluations to."""

  def __init__(self, what):
    self.what, self.closed = what, False

  def write(self, step, row):
    if self.what == "write" and "eval/x" in row:
      raise OSError("full while writing")

  def close(self):
    self.closed = True
    if self.what == "close":
      raise OSError("full while closing")


@pytest.mark.parametrize("what", ["close", "write"])
def test_what_fails_on_the_way_out_is_a_warning(agent, episodes, what):
  def update(state, batch):
    state, metrics = agent.update(state, batch)
    return state, {"loss": jnp.where(state.step == 30, jnp.nan, metrics["loss"])}

  def evaluate(params, step):
    time.sleep(0.3)
    return {"x": 1.0}

  opened = [_Failing(what), _Failing("")]
  beside = {"evaluate": evaluate, "evaluate_every": 20, "evaluate_beside": True}
  with (
    pytest.warns(UserWarning, match=r"after FloatingPointError\(.*full while (clos|writ)ing"),
    pytest.raises(FloatingPointError, match="not finite in update 30"),
  ):
    _train(agent._replace(update=update), episodes, logs=lambda step: opened, **beside)
  assert all(log.closed for log in opened)


def test_logs_that_cannot_be_closed_are_an_error(agent, episodes):
  opened = [_Failing("close"), _Failing("")]
  with pytest.raises(OSError, match="full while closing"):
    _train(agent, episodes, logs=lambda step: opened)
  assert all(log.closed for log in opened)


@pytest.mark.parametrize("kwargs", [{"rules": []}, {"rules": [], "seeds": 3}, {}], ids=str)
def test_batches_of_a_run_that_cannot_begin_are_closed(agent, episodes, kwargs):
  opened, closed = [], []

  class Data:
    def batches(self, view, batch_size, seed, *, start=0, host=(0, 1)):
      opened.append(seed)
      return Batches()

  class Batches:
    def __next__(self):
      return agent.view.take(episodes, np.asarray(episodes.rows[: 16 if kwargs else 5]))

    def close(self):
      closed.append(self)

  with pytest.raises(ValueError, match=r"none of the 0 rules matches|where 16 items"):
    _train(agent, Data(), **kwargs)
  assert len(closed) == len(opened) == kwargs.get("seeds", 1)


def test_float64_is_learnt_from_without_a_word(agent, episodes):
  class Wide:
    def batches(self, view, batch_size, seed, *, start=0, host=(0, 1)):
      data = view.prepare(episodes)
      while True:
        batch = view.take(data, np.asarray(data.rows[start : start + batch_size]))
        yield jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, batch)
        start += 1

  with warnings.catch_warnings(action="error"):
    _train(agent, Wide())


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


@pytest.mark.parametrize(("platform", "part"), [("gpu", 2), ("tpu", 4)])
def test_accelerators_are_not_filled(episodes, monkeypatch, platform, part):
  """A TPU draws pictures from a copy of them."""

  size, stats = sum(leaf.nbytes for leaf in jax.tree.leaves(episodes)), {"bytes_in_use": 1000}
  device = types.SimpleNamespace(platform=platform, memory_stats=lambda: stats)
  monkeypatch.setattr(jax, "local_devices", lambda: [device])
  for limit, fits in ((part * size + 1000, True), (part * size + 999, False)):
    stats["bytes_limit"] = limit
    assert memory.fits(episodes) == fits


def test_the_tier_goes_by_free_memory(agent, episodes, monkeypatch):
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(episodes))
  monkeypatch.setattr(memory, "free_memory", lambda: 2 * size * jax.local_device_count())
  assert memory.fits(episodes)
  monkeypatch.setattr(memory, "free_memory", lambda: (2 * size - 2) * jax.local_device_count())
  assert not memory.fits(episodes)
  fed = []
  monkeypatch.setattr(tiers, "_fed", lambda *args: fed.append(args) or (_ for _ in ()).throw(KeyError("fed")))
  with pytest.raises(KeyError, match="fed"):
    _train(agent, episodes)


def test_a_tier_that_does_not_exist_is_refused(agent, episodes):
  with pytest.raises(ValueError, match="tier='disk'"):
    _train(agent, episodes, tier="disk")

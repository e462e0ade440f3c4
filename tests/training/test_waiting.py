import os
import queue
import signal
import threading
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from ilx import testing, training
from ilx.training import waiting

SPEC = testing.continuous_spec()


@pytest.fixture(scope="module")
def agent():
  return ilx.agents.bc(SPEC, hidden=(4,))


class Blocking:
  """Batches of which none comes after the first ``count``, until ``released``."""

  def __init__(self, episodes, count):
    self.episodes, self.count, self.released = episodes, count, threading.Event()
    self.when_blocked = lambda: None

  def batches(self, view, batch_size, seed, *, start=0, host=(0, 1)):
    data = view.prepare(self.episodes)
    while True:
      if start >= self.count:
        self.when_blocked()
        self.released.wait()
      yield view.take(data, np.random.default_rng((seed, start)).choice(np.asarray(data.rows), batch_size))
      start += 1


@pytest.fixture
def blocking():
  made = []

  def make(count):
    made.append(Blocking(testing.fake_episodes(SPEC), count))
    return made[-1]

  yield make
  for data in made:
    data.released.set()


def _train(agent, data, **kwargs):
  defaults = {"steps": 40, "batch_size": 8, "log_every": 40, "checkpoint_every": 40}
  return ilx.train(agent, data, **(defaults | kwargs))


def test_what_comes_in_time_comes_without_a_word():
  items = queue.Queue()
  items.put(1)
  with warnings.catch_warnings(action="error"):
    assert waiting.get(items, waiting.Patience("x", warn_every=1e-9, give_up_after=1e-9)) == 1


def test_errors_in_a_thread_are_raised_here():
  with pytest.raises(KeyError, match="x"):
    waiting.call(lambda: {}["x"], waiting.Patience())
  assert waiting.call(lambda: 3, waiting.Patience()) == 3


@pytest.mark.parametrize("count", [0, 1, 35])
def test_a_source_that_stalls_is_named_again_and_again_and_given_up(agent, blocking, count):
  """At the first batch, which is looked at, and later."""
  with (
    pytest.warns(UserWarning, match=r"no batch came for \d s from the Blocking that was given") as caught,
    pytest.raises(TimeoutError, match="no batch came for 2 s from the Blocking"),
  ):
    _train(agent, blocking(count), data_timeout=0.4, data_deadline=2)
  assert len([x for x in caught if "no batch came" in str(x.message)]) >= 2


@pytest.fixture(scope="module")
def whole(agent):
  """Of 80 updates, the first 40 in stacks of 32 and 8, as the others."""
  return _plain(_train(agent, Blocking(testing.fake_episodes(SPEC), 1000), steps=80))


def _plain(state):
  return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def _later(action):
  """Does it a second after the first 40 updates, when programs are compiled."""
  return lambda step, row: threading.Timer(1.0, action).start() if step == 40 else None


def test_a_source_that_comes_back_is_learnt_from(agent, blocking, whole):
  data = blocking(75)
  with pytest.warns(UserWarning, match="no batch came"):
    state = _train(agent, data, steps=80, data_timeout=0.4, on_progress=_later(data.released.set))
  chex.assert_trees_all_equal(_plain(state), whole)


def _terminate():
  os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_wait_and_saves_every_update(agent, blocking, whole, tmp_path, monkeypatch):
  monkeypatch.setattr(waiting, "_GRACE", 0.2)
  with pytest.raises(training.Interrupted, match="72 of 80 updates are saved"):
    _train(agent, blocking(75), steps=80, workdir=tmp_path, data_timeout=0, on_progress=_later(_terminate))
  steps = []
  state = _train(agent, blocking(1000), steps=80, workdir=tmp_path, logs=lambda step: steps.append(step) or [])
  assert steps == [72]
  chex.assert_trees_all_equal(_plain(state), whole)


@pytest.mark.parametrize(
  ("at", "metric", "message"),
  [(50, True, "train/odd is not finite in update 50"), (72, False, "the state is not finite after update 72")],
)
def test_what_broke_before_the_signal_is_not_saved(agent, blocking, tmp_path, monkeypatch, at, metric, message):
  """In the interval that no row was written of, in a metric; or in the state after its last update."""
  monkeypatch.setattr(waiting, "_GRACE", 0.2)

  def update(state, batch):
    new, metrics = agent.update(state, batch)
    bad = new.step == at
    if metric:
      return new, metrics | {"odd": jnp.where(bad, jnp.nan, 0.0)}
    return new._replace(params=jax.tree.map(lambda x: jnp.where(bad, x / 0, x), new.params)), metrics

  options = {"steps": 80, "workdir": tmp_path, "data_timeout": 0, "on_progress": _later(_terminate)}
  with pytest.raises(FloatingPointError, match=message):
    _train(agent._replace(update=update), blocking(75), **options)
  assert [path.name for path in (tmp_path / "checkpoints").glob("*")] == ["40"]


def test_a_signal_ends_the_wait_for_the_first_batch(agent, blocking, tmp_path, monkeypatch):
  monkeypatch.setattr(waiting, "_GRACE", 0.2)
  data = blocking(0)
  data.when_blocked = _terminate
  with pytest.raises(training.Interrupted, match="before the first update"):
    _train(agent, data, workdir=tmp_path, data_timeout=0)

"""Intervals of updates are made in pieces, of which nothing that is learnt or logged depends."""

import os
import signal

import chex
import jax
import numpy as np
import optax
import pytest

import ilx
from ilx import testing, training
from ilx.training import feed, pace

SPEC = testing.continuous_spec()
KINDS = [{}, {"strategy": "pmap"}, {"seeds": 2, "batch_size": 8}, {"seeds": 8}]


def _train(**kwargs):
  agent, episodes = ilx.agents.bc(SPEC, hidden=(4,)), testing.fake_episodes(SPEC)
  defaults = {"steps": 40, "batch_size": 16, "log_every": 20, "checkpoint_every": 40}
  state = ilx.train(agent, episodes, **(defaults | kwargs))
  return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


def _rows(**kwargs):
  rows, seen = [], []
  state = _train(on_progress=lambda step, row: rows.append((step, dict(row))), on_updates=seen.append, **kwargs)
  for _, row in rows:
    del row["updates_per_second"]
  return state, rows, seen


@pytest.fixture
def small(monkeypatch):
  """A look after every update; from the host after every three."""
  monkeypatch.setattr(pace, "_PERIOD", 0.0)
  monkeypatch.setattr(feed, "_STACK_BATCHES", 3)


@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize("kwargs", KINDS, ids=str)
def test_pieces_change_no_bit(request, tier, kwargs):
  state, rows, seen = _rows(tier=tier, **kwargs)
  assert not set(seen) & {20, 40}
  request.getfixturevalue("small")
  again, same, seen = _rows(tier=tier, **kwargs)
  chex.assert_trees_all_equal(again, state)
  assert same == rows and [step for step, _ in rows] == [20, 40]
  of_interval = range(1, 20) if tier == "device" else range(3, 20, 3)
  assert seen == [*of_interval, *(20 + made for made in of_interval)]


@pytest.mark.parametrize("tier", ["device", "host"])
@pytest.mark.parametrize("kwargs", KINDS, ids=str)
def test_a_signal_far_from_the_end_of_an_interval_stops_within_it(small, monkeypatch, tmp_path, tier, kwargs):
  monkeypatch.setattr(pace, "_GRACE", -1.0)
  reference, (_, last), _ = _rows(tier=tier, **kwargs)

  def stop(step):
    if step == 6:
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.raises(training.Interrupted, match="6 of 40 updates are saved"):
    _train(workdir=tmp_path, tier=tier, on_updates=stop, **kwargs)
  state, rows, seen = _rows(workdir=tmp_path, tier=tier, **kwargs)
  assert min(seen) > 6 and [step for step, _ in rows] == [20, 40]
  chex.assert_trees_all_equal(state, reference)
  assert rows[1] == last  # the first is of updates 7 to 20 alone


@pytest.mark.parametrize("kwargs", KINDS, ids=str)
def test_what_diverged_is_told_alike(request, kwargs):
  def told():
    agent = ilx.agents.bc(SPEC, hidden=(4,), optimizer=optax.sgd(float("nan")))
    defaults = {"steps": 40, "batch_size": 16, "log_every": 20}
    with pytest.raises(FloatingPointError) as error:
      ilx.train(agent, testing.fake_episodes(SPEC), **(defaults | kwargs))
    return str(error.value)

  whole = told()
  assert "in update 2" in whole
  request.getfixturevalue("small")
  assert told() == whole


def test_an_interval_that_ends_soon_is_finished(monkeypatch, tmp_path):
  monkeypatch.setattr(pace, "_PERIOD", 1e-9)  # never longer than it would take to the end
  seen = []

  def stop(step):
    seen.append(step)
    if step == 6:
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.raises(training.Interrupted, match="20 of 40 updates are saved"):
    _train(workdir=tmp_path, on_updates=stop)
  assert seen == list(range(1, 20))


def test_calls_take_as_long_as_they_should(monkeypatch):
  now, told = [0.0], []
  monkeypatch.setattr(pace.time, "perf_counter", lambda: now[0])
  watch = pace.Pace(told.append)
  lengths, left, cost = [], 1000, 0.125
  watch.begin()
  now[0] += 7.0  # compiling
  while left:
    made = watch.length(left)
    lengths.append(made)
    left -= made
    now[0] += made * cost
    watch.look(None, made, left)
  assert lengths[:3] == [1, 1, 16] and sum(lengths) == 1000
  assert all(16 <= made < 24 for made in lengths[2:]) and told == list(np.cumsum(lengths)[:-1])
  watch.begin()
  assert watch.length(23) == 23 and watch.length(24) == 16  # what is left is not cut into crumbs
  now[0] += 100 * 16 * cost  # someone else's work beside it
  watch.look(None, 16, 8)
  assert watch.length(8) == 1 and told[-1] == 16

"""What a run has saved, read back by others."""

import pathlib

import chex
import jax
import numpy as np
import pytest

import ilx
from ilx import testing, training
from ilx.training.lock import locked

SPEC = testing.continuous_spec()
EPISODES = testing.fake_episodes(SPEC)


def _agent(**options):
  return ilx.agents.bc(SPEC, hidden=(8,), **options)


def _train(workdir, **more):
  sizes = {"steps": 20, "batch_size": 16, "log_every": 10, "checkpoint_every": 10}
  return ilx.train(_agent(), EPISODES, workdir=workdir, **sizes, **more)


def _plain(state):
  return jax.tree.map(np.asarray, state._replace(key=jax.random.key_data(state.key)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  return workdir, _train(workdir)


def _files(folder):
  return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_the_newest_state_is_what_training_returned(run, kind):
  workdir, trained = run
  before = _files(workdir)
  with locked(workdir):  # as of a run that goes on
    state = training.restore(kind(workdir), _agent(), EPISODES)
  chex.assert_trees_all_equal(_plain(state), _plain(trained))
  assert all(len(x.devices()) == 1 for x in jax.tree.leaves(state))
  assert {path: time for path, time in _files(workdir).items() if path.name != ".lock"} == {
    path: time for path, time in before.items() if path.name != ".lock"
  }


def test_other_data_of_the_same_shapes_will_do(run):
  workdir, trained = run
  state = training.restore(workdir, _agent(), testing.fake_episodes(SPEC, 2, 4, seed=1))
  chex.assert_trees_all_equal(_plain(state), _plain(trained))


def test_an_older_checkpoint(run):
  workdir, _ = run
  assert training.restore(workdir, _agent(), EPISODES, step=10).step == 10


def test_of_many_seeds(tmp_path):
  trained = _train(tmp_path, seeds=2)
  state = training.restore(tmp_path, _agent(), EPISODES, seeds=2)
  chex.assert_trees_all_equal(_plain(state), _plain(trained))


def test_what_cannot_be_restored_is_said(run, tmp_path):
  workdir, _ = run
  with pytest.raises(ValueError, match=r"checkpoints has no checkpoint$"):
    training.restore(tmp_path, _agent(), EPISODES)
  with pytest.raises(ValueError, match=r"checkpoints has no checkpoint of step 11"):
    training.restore(workdir, _agent(), EPISODES, step=11)
  wider = ilx.agents.bc(SPEC, hidden=(16,))
  with pytest.raises(training.CheckpointError, match=r"checkpoints/20: .*is float32\[.* there where this run's is"):
    training.restore(workdir, wider, EPISODES)
  with pytest.raises(training.CheckpointError, match=r"checkpoints/20: "):
    training.restore(workdir, _agent(), EPISODES, seeds=2)

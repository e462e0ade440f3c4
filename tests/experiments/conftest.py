"""Shared by the tests of experiments."""

import numpy as np
import pytest

import ilx


@pytest.fixture(scope="session")
def record_cartpole():
  """``(folder, **metadata) -> path`` of a made-up dataset, for CartPole: four short episodes of a simple rule."""

  def record(folder, **metadata):
    rng = np.random.default_rng(0)
    with ilx.data.Recorder(folder, name="made-up", metadata={"env_id": "CartPole-v1", **metadata}) as recorder:
      for length in (20, 25, 30, 35):
        observation = rng.normal(size=(length + 1, 4)).astype(np.float32)
        action = (observation[:-1, 2] > 0).astype(int)
        recorder.add(ilx.data.episode(observation, action, np.ones(length), terminal=True))
    return recorder.path

  return record

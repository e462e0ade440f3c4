"""Data of the shapes of the D4RL locomotion tasks: random numbers, as speed does not depend on the values."""

from pathlib import Path

import numpy as np

from ilx import data

OBSERVATION, ACTION, EPISODE = 17, 6, 1000
PICTURE = (84, 84, 4)


def episodes(count: int, length: int = EPISODE, pictures: bool = False) -> data.Episodes:
  """``count`` episodes of ``length`` steps, the last one's included, all ended by the time limit.

  With ``pictures`` observations are uint8 of the shape that DQN's and others' of Atari have.
  """
  rng = np.random.default_rng(0)
  steps = count * length
  return data.from_columns(
    observation=rng.integers(256, size=(steps, *PICTURE), dtype=np.uint8)
    if pictures
    else rng.standard_normal((steps, OBSERVATION), np.float32),
    action=np.tanh(rng.standard_normal((steps, ACTION), np.float32)),
    reward=rng.standard_normal(steps, np.float32),
    discount=np.ones(steps, np.float32),
    is_terminal=np.zeros(steps, bool),
    starts=np.arange(count + 1) * length,
  )


def record(episodes: data.Episodes, folder: str | Path, name: str) -> Path:
  """Writes the episodes as a dataset; returns its folder."""
  with data.Recorder(folder, name=name) as recorder:
    for start, end in zip(episodes.starts[:-1], episodes.starts[1:], strict=True):
      taken, acted = slice(start, end), slice(start, end - 1)
      recorder.add(
        data.episode(episodes.observation[taken], episodes.action[acted], episodes.reward[acted], terminal=False)
      )
  return recorder.path

"""The replay of the training run behind a medium policy, rebuilt from a few snapshots of that run.

A replay file, ``weights/<env>-medium-replay.npz``, holds snapshots from before the medium policy: matrices as int8
with one scale for every output, vectors as float16 (a third of the size of the float16 files of single policies). The
policy of the run is taken to be piecewise constant: at every moment the snapshot that is nearest in time.
"""

import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.demos import policy

# Snapshots kept, medium apart: as many as are worth their bytes in the repository.
MAX_SNAPSHOTS = 8
_SCALE = "scale:"


class Segment(NamedTuple):
  """A stretch of the run.

  Attributes:
    weights: the policy that stands for it; None: uniformly random actions.
    env_steps: environment steps that the run made in it.
    length: mean length of an episode of the policy.
  """

  weights: policy.Weights | None
  env_steps: int
  length: float


class Replay(NamedTuple):
  """A replay file in memory.

  Attributes:
    snapshots: weights as the file gives them back, oldest first.
    metadata: ``env_steps`` of the snapshots, ``lengths`` and ``returns`` of their episodes (actions sampled), the run's
      ``random_steps`` before learning, ``medium_env_steps``, and how the run was made.
  """

  snapshots: list[policy.Weights]
  metadata: dict[str, Any]


def name(env: str) -> str:
  """Of the weight file."""
  return f"{env}-medium-replay"


def choose(env_steps: Sequence[int], first: int, last: int) -> list[int]:
  """At most ``MAX_SNAPSHOTS`` of the snapshots after ``first`` and before ``last``, evenly."""
  between = [steps for steps in sorted(env_steps) if first < steps < last]
  index = np.linspace(0, len(between) - 1, min(MAX_SNAPSHOTS, len(between))).round().astype(int)
  return [between[i] for i in index]


def quantise(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """A policy's arrays as the file has them."""
  arrays = {}
  for key, x in weights.items():
    if x.ndim == 2:
      scale = np.maximum(np.abs(x).max(axis=0), np.finfo(np.float32).tiny).astype(np.float32) / 127
      arrays[key], arrays[_SCALE + key] = np.rint(x / scale).astype(np.int8), scale
    else:
      arrays[key] = x.astype(np.float16)
  return arrays


def restore(arrays: Mapping[str, np.ndarray]) -> policy.Weights:
  """float32 weights from what ``quantise`` made."""
  return {
    key: x.astype(np.float32) * arrays.get(_SCALE + key, np.float32(1))
    for key, x in arrays.items()
    if not key.startswith(_SCALE)
  }


def write(file: pathlib.Path, snapshots: Sequence[Mapping[str, np.ndarray]], metadata: dict[str, Any]) -> None:
  """Writes a replay file of policies given as `quantise` gives them."""
  stacked = {key: np.stack([snapshot[key] for snapshot in snapshots]) for key in snapshots[0]}
  policy.write_npz(file, {**stacked, "metadata": np.array(json.dumps(metadata))}, compressed=True)


def load(env: str) -> Replay:
  """The shipped replay of ``env``, such as "hopper"; raises FileNotFoundError where none ships."""
  with np.load(policy.path(name(env)), allow_pickle=False) as arrays:
    metadata = json.loads(str(arrays["metadata"]))
    stacked = {key: arrays[key] for key in arrays.files if key != "metadata"}
  snapshots = [restore({key: x[i] for key, x in stacked.items()}) for i in range(len(metadata["env_steps"]))]
  return Replay(snapshots, metadata)


def boundaries(env_steps: Sequence[int], random_steps: int) -> list[int]:
  """Where the policy changes, in environment steps, from 0 to the last snapshot: one number more than policies.

  The first policy is the random one. A run without random steps is taken to start from it all the same: its untrained
  network plays so, up to half the way to the first snapshot.
  """
  middles = [(a + b) // 2 for a, b in itertools.pairwise(env_steps)]
  return [0, random_steps or env_steps[0] // 2, *middles, env_steps[-1]]


def segments(env: str, random_length: float) -> list[Segment]:
  """The run up to its medium policy, in order; ``random_length`` is that of random episodes."""
  shipped, medium = load(env), policy.load(f"{env}-medium")
  steps = [*shipped.metadata["env_steps"], shipped.metadata["medium_env_steps"]]
  lengths = [random_length, *shipped.metadata["lengths"], medium.metadata["scores"]["sample"]["length_mean"]]
  return [
    Segment(weights, int(count), length)
    for weights, count, length in zip(
      [None, *shipped.snapshots, medium.weights],
      np.diff(boundaries(steps, shipped.metadata["random_steps"])),
      lengths,
      strict=True,
    )
  ]

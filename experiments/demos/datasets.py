"""The built-in datasets: a shipped policy plays in EnvPool and is recorded as RLDS.

Named ``<env>-<quality>``: random, medium, expert, or medium-expert, which is the other two, shuffled together. Actions
are sampled from the policy. Every policy gives about 100,000 transitions in whole episodes. medium-replay is the
training run that led to the medium policy, rebuilt from snapshots (``replay.py``): as many transitions as the run made
until then, in its order. ``pointmaze-<size>`` are short walks in a maze, each labelled with a goal
that it was not meant for (``maze.py``). What is recorded follows bit for bit from the name and ``SEED`` on one
platform, whatever the number of cores, processes and devices.
"""

import difflib
import fcntl
import functools
import json
import os
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich import progress

from experiments.demos import finished, maze, policy, replay
from ilx import data
from ilx.evaluation import Episode, environments, playing
from ilx.types import Continuous

ENVIRONMENTS = {
  "halfcheetah": "HalfCheetah-v5",
  "hopper": "Hopper-v5",
  "walker2d": "Walker2d-v5",
  "cartpole": "CartPole-v1",
  "lunarlander": "LunarLander-v3",
}
REPLAY = "medium-replay"
QUALITIES = ("random", "medium", REPLAY, "medium-expert", "expert")
NAMES = (*(f"{env}-{quality}" for env in ENVIRONMENTS for quality in QUALITIES), *maze.MAZES)
REFERENCES = pathlib.Path(__file__).parent / "references.json"

# Another version, seed, policy or size makes other data: raise the version, so that cached datasets are told apart.
VERSION = "1.0.0"
SEED = 0
ROUNDS = 4
NUM_ENVS = 25
STEPS_PER_ROUND = 25_000

# Makes the episodes of one round; reports the share that is done.
Round = Callable[[Callable[[float], None]], list[Episode]]


def reference(env_id: str) -> dict[str, Any]:
  """``random_return``, ``expert_return`` of an environment, and how they were measured.

  Raises:
    ValueError: where they were not.
  """
  known = json.loads(REFERENCES.read_text())
  if env_id not in known:
    raise ValueError(f"{REFERENCES.name} has no {env_id}; measure it by: python -m experiments.demos.summarise")
  return known[env_id]


def build(name: str, root: str | os.PathLike | None = None, *, rounds: int = ROUNDS) -> pathlib.Path:
  """Builds a dataset unless it is there; returns its folder, ``<root>/<name>/<version>``.

  A build that was killed goes on where it stopped; a second process that builds the same dataset waits for the first.

  Args:
    name: one of ``NAMES``.
    root: the folder of datasets; by default ``ilx.data.root()``.
    rounds: of about 25,000 transitions by every policy; a replay has ``rounds`` quarters of its run's transitions.

  Raises:
    ValueError: for an unknown name, and where the folder holds a recording of other policies.
    OSError: where it cannot be written; finished episodes stay for the next attempt.
  """
  if name not in NAMES:
    near = difflib.get_close_matches(name, NAMES, n=3, cutoff=0.4)
    raise ValueError(f"no built-in dataset {name!r}; nearest: {', '.join(near) if near else ', '.join(NAMES)}")
  root = data.root() if root is None else pathlib.Path(root).expanduser()
  folder = root / name / VERSION
  if folder.exists():
    return _checked(folder, name)
  folder.parent.mkdir(parents=True, exist_ok=True)
  with open(folder.parent / ".build.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not folder.exists():
      _build(name, root, rounds)
  return _checked(folder, name)


def _checked(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Refuses data that another version of the project recorded under the same name."""
  if data.read_info(folder).metadata.get("weights") != _fingerprints(name):
    raise ValueError(f"{folder} was recorded from other policies than those that ship now; remove it to build it again")
  return folder


def _fingerprints(name: str) -> dict[str, int]:
  """CRC-32 of the weight files behind a dataset; of a maze's map and options."""
  if name in maze.MAZES:
    return {name: zlib.crc32(repr(maze.MAZES[name]).encode())}
  env, quality = name.split("-", 1)
  shipped = [f"{env}-{q}" for q in _parts(quality) if q != "random"]
  return {policy_name: zlib.crc32(policy.path(policy_name).read_bytes()) for policy_name in shipped}


def _parts(quality: str) -> list[str]:
  """The weight files of a quality."""
  return ["medium", REPLAY] if quality == REPLAY else quality.split("-")


def _build(name: str, root: pathlib.Path, rounds: int) -> None:
  with data.Recorder(root, name=name, version=VERSION, metadata=_metadata(name)) as recorder, _bar() as bar:
    done = finished.Finished(recorder)
    makers = _rounds(name, rounds)
    task = bar.add_task(name, total=len(makers))
    for index in range(len(done.returns), len(makers)):
      episodes = makers[index](lambda share, index=index: bar.update(task, completed=index + share))
      # A build that was killed within this round has recorded its first episodes.
      for episode in episodes[recorder.num_episodes - done.num_episodes :]:
        recorder.add(data.episode(episode.observation, episode.action, episode.reward, terminal=episode.is_terminal))
      done.add([float(np.sum(episode.reward, dtype=np.float64)) for episode in episodes])
    returns = np.concatenate(done.returns)
    recorder.metadata.update(data_return=float(returns.mean()), data_return_std=float(returns.std()))


def _rounds(name: str, rounds: int) -> list[Round]:
  """How each round is made; a build that was killed makes those again that it had not recorded whole."""
  if name in maze.MAZES:
    return [functools.partial(_walks, name, index) for index in range(rounds)]
  env, quality = name.split("-", 1)
  if quality == REPLAY:
    segments = replay.segments(env, reference(ENVIRONMENTS[env])["random_length"])
    return [functools.partial(_segment, name, i, x, rounds / ROUNDS) for i, x in enumerate(segments)]
  return [functools.partial(_shuffled, name, index) for index in range(rounds)]


def _segment(
  name: str, index: int, segment: replay.Segment, scale: float, progress: Callable[[float], None]
) -> list[Episode]:
  """The episodes of one stretch of a training run."""
  env_id = ENVIRONMENTS[name.split("-")[0]]
  act = policy.uniform(environments.spec(env_id).action) if segment.weights is None else policy.forward(segment.weights)
  count = max(1, round(scale * segment.env_steps / segment.length))
  return _record(env_id, act, _seed(name, index), count, progress)


def _walks(name: str, index: int, progress: Callable[[float], None]) -> list[Episode]:
  """One round of walks in a maze."""
  task, seed = maze.MAZES[name], _seed(name, index)
  act = maze.controller(task, maze.ACTION_NOISE)
  count = NUM_ENVS * max(1, round(STEPS_PER_ROUND * task.size / (NUM_ENVS * task.walk)))
  walks = _record(task.recorded, act, seed, count, progress, **task.recorded_kwargs)
  goals = maze.goals(task, np.random.default_rng(seed), count)
  return [maze.relabel(walk, goal) for walk, goal in zip(walks, goals, strict=True)]


def _shuffled(name: str, index: int, progress: Callable[[float], None]) -> list[Episode]:
  """One round of every policy of a dataset."""
  env, quality = name.split("-", 1)
  qualities, episodes = quality.split("-"), []
  for part, q in enumerate(qualities):
    episodes += _play(env, q, index, lambda share, part=part: progress((part + share) / len(qualities)))
  if len(qualities) > 1:
    order = np.random.default_rng(_seed(name, index)).permutation(len(episodes))
    episodes = [episodes[i] for i in order]
  return episodes


def _play(env: str, quality: str, index: int, progress: Callable[[float], None]) -> list[Episode]:
  """The episodes of one policy's round."""
  env_id = ENVIRONMENTS[env]
  if quality == "random":
    act, length = policy.uniform(environments.spec(env_id).action), reference(env_id)["random_length"]
  else:
    shipped = policy.load(f"{env}-{quality}")
    act, length = policy.forward(shipped.weights), shipped.metadata["scores"]["sample"]["length_mean"]
  count = NUM_ENVS * max(1, round(STEPS_PER_ROUND / (NUM_ENVS * length)))
  return _record(env_id, act, _seed(f"{env}-{quality}", index), count, progress)


def _record(
  env_id: str, act: policy.Forward, seed: int, count: int, progress: Callable[[float], None], **env_kwargs: Any
) -> list[Episode]:
  """``count`` episodes with sampled actions, every slot playing its share."""
  episodes: list[Episode] = []
  playing.play(
    policy.player(act, environments.spec(env_id).action),
    (),
    environments.make(env_id, min(NUM_ENVS, count), seed, **env_kwargs),
    episodes=count,
    key=jax.random.key(seed, impl="threefry2x32"),
    on_episode=lambda _, episode: episodes.append(episode),
    progress=progress,
  )
  return episodes


def _bar() -> progress.Progress:
  return progress.Progress(*progress.Progress.get_default_columns(), progress.TimeElapsedColumn(), transient=True)


def _seed(name: str, index: int) -> int:
  return int(np.random.SeedSequence((SEED, zlib.crc32(name.encode()), index)).generate_state(1)[0])


def _metadata(name: str) -> dict[str, Any]:
  if name in maze.MAZES:
    env_id, env_kwargs = maze.MAZES[name].env_id, maze.MAZES[name].env_kwargs
    policies = ["waypoint controller"]
  else:
    env, quality = name.split("-", 1)
    env_id, env_kwargs = ENVIRONMENTS[env], {}
    policies = [f"{env}-{q}" for q in _parts(quality)]
  action = environments.spec(env_id).action
  if isinstance(action, Continuous):
    bounds = {"action_low": action.low.tolist(), "action_high": action.high.tolist()}
  else:
    bounds = {"num_actions": action.num_actions}
  known = reference(env_id)
  return {
    "env_id": env_id,
    "env_kwargs": env_kwargs,
    **bounds,
    "policy": policies,
    "weights": _fingerprints(name),
    "actions": "sampled",
    "seed": SEED,
    "expert_return": known["expert_return"],
    "random_return": known["random_return"],
    "envpool": environments.version(),
  }

"""The built-in datasets: a shipped policy plays in EnvPool and is recorded as RLDS.

Named ``<env>-<quality>``: random, medium, expert, or medium-expert, which is the other two, shuffled together. Actions
are sampled from the policy. Every policy gives about 100,000 transitions in whole episodes. What is recorded follows
bit for bit from the name and ``SEED`` on one platform, whatever the number of cores, processes and devices.
"""

import difflib
import fcntl
import json
import os
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich import progress

from experiments.demos import policy
from ilx import data
from ilx.evaluation import environments, rollout
from ilx.types import Continuous

ENVIRONMENTS = {
  "halfcheetah": "HalfCheetah-v5",
  "hopper": "Hopper-v5",
  "walker2d": "Walker2d-v5",
  "cartpole": "CartPole-v1",
  "lunarlander": "LunarLander-v3",
}
QUALITIES = ("random", "medium", "expert", "medium-expert")
NAMES = tuple(f"{env}-{quality}" for env in ENVIRONMENTS for quality in QUALITIES)
REFERENCES = pathlib.Path(__file__).parent / "references.json"

# Another version, seed, policy or size makes other data: raise the version, so that cached datasets are told apart.
VERSION = "1.0.0"
SEED = 0
ROUNDS = 4
NUM_ENVS = 25
STEPS_PER_ROUND = 25_000


def references() -> dict[str, dict[str, Any]]:
  """By environment id: ``random_return``, ``expert_return``, and how they were measured."""
  return json.loads(REFERENCES.read_text())


def build(name: str, root: str | os.PathLike | None = None, *, rounds: int = ROUNDS) -> pathlib.Path:
  """Builds a dataset unless it is there; returns its folder, ``<root>/<name>/<version>``.

  A build that was killed goes on where it stopped; a second process that builds the same dataset waits for the first.

  Args:
    name: one of ``NAMES``.
    root: the folder of datasets; by default ``ilx.data.root()``.
    rounds: of about 25,000 transitions by every policy.

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
  """CRC-32 of the weight files behind a dataset."""
  env, quality = name.split("-", 1)
  shipped = [f"{env}-{q}" for q in quality.split("-") if q != "random"]
  return {policy_name: zlib.crc32(policy.path(policy_name).read_bytes()) for policy_name in shipped}


def _build(name: str, root: pathlib.Path, rounds: int) -> None:
  env, quality = name.split("-", 1)
  qualities = quality.split("-")
  with data.Recorder(root, name=name, version=VERSION, metadata=_metadata(name)) as recorder, _bar() as bar:
    finished = _Finished(recorder)
    task = bar.add_task(name, total=rounds * len(qualities))
    for index in range(len(finished.returns), rounds):
      episodes: list[rollout.Episode] = []
      for part, q in enumerate(qualities):
        before = index * len(qualities) + part
        _play(env, q, index, episodes, lambda share, before=before: bar.update(task, completed=before + share))
      if len(qualities) > 1:
        order = np.random.default_rng(_seed(name, index)).permutation(len(episodes))
        episodes = [episodes[i] for i in order]
      # A build that was killed within this round has recorded its first episodes.
      for episode in episodes[recorder.num_episodes - finished.num_episodes :]:
        recorder.add(data.episode(episode.observation, episode.action, episode.reward, terminal=episode.is_terminal))
      finished.add([float(np.sum(episode.reward, dtype=np.float64)) for episode in episodes])
    returns = np.concatenate(finished.returns)
    recorder.metadata.update(data_return=float(returns.mean()), data_return_std=float(returns.std()))


def _play(
  env: str, quality: str, index: int, episodes: list[rollout.Episode], progress: Callable[[float], None]
) -> None:
  """Appends the episodes of one policy's round."""
  env_id = ENVIRONMENTS[env]
  action = environments.spec(env_id).action
  if quality == "random":
    act, length = policy.uniform(action), references()[env_id]["random_length"]
  else:
    shipped = policy.load(f"{env}-{quality}")
    act, length = policy.forward(shipped.weights), shipped.metadata["scores"]["sample"]["length_mean"]
  seed = _seed(f"{env}-{quality}", index)
  rollout.play(
    policy.player(act, action),
    (),
    environments.make(env_id, NUM_ENVS, seed),
    episodes=NUM_ENVS * max(1, round(STEPS_PER_ROUND / (NUM_ENVS * length))),
    key=jax.random.key(seed, impl="threefry2x32"),
    on_episode=lambda _, episode: episodes.append(episode),
    progress=progress,
  )


class _Finished:
  """Returns of the rounds that are recorded, kept beside the recorder's journal until it closes."""

  def __init__(self, recorder: data.Recorder):
    self._path = recorder.path.with_name(f"{recorder.version}.incomplete") / "returns.jsonl"
    self.returns: list[list[float]] = []
    text = self._path.read_text() if self._path.exists() else ""
    for line in text.splitlines(keepends=True):
      returns = json.loads(line) if line.endswith("\n") else []  # a kill may tear the last line
      if not returns or self.num_episodes + len(returns) > recorder.num_episodes:
        break
      self.returns.append(returns)

  @property
  def num_episodes(self) -> int:
    return sum(map(len, self.returns))

  def add(self, returns: list[float]) -> None:
    self.returns.append(returns)
    self._path.write_text("".join(json.dumps(row) + "\n" for row in self.returns))


def _bar() -> progress.Progress:
  return progress.Progress(*progress.Progress.get_default_columns(), progress.TimeElapsedColumn(), transient=True)


def _seed(name: str, index: int) -> int:
  return int(np.random.SeedSequence((SEED, zlib.crc32(name.encode()), index)).generate_state(1)[0])


def _metadata(name: str) -> dict[str, Any]:
  env, quality = name.split("-", 1)
  env_id = ENVIRONMENTS[env]
  action = environments.spec(env_id).action
  if isinstance(action, Continuous):
    bounds = {"action_low": action.low.tolist(), "action_high": action.high.tolist()}
  else:
    bounds = {"num_actions": action.num_actions}
  reference = references()[env_id]
  return {
    "env_id": env_id,
    "env_kwargs": {},
    **bounds,
    "policy": [f"{env}-{q}" for q in quality.split("-")],
    "weights": _fingerprints(name),
    "actions": "sampled",
    "seed": SEED,
    "expert_return": reference["expert_return"],
    "random_return": reference["random_return"],
    "envpool": environments.version(),
  }

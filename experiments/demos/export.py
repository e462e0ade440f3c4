"""Turns the snapshots of a training run into the weight files that ship: an expert and a medium policy.

    python -m experiments.demos.export --workdir=runs/experts/HalfCheetah-v5

Writes `experiments/demos/weights/<env>-expert.npz` and `<env>-medium.npz`, rounded to float16 and scored afterwards.
The expert is the best of the three snapshots that scored best in training, re-scored; medium is the earliest one whose
sampled actions are a third to a half of the way from random to expert, after D4RL (Fu et al. 2020), and whose most
likely ones are no worse. The scores that are kept come from 100 episodes that chose nothing. Run
`python -m experiments.demos.summarise` afterwards.

    python -m experiments.demos.export --workdir=runs/experts/HalfCheetah-v5 --replay

Writes `<env>-medium-replay.npz` alone: snapshots of the run on its way to the medium policy that ships (`replay.py`).
The run may be one that stopped there and kept more snapshots; it must have arrived at the very same policy.
"""

import json
import pathlib
import sys
from typing import Any

import numpy as np
from absl import flags

from experiments import cli
from experiments.demos import policy, replay, sac
from experiments.demos.scores import SCORE_SEED, score
from ilx.evaluation import environments
from ilx.types import Discrete

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of a run of experiments.demos.train.", required=True)
flags.DEFINE_bool("replay", False, "Write only the replay of the way to the medium policy.")

CHOICE_SEED, CHOICE_EPISODES = 20_000, 25
MEDIUM = 1 / 3, 1 / 2
CANDIDATES = 3


def short_name(env_id: str) -> str:
  """ "HalfCheetah-v5" -> "halfcheetah"."""
  return env_id.split("-v")[0].lower()


def _rounded(file: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(file, allow_pickle=False) as arrays:
    return {key: arrays[key].astype(np.float16) for key in arrays.files}


def _act(weights: dict[str, np.ndarray]) -> policy.Forward:
  return policy.forward({key: x.astype(np.float32) for key, x in weights.items()})


def choose_expert(workdir: pathlib.Path, log: list[dict[str, Any]], env_id: str) -> int:
  """Environment steps of the snapshot that is best on average over its most likely and its sampled actions."""

  def value(row: dict[str, Any]) -> float:
    act = _act(_rounded(workdir / f"{row['env_steps']:09d}.npz"))
    return sum(
      score(act, env_id, seed=CHOICE_SEED, sample=s, episodes=CHOICE_EPISODES)["return_mean"] for s in (False, True)
    )

  candidates = sorted(log, key=lambda row: row["return_mean"])[-CANDIDATES:]
  return max(candidates, key=value)["env_steps"]


def choose_medium(
  workdir: pathlib.Path, log: list[dict[str, Any]], env_id: str, random_return: float, expert_return: float
) -> int:
  """Environment steps of the earliest snapshot whose sampled actions are within `MEDIUM` of the way to the expert.

  Its most likely actions are to be no worse than that. Where no snapshot is such, the closest to it of all.
  """
  low, high = MEDIUM
  misses = {}
  for row in sorted(log, key=lambda row: row["env_steps"]):
    act = _act(_rounded(workdir / f"{row['env_steps']:09d}.npz"))
    sampled = score(act, env_id, seed=CHOICE_SEED, sample=True, episodes=CHOICE_EPISODES)["return_mean"]
    share, mode_share = ((x - random_return) / (expert_return - random_return) for x in (sampled, row["return_mean"]))
    misses[row["env_steps"]] = max(low - share, share - high, 0.0) + max(low - mode_share, 0.0)
    if misses[row["env_steps"]] == 0.0:
      break
  return min(misses, key=misses.__getitem__)


def _export(workdir: pathlib.Path, run: dict[str, Any], quality: str, steps: int) -> dict[str, Any]:
  """Writes one weight file; returns its scores."""
  weights = _rounded(workdir / f"{steps:09d}.npz")
  scores = {
    key: score(_act(weights), run["env_id"], seed=SCORE_SEED, sample=sample)
    for key, sample in (("mode", False), ("sample", True))
  }
  name = f"{short_name(run['env_id'])}-{quality}"
  metadata = {**run, "name": name, "env_steps": steps, "scores": scores}
  policy.WEIGHTS.mkdir(exist_ok=True)
  policy.write_npz(policy.WEIGHTS / f"{name}.npz", {**weights, "metadata": np.array(json.dumps(metadata))})
  means = ", ".join(f"{key} {value['return_mean']}" for key, value in scores.items())
  print(f"{name}: {steps:,} steps; return of 100 episodes: {means}")
  return scores


def export_replay(workdir: pathlib.Path, run: dict[str, Any], env_steps: list[int]) -> dict[str, Any]:
  """Writes the replay file of a run that led to the medium policy that ships; returns its metadata.

  Raises:
    ValueError: where the run's snapshot is another policy.
  """
  env_id = run["env_id"]
  env, action = short_name(env_id), environments.spec(env_id).action
  medium = policy.load(f"{env}-medium")
  last = medium.metadata["env_steps"]
  file = workdir / f"{last:09d}.npz"
  same = file.is_file() and all(np.array_equal(x, medium.weights[key]) for key, x in _rounded(file).items())
  if not same:
    raise ValueError(f"{file} is not {env}-medium, which the replay must lead to; train with the command that made it")
  random_steps = 0 if isinstance(action, Discrete) else sac.RANDOM_STEPS
  chosen = replay.choose(env_steps, random_steps, last)
  snapshots = []
  for steps in chosen:
    with np.load(workdir / f"{steps:09d}.npz", allow_pickle=False) as arrays:
      snapshots.append(replay.quantise(dict(arrays)))
  scores = [
    score(policy.forward(replay.restore(snapshot)), env_id, seed=SCORE_SEED, sample=True, episodes=CHOICE_EPISODES)
    for snapshot in snapshots
  ]
  metadata = {
    **run,
    "name": replay.name(env),
    "env_steps": chosen,
    "returns": [s["return_mean"] for s in scores],
    "lengths": [s["length_mean"] for s in scores],
    "random_steps": random_steps,
    "medium_env_steps": last,
  }
  replay.write(policy.WEIGHTS / f"{replay.name(env)}.npz", snapshots, metadata)
  told = ", ".join(f"{steps:,}: {value}" for steps, value in zip(chosen, metadata["returns"], strict=True))
  print(f"{metadata['name']}: snapshots with the return of {CHOICE_EPISODES} episodes, {told}")
  return metadata


def main() -> None:
  workdir = pathlib.Path(FLAGS.workdir)
  if not (workdir / "run.json").is_file():
    sys.exit(f"--workdir: {workdir} holds no run.json; it must be the workdir of experiments.demos.train")
  run = json.loads((workdir / "run.json").read_text())
  log = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
  env_id = run["env_id"]
  if FLAGS.replay:
    try:
      export_replay(workdir, run, [row["env_steps"] for row in log])
    except (ValueError, FileNotFoundError) as error:
      sys.exit(f"--workdir: {error}")
    return
  random_act = policy.uniform(environments.spec(env_id).action)
  random_return = score(random_act, env_id, seed=SCORE_SEED, sample=True)["return_mean"]
  steps = choose_expert(workdir, log, env_id)
  expert = _export(workdir, run, "expert", steps)
  _export(workdir, run, "medium", choose_medium(workdir, log, env_id, random_return, expert["sample"]["return_mean"]))


if __name__ == "__main__":
  cli.run(main)

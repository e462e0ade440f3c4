"""Trains an expert online in EnvPool and keeps a snapshot of its policy at every evaluation.

    python -m experiments.demos.train --env_id=HalfCheetah-v5 --workdir=runs/experts/HalfCheetah-v5

Continuous actions are learnt by soft actor-critic, discrete ones by PPO. The workdir gets `run.json`, how it was made;
`<env_steps>.npz`, one policy each; and `log.jsonl`, the return of its most likely actions over 10 episodes. A run
cannot be resumed, since the replay buffer and the simulators are not saved: the workdir must be new.
`python -m experiments.demos.export` turns snapshots into the weight files that ship.
"""

import json
import pathlib
import sys
import time
from importlib import metadata

import numpy as np
from absl import flags
from rich import progress

from experiments import cli
from experiments.demos import policy, ppo, sac
from ilx.evaluation import environments, rollout
from ilx.types import Discrete

FLAGS = flags.FLAGS
flags.DEFINE_string("env_id", None, "EnvPool task id, such as HalfCheetah-v5 or LunarLander-v3.", required=True)
flags.DEFINE_string("workdir", None, "New folder for the snapshots and the log.", required=True)
flags.DEFINE_integer("env_steps", 1_200_000, "Environment steps to train for.", lower_bound=1)
flags.DEFINE_integer("snapshot_every", 50_000, "Environment steps between snapshots.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Fixes the run on one platform with one number of threads.")

EVALUATION_EPISODES = 10
EVALUATION_SEED = 10_000  # plus the run's own


def main() -> None:
  try:
    action = environments.spec(FLAGS.env_id).action
  except ValueError as error:
    sys.exit(f"--env_id: {error}")
  workdir = pathlib.Path(FLAGS.workdir)
  log_path = workdir / "log.jsonl"
  if log_path.exists():
    sys.exit(f"--workdir: {workdir} already holds a run, and runs cannot be resumed; choose a new folder")
  workdir.mkdir(parents=True, exist_ok=True)
  run = {
    "command": f"python -m experiments.demos.train --env_id={FLAGS.env_id} --env_steps={FLAGS.env_steps} "
    f"--snapshot_every={FLAGS.snapshot_every} --seed={FLAGS.seed}",
    "env_id": FLAGS.env_id,
    "seed": FLAGS.seed,
    "envpool": metadata.version("envpool"),
  }
  (workdir / "run.json").write_text(json.dumps(run, indent=2))
  algorithm = ppo if isinstance(action, Discrete) else sac
  start = time.time()
  columns = (*progress.Progress.get_default_columns(), progress.TimeElapsedColumn())
  with progress.Progress(*columns) as bar, open(log_path, "x") as log:
    task = bar.add_task(FLAGS.env_id, total=FLAGS.env_steps)
    snapshots = algorithm.train(
      FLAGS.env_id,
      seed=FLAGS.seed,
      env_steps=FLAGS.env_steps,
      snapshot_every=FLAGS.snapshot_every,
      on_step=lambda step: bar.update(task, completed=step),
    )
    for step, params in snapshots:
      weights = policy.flatten(params)
      act = policy.player(policy.forward(weights), action)
      returns = rollout.evaluate(
        act, (), FLAGS.env_id, episodes=EVALUATION_EPISODES, seed=FLAGS.seed + EVALUATION_SEED
      ).returns
      policy.write_npz(workdir / f"{step:09d}.npz", weights)
      row = {
        "env_steps": step,
        "return_mean": float(np.mean(returns)),
        "return_std": float(np.std(returns)),
        "seconds": round(time.time() - start, 1),
      }
      log.write(json.dumps(row) + "\n")
      log.flush()
      bar.console.print(f"{step:>10,} steps: return {row['return_mean']:.1f} ± {row['return_std']:.1f}")


if __name__ == "__main__":
  cli.run(main)

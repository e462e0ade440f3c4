"""Trains an expert online and keeps a snapshot of the policy at every evaluation.

python -m experiments.demos.train --env_id=HalfCheetah-v5 --workdir=runs/experts/HalfCheetah-v5
"""

import json
import pathlib
import time

import envpool
import jax
import numpy as np
from absl import app, flags
from flax import traverse_util

from experiments.demos import sac

FLAGS = flags.FLAGS
flags.DEFINE_string("env_id", None, "EnvPool task id.", required=True)
flags.DEFINE_string("workdir", None, "Folder for the snapshots and log.", required=True)
flags.DEFINE_integer("env_steps", 1_200_000, "Environment steps to train for.")
flags.DEFINE_integer("snapshot_every", 50_000, "Environment steps between snapshots.")
flags.DEFINE_integer("seed", 0, "Fixes the run.")


def _evaluate(policy, params, env_id, seed, num_envs=10):
  env = envpool.make(env_id, env_type="gymnasium", num_envs=num_envs, num_threads=1, seed=seed)
  mode = jax.jit(lambda p, o: policy.apply(p, o).mode())
  observation, _ = env.reset()
  returns, alive = np.zeros(num_envs), np.ones(num_envs, bool)
  while alive.any():
    action = np.asarray(mode(params, observation.astype(np.float32)))
    if action.dtype.kind == "f":
      action = action.astype(np.float64)
    observation, reward, terminated, truncated, _ = env.step(action)
    returns += reward * alive
    alive &= ~(terminated | truncated)
  env.close()
  return returns


def main(_):
  workdir = pathlib.Path(FLAGS.workdir)
  workdir.mkdir(parents=True, exist_ok=True)
  start = time.time()
  env = envpool.make(FLAGS.env_id, env_type="gymnasium", num_envs=1)
  policy = sac.policy_network(env.action_space.shape[0])
  run = sac.train(FLAGS.env_id, seed=FLAGS.seed, env_steps=FLAGS.env_steps, snapshot_every=FLAGS.snapshot_every)
  for step, params in run:
    returns = _evaluate(policy, params, FLAGS.env_id, seed=FLAGS.seed + 10_000)
    row = {
      "env_steps": step,
      "return_mean": returns.mean(),
      "return_std": returns.std(),
      "seconds": time.time() - start,
    }
    flat = traverse_util.flatten_dict(params["params"], sep="/")
    np.savez(workdir / f"{step:09d}.npz", **flat)
    with open(workdir / "log.jsonl", "a") as log:
      log.write(json.dumps(row) + "\n")
    print(row, flush=True)


if __name__ == "__main__":
  app.run(main)

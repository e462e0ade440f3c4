"""One process of the runs in test_hosts.py: ``python host_process.py FOLDER DEVICES [HOST:PORT,PROCESSES,INDEX]``.

Four runs, one after the other: behaviour cloning as an experiment, IQL, behaviour cloning where all devices learn from
the whole batch, and a transformer divided over two devices.
With KILL_AT set, process 1 kills itself when IQL has made so many updates.
"""

import functools
import os
import pathlib
import signal
import sys

import jax
import numpy as np
import optax

import ilx
from experiments import run
from experiments.configs import bc
from ilx import testing
from ilx.parallel import hosts

SPEC = testing.continuous_spec()
STEPS = 12


def experiment(folder: pathlib.Path) -> None:
  config = bc.get_config()
  config.update(steps=STEPS, batch_size=16, log_every=4, split="train")
  config.update(checkpoint_every=4, strategy="pmap")
  config.agent.update(hidden=(8,), learning_rate=1e-2)
  config.evaluation.update(every=STEPS, episodes=3, final_episodes=5, video=False)
  config.dataset = str(next((folder.parent / "data" / "made-up").iterdir()))
  result = run.run(config, folder / "bc")
  assert (result is None) == (not hosts.is_first())


def train(folder: pathlib.Path, name: str, agent: ilx.Agent, **kwargs) -> None:
  def on_progress(step, row):
    if name == "iql" and os.environ.get("KILL_AT") == str(step) and jax.process_index() == 1:
      os.kill(os.getpid(), signal.SIGKILL)

  sizes = {"steps": STEPS, "batch_size": 16, "log_every": 2, "checkpoint_every": 4, "seed": 3}
  state = ilx.train(
    agent, testing.fake_episodes(SPEC), workdir=folder / name, on_progress=on_progress, **sizes, **kwargs
  )
  leaves = jax.tree.leaves(hosts.readable(state.params))
  if hosts.is_first():
    np.savez(folder / f"{name}.npz", *map(np.asarray, leaves))


def main() -> None:
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
  folder = pathlib.Path(sys.argv[1])
  if len(sys.argv) > 3:
    hosts.initialize(sys.argv[3])
  optimizer = optax.sgd(0.05, momentum=0.9)
  experiment(folder)
  train(folder, "iql", ilx.agents.iql(SPEC, hidden=(8,), optimizer=optimizer), tier="host")
  whole = ilx.parallel.make_mesh(data=1, tensor=jax.device_count())
  train(folder, "peers", ilx.agents.bc(SPEC, hidden=(8,), optimizer=optimizer), tier="host", mesh=whole)
  make = functools.partial(ilx.agents.bc_transformer, SPEC, layers=2, heads=2, width=16, length=4, optimizer=optimizer)
  everything = [("", jax.sharding.PartitionSpec())]
  rules = [(r"mlp/(up|down)/kernel$", jax.sharding.PartitionSpec(None, "fsdp")), *everything]
  train(folder, "transformer", make(), mesh=ilx.parallel.make_mesh(fsdp=2), rules=rules)


if __name__ == "__main__":
  main()

"""One process of the runs in test_hosts.py: ``python host_process.py FOLDER DEVICES [HOST:PORT,PROCESSES,INDEX]``.

Four runs, one after the other: behaviour cloning as an experiment, IQL, behaviour cloning where all devices learn from
the whole batch, and a transformer divided over two devices. Then two that fail.
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
  config.dataset = str(folder.parent / "data" / "made-up")
  result = run.run(config, folder / "bc")
  assert (result is None) == (not hosts.is_first())


def train(
  folder: pathlib.Path, name: str, agent: ilx.Agent, episodes: ilx.data.Episodes | None = None, **kwargs
) -> None:
  def on_progress(step, row):
    if name == "iql" and os.environ.get("KILL_AT") == str(step) and jax.process_index() == 1:
      os.kill(os.getpid(), signal.SIGKILL)

  sizes = {"steps": STEPS, "batch_size": 16, "log_every": 2, "checkpoint_every": 4, "seed": 3}
  state = ilx.train(
    agent, episodes or testing.fake_episodes(SPEC), workdir=folder / name, on_progress=on_progress, **sizes, **kwargs
  )
  leaves = jax.tree.leaves(hosts.readable(state.params))
  if hosts.is_first():
    np.savez(folder / f"{name}.npz", *map(np.asarray, leaves))


def with_nan_where_nothing_counts() -> ilx.data.Episodes:
  """Rewards of last steps carry no meaning; to compare the data of two processes would call NaN a difference."""
  episodes = testing.fake_episodes(SPEC)
  reward = np.array(episodes.reward)
  reward[np.asarray(episodes.starts)[1:] - 1] = np.nan
  return episodes.replace(reward=reward)


def refused(folder: pathlib.Path) -> None:
  """The first process alone cannot write; all end, and all say why."""
  folder = folder / "refused"

  def obstruct():
    if hosts.is_first():
      folder.mkdir(exist_ok=True)
      (folder / "checkpoints").write_text("in the way")

  hosts.together(obstruct)
  try:
    ilx.train(ilx.agents.bc(SPEC, hidden=(8,)), testing.fake_episodes(SPEC), steps=4, batch_size=16, workdir=folder)
  except ilx.training.CheckpointError as error:
    print(f"refused: {error}")

  def log(step, row):
    raise OSError("no room for the log")

  try:
    ilx.train(
      ilx.agents.bc(SPEC, hidden=(8,)),
      testing.fake_episodes(SPEC),
      steps=4,
      batch_size=16,
      on_progress=log if hosts.is_first() else None,
    )
  except (OSError, RuntimeError) as error:
    print(f"refused: {error}")


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
  data = with_nan_where_nothing_counts()
  train(folder, "transformer", make(), data, tier="device", mesh=ilx.parallel.make_mesh(fsdp=2), rules=rules)
  refused(folder)


if __name__ == "__main__":
  main()

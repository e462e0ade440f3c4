"""Exports the policy of a run folder as a folder that plays with jax alone (ilx.export).

  python -m experiments.export --workdir=runs/bc-hopper-expert-seed0 --output=policy

The run's config says which agent it is, and its dataset is opened for the spec; the newest good checkpoint is taken.
"""

import json
import os
import pathlib
import sys
import warnings
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from absl import flags

import ilx
from experiments import agents, cli, task
from ilx.parallel import mesh as mesh_lib
from ilx.training import lowering
from ilx.training.checkpoint import Checkpoints
from ilx.training.lock import locked


class Restored(NamedTuple):
  """What a run has learnt.

  Attributes:
    agent: of the run's config.
    params: of one seed.
    task: its data and environment.
    config: the run's.
    step: updates made.
  """

  agent: ilx.Agent
  params: Any
  task: task.Task
  config: ml_collections.ConfigDict
  step: int


def restore(workdir: pathlib.Path, seed: int | None = None) -> Restored:
  """The agent of a run folder, and its params as of the newest good checkpoint.

  Args:
    workdir: of `experiments.run.run`; nothing may be training there.
    seed: of a run of several seeds, which; None: the first.

  Raises:
    ValueError: where the folder is of no run, or the run has no such seed or no checkpoint.
    ilx.training.CheckpointError: where no checkpoint can be read.
    ilx.training.FolderInUseError: where another process is at work in the folder.
  """
  path = workdir / "config.json"
  try:
    config = ml_collections.ConfigDict(json.loads(path.read_text()))
  except FileNotFoundError:
    raise ValueError(f"--workdir: {workdir} is no run folder, it has no config.json") from None
  except (AttributeError, TypeError, ValueError) as error:
    raise ValueError(f"{path} is damaged: {error}") from None
  count = config.get("seeds", 1)
  place = 0 if seed is None else seed - config.seed
  if not 0 <= place < count:
    last = "" if count == 1 else f" to {config.seed + count - 1}"
    raise ValueError(f"--seed={seed}: the run is of seed {config.seed}{last}")
  found = task.load(config)
  data = found.data
  agent = agents.make(config.agent, data.spec, config.steps, config.get("frame_stack", 0), data.facts, data.train)
  seeds = None if count == 1 else count
  mesh = jax.make_mesh((1, 1, 1), mesh_lib.AXES, devices=jax.devices()[:1])
  like = lowering.lower(agent, data.train, batch_size=1, mesh=mesh, tier=data.tier, seeds=seeds).state
  with locked(workdir), Checkpoints(workdir / "checkpoints") as checkpoints:
    step = checkpoints.newest()
    if step is None:
      raise ValueError(f"{workdir} has no checkpoint yet")
    params = checkpoints.restore(step, like).params
  if seeds:
    params = ilx.training.one_seed(params, place)
  return Restored(agent, jax.tree.map(np.asarray, params), found, config, step)


def export(
  workdir: pathlib.Path,
  output: str | os.PathLike,
  *,
  seed: int | None = None,
  platforms: tuple[str, ...] = ilx.export.PLATFORMS,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes the policy of a run; see `restore` and `ilx.export.save`, whose errors it raises."""
  found = restore(workdir, seed)
  about = {
    **found.config.agent.to_dict(),
    "dataset": found.config.dataset,
    "steps": found.step,
    "seed": found.config.seed if seed is None else seed,
  }
  return ilx.export.save(
    found.agent,
    found.params,
    found.task.data.spec,
    output,
    about=about,
    env_id=found.task.env_id,
    env_kwargs=found.task.env_kwargs,
    platforms=platforms,
    overwrite=overwrite,
  )


def main() -> int:
  """Exports what the flags say; returns the exit code."""
  values = flags.FLAGS
  warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
  try:
    folder = export(
      pathlib.Path(values.workdir).expanduser(),
      pathlib.Path(values.output).expanduser(),
      seed=values.seed,
      platforms=tuple(values.platforms),
      overwrite=values.overwrite,
    )
  except (ImportError, OSError, RuntimeError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  size = sum(path.stat().st_size for path in folder.iterdir())
  print(f"{folder}: {size:,} bytes; play it with ilx.export.load, or with the play.py in it and without ilx")
  return 0


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""
  flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values, required=True)
  flags.DEFINE_string("output", None, "Folder to write; its parent must exist.", flag_values=values, required=True)
  flags.DEFINE_integer("seed", None, "Of a run of several seeds, which; by default the first.", flag_values=values)
  flags.DEFINE_list(
    "platforms", list(ilx.export.PLATFORMS), "Where it is to play, of cpu, cuda, rocm, tpu.", flag_values=values
  )
  flags.DEFINE_boolean("overwrite", False, "Replace an exported policy that is there.", flag_values=values)


if __name__ == "__main__":
  define(flags.FLAGS)
  cli.run(main)

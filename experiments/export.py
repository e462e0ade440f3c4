"""Exports the policy of a run folder as a folder that plays with jax alone (ilx.export).

  python -m experiments.export --workdir=runs/bc-hopper-expert-seed0 --output=policy

The run's config says which agent it is, and its dataset is opened for the spec, in the version that the run began with;
the newest good checkpoint is taken.
"""

import os
import pathlib
import sys

from absl import flags

import ilx
from experiments import cli, naming, trained, versions


def export(
  workdir: pathlib.Path,
  output: str | os.PathLike,
  *,
  agent: str | None = None,
  seed: int | None = None,
  platforms: tuple[str, ...] = ilx.export.PLATFORMS,
  overwrite: bool = False,
) -> pathlib.Path:
  """Writes the policy of a run; see `trained.load` and `ilx.export.save`, whose errors it raises.

  Args:
    workdir: the run folder; the run may be going on.
    output: see ``ilx.export.save``, as the others.
    agent: see `trained.load`.
    seed: of a run of several seeds, which; None: the first.
    platforms: where it is to play.
    overwrite: whether an exported policy that is there is replaced.

  Raises:
    ValueError: where the run has no such seed.
  """
  found = trained.load(workdir, agent=agent)
  first = found.config.seed
  place = 0 if seed is None else seed - first
  if not 0 <= place < len(found.params):
    last = "" if len(found.params) == 1 else f" to {first + len(found.params) - 1}"
    raise ValueError(f"--seed={seed}: the run is of seed {first}{last}")
  about = {
    **found.config.agent.to_dict(),
    "dataset": found.config.dataset,
    "dataset_versions": versions.numbers(found.task.data.versions),
    "steps": found.step,
    "seed": first + place,
  }
  if "mapping" in found.task.metadata:  # how pictures and numbers were made of game logs
    about["mapping"] = found.task.metadata["mapping"]
  return ilx.export.save(
    found.agent,
    found.params[place],
    found.task.data.spec,
    output,
    about=about,
    env_id=found.task.env_id,
    env_kwargs=found.task.env_kwargs,
    action_names=naming.nested(found.task.data.names),
    platforms=platforms,
    overwrite=overwrite,
  )


def main() -> int:
  """Exports what the flags say; returns the exit code."""
  values = flags.FLAGS
  try:
    folder = export(
      pathlib.Path(values.workdir).expanduser(),
      pathlib.Path(values.output).expanduser(),
      agent=values.agent,
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
  flags.DEFINE_string("agent", None, trained.AGENT_HELP, flag_values=values)
  flags.DEFINE_integer("seed", None, "Of a run of several seeds, which; by default the first.", flag_values=values)
  flags.DEFINE_list(
    "platforms", list(ilx.export.PLATFORMS), "Where it is to play, of cpu, cuda, rocm, tpu.", flag_values=values
  )
  flags.DEFINE_boolean("overwrite", False, "Replace an exported policy that is there.", flag_values=values)


if __name__ == "__main__":
  define(flags.FLAGS)
  cli.run(main)

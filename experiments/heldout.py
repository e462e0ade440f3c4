"""Compares a run's policy with recorded actions again: of another checkpoint, other episodes, or another dataset.

  python -m experiments.heldout --workdir=runs/bc-game-seed0 --split="train[90%:]"
  python -m experiments.heldout --workdir=runs/bc-game-seed0 --dataset=game-of-may --split=train

For policies that no simulator can play, or beside play. The run's dataset must be there, in the version that the run
began with; the run may be going on. Writes heldout.json into the run folder, which has every dimension, choice and
button, too.
"""

import json
import pathlib
import sys

from absl import flags
from rich.console import Console
from rich.progress import Progress

from experiments import cli, outputs, scoring, trained
from experiments.report import heldout
from ilx.training import logs

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Of this command; not made on import, where they would meet those of other commands."""
  trained.define_flags("heldout.json")
  flags.DEFINE_string("split", None, "The episodes, such as val or train[90%:]; by default the run's config.heldout.")
  flags.DEFINE_string(
    "dataset",
    None,
    "What --split is one of: a dataset with the fields that the run learns from, several with commas between; by "
    "default the run's config.heldout_dataset, or what it learns from.",
  )


def main() -> None:
  workdir = pathlib.Path(FLAGS.workdir).expanduser()
  console = Console(stderr=FLAGS.json)
  try:
    output = outputs.check(FLAGS.output, "--output") if FLAGS.output else workdir / "heldout.json"
    if not (FLAGS.split or trained.config_of(workdir).heldout):
      raise ValueError(f"{workdir}: the run holds nothing out; say which episodes with --split, such as --split=val")
    named = {"heldout": FLAGS.split, "heldout_dataset": FLAGS.dataset}
    changes = {field: value for field, value in named.items() if value is not None}
    found = trained.load(workdir, FLAGS.step, agent=FLAGS.agent, **changes)
    compared = []
    with Progress(console=console, disable=not console.is_terminal) as progress:
      bar = progress.add_task("comparing", total=len(found.params))
      for place, params in enumerate(found.params):
        say = lambda share, place=place: progress.update(bar, completed=place + share)  # noqa: E731
        compared.append(scoring.compare(found.config, found.task, found.agent, params, say))
    content = trained.about(found, workdir) | {"heldout": scoring.of_heldout(found.config, found.task, compared)}
    if len(compared) > 1:
      content["per_seed"] = [
        {"seed": found.config.seed + place, "heldout": scoring.of_heldout(found.config, found.task, [one])}
        for place, one in enumerate(compared)
      ]
    logs.write_json(output, content)
  except (OSError, ImportError, RuntimeError, ValueError) as error:
    sys.exit(f"error: {error}")
  content = logs.jsonable(content)
  if FLAGS.json:
    print(json.dumps(content, indent=2))
    return
  seeds = f", {len(compared)} seeds" if len(compared) > 1 else ""
  what = f"{found.config.agent.name} on {found.config.dataset}, {found.step:,} updates{seeds}"
  print(f"{what}: {heldout.counts(content)}")
  rows = heldout.measures(content, "-")
  width = max(len(name) for name, _ in rows)
  print("\n".join(f"  {name.lower():{width}}  {value}" for name, value in rows))


if __name__ == "__main__":
  define_flags()
  cli.run(main)

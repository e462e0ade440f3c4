"""Behaviour cloning of the built-in expert datasets, several seeds each, as a page of results.

python -m experiments.results.builtin --datasets=halfcheetah-expert --workdir=runs/results-builtin

Runs that are finished are not run again: the page is made anew from all run folders that the flags name.
"""

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

import ilx
from experiments import cli, markdown, outputs, revision, run
from experiments.configs import bc as configs
from experiments.demos import datasets
from experiments.report import text
from experiments.results import bc
from ilx.training import logs

FLAGS = flags.FLAGS

# What is learnt from.
SPLIT = "train[:25]"

PAGE = """# Behaviour cloning of the built-in demonstrations

Made by one command, which skips finished runs:

    {command}

Each row: {seeds} seeds of `python -m experiments.main --config=experiments/configs/bc.py`, the default config, with
`--config.dataset=<dataset> --config.seed=<seed> --config.split="{split}"`: the first {data_episodes} episodes, {steps}
updates of {batch_size}. Scored is the last checkpoint, {episodes} episodes a seed, actions at the mode. The
interval (95 %, bootstrap) is over seeds and episodes. "Expert" is the mode of the policy
that recorded the data with sampled actions; 100 is its return, 0 a random policy's.

{table}

Run on {where}; EnvPool {envpool}, jax {jax}, commit {commits}.
"""


def define_flags() -> None:
  """Of this command; not made on import, where they would meet those of other commands."""
  flags.DEFINE_list("datasets", ["halfcheetah-expert"], f"Among {', '.join(datasets.NAMES)}.")
  flags.DEFINE_string("workdir", "runs/results-builtin", "Folder of the runs.")
  flags.DEFINE_integer("seeds", 5, "Runs per dataset.", lower_bound=1)
  flags.DEFINE_string("output", str(pathlib.Path(__file__).with_suffix(".md")), "The file to write.")


def main() -> None:
  unknown = set(FLAGS.datasets) - set(datasets.NAMES)
  if unknown:
    sys.exit(f"error: --datasets: no {', '.join(sorted(unknown))}; there are {', '.join(datasets.NAMES)}")
  workdir, rows = pathlib.Path(FLAGS.workdir), {}
  try:
    for name in FLAGS.datasets:
      rows[name] = [finish(name, seed, workdir / f"{name}-seed{seed}") for seed in range(FLAGS.seeds)]
  except subprocess.CalledProcessError as error:
    sys.exit(f"error: exit status {error.returncode} from {bc.shell(error.cmd[1:])}")
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  command = bc.shell(["-m", "experiments.results.builtin", *sys.argv[1:]])
  outputs.write(pathlib.Path(FLAGS.output), page(rows, command))
  print(f"written to {FLAGS.output}")


def finish(name: str, seed: int, folder: pathlib.Path) -> dict[str, Any]:
  """Runs one experiment unless it is finished; what its result.json, config.json and where.json hold.

  Raises:
    ValueError: where the folder holds a run of another config.
  """
  fields = {"dataset": name, "split": SPLIT, "seed": seed, "evaluation.video": False}
  config = configs.get_config()
  config.update_from_flattened_dict(fields)
  run.check_config(config, folder)
  if not (folder / "where.json").exists():
    flags = [f"--config.{field}={value}" for field, value in fields.items()]
    bc.execute(["-m", "experiments.main", "--config=experiments/configs/bc.py", *flags, f"--workdir={folder}"], {})
    logs.write_json(folder / "where.json", bc.where())
  read = lambda file: json.loads((folder / file).read_text())  # noqa: E731
  return {**read("result.json"), "config": read("config.json"), "where": read("where.json")}


def page(rows: dict[str, list[dict[str, Any]]], command: str) -> str:
  """The Markdown page, from the results of every seed by dataset."""
  one = next(iter(rows.values()))[0]
  every = [result for results in rows.values() for result in results]
  machines = sorted({f"{r['where']['cpu']}, {r['where']['cores']} cores, {r['where']['date']}" for r in every})
  return PAGE.format(
    command=command,
    split=SPLIT,
    seeds=len(next(iter(rows.values()))),
    steps=f"{one['steps']:,}",
    batch_size=one["config"]["batch_size"],
    data_episodes=one["data_episodes"],
    episodes=one["episodes"],
    table=_table([_row(name, results) for name, results in rows.items()]),
    where="; ".join(machines),
    envpool=one["versions"]["envpool"],
    jax=one["versions"]["jax"],
    commits=", ".join(sorted({revision.short(r["git_commit"]) for r in every})),
  )


def _row(name: str, results: Sequence[dict[str, Any]]) -> list[str]:
  summary = ilx.evaluation.summary(np.array([r["returns"] for r in results]))
  means = [r["return_mean"] for r in results]
  first = results[0]
  shown = [summary["mean"], *summary["mean_ci95"], summary["iqm"], *means]
  shown += [first["expert_return"], first["data_return"], first["random_return"]]
  mean, low, high, iqm, *rest = (text.fixed(x, text.decimals_for(shown), "-") for x in shown)
  seeds, (expert, data, random) = rest[: len(means)], rest[len(means) :]
  normalized = ilx.evaluation.normalized(summary["mean"], first["random_return"], first["expert_return"])
  minutes = np.mean([r["seconds"] for r in results]) / 60
  return [
    *(name, first["env_id"], f"**{mean}**", f"{low} to {high}", iqm, ", ".join(seeds)),
    *(expert, data, random, f"**{normalized:.1f}**", f"{minutes:.1f}"),
  ]


def _table(rows: Sequence[Sequence[str]]) -> str:
  heads = ["dataset", "environment", "return", "95 % interval", "IQM", "each seed", "expert", "data", "random"]
  heads += ["normalised", "minutes"]
  return markdown.table(heads, rows, right=range(2, len(heads)))


if __name__ == "__main__":
  define_flags()
  cli.run(main)

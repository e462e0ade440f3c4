"""Makes the table of results: every agent on every task, several seeds; runs what is missing, then writes README.md.

  python -m experiments.results
  python -m experiments.results --agents=bc,iql --datasets=hopper-medium,hopper-medium-replay --seeds=5 --jobs=2
  python -m experiments.results --steps=1000000 --transformer_steps=100000 --seeds_per_run=5   # where there is a GPU
  python -m experiments.results --page_only

It may be interrupted at any time and given again: what is finished is kept in the archive (small files, kept with the
code), and an interrupted run goes on from its last checkpoint.
"""

import pathlib
import sys

from absl import flags

from experiments import cli, outputs
from experiments.results import bc, page, runs, suite
from ilx.training import Interrupted

FLAGS = flags.FLAGS
HERE = pathlib.Path(__file__).parent


def define_flags() -> None:
  """Of this command; not made on import, where they would meet those of other commands."""
  flags.DEFINE_list("agents", list(suite.AGENTS), f"Among {', '.join(suite.AGENTS)}.")
  flags.DEFINE_list("datasets", None, "Rows of the table; by default all that can be made here.")
  flags.DEFINE_string("recordings", None, "Folder of recordings (.npz) by others; without it their rows are left out.")
  flags.DEFINE_string("workdir", "runs/results", "Folder of the runs and of converted recordings.")
  flags.DEFINE_string("archive", str(HERE / "runs"), "Folder that keeps finished runs as small files.")
  flags.DEFINE_integer("steps", 50_000, "Updates of every run but those of --transformer_steps.", lower_bound=4)
  flags.DEFINE_integer(
    "transformer_steps", 5_000, "Updates of transformers' runs, and of tasks with pictures.", lower_bound=4
  )
  flags.DEFINE_integer("seeds", 5, "Seeds for every agent and dataset.", lower_bound=1)
  flags.DEFINE_integer("seeds_per_run", 1, "Seeds trained in one program; on a GPU all of them.", lower_bound=1)
  flags.DEFINE_integer("jobs", 1, "Runs side by side, each on its share of the cores.", lower_bound=1)
  flags.DEFINE_bool("page_only", False, "Run nothing; write the page of what the archive has.")
  flags.DEFINE_string("output", str(HERE / "README.md"), "The page to write.")


def main() -> None:
  workdir, folder = pathlib.Path(FLAGS.workdir), pathlib.Path(FLAGS.archive)
  datasets = FLAGS.datasets or [name for name, task in suite.TASKS.items() if FLAGS.recordings or not task.recording]
  failures: list[str] = []
  try:
    cells = list(suite.cells(tuple(FLAGS.agents), tuple(datasets)))
    wanted = [run for agent, task in cells for run in _runs(agent, task)]
    todo = [run._replace(seeds=seeds) for run in wanted for seeds in runs.stretches(runs.missing(run, folder))]
    print(f"{len(wanted)} runs, {len(todo)} of them to do", flush=True)
    if todo and not FLAGS.page_only:
      for task in dict.fromkeys(run.task for run in todo):
        if task.recording and not FLAGS.recordings:
          raise ValueError(f"{task.dataset} is a recording; say in which folder it is with --recordings")
        runs.convert(task, pathlib.Path(FLAGS.recordings or "."), workdir)
      failures = runs.finish(todo, workdir, folder, FLAGS.jobs)
    text = page.page(folder, bc.shell(["-m", "experiments.results", *sys.argv[1:]]))
    outputs.write(pathlib.Path(FLAGS.output), text)
  except Interrupted as stop:
    print(f"{stop}\nThe same command goes on from there.", file=sys.stderr)
    sys.exit(128 + stop.signal)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(f"written to {FLAGS.output}")
  if failures:
    sys.exit("error: " + "\n       ".join(failures))


def _runs(agent: str, task: suite.Task) -> list[runs.Run]:
  steps = FLAGS.transformer_steps if suite.costly(agent, task) else FLAGS.steps
  seeds = range(FLAGS.seeds)
  groups = [tuple(seeds[i : i + FLAGS.seeds_per_run]) for i in range(0, FLAGS.seeds, FLAGS.seeds_per_run)]
  return [runs.Run(agent, task, group, steps) for group in groups]


if __name__ == "__main__":
  define_flags()
  cli.run(main)

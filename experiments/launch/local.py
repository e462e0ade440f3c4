"""Runs a sweep on this machine, several runs at a time.

python -m experiments.launch local --config=experiments/configs/bc.py --config.dataset=hopper-expert \\
    --grid=config.seed=0,1,2 --grid=config.agent.learning_rate=1e-4,3e-4 --jobs=2 --workdir=runs/sweep
python -m experiments.launch local --list=runs.txt --jobs=4 --gpus_per_job=1 --workdir=runs/sweep
python -m experiments.launch local ... --dry_run

Flags that are not the launcher's go to every run (python -m experiments.main). A line of the list is such as
`--config=experiments/configs/iql.py --config.dataset=hopper-medium`. Each of several jobs has cores of its own, and
GPUs, where there are any. What a run prints is in <workdir>/<run>.log.

The same command goes on: finished runs are left alone, interrupted ones resume from their last checkpoint. Ctrl-C or
SIGTERM lets those that run save; a second one kills them. In the end there is a table of results. A run that was
interrupted ends with the same bits as one that was not, if --jobs is the same: on other numbers of cores jax rounds
differently.

Exit code: 0 all finished, 1 some failed, 2 nothing was started, 130 or 143 stopped by SIGINT or SIGTERM.
"""

import contextlib
import fcntl
import os
import pathlib
import shlex
import sys
from collections.abc import Iterator, Sequence

from absl import flags

from experiments.launch import options, processes, results, table
from experiments.launch.check import FINISHED, Checked
from experiments.launch.processes import Ended, Process, Share
from experiments.launch.progress import SweepProgress
from ilx.training import Interrupted

MODULE = "experiments.main"


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""
  options.define(values)
  flags.DEFINE_integer("jobs", 1, "Runs at a time.", lower_bound=1, flag_values=values)
  flags.DEFINE_integer(
    "gpus_per_job",
    None,
    "GPUs of each job; 0: every job sees all. By default all are shared out evenly among several jobs.",
    lower_bound=0,
    flag_values=values,
  )


def main(values: flags.FlagValues, rest: Sequence[str]) -> int:
  """Runs what is not finished and shows the table; returns the exit code."""
  runs, folder = options.runs(values, rest), options.folder(values)
  parts = processes.shares(values.jobs, values.gpus_per_job)
  todo = [one for one in runs if one.state != FINISHED]
  if values.dry_run:
    print(plan(runs, folder, parts))
    return 0
  print(f"{len(runs)} runs, {len(runs) - len(todo)} of them finished; folder {folder}", flush=True)
  folder.mkdir(parents=True, exist_ok=True)
  failures: dict[str, str] = {}
  stop = None
  with locked(folder) as lock, SweepProgress(folder, todo) as progress:

    def ended(entry: Ended) -> None:
      progress.ended(entry)
      failures.update({entry.process.name: entry.failure} if entry.failure else {})

    try:
      processes.finish(
        [Process(one.run.name, command(one, folder), folder / f"{one.run.name}.log") for one in todo],
        parts,
        ended,
        progress.started,
        progress.look,
        [lock],
      )
    except Interrupted as error:
      stop = error
  swept = {one.run.name: {name.removeprefix("config."): v for name, v in one.run.swept.items()} for one in runs}
  rows = [row._replace(state="failed") if row.name in failures else row for row in results.read(folder, swept)]
  table.show(rows, folder)
  if failures:
    print("\n".join([f"error: {len(failures)} of {len(runs)} runs failed:", *failures.values()]), file=sys.stderr)
  if stop:
    print(f"{stop}\nThe same command goes on from there.", file=sys.stderr)
    return 128 + stop.signal
  return 1 if failures else 0


def command(one: Checked, folder: pathlib.Path) -> list[str]:
  """The words that run one."""
  return [sys.executable, "-m", MODULE, *one.run.flags, f"--workdir={folder / one.run.name}"]


def plan(runs: Sequence[Checked], folder: pathlib.Path, parts: Sequence[Share]) -> str:
  """What would be done, as text; what follows no # can be given to a shell."""
  lines = [f"# {len(runs)} runs, {len(parts)} at a time"]
  for place, share in enumerate(parts):
    cores = "all cores" if share.cores is None else f"cores {','.join(map(str, share.cores))}"
    gpus = "" if share.gpus is None else f", CUDA_VISIBLE_DEVICES={','.join(share.gpus)}"
    lines.append(f"# job {place}: {cores}{gpus}")
  for one in runs:
    lines.append(f"# {one.run.name}: {one.state}{', left alone' if one.state == FINISHED else ''}")
    lines += [shlex.join(command(one, folder))] if one.state != FINISHED else []
  return "\n".join(lines)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[int]:
  """Holds the lock of a sweep's folder, a file descriptor; processes that have it, too, hold it on.

  Raises:
    OSError: where another launcher holds it, or what it left running.
  """
  lock = os.open(folder, os.O_RDONLY)
  try:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise OSError(
        f"{folder}: another launcher works here, or runs that it left when it was killed; end them or wait"
      ) from None
    yield lock
  finally:
    os.close(lock)

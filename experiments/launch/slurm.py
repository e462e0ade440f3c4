"""Submits a sweep to Slurm, as an array with one element for each run.

python -m experiments.launch slurm --config=experiments/configs/iql.py --grid=config.seed=0,1,2 \\
    --workdir=runs/iql --partition=gpu --gpus_per_node=1 --time=4:00:00
python -m experiments.launch slurm ... --nodes=4 --gpus_per_node=8      # every run on 32 GPUs
python -m experiments.launch slurm ... --array=%10                      # ten at a time
python -m experiments.launch slurm ... --sbatch=--account=robots --setup="source ~/venv/bin/activate"
python -m experiments.launch slurm ... --dry_run                        # prints the script

Flags that are not the launcher's go to every run (python -m experiments.main). The sweep's folder must be one that all
nodes see; it gets the script (sweep.sbatch) and what the runs print (slurm-<job>_<element>.out). The script runs in the
folder where this command is given, with the same Python unless --python names another.

A run gets SIGTERM --save_seconds before its time is up, saves, and is queued again; so it is after a preemption or the
failure of a node. Given again, this command submits what is not finished. `python -m experiments.launch table
--workdir=...` shows how far it is.

On one node a run is one process with all GPUs; on several nodes it is one process for each GPU, which find each other
through Slurm (--distributed=auto).
"""

import pathlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence

from absl import flags

from experiments import outputs
from experiments.launch import options
from experiments.launch.check import FINISHED, Checked

# What experiments.main ends with when SIGTERM let it save: 128 + 15.
_SAVED = 143

_SCRIPT = """#!/bin/bash
{directives}

cd {directory} || exit 1
{setup}
# Here the signal must not end this script, which has to see how srun ends.
trap : TERM
case "$SLURM_ARRAY_TASK_ID" in
{cases}
  *) echo "the sweep has no element $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;
esac
# Processes that are still saving must not be killed because another has done so.
srun --kill-on-bad-exit=0 {python} -m experiments.main "${{flags[@]}}"
code=$?
# Saved because the time is up or the job is preempted: once more. (Slurm itself queues a preempted job again only
# if it had to kill it.) A job that was cancelled is not RUNNING any more.
if [[ $code -eq {saved} && "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" == RUNNING ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""
  options.define(values, "which all nodes see; ")

  def string(name: str, default: str | None, words: str) -> None:
    flags.DEFINE_string(name, default, words, flag_values=values)

  def integer(name: str, default: int | None, words: str, least: int) -> None:
    flags.DEFINE_integer(name, default, words, lower_bound=least, flag_values=values)

  string("partition", None, "Slurm's partition; by default the cluster's own default.")
  integer("nodes", 1, "Nodes of each run.", 1)
  integer("gpus_per_node", 0, "GPUs on each node.", 0)
  integer("cpus_per_task", None, "Cores of each process; by default the cluster's own default.", 1)
  string("time", None, "Time limit of a run before it is queued again, as Slurm writes it: 4:00:00, 2-00:00:00.")
  string("array", None, "Which elements, and how many at a time, as Slurm writes it: 0-5, 1,3, 0-99%10; %10 for all.")
  integer("save_seconds", 120, "How long before the time limit a run is told to save.", 30)
  string("python", sys.executable, "Python of the runs.")
  string("setup", None, "Shell commands that come before a run, such as module load cuda.")
  flags.DEFINE_multi_string("sbatch", [], "Further options of sbatch, such as --account=robots.", flag_values=values)


def main(values: flags.FlagValues, rest: Sequence[str]) -> int:
  """Writes the script and submits it; returns the exit code."""
  runs, folder = options.runs(values, rest), options.folder(values)
  if all(one.state == FINISHED for one in runs):
    print(f"all of {len(runs)} runs are finished; folder {folder}")
    return 0
  text, script = sbatch(values, runs, folder, pathlib.Path.cwd()), folder / "sweep.sbatch"
  command = ["sbatch", str(script)]
  if values.dry_run:
    print(f"# {script}\n{text}\n# submitted by: {shlex.join(command)}")
    return 0
  folder.mkdir(parents=True, exist_ok=True)
  outputs.write(script, text)
  try:
    said = subprocess.run(command, capture_output=True, text=True, check=True)
  except FileNotFoundError:
    raise OSError(f"there is no sbatch here; submit {script} where there is one, or use --dry_run") from None
  except subprocess.CalledProcessError as error:
    raise OSError(f"sbatch refused {script}: {error.stderr.strip() or error.stdout.strip()}") from None
  print(said.stdout.strip())
  return 0


def sbatch(values: flags.FlagValues, runs: Sequence[Checked], folder: pathlib.Path, directory: pathlib.Path) -> str:
  """The script.

  Args:
    values: the flags.
    runs: of the sweep; elements keep their numbers, whichever are finished.
    folder: of the sweep.
    directory: where the runs are run.

  Raises:
    ValueError: for a flag that Slurm would not take, or a path that a directive cannot hold.
  """
  todo = [place for place, one in enumerate(runs) if one.state != FINISHED]
  tasks = values.gpus_per_node if values.nodes > 1 and values.gpus_per_node else 1
  given = {
    "job-name": f"ilx-{folder.name}",
    "array": array(values["array"].value, len(runs), todo),
    "partition": values.partition,
    "nodes": values.nodes,
    "ntasks-per-node": tasks,
    "cpus-per-task": values.cpus_per_task,
    "gpus-per-node": values.gpus_per_node or None,
    "time": values["time"].value,
    "signal": f"TERM@{values.save_seconds}",
    "output": f"{str(folder).replace('%', '%%')}/slurm-%A_%a.out",
  }
  lines = [f"--{name}={value}" for name, value in given.items() if value is not None]
  # Appended to, since a run that is queued again has the same file.
  lines += ["--requeue", "--open-mode=append", *values.sbatch]
  several = ["--distributed=auto"] if values.nodes > 1 else []
  cases = []
  for place in todo:
    words = [*runs[place].run.flags, *several, f"--workdir={folder / runs[place].run.name}"]
    cases.append(f"  {place}) flags=({shlex.join(words)}) ;;")
  return _SCRIPT.format(
    directives="\n".join(f"#SBATCH {directive(line)}" for line in lines),
    directory=shlex.quote(str(directory)),
    setup="\n".join(
      [
        # srun does not take it from the job by itself.
        *(["export SRUN_CPUS_PER_TASK=" + str(values.cpus_per_task)] if values.cpus_per_task else []),
        *([values.setup] if values.setup else []),
      ]
    ),
    cases="\n".join(cases),
    python=shlex.quote(values.python),
    saved=_SAVED,
  )


def array(wanted: str | None, count: int, todo: Sequence[int]) -> str:
  """Slurm's array: the elements in ``wanted``, or all, that are in ``todo``, and how many at a time.

  Raises:
    ValueError: for elements that there are not, a range that ends before it begins, or none to do.
  """
  found = re.fullmatch(r"([\d,-]*)(%[1-9]\d*)?", wanted or "")
  pieces = [re.fullmatch(r"(\d+)(?:-(\d+))?", piece) for piece in found[1].split(",")] if found and found[1] else []
  if not found or None in pieces:
    raise ValueError(f"--array={wanted} must be such as 0-5, 1,3, 0-99%10 or %10")
  ranges = [(int(piece[1]), int(piece[2] or piece[1])) for piece in pieces]
  for first, last in ranges:
    if last < first:
      raise ValueError(f"--array={wanted}: {first}-{last} ends before it begins")
    if last >= count:  # before anything of that size is made
      beyond = max(first, count)
      raise ValueError(f"--array={wanted}: there is no element {beyond}; the {count} runs are 0 to {count - 1}")
  numbers = {number for first, last in ranges for number in range(first, last + 1)}
  chosen = [place for place in todo if place in numbers] if ranges else list(todo)
  if not chosen:
    raise ValueError(f"--array={wanted}: all of these are finished")
  return ",".join(map(str, chosen)) + (found[2] or "")


def directive(option: str) -> str:
  """An option in a line of directives, quoted where it has spaces.

  Raises:
    ValueError: for what such a line cannot hold.
  """
  if not option.startswith("-"):
    raise ValueError(f"--sbatch={option}: options of sbatch start with -")
  if re.search(r"[\n\r\"'\\#]", option):
    raise ValueError(f"{option!r}: Slurm's directives cannot hold quotes, backslashes, # or line breaks; choose others")
  return f'"{option}"' if " " in option else option

"""Behaviour cloning of the demonstrations that others published: converts, trains, scores, writes bc.md.

  python -m experiments.results.bc --demos=FOLDER --workdir=runs/results-bc

Every run is a process of its own, one after the other, by the commands that bc.md lists. Interrupted, the same command
goes on where it stopped: what is converted is not converted again, and finished runs are kept.
"""

import datetime
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence

from absl import flags

from experiments import cli, outputs, run
from experiments.configs import bc as defaults
from experiments.results import recordings, table
from experiments.results.recordings import Recording
from ilx.data import rlds
from ilx.training import logs

FLAGS = flags.FLAGS

# Runs a command given as Python's arguments, with additional environment variables.
Execute = Callable[[Sequence[str], dict[str, str]], None]


def define_flags() -> None:
  """Of this command; not made on import, where they would meet those of other commands."""
  flags.DEFINE_string("demos", None, "Folder of the demonstrations, .npz files.", required=True)
  flags.DEFINE_string("offline", None, "Folder of recorded policies, for three more rows; none by default.")
  flags.DEFINE_string("workdir", "runs/results-bc", "Folder of the datasets and the runs.")
  flags.DEFINE_integer("seeds", 3, "Runs per dataset.", lower_bound=1)
  flags.DEFINE_string("output", str(pathlib.Path(__file__).with_suffix(".md")), "The file to write.")


def main() -> None:
  folders = {FLAGS.demos: recordings.DEMONSTRATIONS}
  if FLAGS.offline:
    folders[FLAGS.offline] = recordings.OFFLINE
  files = {recording: pathlib.Path(folder) for folder, several in folders.items() for recording in several}
  command = ["-m", "experiments.results.bc", *sys.argv[1:]]
  try:
    page = produce(files, pathlib.Path(FLAGS.workdir), FLAGS.seeds, execute, command)
    outputs.write(pathlib.Path(FLAGS.output), page)
  except subprocess.CalledProcessError as error:
    print(f"error: exit status {error.returncode} from {shell(error.cmd[1:])}", file=sys.stderr)
    sys.exit(1)
  except (OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(1)
  print(f"written to {FLAGS.output}")


def produce(
  files: dict[Recording, pathlib.Path], workdir: pathlib.Path, seeds: int, execute: Execute, command: Sequence[str]
) -> str:
  """Does what is not done yet and returns the page.

  Args:
    files: the recordings and the folder of each.
    workdir: datasets go to ``workdir/data``, runs to ``workdir/<dataset>-seed<seed>``.
    seeds: runs per dataset.
    execute: runs one command.
    command: the one that does all this, for the page.

  Raises:
    FileNotFoundError: where recordings are missing, before anything is done.
    ValueError: where a folder holds a run of another config.
  """
  missing = [str(folder / f"{r.file}.npz") for r, folder in files.items() if not (folder / f"{r.file}.npz").exists()]
  if missing:
    raise FileNotFoundError(f"no recording {', '.join(missing)}; see --demos and --offline")
  variables = {"ILX_DATA_DIR": str(workdir / "data")}
  todo = [(recording, seed) for recording in files for seed in range(seeds)]
  done = {item: finished(workdir, *item) for item in todo}  # refuses foreign runs before it spends hours on others
  for number, (recording, seed) in enumerate(todo, start=1):
    print(f"[{number}/{len(todo)}] {recording.name}, seed {seed}{': finished' if done[recording, seed] else ''}")
    if not converted(workdir, recording):
      execute(convert_command(recording, files[recording]), variables)
    if not done[recording, seed]:
      execute(train_command(recording, workdir, seed), variables)
      logs.write_json(run_folder(workdir, recording, seed) / "where.json", where())
  rows = [table.collect(recording, workdir / "data", folders(workdir, recording, seeds)) for recording in files]
  commands = [
    [shell(convert_command(recording, folder)), shell(train_command(recording, workdir, 0))]
    for recording, folder in files.items()
  ]
  return table.page(rows, shell(command), variables, commands)


def finished(workdir: pathlib.Path, recording: Recording, seed: int) -> bool:
  """Whether the run is complete.

  Raises:
    ValueError: where its folder holds a run of another config.
  """
  folder = run_folder(workdir, recording, seed)
  config = defaults.get_config()
  config.update_from_flattened_dict(overrides(recording, seed))
  try:
    run.check_config(config, folder)
  except ValueError as error:
    raise ValueError(f"{error}, or remove {folder} to have it run again") from None
  if not (folder / "result.json").exists() or not (folder / "where.json").exists():
    return False
  if not any((folder / "checkpoints").glob("[0-9]*")):
    return False  # without what was learnt, the config is not compared
  return json.loads((folder / "result.json").read_text())["steps"] == recording.updates


def converted(workdir: pathlib.Path, recording: Recording) -> bool:
  """Whether the dataset is there; it is published whole or not at all."""
  try:
    return bool(rlds.resolve(workdir / "data" / recording.name))
  except FileNotFoundError:
    return False


def overrides(recording: Recording, seed: int) -> dict[str, object]:
  """The fields of the config that are not the defaults."""
  return {
    "dataset": recording.name,
    "split": "train",
    "steps": recording.updates,
    "evaluation.every": recording.updates // 4,
    "evaluation.video": False,
    "seed": seed,
  }


def convert_command(recording: Recording, folder: pathlib.Path) -> list[str]:
  limit, observation = recording.max_episode_steps, recording.observation
  return [
    *("-m", "experiments.data", "convert", f"{folder / recording.file}.npz", f"--name={recording.name}"),
    *([f"--max_episode_steps={limit}"] if limit else []),
    *([f"--env_kwargs={json.dumps({'observation': observation})}"] if observation else []),
  ]


def train_command(recording: Recording, workdir: pathlib.Path, seed: int) -> list[str]:
  fields = [f"--config.{name}={value}" for name, value in overrides(recording, seed).items()]
  folder = run_folder(workdir, recording, seed)
  return ["-m", "experiments.main", "--config=experiments/configs/bc.py", *fields, f"--workdir={folder}"]


def run_folder(workdir: pathlib.Path, recording: Recording, seed: int) -> pathlib.Path:
  return workdir / f"{recording.name}-seed{seed}"


def folders(workdir: pathlib.Path, recording: Recording, seeds: int) -> list[pathlib.Path]:
  return [run_folder(workdir, recording, seed) for seed in range(seeds)]


def execute(command: Sequence[str], variables: dict[str, str]) -> None:
  """Runs Python with these arguments; raises subprocess.CalledProcessError where it fails."""
  sys.stdout.flush()
  subprocess.run([sys.executable, *command], env=os.environ | variables, check=True)


def where() -> dict[str, object]:
  """When and where a run ended."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
  except OSError:
    models = []
  return {
    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    "cpu": models[0] if models else platform.machine(),
    "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
  }


def shell(command: Sequence[str]) -> str:
  """Python's arguments as one types them."""
  return shlex.join(["python", *command])


if __name__ == "__main__":
  define_flags()
  cli.run(main)

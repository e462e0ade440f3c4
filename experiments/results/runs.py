"""Running what is missing in a table of results: processes side by side, each on cores of its own."""

import importlib
import itertools
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.launch import processes
from experiments.launch.processes import Ended, Process
from experiments.results import archive, bc, suite
from experiments.results.suite import Task
from ilx.training import logs


class Run(NamedTuple):
  """One process to be: an agent on a dataset, with one seed or several at once."""

  agent: str
  task: Task
  seeds: tuple[int, ...]
  steps: int

  @property
  def name(self) -> str:
    """Of its folder."""
    return f"{self.agent}-{self.task.dataset}-{self.steps}-seed{'-'.join(map(str, self.seeds))}"


def overrides(run: Run) -> dict[str, Any]:
  """The fields that differ from the agent's own config file."""
  return {
    **suite.fields(run.agent, run.task, run.steps),
    "steps": run.steps,
    "seed": run.seeds[0],
    **({"seeds": len(run.seeds)} if len(run.seeds) > 1 else {}),
    "checkpoint_every": run.steps,
    "evaluation.every": max(1, run.steps // 4),
    "evaluation.episodes": 10,
    "evaluation.final_episodes": 100,
    "evaluation.video": False,
  }


def config(run: Run) -> dict[str, Any]:
  """What the run's ``config.json`` is to say, as far as it decides its scores."""
  found = importlib.import_module(f"experiments.configs.{run.agent}").get_config()
  found.update_from_flattened_dict(overrides(run))
  return archive.comparable(found.to_dict())


def command(run: Run, workdir: pathlib.Path) -> list[str]:
  """Python's arguments."""
  values = [f"--config.{name}={value}" for name, value in overrides(run).items()]
  name = f"--config=experiments/configs/{run.agent}.py"
  return ["-m", "experiments.main", name, *values, f"--workdir={workdir / run.name}"]


def missing(run: Run, folder: pathlib.Path) -> tuple[int, ...]:
  """Its seeds that the archive does not have with this config."""
  wanted = config(run)
  entries = archive.read(folder, run.agent, run.task.dataset)
  there = {entry["seed"] for entry in entries if archive.agree(wanted, entry["config"])}
  return tuple(seed for seed in run.seeds if seed not in there)


def stretches(seeds: Sequence[int]) -> list[tuple[int, ...]]:
  """Rising seeds, divided where one is left out: a program trains seeds that follow each other."""
  parts = itertools.groupby(enumerate(seeds), lambda place: place[1] - place[0])
  return [tuple(seed for _, seed in part) for _, part in parts]


def convert(task: Task, recordings: pathlib.Path, workdir: pathlib.Path) -> None:
  """Makes the dataset of a recording, unless it is there."""
  if task.recording and not bc.converted(workdir, task.recording):
    bc.execute(bc.convert_command(task.recording, recordings), variables(task, workdir))


def variables(task: Task, workdir: pathlib.Path) -> dict[str, str]:
  """Datasets of recordings lie with the runs, built-in ones where they always do."""
  return {"ILX_DATA_DIR": str(workdir / "data")} if task.recording else {}


def finish(runs: Sequence[Run], workdir: pathlib.Path, folder: pathlib.Path, jobs: int) -> list[str]:
  """Runs all, ``jobs`` at a time, and archives each as it ends; returns what failed, a line each.

  Raises:
    ilx.training.Interrupted: on SIGINT or SIGTERM, once those that run have saved.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  began, failures, ends = time.monotonic(), [], itertools.count(1)
  by_name = {run.name: run for run in runs}

  def ended(entry: Ended) -> None:
    if entry.failure:
      failures.append(entry.failure)
    else:
      _archive(by_name[entry.process.name], workdir, folder, entry.share.cores)
    minutes = (time.monotonic() - began) / 60
    print(f"[{next(ends)}/{len(runs)}] {entry.process.name} ended, {minutes:.0f} minutes since the start", flush=True)

  processes.finish([_process(run, workdir) for run in runs], processes.shares(jobs), ended)
  return failures


def _process(run: Run, workdir: pathlib.Path) -> Process:
  words = [sys.executable, *command(run, workdir)]
  return Process(run.name, words, workdir / f"{run.name}.log", variables(run.task, workdir))


def _archive(run: Run, workdir: pathlib.Path, folder: pathlib.Path, cores: Sequence[int] | None) -> None:
  # A process on some of the cores sees those alone.
  about: Mapping[str, Any] = bc.where() | ({"cores": len(cores)} if cores else {})
  logs.write_json(workdir / run.name / "where.json", about)
  archive.add(folder, run.agent, run.task.dataset, archive.entries(workdir / run.name))

"""Running what is missing in a table of results: processes side by side, each on cores of its own."""

import concurrent.futures
import importlib
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
    return f"{self.agent}-{self.task.dataset}-seed{'-'.join(map(str, self.seeds))}"


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
  """Its seeds that the archive does not have with this config.

  Of fields that only one of the two has nothing is known: a field that is new leaves, by default, all as it was.
  """
  wanted = config(run)
  there = {
    entry["seed"]
    for entry in archive.read(folder, run.agent, run.task.dataset)
    if all(entry["config"][name] == value for name, value in wanted.items() if name in entry["config"])
  }
  return tuple(seed for seed in run.seeds if seed not in there)


def convert(task: Task, recordings: pathlib.Path, workdir: pathlib.Path) -> None:
  """Makes the dataset of a recording, unless it is there."""
  if task.recording and not bc.converted(workdir, task.recording):
    bc.execute(bc.convert_command(task.recording, recordings), variables(task, workdir))


def variables(task: Task, workdir: pathlib.Path) -> dict[str, str]:
  """Datasets of recordings lie with the runs, built-in ones where they always do."""
  return {"ILX_DATA_DIR": str(workdir / "data")} if task.recording else {}


def finish(runs: Sequence[Run], workdir: pathlib.Path, folder: pathlib.Path, jobs: int) -> list[str]:
  """Runs all, ``jobs`` at a time, and archives each as it ends; returns what failed, a line each."""
  workdir.mkdir(parents=True, exist_ok=True)
  cores: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
  every = sorted(os.sched_getaffinity(0))
  for job in range(jobs):
    cores.put(every[job::jobs])
  began, failures = time.monotonic(), []

  def one(number: int, run: Run) -> str | None:
    mine = cores.get()
    try:
      return _one(run, workdir, folder, mine if jobs > 1 else [])
    finally:
      cores.put(mine)
      minutes = (time.monotonic() - began) / 60
      print(f"[{number}/{len(runs)}] {run.name} ended, {minutes:.0f} minutes since the start", flush=True)

  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    futures = [pool.submit(one, number, run) for number, run in enumerate(runs, start=1)]
    try:
      failures = [found for future in concurrent.futures.as_completed(futures) if (found := future.result())]
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise
  return failures


def _one(run: Run, workdir: pathlib.Path, folder: pathlib.Path, cores: Sequence[int]) -> str | None:
  pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores and shutil.which("taskset") else []
  log, run_folder = workdir / f"{run.name}.log", workdir / run.name
  words = [*pinned, sys.executable, *command(run, workdir)]
  with open(log, "w") as output:
    ended = subprocess.run(
      words, env=os.environ | variables(run.task, workdir), stdout=output, stderr=subprocess.STDOUT, check=False
    )
  if ended.returncode:
    lines = log.read_text().strip().splitlines() or ["no output"]
    return f"{run.name}: exit status {ended.returncode}: {lines[-1]}; see {log}"
  # A process on some of the cores sees those alone.
  about: Mapping[str, Any] = bc.where() | ({"cores": len(cores)} if cores else {})
  logs.write_json(run_folder / "where.json", about)
  archive.add(folder, run.agent, run.task.dataset, archive.entries(run_folder))
  return None

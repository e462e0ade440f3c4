"""Runs that were made: from a run folder back to the agent and its parameters."""

import json
import pathlib
from typing import Any, NamedTuple

import ml_collections
from absl import flags

import ilx
from experiments import agents, loading, scoring, task, versions
from experiments.configs import defaults
from experiments.task import Task
from ilx import training

AGENT_HELP = "The run's agent, module:function, where it is one of your own; it is not imported unless it is named."


def define_flags(output: str) -> None:
  """Of commands that score a run again, and write what they find to ``output`` in its folder."""
  flags.DEFINE_string("workdir", None, "The run folder.", required=True)
  flags.DEFINE_string("agent", None, AGENT_HELP)
  flags.DEFINE_integer("step", None, "Of a checkpoint; by default the newest good one.")
  flags.DEFINE_string("output", None, f"The file to write; default {output} in the run folder.")
  flags.DEFINE_bool("json", False, "Print what is written, and nothing else.")


class Trained(NamedTuple):
  """A run, as far as it has come.

  Attributes:
    config: of the run.
    task: what it learnt from and is scored by.
    agent: what learnt.
    params: of every seed.
    step: updates made.
  """

  config: ml_collections.ConfigDict
  task: Task
  agent: ilx.Agent
  params: list[Any]
  step: int


def load(
  workdir: pathlib.Path,
  step: int | None = None,
  progress: loading.Progress | None = None,
  agent: str | None = None,
  **changes: Any,
) -> Trained:
  """Reads a run folder, whose dataset must still be there, in the run's version; the run may be going on.

  Args:
    workdir: the run folder.
    step: of a checkpoint; None for the newest good one.
    progress: of reading the data.
    agent: the run's, where it is none of ilx's: what a folder names is not imported because it says so.
    **changes: of fields of its config, such as ``heldout``.

  Raises:
    FileNotFoundError: where there is no run, or its dataset's version is gone.
    ValueError: where its config cannot be used, there is no such checkpoint, or the agent is another.
    ilx.training.CheckpointError: where the checkpoint cannot be read.
  """
  config = config_of(workdir)
  config.update(changes)
  name = config.agent.name
  if agents.is_own(name) and agent != name:
    raise ValueError(f"{workdir}: its agent, {name}, is none of ilx's; --agent={name} imports it, if you trust it")
  found = task.load(config, progress, versions.read(workdir))
  made = agents.make(
    config.agent, found.data.spec, config.steps, config.frame_stack, found.data.facts, found.data.train
  )
  seeds = None if config.seeds == 1 else config.seeds
  state = training.restore(workdir, made, found.data.train, step=step, seeds=seeds)
  return Trained(config, found, made, scoring.each_seed(config, state.params), int(state.step))


def about(found: Trained, workdir: pathlib.Path) -> dict[str, Any]:
  """Which run, which data and which checkpoint, as these commands write it."""
  return {
    "workdir": str(workdir),
    "agent": found.config.agent.name,
    "dataset": found.config.dataset,
    "dataset_versions": versions.numbers(found.task.data.versions),
    "step": found.step,
  }


def config_of(workdir: pathlib.Path) -> ml_collections.ConfigDict:
  """The config of a run; fields that are newer than the run have their defaults.

  Raises:
    FileNotFoundError: where ``workdir`` holds no run.
    ValueError: where its ``config.json`` is none.
  """
  path = workdir / "config.json"
  if not path.is_file():
    raise FileNotFoundError(f"{workdir} holds no run: there is no config.json")
  try:
    recorded = json.loads(path.read_text())
    config = defaults.of(recorded["agent"]["name"]) or defaults.get_config()
    config.unlock()
    config.update(recorded)
    config.agent.name, config.dataset, config.steps  # noqa: B018 (must be there)
  except (ValueError, TypeError, AttributeError, KeyError) as error:
    raise ValueError(f"{path} is no config of a run: {error}") from None
  return config

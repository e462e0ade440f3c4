"""Whether the runs of a sweep can start, found out before any does."""

import copy
import difflib
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from experiments import main, run
from experiments.launch.sweep import Run
from experiments.report.run import read_object

FINISHED, INTERRUPTED, NEW = "finished", "interrupted", "new"


class Checked(NamedTuple):
  """A run, its config, and how far it is: FINISHED (with its report), INTERRUPTED (it has checkpoints) or NEW."""

  run: Run
  config: ml_collections.ConfigDict
  state: str


def check(runs: Sequence[Run], workdir: pathlib.Path | None, known: Sequence[str] = ()) -> list[Checked]:
  """The runs with their configs.

  Args:
    runs: to be checked.
    workdir: the sweep's folder; None: it is not on this machine, and every run is taken as new.
    known: flags that are no run's, to tell what a misspelt one may have meant.

  Raises:
    ValueError: naming the run, for an unknown flag, field or value, two runs of one config, a folder with a run of
      another config.
  """
  found: list[Checked] = []
  for this in runs:
    try:
      config = config_of(this.flags, known)
      state = NEW if workdir is None else progress(config, workdir / this.name)
    except ValueError as error:
      raise ValueError(str(error) if len(runs) == 1 else f"{this.name}: {error}") from None
    found.append(Checked(this, config, state))
  for place, one in enumerate(found):
    same = next((other for other in found[:place] if other.config.eq_as_configdict(one.config)), None)
    if same:
      raise ValueError(f"the runs {same.run.name!r} and {one.run.name!r} have the same config")
  return found


def config_of(arguments: Sequence[str], known: Sequence[str] = ()) -> ml_collections.ConfigDict:
  """The config that experiments.main has when it is called with these flags.

  Raises:
    ValueError: for what it would refuse.
  """
  if not any(word.startswith("--config=") for word in arguments):
    raise ValueError("--config must name a config file, such as --config=experiments/configs/bc.py")
  values = flags.FlagValues()
  for module, several in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith("absl."):
      for flag in several:
        values[flag.name] = copy.deepcopy(flag)
  main.define_flags(values, ["", *arguments])
  try:
    rest = values(["", *arguments])
    values.config.keys  # noqa: B018 (a config that could not be loaded says so when it is used)
  except flags.UnrecognizedFlagError as error:
    near = difflib.get_close_matches(error.flagname, [*known, *values, *_fields(values["config"].value)], cutoff=0.5)
    raise ValueError(f"there is no flag --{error.flagname}{f'; did you mean --{near[0]}?' if near else ''}") from None
  except main.UNUSABLE as error:
    raise ValueError(main.explain(error)) from None
  if len(rest) > 1:
    raise ValueError(f"unexpected argument {rest[1]!r}; flags start with --, and their value follows a =")
  return values.config


def _fields(config: Any) -> list[str]:
  """Of a config, as flags; none where it could not be loaded."""
  if not isinstance(config, ml_collections.ConfigDict):
    return []
  return [f"config.{name}" for name in run.flat(config.to_dict())]


def progress(config: ml_collections.ConfigDict, folder: pathlib.Path) -> str:
  """FINISHED, INTERRUPTED or NEW; a run that was stopped between its result and its report is INTERRUPTED.

  Raises:
    ValueError: where the folder holds a run of another config, or a result that is none.
  """
  run.check_config(config, folder)
  path = folder / "result.json"
  if not path.exists():
    return INTERRUPTED if run.has_learnt(folder) else NEW
  try:
    result = read_object(path)
  except ValueError:
    raise ValueError(f"{path} cannot be read; remove it to have the run finished") from None
  return FINISHED if result.get("steps") == config.steps and (folder / "report.html").exists() else INTERRUPTED

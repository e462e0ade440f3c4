"""What the commands have in common: which runs, and where."""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments.launch import check, sweep
from experiments.launch.check import Checked

# Flags of experiments.main that are not a sweep's to set, and why.
_REFUSED = {
  "explain_placement": "it would train nothing; give it to python -m experiments.main",
  "distributed": "the launcher tells the processes of a run of each other, see --nodes of slurm and k8s; leave it out",
}


def define(values: flags.FlagValues, where: str = "") -> None:
  """Defines the flags that say which runs there are; ``where`` adds something about the folder."""
  flags.DEFINE_multi_string(
    "grid",
    [],
    "FLAG=VALUE,VALUE,...: every value, with every one of further grids. Commas in brackets or quotes do not separate.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "list",
    None,
    "File with the flags of one run a line; with --grid, every line is run at every point of it.",
    flag_values=values,
  )
  flags.DEFINE_string("workdir", None, f"Folder of the sweep, {where}each run has its own in it.", flag_values=values)
  flags.DEFINE_bool("dry_run", False, "Print what would be done, do nothing.", flag_values=values)


def runs(values: flags.FlagValues, rest: Sequence[str], here: bool = True) -> list[Checked]:
  """The runs that the flags describe, checked; ``rest`` are the flags of all of them.

  Args:
    values: the launcher's own flags.
    rest: all others.
    here: whether the sweep's folder is on this machine.

  Raises:
    ValueError: naming the flag that is at fault.
  """
  if not values.workdir:
    raise ValueError("--workdir must name the sweep's folder, such as --workdir=runs/sweep")
  found = sweep.expand(rest, values.grid, _lines(values["list"].value))
  for word in (word for run in found for word in run.flags):
    name = word.removeprefix("--").partition("=")[0]
    if (why := _REFUSED.get(name) or _REFUSED.get(name.removeprefix("no"))) is not None:
      raise ValueError(f"--{name} is no flag for a sweep: {why}")
  return check.check(found, folder(values) if here else None, list(values))


def _lines(path: str | None) -> list[str] | None:
  try:
    return None if path is None else pathlib.Path(path).expanduser().read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(f"--list={path} cannot be read: {getattr(error, 'strerror', error)}") from None


def folder(values: flags.FlagValues) -> pathlib.Path:
  """The sweep's, absolute: commands may run elsewhere."""
  return pathlib.Path(values.workdir).expanduser().absolute()

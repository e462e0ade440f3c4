"""Works on RLDS datasets.

python -m experiments.data describe DATASET [--html=PATH]
python -m experiments.data validate DATASET
python -m experiments.data clean DATASET --name=NAME --min_length=10 ...
python -m experiments.data query DATASET "SELECT split, count(*) FROM episodes GROUP BY split"
python -m experiments.data convert SOURCE --name=NAME ...

DATASET is the folder of a dataset, or a name under $ILX_DATA_DIR (by default ~/.cache/ilx).
"""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from collections.abc import Sequence
  from types import ModuleType

  from absl import flags

COMMANDS = ("describe", "validate", "clean", "query", "convert")
# What a command returns where it could not do its work: a wrong flag, no such dataset.
UNUSABLE = 2
# As shells give it for Ctrl-C.
INTERRUPTED = 130


def main(arguments: Sequence[str]) -> int:
  """Runs one command; ``arguments`` begin with its name. Returns the exit code; 1 is the command's own."""
  try:
    return _run(arguments)
  except KeyboardInterrupt:
    print("error: interrupted", file=sys.stderr)
    return INTERRUPTED
  except MemoryError as error:
    return _refuse(f"out of memory{f': {error}' if str(error) else ''}")
  except (OSError, ValueError, ImportError, RuntimeError, ArithmeticError) as error:
    return _refuse(str(error) or type(error).__name__)
  except Exception:
    # A defect of the command: where it is matters, but 1 would say that the work was done.
    traceback.print_exc()
    return UNUSABLE


def _run(arguments: Sequence[str]) -> int:
  # Imports are work that can be interrupted, too.
  from absl import flags

  from experiments import cli

  cli.plain_warnings()
  if not arguments or arguments[0] in ("help", "--help", "-h", "--helpfull", "--helpshort"):
    print(_overview())
    return 0 if arguments else UNUSABLE
  name, *rest = arguments
  if name not in COMMANDS:
    return _refuse(f"no command {name!r}; there are: {', '.join(COMMANDS)}")
  command = importlib.import_module(f"experiments.data.{name}")
  values = flags.FlagValues()
  command.define(values)
  if {"--help", "-h", "--helpfull", "--helpshort"} & set(rest):
    print(_help(name, command, values))
    return 0
  values.set_gnu_getopt(True)
  try:
    given = values([name, *rest])[1:]
  except flags.Error as error:
    return _refuse(f"{error}\nsee: python -m experiments.data {name} --help")
  expected = command.ARGUMENTS.split()
  if len(given) != len(expected):
    return _refuse(f"{name} takes {command.ARGUMENTS}, got {' '.join(map(repr, given)) or 'nothing'}")
  return command.main(given, values)


def _refuse(message: str) -> int:
  from experiments.data import terminal

  # Names and texts of datasets may stand in it.
  print(f"error: {terminal.printable(message, kept=chr(10))}", file=sys.stderr)
  return UNUSABLE


def _overview() -> str:
  from experiments import cli

  return f"{__doc__.strip()}\n\nCommands (each has --help):\n{cli.overview(f'{__package__}.{n}' for n in COMMANDS)}"


def _help(name: str, command: ModuleType, values: flags.FlagValues) -> str:
  from experiments import cli

  usage = f"python -m experiments.data {name} {command.ARGUMENTS} [flags]"
  return f"{command.__doc__.strip()}\n\nusage: {usage}\n\n{cli.described(values)}"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))

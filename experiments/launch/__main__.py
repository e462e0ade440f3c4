"""Many runs by one command.

python -m experiments.launch local --config=experiments/configs/bc.py --grid=config.seed=0,1,2 --workdir=runs/sweep
python -m experiments.launch slurm ... --partition=gpu --gpus_per_node=1 --time=4:00:00
python -m experiments.launch k8s ... --image=REGISTRY/ilx:cuda --accelerator=cuda --claim=runs
python -m experiments.launch table --workdir=runs/sweep

Flags that are not the launcher's go to every run, which is `python -m experiments.main` with a folder of its own. All
are checked before anything starts; --dry_run prints what would be done.
"""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from absl import flags, logging

from experiments import cli

COMMANDS = ("local", "slurm", "k8s", "table")
# Nothing was started: a wrong flag, a folder of other runs.
UNUSABLE = 2


def main(arguments: Sequence[str]) -> int:
  """Runs one command; ``arguments`` begin with its name. Returns the exit code."""
  logging.set_verbosity(logging.WARNING)
  try:
    return _run(arguments)
  except (OSError, ValueError, ImportError, RuntimeError) as error:
    print(f"error: {error}", file=sys.stderr)
    return UNUSABLE


def _run(arguments: Sequence[str]) -> int:
  if not arguments or arguments[0] in ("help", *cli.HELP):
    print(f"{__doc__.strip()}\n\nCommands (each has --help):\n{cli.overview(f'{__package__}.{n}' for n in COMMANDS)}")
    return 0 if arguments else UNUSABLE
  name, *rest = arguments
  if name not in COMMANDS:
    raise ValueError(f"no command {name!r}; there are: {', '.join(COMMANDS)}")
  command = importlib.import_module(f"{__package__}.{name}")
  values = flags.FlagValues()
  command.define(values)
  if set(cli.HELP) & set(rest):
    print(_help(name, command, values))
    return 0
  try:
    return command.main(values, values([name, *rest], known_only=True)[1:])
  except flags.Error as error:
    raise ValueError(f"{error}\nsee: python -m {__package__} {name} --help") from None


def _help(name: str, command: ModuleType, values: flags.FlagValues) -> str:
  usage = f"python -m {__package__} {name} [flags]"
  return f"{command.__doc__.strip()}\n\nusage: {usage}\n\n{cli.described(values)}"


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))

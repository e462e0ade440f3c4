"""What the command lines share."""

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from absl import app, flags, logging

# How one asks for help.
HELP = ("--help", "-h", "--helpfull", "--helpshort")


def run(main: Callable[[], None], parse: Callable[[list[str]], list[str]] = app.parse_flags_with_usage) -> None:
  """Parses the flags, refuses anything that is not one, and calls ``main``."""

  def start(arguments: list[str]) -> Any:
    if len(arguments) > 1:
      raise app.UsageError(f"unexpected argument {arguments[1]!r}; flags start with --")
    if not flags.FLAGS["verbosity"].present:
      # Jax tells which backends it lacks; orbax tells every step, and prints tracebacks of failures that ilx reports in
      # one line.
      logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
      logging.set_verbosity(logging.WARNING)
    return main()

  app.run(start, flags_parser=parse)


def overview(modules: Iterable[str]) -> str:
  """The commands of a tool, each a module, and the first lines of their docstrings."""
  lines = [(name.rpartition(".")[2], importlib.import_module(name).__doc__.split("\n")[0]) for name in modules]
  return "\n".join(f"  {name:<10} {first}" for name, first in lines)


def described(values: flags.FlagValues) -> str:
  """The flags of a command and what they mean."""
  lines = []
  for flag in sorted((values[key] for key in values), key=lambda flag: flag.name):
    switch = "--[no]" if isinstance(flag, flags.BooleanFlag) else "--"
    default = "" if flag.default in (None, [], False) else f" (default: {flag.default_as_str})"
    lines.append(f"  {switch}{flag.name}\n      {flag.help}{default}")
  return "\n".join(lines)

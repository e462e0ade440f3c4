"""What the command lines share."""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from absl import app, flags, logging

# How one asks for help.
HELP = ("--help", "-h", "--helpfull", "--helpshort", "--helpxml", "-help", "-?", "--?")
# What a command stopped by Ctrl-C ends with: 128 + SIGINT, as a shell would have it.
STOPPED = 130

Parse = Callable[[list[str]], list[str]]


def run(main: Callable[[], None], parse: Parse = app.parse_flags_with_usage) -> None:
  """Parses the flags, refuses anything that is not one, and calls ``main``; exit code 0 for help, 130 after Ctrl-C."""

  def start(arguments: list[str]) -> Any:
    if len(arguments) > 1:
      raise app.UsageError(f"unexpected argument {arguments[1]!r}; flags start with --")
    if not flags.FLAGS["verbosity"].present:
      # Jax tells which backends it lacks; orbax tells every step, and prints tracebacks of failures that ilx reports in
      # one line.
      logging.get_absl_logger().addFilter(lambda record: "orbax" not in record.pathname)
      logging.set_verbosity(logging.WARNING)
    plain_warnings()
    try:
      return main()
    except KeyboardInterrupt:
      print("stopped by SIGINT", file=sys.stderr)
      sys.exit(STOPPED)

  app.run(start, flags_parser=functools.partial(parsed, parse=parse))


def parsed(arguments: list[str], parse: Parse = app.parse_flags_with_usage) -> list[str]:
  """What ``parse`` leaves of the arguments; exit code 0 for help, where absl has 1: who asks has made no mistake."""
  try:
    return parse(arguments)
  except SystemExit as end:
    if end.code == 1 and set(HELP) & set(arguments):
      sys.exit(0)
    raise


def plain_warnings() -> None:
  """From now on UserWarnings, ours above all, are one line: who runs a command needs none of the code."""
  usual = warnings.showwarning

  def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    if category is UserWarning:
      print(f"warning: {message}", file=sys.stderr)
    else:
      usual(message, category, *where, **more)

  warnings.showwarning = show


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

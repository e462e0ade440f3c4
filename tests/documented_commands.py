"""Parses command lines as the commands themselves do, without running them.

python -m tests.documented_commands < commands.json > errors.json

In: a list of lists of words, such as ``["experiments.main", "--config=..."]``. Out: for each an error, or null. It is a
process of its own, since every command defines its flags where those of others are.
"""

import argparse
import contextlib
import importlib
import io
import json
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags

from experiments.data.__main__ import COMMANDS as OF_DATA
from experiments.launch import options
from experiments.launch.__main__ import COMMANDS as OF_LAUNCH


class _Parsed(Exception):
  """The flags are right."""


def main() -> None:
  """Reads commands, writes errors."""
  _only_parse()
  out = sys.stdout
  json.dump([error(words) for words in json.load(sys.stdin)], out)


def error(words: Sequence[str]) -> str | None:
  """What is wrong with a command; None: nothing."""
  before, sys.argv = set(flags.FLAGS), list(words)
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
      runpy.run_module(words[0], run_name="__main__", alter_sys=False)
  except _Parsed:
    return None
  except SystemExit as stop:
    return None if stop.code in (0, None) else f"{stop.code} {said.getvalue()}".strip()
  except Exception as wrong:
    return f"{type(wrong).__name__}: {wrong}"
  finally:
    for name in set(flags.FLAGS) - before:
      delattr(flags.FLAGS, name)
  return "it is no command: it ended without looking at its flags"


def _only_parse() -> None:
  """Has every command stop where it has parsed its flags."""

  def run(main: Any, argv: Any = None, flags_parser: Callable = app.parse_flags_with_usage) -> None:
    rest = flags_parser(sys.argv)
    # Benchmarks are named by words; all others refuse them.
    if len(rest) > 1 and main.__module__ != "__main__":
      main(rest)
    raise _Parsed

  def parse(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
    found, unknown = known(self, args, namespace)
    if not unknown:
      raise _Parsed
    return found, unknown

  known = argparse.ArgumentParser.parse_known_args
  app.run, argparse.ArgumentParser.parse_known_args = run, parse
  for name in OF_DATA:
    importlib.import_module(f"experiments.data.{name}").main = lambda *_: 0
  for name in OF_LAUNCH:
    importlib.import_module(f"experiments.launch.{name}").main = (lambda *_: 0) if name == "table" else _launched


def _launched(values: flags.FlagValues, rest: Sequence[str]) -> int:
  options.runs(values, rest)
  return 0


if __name__ == "__main__":
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  main()

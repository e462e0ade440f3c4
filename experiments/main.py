"""Trains and scores one agent.

  python -m experiments.main --config=experiments/configs/bc.py
  python -m experiments.main --config=experiments/configs/bc.py --config.dataset=hopper-expert --workdir=runs/hopper

Fields of the config are set as --config.FIELD=VALUE; the config file documents them. An interrupted run (Ctrl-C,
SIGTERM, a crash) goes on from its last checkpoint when the same command is given again, also on another number of
devices or hosts. On several hosts, with a --workdir that all see:

  python -m experiments.main --config=experiments/configs/bc.py --distributed=10.0.0.1:1234,2,0   # and ...,2,1
"""

import json
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags, logging
from ml_collections import config_flags

from experiments import choosing, cli, placement, run, summary
from experiments import devices as devices_lib
from experiments.report.text import short_dataset
from ilx import training
from ilx.parallel import hosts
from ilx.training import logs

FLAGS = flags.FLAGS
# What parsing flags of a config raises.
UNUSABLE = (flags.Error, AttributeError, ImportError, KeyError, OSError, SyntaxError, TypeError, ValueError)


def define_flags(values: flags.FlagValues = FLAGS, arguments: Sequence[str] | None = None) -> None:
  """Of this command; ``arguments``, by default the process's, say which fields of the config are flags, too."""
  what = "Config file, such as experiments/configs/bc.py."
  config_flags.DEFINE_config_file("config", None, what, flag_values=values, sys_argv=arguments)
  what = "Folder of the run; default runs/<agent>-<dataset>-seed<seed>."
  flags.DEFINE_string("workdir", None, what, flag_values=values)
  flags.DEFINE_boolean(
    "explain_placement",
    False,
    "Prints where every parameter would be on the mesh (--config.mesh.fsdp=4) and the memory that updates would need, "
    "and ends.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "distributed",
    "",
    "Several processes as one run, the same command in each: 'auto' where Slurm, Kubernetes, Open MPI or a TPU's "
    "metadata say which they are; or COORDINATOR:PORT,PROCESSES,INDEX. Empty: this process alone.",
    flag_values=values,
  )
  flags.DEFINE_boolean("quiet", False, "Prints warnings and errors alone.", flag_values=values)
  what = "Prints what result.json holds when the run is done; all else goes to standard error."
  flags.DEFINE_boolean("json", False, what, flag_values=values)
  flags.mark_flag_as_required("config", flag_values=values)


def parse(argv: list[str]) -> list[str]:
  """Parses flags; what is wrong with them is one line that names the field and the nearest one, not a traceback."""
  try:
    rest = FLAGS(last_of_each(argv))
    FLAGS.config.keys  # noqa: B018 (a config that could not be loaded says so when it is used)
    return rest
  except UNUSABLE as error:
    print(f"error: {explain(error)}\nSee --help.", file=sys.stderr)
    sys.exit(2)


def last_of_each(words: Sequence[str]) -> list[str]:
  """Without the fields of the config that are given again later, as for other flags; tuples would be joined."""
  pieces: list[list[str]] = []
  for word in words:
    if pieces and _awaits_value(pieces[-1]) and not word.startswith("-"):
      pieces[-1].append(word)
    else:
      pieces.append([word])
  names = [piece[0].lstrip("-").partition("=")[0] if _is_field(piece[0]) else None for piece in pieces]
  kept = [piece for place, piece in enumerate(pieces) if not names[place] or names[place] not in names[place + 1 :]]
  return [word for piece in kept for word in piece]


def _is_field(word: str) -> bool:
  return word.startswith(("-config.", "--config."))


def _awaits_value(piece: Sequence[str]) -> bool:
  """Whether the next word, if it is no flag, is the value of a field."""
  return len(piece) == 1 and _is_field(piece[0]) and "=" not in piece[0]


def explain(error: Exception) -> str:
  """One line on flags that could not be parsed, given one of UNUSABLE."""
  if isinstance(error, flags.Error):
    text = str(error).rstrip()
    return f"--config: {text.splitlines()[-1]}" if "Traceback" in text else text
  if isinstance(error, (AttributeError, KeyError)):
    near = re.search(r'Did you mean "(\w+)" instead of "(\w+)"', str(error))
    if near:
      return f"the config has no field {near[2]!r}; did you mean {near[1]!r}?"
    field = str(error).strip("'\"")
    return f"the config has no field {field!r}, nor one of a name like it; the config's file says which it has"
  return f"--config cannot be loaded: {' '.join(str(error).rpartition('Attempted')[2].split())}"


def main() -> None:
  """Runs the experiment that the flags describe."""
  config = FLAGS.config
  sys.unraisablehook = _unraisable
  output = sys.stdout
  if FLAGS.quiet and not FLAGS.explain_placement:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (to the end of the process)
  elif FLAGS.json and not FLAGS.explain_placement:
    sys.stdout = sys.stderr
  try:
    if FLAGS.distributed:
      hosts.initialize(FLAGS.distributed)
    else:
      devices_lib.spread_seeds(config)
    if not hosts.is_first():
      sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if FLAGS.explain_placement:
      return placement.explain(config)
    devices = jax.devices()
    names = "+".join(short_dataset(name).replace("/", "_") for name in choosing.shares(config.dataset))
    seeds = f"seed{config.seed}" if config.seeds == 1 else f"seeds{config.seed}-{config.seed + config.seeds - 1}"
    folder = pathlib.Path("runs") / f"{config.agent.name.rpartition(':')[2]}-{names}-{seeds}"
    workdir = pathlib.Path(FLAGS.workdir or folder).expanduser()
    many = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    where = f"{len(devices)} x {devices[0].device_kind}{many}"
    print(f"{config.agent.name} on {config.dataset}, {where}, run folder {workdir}")
    result = run.run(config, workdir)
  except training.Interrupted as stop:
    print(f"{stop}\nThe same command goes on from there.", file=sys.stderr)
    _leave(128 + stop.signal)
  except KeyboardInterrupt:
    print("stopped by SIGINT", file=sys.stderr)
    _leave(cli.STOPPED)
  except (ArithmeticError, ImportError, OSError, RuntimeError, ValueError) as error:
    if logging.get_verbosity() >= logging.DEBUG:
      raise
    print(f"error: {error}", file=sys.stderr)
    _leave(1)
  if result is not None:
    summary.terminal_table(result)
    print(f"report: {workdir / 'report.html'}")
    if FLAGS.json:
      print(json.dumps(logs.jsonable(result), indent=2), file=output)


def _unraisable(found: Any) -> None:
  """When a write fails, orbax gives up its others, each of which then tells that nobody waits for it."""
  if str(found.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(found)


def _leave(code: int) -> None:
  """Ends a process that is the only one at once: threads may wait for data for ever, or for a disk with space."""
  sys.stdout.flush()
  sys.stderr.flush()
  if not FLAGS.distributed:
    os._exit(code)
  sys.exit(code)


if __name__ == "__main__":
  define_flags()
  cli.run(main, parse)

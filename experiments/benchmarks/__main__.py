"""Measures the speeds of ilx beside their limits, in alternating rounds.

python -m experiments.benchmarks                     all of them
python -m experiments.benchmarks updates data        some of them
python -m experiments.benchmarks --quick             seconds: does it run? The figures mean little
python -m experiments.benchmarks --json=speeds.json  the rows and the machine, for programs
"""

import difflib
import importlib
import json
import os
import sys

import jax
from absl import app, flags

from experiments import cli, outputs
from experiments.benchmarks import machine, table

# Modules of this folder, each with a function ``run``; what a benchmark needs is imported where it is run.
BENCHMARKS = ("updates", "agents", "seeds", "scale", "data", "batches", "pictures", "prepared", "evaluation", "startup")

_QUICK = flags.DEFINE_bool("quick", False, "Small sizes and two rounds: shows that it runs, not how fast.")
_JSON = flags.DEFINE_string("json", None, "File to write the rows and the facts about the machine to.")


def main(argv: list[str]) -> None:
  """Runs the benchmarks named, all by default."""
  names = argv[1:] or BENCHMARKS
  for name in names:
    if name not in BENCHMARKS:
      near = difflib.get_close_matches(name, BENCHMARKS, n=1, cutoff=0.0)[0]
      raise app.UsageError(f"no benchmark {name!r}; did you mean {near!r}? There are {', '.join(BENCHMARKS)}")
  try:
    output = outputs.check(_JSON.value, "--json") if _JSON.value else None
  except OSError as error:
    raise app.UsageError(str(error)) from None
  # Where JAX_COMPILATION_CACHE_DIR is set, a first update would be read instead of compiled.
  jax.config.update("jax_enable_compilation_cache", False)
  facts, rows = machine.facts(), []
  for name in names:
    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    rows += importlib.import_module(f"experiments.benchmarks.{name}").run(_QUICK.value)
  facts["load_average_after"] = round(os.getloadavg()[0], 2)
  table.show(rows, facts)
  if output:
    content = {"machine": facts, "quick": _QUICK.value, "rows": [row._asdict() for row in rows]}
    outputs.write(output, json.dumps(content, indent=2, allow_nan=False) + "\n")


if __name__ == "__main__":
  app.run(main, flags_parser=cli.parsed)

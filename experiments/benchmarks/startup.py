"""The time that `import ilx` takes beyond the libraries that any JAX program imports."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from experiments.benchmarks import measure
from experiments.benchmarks.measure import Row, Seconds

BAR = 0.5
# What a program pays for when it uses it, not when it imports ilx.
LATER = ("tensorflow", "envpool", "tensorflow_datasets", "orbax", "matplotlib", "av")

_PROGRAM = """
import json, sys, time
clock = lambda: (time.perf_counter(), time.process_time())
start = clock()
import jax, flax, optax
libraries = clock()
import ilx
print(json.dumps([start, libraries, clock(), sorted({name.split(".")[0] for name in sys.modules})]))
"""


def run(quick: bool) -> list[Row]:
  """Seconds of `import ilx` in fresh processes.

  Raises:
    RuntimeError: where the import pulls in a module of `LATER`.
  """
  times = []
  # The first process only fills the caches: of files, and of compiled Python.
  for start, libraries, end, modules in [_import() for _ in range(3 if quick else 8)][1:]:
    if pulled := sorted(set(LATER) & set(modules)):
      raise RuntimeError(f"import ilx imports {', '.join(pulled)}, which must wait until it is used")
    times.append((np.subtract(end, libraries), np.subtract(libraries, start)))
  ours, theirs = (Seconds(*np.array(x).T) for x in zip(*times, strict=True))
  note = f"beyond the others; none of {', '.join(LATER)} is imported"
  return [measure.row("import ilx", ours, "s", "import jax, flax, optax", theirs, bar=BAR, note=note)]


def _import() -> list:
  folder = pathlib.Path(__file__).resolve().parents[2]
  environment = {**os.environ, "PYTHONPATH": str(folder)}
  environment.pop("PYTHONDONTWRITEBYTECODE", None)
  done = subprocess.run(
    [sys.executable, "-c", _PROGRAM], env=environment, cwd=folder, capture_output=True, text=True, check=False
  )
  if done.returncode:
    raise RuntimeError(f"import ilx failed in a fresh process: {done.stderr.strip().splitlines()[-1]}")
  return json.loads(done.stdout)

"""Feeds damaged files to everything that reads files.

python -m experiments.fuzz                                a million inputs, divided among all readers
python -m experiments.fuzz --inputs=10000 --target=example,cache
python -m experiments.fuzz --target=example --seed=7 --first=1234 --inputs=1    one input again

Reading must end in values or in a ValueError that says what is wrong: no other exception, no crash of the process, not
more than two seconds, no more memory than a small multiple of the input, and no value that a checksum should have told.
Inputs follow from --seed and their number alone.
"""

import multiprocessing
import pathlib
import sys
import tempfile
import time

from absl import flags

from experiments import cli
from experiments.fuzz import run, targets

_INPUTS = flags.DEFINE_integer("inputs", 1_000_000, "Inputs in all.", 1)
_TARGET = flags.DEFINE_list("target", [], "Readers, by default all.")
_SEED = flags.DEFINE_integer("seed", 0, "Other seeds, other inputs.")
_FIRST = flags.DEFINE_integer("first", 0, "Number of each reader's first input.", 0)


def main() -> None:
  multiprocessing.set_start_method("fork")
  with tempfile.TemporaryDirectory(prefix="ilx-fuzz-", dir=_memory()) as folder:
    known = targets.targets(pathlib.Path(folder))
    if unknown := sorted(set(_TARGET.value) - set(known)):
      print(f"error: --target: no {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
      sys.exit(2)
    chosen = {name: target for name, target in known.items() if not _TARGET.value or name in _TARGET.value}
    print(f"{'reader':16} {'inputs':>9} {'accepted':>9} {'refused':>9} {'slowest':>9} {'memory':>8} {'seconds':>8}")
    failures, began = 0, time.monotonic()
    for name, count in run.shares(chosen, _INPUTS.value).items():
      report = run.isolated(chosen[name], name, _SEED.value, _FIRST.value, count)
      print(report.line(name), flush=True)
      for failure in report.failures:
        print(f"  {failure}", flush=True)
      failures += len(report.failures)
  print(f"{_INPUTS.value} inputs in {time.monotonic() - began:.0f} s, {failures} failures")
  sys.exit(1 if failures else 0)


def _memory() -> str | None:
  """A folder that is no disk, where there is one."""
  return "/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
  cli.run(main)

"""Runs that are killed at random moments, restarted until they are done, and compared with ones that were not.

python -m experiments.chaos --runs=20

A moment may be anything from a process' start to its end. What happens then is one of: SIGKILL; SIGTERM; SIGKILL and
damage to the newest checkpoint; a full disk, which is a small tmpfs and needs root. State and rows of the log must be
the same bits in the end.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from absl import flags

from experiments import cli, mishaps
from experiments.benchmarks import fake
from ilx.training import logs

_RUNS = flags.DEFINE_integer("runs", 20, "How many runs are disturbed.", lower_bound=1)
_TIMES = flags.DEFINE_integer("times", 3, "How often each is, before it is let end.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of what happens when; the moments also depend on the machine.")

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_LONGEST = 300.0
# What a run of each kind is; all train on the same made-up data.
KINDS = {
  "bc": ("bc", "device"),
  "streamed bc": ("bc", "streamed"),
  "iql": ("iql", "device"),
}


class Outcome(NamedTuple):
  """A run: its kind, what was done to it, and what is wrong with it in the end; None: nothing."""

  kind: str
  events: list[str]
  wrong: str | None


class Place(NamedTuple):
  """The dataset, the disk that runs are on, whether it can be filled, and the updates of a run."""

  dataset: pathlib.Path
  disk: pathlib.Path
  can_fill: bool
  steps: int


def run(
  runs: int, times: int, seed: int, kinds: Sequence[str] = tuple(KINDS), steps: int = 3_000, say: Callable = print
) -> list[Outcome]:
  """Makes one run of each kind undisturbed, and ``runs`` that are disturbed ``times`` times."""
  with (
    tempfile.TemporaryDirectory() as temporary,
    mishaps.small_disk(pathlib.Path(temporary) / "disk") as (disk, can_fill),
  ):
    dataset = fake.record(fake.episodes(10, 50), temporary, "made_up")
    place = Place(dataset, disk, can_fill, steps)
    if not can_fill:
      say("no tmpfs can be mounted here: no disk gets full")
    expected, start_seconds = {}, {}
    for kind in kinds:
      folder = disk / "undisturbed"
      began = time.monotonic()
      process = _start(kind, folder, place)
      _wait_for(lambda folder=folder: (folder / "log.jsonl").exists(), process)
      start_seconds[kind] = time.monotonic() - began
      code, output = _ended(process)
      if code:
        raise RuntimeError(f"the undisturbed run of {kind} ended with {code}:\n{output}")
      expected[kind] = _learnt(folder, steps)
      shutil.rmtree(folder)
    found = []
    for number in range(runs):
      kind, folder = kinds[number % len(kinds)], disk / "run"
      rng = np.random.default_rng((seed, number))
      events, wrong = _disturbed(kind, folder, place, times, start_seconds[kind], rng)
      wrong = wrong or _difference(_learnt(folder, steps), expected[kind])
      found.append(Outcome(kind, events, wrong))
      say(f"{number + 1:3} {kind}: {'; '.join(events)}: {wrong or 'the same bits'}")
      shutil.rmtree(folder)
    return found


def _disturbed(
  kind: str, folder: pathlib.Path, place: Place, times: int, start_seconds: float, rng: np.random.Generator
) -> tuple[list[str], str | None]:
  events: list[str] = []
  for _ in range(times):
    event = str(rng.choice(["kill", "terminate", "damage", *(["fill"] if place.can_fill else [])]))
    process = _start(kind, folder, place)
    when = _wait_for_a_moment(process, folder, place.steps, start_seconds, rng)
    good = _good(folder)
    if event == "fill":
      with mishaps.filled(place.disk):
        code, output = _ended(process)
      fine = code == 0 or (code == 1 and ("disk is full" in output or "No space left" in output))
    else:
      process.send_signal(signal.SIGTERM if event == "terminate" else signal.SIGKILL)
      code, output = _ended(process)
      fine = (
        code in (0, -signal.SIGTERM, 128 + signal.SIGTERM) if event == "terminate" else code in (0, -signal.SIGKILL)
      )
    if event == "damage":
      event += f" ({mishaps.damage(folder / 'checkpoints', rng)})"
    elif (left := max(_good(folder), default=0)) < max(good, default=0):
      return events, f"{event} {when}: checkpoint {max(good)} was good, and the newest good one is now {left}"
    events.append(f"{event} {when}")
    if not fine or "Traceback" in output:
      return events, f"ended with {code}:\n{output}"
  code, output = _ended(_start(kind, folder, place))
  return events, f"the last process ended with {code}:\n{output}" if code else None


def _start(kind: str, folder: pathlib.Path, place: Place) -> subprocess.Popen:
  agent, tier = KINDS[kind]
  fields = {
    "dataset": place.dataset, "tier": tier, "split": "train[2:]", "heldout": "train[:2]", "env_id": "none",
    "steps": place.steps, "batch_size": 16, "log_every": 50, "checkpoint_every": 100, "keep": 2,
    "agent.hidden": "(16,)", "evaluation.every": 500,
  }  # fmt: skip
  command = [sys.executable, "-m", "experiments.main", f"--config={_ROOT / 'experiments/configs'}/{agent}.py"]
  command += [f"--workdir={folder}", *(f"--config.{name}={value}" for name, value in fields.items())]
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(_ROOT)}
  return subprocess.Popen(
    command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )


def _ended(process: subprocess.Popen) -> tuple[int, str]:
  try:
    output = process.communicate(timeout=_LONGEST)[0]
  except subprocess.TimeoutExpired:
    process.kill()
    output = process.communicate()[0] + f"\nstill running after {_LONGEST:.0f} s"
  return process.returncode, output


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
  while process.poll() is None and not condition():
    time.sleep(0.005)


def _wait_for_a_moment(
  process: subprocess.Popen, folder: pathlib.Path, steps: int, start_seconds: float, rng: np.random.Generator
) -> str:
  """One in four is before training; the others at a random update from the present one on. Says which."""
  if rng.random() < 0.25:
    seconds = rng.uniform(0, start_seconds)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(seconds)
    return f"after {seconds:.1f} s"
  before, path = _logged(folder), folder / "log.jsonl"
  until = int(rng.integers(min(before, steps - 1), steps))
  # A resumed run drops rows: only those that it wrote count.
  began = path.stat().st_mtime_ns if path.exists() else 0
  _wait_for(lambda: path.exists() and path.stat().st_mtime_ns != began and _logged(folder) > until, process)
  time.sleep(rng.uniform(0.0, 0.2))
  return f"at update {_logged(folder)}"


def _logged(folder: pathlib.Path) -> int:
  rows = logs.read_jsonl(folder / "log.jsonl") if (folder / "log.jsonl").exists() else []
  return rows[-1]["step"] if rows else 0


def _good(folder: pathlib.Path) -> list[int]:
  return mishaps.good(folder / "checkpoints")


def _learnt(folder: pathlib.Path, steps: int) -> tuple[dict[str, np.ndarray], list[dict]]:
  """The arrays of the last checkpoint, by path, and the log without what depends on the clock."""
  from orbax.checkpoint import v1 as ocp

  with warnings.catch_warnings(action="ignore"):  # of where arrays were in another process
    state = ocp.load(folder / "checkpoints" / str(steps))
  arrays = {}
  for path, x in jax.tree.leaves_with_path(state):
    x = jax.random.key_data(x) if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    arrays[jax.tree_util.keystr(path)] = np.asarray(x)
  timing = ("seconds", "updates_per_second")
  rows = logs.read_jsonl(folder / "log.jsonl")
  return arrays, [{name: x for name, x in row.items() if name not in timing} for row in rows]


def _difference(found: tuple, expected: tuple) -> str | None:
  for name, x in expected[0].items():
    if name not in found[0] or x.tobytes() != found[0][name].tobytes():
      return f"{name} of the state differs"
  if found[1] != expected[1]:
    odd = [row for row in found[1] if row not in expected[1]] or [row for row in expected[1] if row not in found[1]]
    return f"the log differs: {json.dumps((odd or found[1])[0])}"
  return None


def main() -> None:
  outcomes = run(_RUNS.value, _TIMES.value, _SEED.value)
  bad = [outcome for outcome in outcomes if outcome.wrong]
  happened = [event.split(" ")[0] for outcome in outcomes for event in outcome.events]
  counts = ", ".join(f"{happened.count(event)} {event}" for event in sorted(set(happened)))
  print(f"{len(outcomes) - len(bad)} of {len(outcomes)} runs ended as the undisturbed ones, bit for bit ({counts})")
  sys.exit(1 if bad else 0)


if __name__ == "__main__":
  cli.run(main)

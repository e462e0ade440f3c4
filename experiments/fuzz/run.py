"""Running a target on many inputs, in a process of its own, with an eye on time and memory."""

import multiprocessing
import pathlib
import random
import resource
import signal
import time
import tracemalloc
from collections.abc import Mapping
from typing import NamedTuple

from experiments.fuzz.targets import SilentError, Target

SECONDS = 2.0
# Parsed integers take eight bytes for one on the wire, and parsing a few such arrays.
MEMORY_FACTOR, MEMORY_FLOOR = 100, 8 << 20
# Memory is measured on every so many inputs, as that makes reading several times slower.
_MEASURE_EVERY = 8
_MAX_FAILURES = 10
# What the process may take beyond what it has: libraries' memory, which Python does not see, included.
_LIMIT = 256 << 20


class Report(NamedTuple):
  """What came of one target's inputs.

  Attributes:
    inputs: how many were read.
    accepted: gave values.
    refused: gave a ValueError.
    slowest: seconds of the slowest.
    memory: largest share of the memory allowed.
    seconds: in all.
    failures: one line each; at most ten.
  """

  inputs: int
  accepted: int
  refused: int
  slowest: float
  memory: float
  seconds: float
  failures: list[str]

  def line(self, name: str) -> str:
    """One row of the table."""
    return (
      f"{name:16} {self.inputs:9} {self.accepted:9} {self.refused:9} {1e3 * self.slowest:6.1f} ms {self.memory:8.2f} "
      f"{self.seconds:8.1f}"
    )


def shares(chosen: Mapping[str, Target], inputs: int) -> dict[str, int]:
  """How many inputs each target gets: cheap ones more, all at least one."""
  total = sum(1 / target.cost for target in chosen.values())
  counts = {name: max(1, round(inputs / target.cost / total)) for name, target in chosen.items()}
  counts[next(iter(counts))] += max(inputs - sum(counts.values()), 0)
  return counts


def isolated(target: Target, name: str, seed: int, first: int, count: int) -> Report:
  """``attack`` in a child process; one that dies by a signal is a failure that names the input.

  The process may take 256 MiB beyond what it has, so that an allocation without bounds fails in libraries too.
  """
  at = multiprocessing.Value("q", first, lock=False)
  receive, send = multiprocessing.Pipe(duplex=False)

  def work() -> None:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    send.send(attack(target, name, seed, first, count, at))

  process = multiprocessing.Process(target=work)
  process.start()
  send.close()
  try:
    report = receive.recv()
  except EOFError:
    report = None
  process.join()
  if report is None:
    done = at.value - first
    return Report(done, 0, 0, 0, 0, 0, [f"the process died ({process.exitcode}) at {again(name, seed, at.value)}"])
  return report


def again(name: str, seed: int, number: int) -> str:
  """The command that makes one input again."""
  return f'python -m experiments.fuzz --target="{name}" --seed={seed} --first={number} --inputs=1'


def make(target: Target, name: str, seed: int, number: int) -> bytes:
  """Input ``number``."""
  return target.make(random.Random(f"{name} {seed} {number}"))


def attack(target: Target, name: str, seed: int, first: int, count: int, at=None) -> Report:
  """Reads ``count`` inputs; ``at.value``, if given, is always the current one's number."""
  accepted = refused = 0
  slowest = memory = 0.0
  failures: list[str] = []
  began = time.monotonic()

  def alarm(*_: object) -> None:
    raise TimeoutError

  before = signal.signal(signal.SIGALRM, alarm)
  try:
    for number in range(first, first + count):
      if at is not None:
        at.value = number
      content = make(target, name, seed, number)
      if measured := number % _MEASURE_EVERY == 0:
        tracemalloc.start()
      signal.setitimer(signal.ITIMER_REAL, 30 * SECONDS)
      start = time.monotonic()
      problem = None
      try:
        target.read(content)
        accepted += 1
      except (ValueError, FileNotFoundError):
        refused += 1
      except TimeoutError:
        problem = "no end"
      except SilentError as error:
        problem = f"silent: {error}"
      except Exception as error:
        problem = f"{type(error).__name__}: {error}"
      took = time.monotonic() - start
      signal.setitimer(signal.ITIMER_REAL, 0)
      slowest = max(slowest, took)
      if measured:
        share = tracemalloc.get_traced_memory()[1] / (MEMORY_FACTOR * len(content) + MEMORY_FLOOR)
        tracemalloc.stop()
        memory = max(memory, share)
        if share > 1:
          problem = problem or f"{share:.1f} times the memory allowed"
      if took > SECONDS:
        problem = problem or f"{took:.1f} s"
      if problem:
        failures.append(f"{problem[:300]} <- {again(name, seed, number)}")
        if len(failures) == _MAX_FAILURES:
          break
  finally:
    signal.signal(signal.SIGALRM, before)
  done = accepted + refused + len(failures)
  return Report(done, accepted, refused, slowest, memory, time.monotonic() - began, failures)

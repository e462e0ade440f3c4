"""Measuring a thing beside its limit, so that the comparison holds on a machine that others use too."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

# Units of which less is better.
COSTS = ("s", "us")


class Row(NamedTuple):
  """One figure beside one limit.

  Attributes:
    name: what was measured.
    value: the median over the rounds, by the wall clock.
    unit: of value, limit_value and bar: work per second, or a time (`COSTS`).
    limit: what the limit is, or what the figure stands beside.
    limit_value: the limit's median, measured in the same rounds.
    ratio: value / limit_value: the share of the limit that is reached, or for times the multiple of it.
    bar: what the value must reach (a time: must not exceed), or None.
    note: what one must know to read the figure.
    spread: smallest and largest ratio of single rounds.
    cpu_value: value by processor time, all threads together, which waiting for the processor does not change.
    cpu_ratio: ratio by processor time.
  """

  name: str
  value: float
  unit: str
  limit: str
  limit_value: float
  ratio: float
  bar: float | None
  note: str
  spread: tuple[float, float]
  cpu_value: float
  cpu_ratio: float

  def reached(self, value: float) -> bool | None:
    """Whether ``value`` is on the right side of the bar; None without a bar."""
    if self.bar is None:
      return None
    return value <= self.bar if self.unit in COSTS else value >= self.bar


class Seconds(NamedTuple):
  """Time per unit of work, one entry a round: by the wall clock, and of this process's processor time."""

  wall: np.ndarray
  cpu: np.ndarray


def interleave(calls: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Seconds]:
  """Times all calls in turn, ``rounds`` times, in changing order; a call returns how much work it did."""
  measured: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
  for index in range(rounds):
    for name in list(calls) if index % 2 == 0 else reversed(list(calls)):
      wall, cpu = time.perf_counter(), time.process_time()
      work = calls[name]()
      measured[name].append(((time.perf_counter() - wall) / work, (time.process_time() - cpu) / work))
  return {name: Seconds(*np.array(pairs).T) for name, pairs in measured.items()}


def repeated(call: Callable[[int], object], seconds: float, work: float = 1.0) -> Callable[[], float]:
  """``call(n)`` with ``n`` so large that it takes about ``seconds``; ``work`` is what one of the ``n`` does."""
  call(1)  # compiles, fills caches
  n = 1
  while True:
    began = time.perf_counter()
    call(n)
    took = time.perf_counter() - began
    if took > seconds / 4:
      break
    n *= 4
  n = max(1, round(n * seconds / took))

  def timed() -> float:
    call(n)
    return n * work

  return timed


def attempt(name: str, measured: Callable[[], list[Row]]) -> list[Row]:
  """The rows; none, and why, where the device cannot do it: what it takes too much memory for, or cannot compile."""
  try:
    return measured()
  except jax.errors.JaxRuntimeError as error:
    print(f"not measured: {name}: {str(error).splitlines()[0]:.300}", file=sys.stderr, flush=True)
    return []


def row(
  name: str,
  thing: Seconds,
  unit: str,
  limit: str,
  limit_seconds: Seconds,
  *,
  bar: float | None = None,
  note: str = "",
) -> Row:
  """A row from the times of a thing and of its limit, per the same unit of work.

  Args:
    name: see `Row`.
    thing: its times.
    unit: "s" or "us" to show times, anything else to show work per second.
    limit: see `Row`.
    limit_seconds: its times, of the same rounds.
    bar: see `Row`.
    note: see `Row`.
  """

  def shown(seconds: np.ndarray) -> np.ndarray:
    return {"s": seconds, "us": 1e6 * seconds}[unit] if unit in COSTS else 1 / seconds

  wall, limit_wall = shown(thing.wall), shown(limit_seconds.wall)
  value, limit_value = float(np.median(wall)), float(np.median(limit_wall))
  cpu, limit_cpu = (float(np.median(shown(x.cpu))) for x in (thing, limit_seconds))
  spread = (float(np.min(wall / limit_wall)), float(np.max(wall / limit_wall)))
  return Row(name, value, unit, limit, limit_value, value / limit_value, bar, note, spread, cpu, cpu / limit_cpu)

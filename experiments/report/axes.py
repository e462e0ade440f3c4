"""Scales and ticks for the charts."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from experiments.report import text

# The least that a logarithmic axis shows: ratios of smaller numbers overflow.
_TINY = 1e-150


class Axis(NamedTuple):
  """A scale from data to per cent of the chart's width or height.

  Attributes:
    low, high: the range shown, in data units.
    ticks: tick positions in data units, with their labels.
    log: logarithmic; then ``low > 0``.
  """

  low: float
  high: float
  ticks: list[tuple[float, str]]
  log: bool = False

  def percent(self, value: float) -> float:
    """Where ``value`` lies, 0 at ``low`` and 100 at ``high``, clipped to a little outside."""
    if self.log:
      share = math.log(max(value, _TINY) / self.low) / math.log(self.high / self.low)
    else:
      share = (value - self.low) / (self.high - self.low)
    return min(max(100 * share, -1.0), 101.0)


def linear(values: Iterable[float], count: int = 5, margin: float = 0.05) -> Axis:
  """An axis around ``values``; ``margin`` is the share of their range added on both sides, none below a lowest of 0."""
  finite = [v for v in values if math.isfinite(v)]
  low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
  # A range lost in the rounding of its numbers has no ticks between.
  if high - low <= 1e-9 * max(abs(low), abs(high)):
    widen = 0.5 * abs(low) or 0.5
    low, high = low - widen, high + widen
  pad = margin * (high - low)
  return tight(low if low == 0 else low - pad, high + pad, count)


def tight(low: float, high: float, count: int = 5) -> Axis:
  """An axis over exactly ``[low, high]``, with ticks at the round numbers inside."""
  step = nice_step((high - low) / count)
  ticks = [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
  return Axis(low, high, _labels(ticks, step))


def logarithmic(values: Iterable[float]) -> Axis:
  """A logarithmic axis around positive ``values`` with ticks at powers of ten."""
  finite = [max(v, _TINY) for v in values if math.isfinite(v) and v > 0]
  first, last = math.floor(math.log10(min(finite))), math.ceil(math.log10(max(finite)))
  last = max(last, first + 1)
  stride = max(1, math.ceil((last - first) / 5))
  ticks = [(10.0**i, _power(i)) for i in range(first, last + 1, stride)]
  return Axis(10.0**first, 10.0**last, ticks, log=True)


def nice_step(raw: float) -> float:
  """The smallest of 1, 2, 5 times a power of ten that is at least ``raw``."""
  power = 10.0 ** math.floor(math.log10(raw))
  return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))


def step_below(raw: float) -> float:
  """The largest of 1, 2, 5 times a power of ten that is at most ``raw``."""
  power = 10.0 ** math.floor(math.log10(raw))
  return next(m * power for m in (5, 2, 1, 0.5) if m * power <= raw * (1 + 1e-9))


def _labels(ticks: list[float], step: float) -> list[tuple[float, str]]:
  largest = max(map(abs, ticks), default=0.0)
  suffix, unit = next((s, u) for s, u in (("G", 1e9), ("M", 1e6), ("k", 1e4), ("", 0)) if largest >= u)
  unit = 1e3 if suffix == "k" else unit or 1
  decimals = max(0, -math.floor(math.log10(step / unit) + 1e-9))
  return [(t, text.compact(t, decimals, suffix)) for t in ticks]


def _power(exponent: int) -> str:
  if -3 <= exponent <= 3:
    return f"{10.0**exponent:g}" if exponent < 3 else "1,000"
  return f"1e{exponent}".replace("-", text.MINUS)

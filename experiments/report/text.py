"""Numbers, durations and names as a reader wants them, in HTML (``−`` for minus) or plain text."""

import math
import re
from collections.abc import Iterable

MINUS = "\N{MINUS SIGN}"


def decimals_for(values: Iterable[float]) -> int:
  """Decimals for numbers side by side: none if all are whole or one is 1,000; one from 100, two from 0.1, else four."""
  finite = [v for v in values if math.isfinite(v)]
  largest = max(map(abs, finite), default=0.0)
  if all(v == int(v) for v in finite):
    return 0
  return 0 if largest >= 1000 else 1 if largest >= 100 else 2 if largest >= 0.1 or largest == 0 else 4


def fixed(value: float, decimals: int, minus: str = MINUS) -> str:
  """``9,412.0``; never ``-0``."""
  text = f"{abs(value):,.{decimals}f}"
  negative = value < 0 and any(c in "123456789" for c in text)
  return (minus if negative else "") + text


def significant(value: float, minus: str = MINUS) -> str:
  """Three significant digits, whole numbers in full: ``2,143``, ``0.0312``, ``1.2e-07``."""
  if not math.isfinite(value):
    return "not finite"
  if value == int(value) and abs(value) < 1e9:
    return fixed(value, 0, minus)
  if abs(value) >= 1000:
    return fixed(value, 0, minus) if abs(value) < 1e9 else f"{value:.2e}".replace("-", minus)
  return f"{value:.3g}".replace("-", minus)


def compact(value: float, decimals: int, suffix: str) -> str:
  """A tick label: ``value`` in units of ``suffix`` (``""``, ``"k"``, ``"M"`` or ``"G"``)."""
  return fixed(value / {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[suffix], decimals) + suffix if value else "0"


def duration(seconds: float) -> str:
  """``45 s``, ``2 min 14 s``, ``3 h 05 min``."""
  if seconds < 10:
    return f"{seconds:.1f} s"
  total = round(seconds)
  if total < 60:
    return f"{total} s"
  if total < 3600:
    return f"{total // 60} min {total % 60:02d} s"
  return f"{total // 3600} h {total % 3600 // 60:02d} min"


def size(count: int) -> str:
  """``812 kB``, ``3.4 MB``."""
  return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3))} kB"


def short_dataset(dataset: str) -> str:
  """``hopper``, ``hopper/1.0.0``, ``hopper/1.0.0=0.7``: a dataset, maybe with its share, without the folders it is in.

  Of a path the last part tells the most; before it, if it is a version, the one above.
  """
  parts = [part for part in dataset.split("/") if part] or [dataset]
  return "/".join(parts[-2 if re.fullmatch(r"\d+\.\d+\.\d+(=.*)?", parts[-1]) else -1 :])


def short_datasets(datasets: str) -> str:
  """``a and b`` of ``x/a=0.7,y/b=0.3``: several datasets, by their short names and without their shares."""
  names = (piece.strip().rpartition("=")[0] or piece.strip() for piece in datasets.split(","))
  return " and ".join(map(short_dataset, names))

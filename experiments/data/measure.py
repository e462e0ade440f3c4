"""What is gathered in one pass, in memory that does not grow with the data."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np


class Moments:
  """Count, mean, standard deviation, minimum and maximum of each dimension's finite values.

  Attributes:
    count: int64 ``[D]``, finite values.
    lost: int64 ``[D]``, NaN and inf.
    mean, std, low, high: float64 ``[D]``; NaN where there is no finite value.
  """

  def __init__(self, dimensions: int):
    self.count = np.zeros(dimensions, np.int64)
    self.lost = np.zeros(dimensions, np.int64)
    self._mean, self._squares = np.zeros(dimensions), np.zeros(dimensions)
    self._low, self._high = np.full(dimensions, np.inf), np.full(dimensions, -np.inf)

  def add(self, rows: np.ndarray) -> None:
    """Takes numbers ``[n, D]``; merged as Chan, Golub & LeVeque 1983."""
    rows = rows.astype(np.float64)
    finite = np.isfinite(rows)
    whole = finite.all()
    count = np.full(rows.shape[1], len(rows)) if whole else finite.sum(axis=0)
    self.lost += len(rows) - count
    known = rows if whole else np.where(finite, rows, 0.0)
    mean = known.sum(axis=0) / np.maximum(count, 1)
    apart = known - mean
    if not whole:
      apart[~finite] = 0.0
    squares = np.einsum("ij,ij->j", apart, apart)
    total = np.maximum(self.count + count, 1)
    gap = mean - self._mean
    self._squares += np.where(count > 0, squares + gap**2 * (self.count * count / total), 0.0)
    self._mean += np.where(count > 0, gap * (count / total), 0.0)
    self._low = np.minimum(self._low, (rows if whole else np.where(finite, rows, np.inf)).min(axis=0, initial=np.inf))
    self._high = np.maximum(
      self._high, (rows if whole else np.where(finite, rows, -np.inf)).max(axis=0, initial=-np.inf)
    )
    self.count += count

  @property
  def mean(self) -> np.ndarray:
    """Float64 ``[D]``."""
    return np.where(self.count > 0, self._mean, np.nan)

  @property
  def std(self) -> np.ndarray:
    """Float64 ``[D]``, of the population."""
    return np.where(self.count > 0, np.sqrt(self._squares / np.maximum(self.count, 1)), np.nan)

  @property
  def low(self) -> np.ndarray:
    """Float64 ``[D]``."""
    return np.where(self.count > 0, self._low, np.nan)

  @property
  def high(self) -> np.ndarray:
    """Float64 ``[D]``."""
    return np.where(self.count > 0, self._high, np.nan)


class Sample:
  """A uniform sample of rows without replacement: those with the smallest of random keys. All rows, if they are few.

  Several columns are sampled together: their rows stay beside each other.

  Attributes:
    seen: rows so far.
  """

  def __init__(self, size: int, seed: int = 0):
    self.seen = 0
    self._size = size
    self._random = np.random.default_rng(seed)
    self._keys = np.empty(0)
    self._parts: dict[str, list[np.ndarray]] = {}
    self._bound = np.inf

  def add(self, columns: Mapping[str, np.ndarray], rows: int) -> None:
    """Takes arrays ``[rows, ...]``; the same names every time."""
    keys = self._random.random(rows)
    self.seen += rows
    chosen = np.flatnonzero(keys < self._bound)
    if not len(chosen):
      return
    self._keys = np.append(self._keys, keys[chosen])
    for name, value in columns.items():
      self._parts.setdefault(name, []).append(np.asarray(value)[chosen])
    if len(self._keys) > 2 * self._size:
      self._shrink()

  def columns(self) -> dict[str, np.ndarray]:
    """At most ``size`` rows, in the order they came."""
    if len(self._keys) > self._size:
      self._shrink()
    return {name: np.concatenate(parts) for name, parts in self._parts.items()}

  def _shrink(self) -> None:
    kept = np.sort(np.argpartition(self._keys, self._size)[: self._size])
    self._keys = self._keys[kept]
    self._bound = self._keys.max()
    self._parts = {name: [np.concatenate(parts)[kept]] for name, parts in self._parts.items()}


class Distinct:
  """How many of many hashes are distinct: exact up to ``size`` of them, from a sample of all hashes beyond.

  Distinct sampling (Gibbons 2001): hashes below a bound are kept, which is halved when they become too many; equal
  hashes are kept or left out together.
  """

  def __init__(self, size: int = 500_000):
    self._size = size
    self._bound = 1 << 64
    # Sorted, with how often each was seen; what came since is merged in when it has become as many.
    self._keys, self._counts = np.empty(0, np.uint64), np.empty(0, np.int64)
    self._new: list[np.ndarray] = []
    self._waiting = 0

  @property
  def exact(self) -> bool:
    """Whether nothing was left out."""
    return self._bound == 1 << 64

  def add(self, hashes: np.ndarray) -> None:
    """Takes uint64 hashes."""
    if not self.exact:
      hashes = hashes[hashes < np.uint64(self._bound)]
    self._new.append(hashes)
    self._waiting += len(hashes)
    if self._waiting > max(len(self._keys), self._size // 8):
      self._merge()

  def _merge(self) -> None:
    found, times = np.unique(np.concatenate([np.empty(0, np.uint64), *self._new]), return_counts=True)
    self._new, self._waiting = [], 0
    keys, places = np.unique(np.concatenate([self._keys, found]), return_inverse=True)
    counts = np.bincount(places, np.concatenate([self._counts, times]), len(keys)).astype(np.int64)
    while len(keys) > self._size:
      self._bound >>= 1
      keys = keys[: np.searchsorted(keys, np.uint64(self._bound))]
    self._keys, self._counts = keys, counts[: len(keys)]

  def shared(self, other: "Distinct") -> float:
    """The share of the distinct items of this that are in ``other`` too."""
    self._merge()
    other._merge()
    bound = np.uint64(min(self._bound, other._bound, (1 << 64) - 1))
    mine = self._keys[self._keys < bound]
    return float(np.isin(mine, other._keys).mean()) if len(mine) else 0.0

  @property
  def repeated(self) -> float:
    """The share of items that an earlier one equals."""
    self._merge()
    total = int(self._counts.sum())
    return 1 - len(self._keys) / total if total else 0.0


class Words:
  """How often each text or value occurs; beyond ``size`` distinct ones, new ones are no longer told apart.

  Attributes:
    capped: whether there were more distinct ones.
    total: how many were counted.
  """

  def __init__(self, size: int = 100_000):
    self.capped, self.total = False, 0
    self._size = size
    self._counts: Counter[Any] = Counter()

  def add(self, value: Any, times: int = 1) -> None:
    """Counts a value."""
    self.total += times
    if value in self._counts or len(self._counts) < self._size:
      self._counts[value] += times
    else:
      self.capped = True

  @property
  def distinct(self) -> int:
    """How many different ones; at least so many where ``capped``."""
    return len(self._counts)

  def most_common(self, count: int) -> list[tuple[Any, int]]:
    """The most frequent, with how often they came."""
    return self._counts.most_common(count)


def summary(values: np.ndarray) -> dict[str, float] | None:
  """Mean, std, min, quartiles and max of numbers; None where there are none."""
  values = np.asarray(values, np.float64)
  if not len(values):
    return None
  low, q25, median, q75, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
  found = {
    "mean": values.mean(),
    "std": values.std(),
    "min": low,
    "q25": q25,
    "median": median,
    "q75": q75,
    "max": high,
  }
  return {key: float(value) for key, value in found.items()}

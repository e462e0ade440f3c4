"""Streaming what is small: read once and kept, drawn from in shuffled epochs.

Blocks and streams (``schedule``) are for what does not fit into memory. Of a dataset with fewer items than the batches
that are made at once, whole epochs would be read for every batch.
"""

from collections.abc import Sequence

import jax
import numpy as np

from ilx.data import reading
from ilx.data.memo import Memo
from ilx.data.schedule import draws, plan
from ilx.data.sources import Source, read
from ilx.types import Tree, View

# Epochs are shuffled so many at a time as have this many items.
_ITEMS = 4096


class Shuffle:
  """An endless sequence of items: every epoch each once, in an order of its own. Safe to use from several threads.

  With weights an epoch has as many items; each comes, on average, as often as its weight says, and never off by more
  than one.

  Attributes:
    episodes: int64, the numbers of those that come at all.
    num_items: theirs together, N.
  """

  def __init__(self, items: np.ndarray, *, seed: int, weights: np.ndarray | None = None):
    """Arguments and errors as those of ``Schedule``."""
    self.episodes, items, copies = plan(items, weights)
    self.num_items = int(items.sum())
    self._copies = None if copies is None else np.repeat(copies, items)
    self._seed, self._epochs = seed, max(1, _ITEMS // self.num_items)
    self._parts = Memo(4)

  def places(self, times: np.ndarray) -> np.ndarray:
    """The ``times``-th items (int64, at least 0): places among all items of ``episodes``, int64."""
    parts, within = np.divmod(times, self._epochs * self.num_items)
    found = np.empty(len(times), np.int64)
    for part in np.unique(parts):
      here = parts == part
      found[here] = self._parts.get(int(part), lambda part=part: self._make(int(part)))[within[here]]
    return found

  def _make(self, part: int) -> np.ndarray:
    """Some epochs, one after the other."""
    random, shape = draws(self._seed, part), (self._epochs, self.num_items)
    order = random.random_sample(shape).argsort(axis=1)
    if self._copies is not None:
      # Systematic resampling, the items taken in a random order. Source: Kitagawa, "Monte Carlo filter and smoother for
      # non-Gaussian nonlinear state space models", 1996.
      mass = np.cumsum(self._copies[order], axis=1)
      mass[:, -1] = self.num_items  # but for rounding
      passed = np.floor(mass + random.random_sample((self._epochs, 1))).astype(np.int64)
      order = np.repeat(order.ravel(), np.diff(passed, axis=1, prepend=0).ravel()).reshape(shape)
      order = np.take_along_axis(order, random.random_sample(shape).argsort(axis=1), axis=1)
    return order.ravel()


class SmallReader:
  """As ``reading.Reader``, of one stream: a host gets its part of every batch.

  Attributes:
    group: how many batches are made at once, G.
    each: items of a batch that the host gets.
  """

  def __init__(self, sources: Sequence[Source], view: View, shuffle: Shuffle, batch_size: int, host: tuple[int, int]):
    """Reads everything. Raises ValueError where a record is damaged; names it."""
    self._view, self._shuffle, self._batch_size = view, shuffle, batch_size
    place, hosts = host
    self.each = batch_size // hosts
    self._first = place * self.each
    self._episodes = view.prepare(read(sources, shuffle.episodes))
    self._rows = np.asarray(self._episodes.rows)
    if len(self._rows) != shuffle.num_items:
      raise ValueError(
        f"{sources[0].info.directory}: {len(self._rows)} items where the index says {shuffle.num_items}; "
        "the dataset changed while it was read"
      )
    self.group = reading.batches_at_once(view.take(self._episodes, self._rows[:1]), self.each)

  def __len__(self) -> int:
    return reading.ENDLESS

  def __getitem__(self, number: int) -> Tree:
    """Batches ``number * G`` to ``number * G + G - 1``: leaves ``[1, G * each, ...]``."""
    batch = number * self.group + np.arange(self.group)
    times = batch[:, None] * self._batch_size + self._first + np.arange(self.each)
    rows = self._rows[self._shuffle.places(times.ravel())]
    return jax.tree.map(lambda leaf: leaf[None], self._view.take(self._episodes, rows))

  def close(self) -> None:
    """Nothing is left to end; what is in memory goes with the reader."""

"""Which items a streamed batch holds: a pure function of the seed and the batch's number.

An epoch lays the items of all its episodes on a line, episode after episode in an order drawn for that epoch, and cuts
the line into V stretches of equal length (to within one item), one for each of V virtual streams. A stream goes through
its stretch block by block; a block is K consecutive episodes, and within it the items come in an order of their own. A
batch takes the same number of items from every stream. So that

* every epoch has each item exactly once (as often as its episode was drawn, with weights), and all streams end it
  within one item of each other;
* a batch depends on the seed and its number alone: where any stream stands is found by arithmetic, without going
  through what came before;
* the number of hosts changes nothing: a host serves some of the streams, and reads their episodes alone;
* what is in memory is a block or two for every stream. A batch mixes V x K episodes; where they are all of them, the
  epoch's order is a uniformly random one.

"Time" ``x = k V + v`` stands for the k-th item of stream v; epoch e is the times from ``before(e)`` to
``before(e + 1)``, where ``before(e)`` is the number of items in all epochs before.
"""

import bisect
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ilx.data import sampling
from ilx.data.memo import Memo

# What the random numbers are for.
_ORDER, _COPIES, _ITEMS = 0, 1, 2


class Piece(NamedTuple):
  """What one stream has of one block: the items from ``start`` to ``stop - 1`` of the epoch's line."""

  epoch: int
  stream: int
  start: int
  stop: int


class Span(NamedTuple):
  """Items ``start`` to ``stop - 1`` of a piece, in the piece's own order."""

  piece: Piece
  start: int
  stop: int


class Contents(NamedTuple):
  """What a piece is made of.

  Attributes:
    first: the place, among the epoch's episodes, of the first one that is needed.
    episodes: int64 ``[K']``, numbers of the episodes needed, in the order in which their items are laid out.
    items: int64, in the piece's order: places among all items of ``episodes``.
  """

  first: int
  episodes: np.ndarray
  items: np.ndarray


class _Epoch(NamedTuple):
  order: np.ndarray  # episodes
  ends: np.ndarray  # [len(order) + 1]: items before each of them, and of all


class Schedule:
  """See the module. Safe to use from several threads.

  Attributes:
    num_items: items in an epoch, without weights; with them, on average.
    streams: V.
    block: K, in episodes.
  """

  def __init__(self, items: np.ndarray, *, seed: int, streams: int, block: int, weights: np.ndarray | None = None):
    """Plans an endless sequence of epochs.

    Args:
      items: int64 ``[E]``, how many items each episode has.
      seed: any integer that is at least 0.
      streams: V.
      block: K.
      weights: ``[E]``, of each item of an episode: how often its episode comes in an epoch is, on average,
        proportional to it, and never off by more than one. Episodes of weight 0 never come.

    Raises:
      ValueError: where no item is left, or a number is out of range.
    """
    items = np.asarray(items, np.int64)
    weights = None if weights is None else sampling.check_weights(weights, len(items))
    if streams < 1 or block < 1 or seed < 0:
      raise ValueError(f"schedule: streams={streams} and block={block} are at least 1, seed={seed} at least 0")
    self._active = np.flatnonzero(items if weights is None else items * (weights > 0))
    if not len(self._active):
      raise ValueError("schedule: no item is left to draw from; every episode with weight is too short")
    self._items = items[self._active]
    self.num_items = int(self._items.sum())
    self.streams, self.block = streams, block
    self._seed = seed
    self._copies = None
    if weights is not None and np.any(weights[self._active] != weights[self._active[0]]):
      weights = weights[self._active] / weights[self._active].max()
      self._copies = weights * (self.num_items / np.dot(weights, self._items))
    self._before = [0]  # with weights, epochs differ in length; as far as known
    self._lock = threading.Lock()
    self._epochs = Memo(3)

  def spans(self, stream: int, start: int, stop: int) -> Iterator[Span]:
    """Where the items ``start`` to ``stop - 1`` of a stream are, in order."""
    while start < stop:
      piece, offset = self._find(stream, start)
      count = min(stop - start, piece.stop - piece.start - offset)
      yield Span(piece, offset, offset + count)
      start += count

  def after(self, piece: Piece) -> Piece:
    """The next piece of the same stream."""
    begin, _ = self._stretch(piece.epoch, piece.stream)
    return self._find(piece.stream, self._first(piece.epoch, piece.stream) + piece.stop - begin)[0]

  def contents(self, piece: Piece) -> Contents:
    """The episodes that a piece needs, and its items."""
    order, ends = self._epoch(piece.epoch)
    first = int(np.searchsorted(ends, piece.start, side="right")) - 1
    last = int(np.searchsorted(ends, piece.stop, side="left"))
    random = self._random(_ITEMS, piece.epoch, piece.stream, piece.start)
    items = random.permutation(piece.stop - piece.start) + (piece.start - ends[first])
    return Contents(first, self._active[order[first:last]], items)

  def count(self, episodes: np.ndarray) -> int:
    """How many items these episodes have together."""
    return int(self._items[np.searchsorted(self._active, episodes)].sum())

  def before(self, epoch: int) -> int:
    """Items in all epochs before this one."""
    if self._copies is None:
      return epoch * self.num_items
    with self._lock:
      while len(self._before) <= epoch:
        self._before.append(self._before[-1] + int(np.dot(self._draw(len(self._before) - 1), self._items)))
      return self._before[epoch]

  def _epoch_at(self, time: int) -> int:
    if self._copies is None:
      return time // self.num_items
    while self._before[-1] <= time:
      self.before(len(self._before))
    return bisect.bisect_right(self._before, time) - 1

  def _count(self, epoch: int, streams: int) -> int:
    """Items that the first so many streams have in all epochs before ``epoch``: their times below ``before(epoch)``."""
    rounds, rest = divmod(self.before(epoch), self.streams)
    return streams * rounds + min(streams, rest)

  def _first(self, epoch: int, stream: int) -> int:
    """The number of the stream's first item in the epoch."""
    return self._count(epoch, stream + 1) - self._count(epoch, stream)

  def _stretch(self, epoch: int, stream: int) -> tuple[int, int]:
    """The stream's part of the epoch's line."""
    begin, end = (self._count(epoch + 1, v) - self._count(epoch, v) for v in (stream, stream + 1))
    return begin, end

  def _find(self, stream: int, item: int) -> tuple[Piece, int]:
    """The piece that has the stream's ``item``-th item, and the item's place in it."""
    epoch = self._epoch_at(item * self.streams + stream)
    begin, end = self._stretch(epoch, stream)
    place = begin + item - self._first(epoch, stream)
    ends = self._epoch(epoch).ends
    block = (int(np.searchsorted(ends, place, side="right")) - 1) // self.block * self.block
    start = max(begin, int(ends[block]))
    stop = min(end, int(ends[min(block + self.block, len(ends) - 1)]))
    return Piece(epoch, stream, start, stop), place - start

  def _epoch(self, epoch: int) -> _Epoch:
    def make() -> _Epoch:
      order = (
        np.arange(len(self._items))
        if self._copies is None
        else np.repeat(np.arange(len(self._items)), self._draw(epoch))
      )
      order = self._random(_ORDER, epoch).permutation(order)
      return _Epoch(order, np.concatenate([[0], np.cumsum(self._items[order])]))

    return self._epochs.get(epoch, make)

  def _draw(self, epoch: int) -> np.ndarray:
    """How often each episode comes in an epoch: systematic resampling, the episodes taken in a random order.

    Source: Kitagawa, "Monte Carlo filter and smoother for non-Gaussian nonlinear state space models", 1996.
    """
    random = self._random(_COPIES, epoch)
    order = random.permutation(len(self._copies))
    passed = np.floor(np.cumsum(self._copies[order]) + random.random_sample()).astype(np.int64)
    copies = np.empty(len(order), np.int64)
    copies[order] = np.diff(passed, prepend=0)
    return copies

  def _random(self, *purpose: int) -> np.random.RandomState:
    # The old interface is frozen: a new version of numpy must not change what a checkpoint resumes to.
    return np.random.RandomState(np.random.PCG64(np.random.SeedSequence((self._seed, *purpose))))

"""Which items a streamed batch holds: a pure function of the seed and the batch's number.

An epoch lays the items of all its episodes on a line, episode after episode in an order drawn for that epoch. K
consecutive episodes are a block, within which the items are shuffled. The line is turned by a random number of items,
as a ring would be, and cut into V stretches of equal length (to within one item), one for each of V virtual streams. A
batch takes the same number of items from every stream, each going through its stretch in order. So that

* every epoch has each item exactly once (as often as its episode was drawn, with weights), and all streams end it
  within one item of each other;
* at any place of any batch, each item is as likely as any other: long episodes and short, first steps and last;
* a batch depends on the seed and its number alone: where a stream stands is found by arithmetic, without going through
  what came before. With weights too: an episode that comes c times an epoch on average has come ``floor(e c + u)``
  times in the first e epochs, with a phase u in [0, 1) of its own;
* the number of hosts changes nothing: a host serves some of the streams, and reads their blocks alone (a block that
  lies on a cut is read for both sides);
* what is in memory is a block or two for every stream; a batch mixes V x K episodes.

"Time" ``x = k V + v`` stands for the k-th item of stream v; epoch e is the times from ``before(e)`` to
``before(e + 1)``, where ``before(e)`` is the number of items in all epochs before.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ilx.data import sampling
from ilx.data.memo import Memo

# What the random numbers are for.
_ORDER, _PHASES, _ITEMS = 0, 1, 2


class Piece(NamedTuple):
  """What one stream has of one block.

  Attributes:
    epoch: its number.
    block: its number in the epoch.
    start: the first of the block's items, in their shuffled order.
    stop: behind the last.
    stream: whose it is.
    first: the number of the stream's item that is ``start``.
  """

  epoch: int
  block: int
  start: int
  stop: int
  stream: int
  first: int


class Span(NamedTuple):
  """Items ``start`` to ``stop - 1`` of a piece, counted from the piece's own start."""

  piece: Piece
  start: int
  stop: int


class _Epoch(NamedTuple):
  order: np.ndarray  # episodes
  ends: np.ndarray  # [len(order) + 1]: items before each of them, and of all
  turn: int  # the place on the line where the first stretch begins


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
      seed: any integer.
      streams: V.
      block: K.
      weights: ``[E]``, of each item of an episode: how often its episode comes in an epoch is, on average,
        proportional to it, and never off by more than one. Episodes of weight 0 never come.

    Raises:
      ValueError: where no item is left, or a number is out of range.
    """
    if streams < 1 or block < 1:
      raise ValueError(f"schedule: streams={streams} and block={block} are at least 1")
    self._active, self._items, self._copies = plan(items, weights)
    self.num_items = int(self._items.sum())
    self.streams, self.block = streams, block
    self._seed = seed
    if self._copies is not None:
      random, number = draws(seed, _PHASES), len(self._items)
      # Spread evenly, so that epochs differ little in length.
      phases = (random.permutation(number) + random.random_sample()) / number
      self._phases = np.minimum(phases, np.nextafter(1, 0))
    self._epochs, self._before = Memo(3), Memo(16)

  def spans(self, stream: int, start: int, stop: int) -> Iterator[Span]:
    """Where the items ``start`` to ``stop - 1`` of a stream are, in order."""
    while start < stop:
      piece, offset = self._find(stream, start)
      count = min(stop - start, piece.stop - piece.start - offset)
      yield Span(piece, offset, offset + count)
      start += count

  def after(self, piece: Piece) -> Piece:
    """The next piece of the same stream."""
    return self._find(piece.stream, piece.first + piece.stop - piece.start)[0]

  def episodes(self, epoch: int, block: int) -> np.ndarray:
    """The numbers of a block's episodes, int64 ``[K]``, in the order in which their items are laid out."""
    order = self._epoch(epoch).order
    return self._active[order[block * self.block : (block + 1) * self.block]]

  def items(self, piece: Piece) -> np.ndarray:
    """A piece's items in order, int64: places among all items of the block's ``episodes``."""
    bounds = self._bounds(self._epoch(piece.epoch), piece.block)
    shuffled = self._random(_ITEMS, piece.epoch, piece.block).permutation(bounds[1] - bounds[0])
    return shuffled[piece.start : piece.stop].copy()

  def count(self, episodes: np.ndarray) -> int:
    """How many items these episodes have together."""
    return int(self._items[np.searchsorted(self._active, episodes)].sum())

  def before(self, epoch: int) -> int:
    """Items in all epochs before this one."""
    if self._copies is None:
      return epoch * self.num_items
    return self._before.get(epoch, lambda: int(np.dot(self._through(epoch), self._items)))

  def _epoch_at(self, time: int) -> int:
    number = time // self.num_items
    if self._copies is None:
      return number
    # No episode has come once more or once less than on average, so no epoch begins a whole one early or late.
    while self.before(number + 1) <= time:
      number += 1
    while self.before(number) > time:
      number -= 1
    return number

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
    number = self._epoch_at(item * self.streams + stream)
    epoch = self._epoch(number)
    begin, end = self._stretch(number, stream)
    place = begin + item - self._first(number, stream)
    on_line = (place + epoch.turn) % int(epoch.ends[-1])
    block = (int(np.searchsorted(epoch.ends, on_line, side="right")) - 1) // self.block
    low, high = self._bounds(epoch, block)
    # The stretch may begin or end within the block; what is before and behind the turn are never in one.
    before, behind = min(on_line - low, place - begin), min(high - on_line, end - place)
    start = on_line - low - before
    return Piece(number, block, start, start + before + behind, stream, item - before), before

  def _bounds(self, epoch: _Epoch, block: int) -> tuple[int, int]:
    """A block's part of the line."""
    ends, last = epoch.ends, min((block + 1) * self.block, len(epoch.order))
    return int(ends[block * self.block]), int(ends[last])

  def _epoch(self, number: int) -> _Epoch:
    def make() -> _Epoch:
      order = np.arange(len(self._items))
      if self._copies is not None:
        order = np.repeat(order, self._draw(number))
      random = self._random(_ORDER, number)
      order = random.permutation(order)
      ends = np.concatenate([[0], np.cumsum(self._items[order])])
      return _Epoch(order, ends, int(random.randint(ends[-1], dtype=np.int64)))

    return self._epochs.get(number, make)

  def _through(self, epochs: int) -> np.ndarray:
    """How often each episode comes in the first so many epochs together, int64 ``[E]``."""
    return np.floor(epochs * self._copies + self._phases).astype(np.int64)

  def _draw(self, epoch: int) -> np.ndarray:
    """How often each episode comes in an epoch."""
    return self._through(epoch + 1) - self._through(epoch)

  def _random(self, *purpose: int) -> np.random.RandomState:
    return draws(self._seed, *purpose)


def plan(items: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
  """What an epoch is to have.

  Args:
    items: int64 ``[E]``, how many items each episode has.
    weights: ``[E]``, of each item of an episode; None: all alike.

  Returns:
    The numbers of the episodes that come at all; how many items each has; how often each comes in an epoch on average,
    so that an epoch has as many items as these episodes have, or None, where that is once each.

  Raises:
    ValueError: where no item is left.
  """
  items = np.asarray(items, np.int64)
  weights = None if weights is None else sampling.check_weights(weights, len(items))
  active = np.flatnonzero(items if weights is None else items * (weights > 0))
  if not len(active):
    which = "every episode" if weights is None or weights.all() else "every episode with weight"
    raise ValueError(f"schedule: no item is left to draw from; {which} is too short")
  items = items[active]
  if weights is None or np.all(weights[active] == weights[active[0]]):
    return active, items, None
  weights = weights[active] / weights[active].max()
  return active, items, weights * (items.sum() / np.dot(weights, items))


def draws(seed: int, *purpose: int) -> np.random.RandomState:
  """Random numbers of their own for each purpose; the same in every version of numpy, as checkpoints rely on them."""
  seed = int(seed)
  # The old interface is frozen. Seeds below 0 are those that 64 bits wrap to.
  return np.random.RandomState(np.random.PCG64(np.random.SeedSequence((seed % 2**64 if seed < 0 else seed, *purpose))))

"""Reading what a schedule asks for: blocks of episodes, ahead and once each, and the batches cut out of them."""

import contextlib
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ilx.data.episodes import Episodes
from ilx.data.memo import Memo
from ilx.data.schedule import Piece, Schedule
from ilx.data.sources import Source, read
from ilx.types import Tree, View

if TYPE_CHECKING:
  from ilx.data.small import SmallReader

# Of several batches the items are taken together, while they are at most this large and this many.
_GROUP_BYTES, _GROUP = 2 << 20, 64
# Any number of batches: a schedule has no end.
ENDLESS = 1 << 62


def is_small(num_items: int, batch_size: int) -> bool:
  """Whether the batches that are made at once may hold every item."""
  return num_items <= _GROUP * batch_size


def batches_at_once(item: Tree, batch_size: int) -> int:
  """How many batches of so many items are made together, by the size of one item (leaves ``[1, ...]``)."""
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(item))
  return max(1, min(_GROUP, _GROUP_BYTES // max(1, size * batch_size)))


class Reader:
  """One host's part of the batches, some at a time, any by number; safe to use from several threads.

  Attributes:
    group: how many batches are made at once, G; as many as stay small, since few large gathers are quick.
    each: items of a batch from every stream.
  """

  def __init__(
    self,
    sources: Sequence[Source],
    view: View,
    schedule: Schedule,
    batch_size: int,
    streams: range,
    start: int,
    threads: int,
  ):
    """Reads one block, to see how large an item is.

    Args:
      sources: the datasets, whose episodes ``schedule`` counts through.
      view: what an item is.
      schedule: which items a batch has.
      batch_size: B, of all hosts together; a multiple of the number of streams.
      streams: those that this host serves.
      start: the batch that is going to be the first.
      threads: that read ahead, and as many at most that ask for batches, in order.

    Raises:
      ValueError: where a record is damaged; names it.
    """
    self._sources, self._view, self._schedule = tuple(sources), view, schedule
    self._streams = streams
    self.each = batch_size // schedule.streams
    self._pieces, self._blocks, self._asked = (Memo(0) for _ in range(3))
    self._set_capacity(0)
    self._threads, self._closed = threads, False
    self._lock = threading.Lock()
    self._making: list[int] = []  # after a jump backwards, a group may be in it twice
    span = next(schedule.spans(streams[0], start * self.each, start * self.each + 1))
    episodes, rows = self._piece(span.piece)
    item = view.take(episodes, rows[span.start : span.stop])
    self.group = batches_at_once(item, self.each * len(streams))
    self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ilx-stream")

  def __len__(self) -> int:
    return ENDLESS

  def __getitem__(self, number: int) -> Tree:
    """Batches ``number * G`` to ``number * G + G - 1``: leaves ``[V / H, G * each, ...]``, by stream."""
    with self._lock:
      self._making.append(number)
    try:
      return self._make(number)
    finally:
      with self._lock:
        self._making.remove(number)
        oldest = min(self._making, default=number + 1)
      # A thread may have been given an older group and not have begun it.
      self._forget_before((oldest - self._threads) * self.group * self.each)

  def _make(self, number: int) -> Tree:
    count = self.each * self.group
    spans = [list(self._schedule.spans(v, number * count, (number + 1) * count)) for v in self._streams]
    used = [span.piece for found in spans for span in found]
    self._set_capacity(len(used))
    self._ask(used)
    held = {piece: self._piece(piece) for piece in used}
    self._ask([self._schedule.after(found[-1].piece) for found in spans])
    outputs: list[np.ndarray] = []
    structure = None
    for place, found in enumerate(spans):
      filled = 0
      for span in found:
        episodes, rows = held[span.piece]
        leaves, structure = jax.tree.flatten(self._view.take(episodes, rows[span.start : span.stop]))
        if not outputs:
          outputs = [np.empty((len(spans), count, *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
        for output, leaf in zip(outputs, leaves, strict=True):
          output[place, filled : filled + len(leaf)] = leaf
        filled += span.stop - span.start
    return jax.tree.unflatten(structure, outputs)

  def _set_capacity(self, used: int) -> None:
    """Room for what ``used`` pieces leave, use and have read; more than that only a jump to another batch leaves."""
    for memo in (self._pieces, self._blocks, self._asked):
      memo.capacity = 2 * max(used, len(self._streams)) + len(self._streams)

  def _forget_before(self, item: int) -> None:
    """Lets go of the pieces that end before the streams' ``item``-th items, and of blocks that no other piece needs."""

    def needed(piece: Piece) -> bool:
      return piece.first + piece.stop - piece.start > item

    self._asked.keep(needed)
    blocks = {(piece.epoch, piece.block) for piece in self._pieces.keep(needed)}
    self._blocks.keep(blocks.__contains__)

  def _ask(self, pieces: list[Piece]) -> None:
    """Has pieces read by the reader's own threads, where they are not there; counts them as used."""
    for piece in pieces:
      if not self._pieces.touch(piece):
        self._asked.get(piece, lambda piece=piece: self._pool.submit(self._ahead, piece))

  def _ahead(self, piece: Piece) -> None:
    if self._asked.touch(piece):  # or else it has come and gone while this waited for a thread
      with contextlib.suppress(Exception):  # whoever needs the piece meets the error
        self._piece(piece)

  def _piece(self, piece: Piece) -> tuple[Episodes, np.ndarray]:
    """Prepared episodes, and the rows of the piece's items in their order."""

    def make() -> tuple[Episodes, np.ndarray]:
      if self._closed:
        raise ValueError("the stream is closed")  # to one of Grain's threads that is still at work, and nobody else
      numbers = self._schedule.episodes(piece.epoch, piece.block)
      # Streams that share a block share its columns too.
      episodes = self._blocks.get((piece.epoch, piece.block), lambda: self._view.prepare(read(self._sources, numbers)))
      if len(episodes.rows) != self._schedule.count(numbers):
        raise ValueError(
          f"{self._sources[0].info.directory}: {len(episodes.rows)} items where the index says "
          f"{self._schedule.count(numbers)}; the dataset changed while it was read"
        )
      return episodes, np.asarray(episodes.rows)[self._schedule.items(piece)]

    return self._pieces.get(piece, make)

  def close(self) -> None:
    """Ends the threads; lets go of what is in memory."""
    self._closed = True
    self._pool.shutdown(wait=False, cancel_futures=True)
    for memo in (self._pieces, self._blocks, self._asked):
      memo.keep(lambda _: False)


class Batches:
  """Endless batches in order, made ahead by Grain; an iterator that can be closed, and a context manager.

  Attributes:
    position: the number of the next batch, all that a checkpoint needs (``get_state``, ``set_state``).
  """

  def __init__(self, reader: "Reader | SmallReader", start: int, threads: int):
    import grain

    self._reader = reader
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    self._iterator = iter(grain.MapDataset.source(reader).to_iter_dataset(options))
    self._finalizer = weakref.finalize(self, _close, self._iterator, reader)
    self.set_state({"next_index": start})

  def __iter__(self) -> "Batches":
    return self

  def __next__(self) -> Tree:
    """Raises ValueError where a record is damaged; names it. Asked again, it tries the same batch again."""
    if not self._finalizer.alive:
      raise StopIteration
    group, place = divmod(self.position, self._reader.group)
    if self._made != group:
      try:
        self._leaves, self._structure = jax.tree.flatten(next(self._iterator))
      except BaseException:
        self.set_state(self.get_state())  # Grain has passed over it
        raise
      self._made = group
    here = slice(place * self._reader.each, (place + 1) * self._reader.each)
    # Copies, so that a batch that is kept does not keep its whole group.
    leaves = [leaf[:, here].copy().reshape(-1, *leaf.shape[2:]) for leaf in self._leaves]
    self.position += 1
    return jax.tree.unflatten(self._structure, leaves)

  def get_state(self) -> dict[str, int]:
    """What ``set_state`` goes on from: a JSON-able dict."""
    return {"next_index": self.position}

  def set_state(self, state: dict[str, int]) -> None:
    """Goes to a position that ``get_state`` gave, on any number of hosts."""
    self.position = int(state["next_index"])
    self._iterator.set_state({"next_index": self.position // self._reader.group})
    self._made: int | None = None

  def close(self) -> None:
    """Ends the threads; there are no more batches."""
    self._finalizer()
    self._leaves = None

  def __enter__(self) -> "Batches":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def _close(iterator: Any, reader: "Reader | SmallReader") -> None:
  iterator.close()
  reader.close()

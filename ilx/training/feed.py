"""Batches from the host to the devices, made ahead while the devices compute."""

import itertools
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilx.parallel import mesh as mesh_lib
from ilx.parallel import placement
from ilx.training import seeds as seeds_lib
from ilx.training import waiting
from ilx.training.seeds import Seeds
from ilx.types import Tree

# A stack is large enough that a program's start does not count, small enough that three of them do not either.
_STACK_BYTES, _STACK_BATCHES = 32 << 20, 32
_AHEAD = 2
# Seconds that the end of a loop waits for a batch that is being made.
_GRACE = 5.0


def capacity(batch: Tree, seeds: int = 1) -> int:
  """K, the number of batches (of which the shapes are given) that go to the devices at once, of each of ``seeds``."""
  size = seeds * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch))
  return max(1, min(_STACK_BATCHES, _STACK_BYTES // max(1, size)))


def pieces(lengths: Iterable[int], capacity: int) -> Iterator[int]:
  """Intervals of updates, cut into pieces of at most ``capacity``."""
  for length in lengths:
    for done in range(0, length, capacity):
      yield min(capacity, length - done)


def sharding(mesh: Mesh, seeds: Seeds | None) -> NamedSharding:
  """Where stacks of batches are: divided among the devices along B, of seeds that are spread along S."""
  if seeds and seeds.spread:
    return NamedSharding(mesh, seeds_lib.partition(seeds))
  return NamedSharding(mesh, PartitionSpec(*(None,) * (2 if seeds else 1), mesh_lib.BATCH_AXES))


class Feed:
  """Stacks of batches on the devices, in order; a thread is up to two stacks ahead. A context manager.

  Iterating gives ``(stack, n)``: leaves ``[K, B, ...]``, divided among the devices along B, of which the first ``n``
  batches are meant; of many seeds leaves ``[S, K, B, ...]``, divided along S where the seeds are spread. What the
  batches raise is raised here, as is what ends patience with them.
  """

  def __init__(
    self,
    batches: Sequence[Iterator[Tree]],
    counts: Iterable[int],
    capacity: int,
    mesh: Mesh,
    seeds: Seeds | None = None,
    patience: waiting.Patience | None = None,
  ):
    """Starts the thread.

    Args:
      batches: of every seed that this host serves, this host's part of every batch, leaves ``[B / hosts, ...]``; they
        are closed at the end.
      counts: how many batches each stack is to hold, at most ``capacity``.
      capacity: K.
      mesh: where the batches go.
      seeds: None where there is one, whose stacks have no axis for it.
      patience: with which stacks are waited for.
    """
    self._batches, self._counts, self._capacity, self._seeds = batches, counts, capacity, seeds
    self._sharding = sharding(mesh, seeds)
    # A seed that is spread is another host's as a whole, else each host has its part of every batch.
    spread = bool(seeds and seeds.spread)
    self._seed_count = seeds.count if spread else None
    self._hosts = 1 if spread else mesh_lib.share(mesh)[1]
    self._queue: queue.Queue = queue.Queue(_AHEAD)
    self._stopped = threading.Event()
    self._ended = self._left = False
    self._patience = patience or waiting.Patience()
    self._thread = threading.Thread(target=self._run, name="ilx-feed", daemon=True)
    self._thread.start()

  def _run(self) -> None:
    try:
      for count in self._counts:
        if self._stopped.is_set():
          return
        self._put((self._stack([[next_batch(batches) for _ in range(count)] for batches in self._batches]), count))
      self._put(None)
    except BaseException as error:
      self._put(error)

  def _stack(self, batches: list[list[Tree]]) -> Tree:
    count = len(batches[0])

    def place(*leaves: np.ndarray) -> jax.Array:
      stack = np.empty((len(batches), self._capacity, *leaves[0].shape), leaves[0].dtype)
      for seed, own in enumerate(stack):
        np.stack(leaves[seed * count : (seed + 1) * count], out=own[:count])
        own[count:] = 0  # never looked at, but the same bits in every run
      stack = stack if self._seeds else stack[0]
      axis = 2 if self._seeds else 1  # of the batch
      shape = (*stack.shape[:axis], stack.shape[axis] * self._hosts, *stack.shape[axis + 1 :])
      return jax.make_array_from_process_local_data(self._sharding, stack, (self._seed_count or shape[0], *shape[1:]))

    return jax.tree.map(place, *itertools.chain.from_iterable(batches))

  def _put(self, item: object) -> None:
    while not self._stopped.is_set():
      try:
        return self._queue.put(item, timeout=0.1)
      except queue.Full:
        continue

  def __iter__(self) -> Iterator[tuple[Tree, int]]:
    return self

  def __next__(self) -> tuple[Tree, int]:
    if self._ended:
      raise StopIteration
    try:
      item = waiting.get(self._queue, self._patience)
    except (TimeoutError, waiting.Stopped):
      self._left = True
      raise
    self._ended = item is None or isinstance(item, BaseException)
    if item is None:
      raise StopIteration
    if isinstance(item, BaseException):
      raise item
    return item

  def __enter__(self) -> "Feed":
    return self

  def __exit__(self, *args: object) -> None:
    self._stopped.set()
    if self._left:
      return  # the thread is stuck in the batches, which cannot be closed then
    self._thread.join(_GRACE)
    if self._thread.is_alive():
      return  # stuck, too: whatever ended the loop is not to wait for data that nobody wants
    for batches in self._batches:
      close(batches)


def first_batch(batches: Iterator[Tree]) -> Tree:
  """The next one, of batches that are closed then; raises RuntimeError where there is none."""
  try:
    return next_batch(batches)
  finally:
    close(batches)


def close(batches: Iterator[Tree]) -> None:
  """Closes batches that can be closed; an iterator need not have it."""
  if end := getattr(batches, "close", None):
    end()


def next_batch(batches: Iterator[Tree]) -> Tree:
  """The next one; raises RuntimeError where there is none."""
  try:
    return next(batches)
  except StopIteration:
    raise RuntimeError("the data ended in the middle of training; batches must be endless") from None


class Sized:
  """Batches of ``source``; raises ValueError for one that does not have ``size`` items."""

  def __init__(self, batches: Iterator[Tree], size: int, source: str):
    self._batches, self._size, self._source = batches, size, source
    self._ahead: list[Tree] = []

  def peek(self) -> Tree:
    """The batch that is going to be next."""
    if not self._ahead:
      self._ahead.append(next_batch(self))
    return self._ahead[0]

  def __iter__(self) -> Iterator[Tree]:
    return self

  def __next__(self) -> Tree:
    if self._ahead:
      return self._ahead.pop()
    batch = next(self._batches)
    for path, leaf in jax.tree.leaves_with_path(batch):
      if not np.ndim(leaf) or len(leaf) != self._size:
        raise ValueError(
          f"a batch of {self._source}: {placement.name_of(path)} has the shape {np.shape(leaf)} where {self._size} "
          "items were asked for"
        )
    return batch

  def close(self) -> None:
    """Closes the source."""
    close(self._batches)

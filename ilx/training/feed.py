"""Batches from the host to the devices, made ahead while the devices compute."""

import queue
import threading
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ilx.types import Tree

# A stack is large enough that a program's start does not count, small enough that three of them do not either.
_STACK_BYTES, _STACK_BATCHES = 32 << 20, 32
_AHEAD = 2


def capacity(batch: Tree) -> int:
  """K, the number of batches (or their shapes) that go to the devices at once."""
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(batch))
  return max(1, min(_STACK_BATCHES, _STACK_BYTES // max(1, size)))


def pieces(lengths: Iterable[int], capacity: int) -> Iterator[int]:
  """Intervals of updates, cut into pieces of at most ``capacity``."""
  for length in lengths:
    for done in range(0, length, capacity):
      yield min(capacity, length - done)


class Feed:
  """Stacks of batches on the devices, in order; a thread is up to two stacks ahead. A context manager.

  Iterating gives ``(stack, n)``: leaves ``[K, B, ...]``, divided among the devices along B, of which the first ``n``
  batches are meant. What the batches raise is raised here.
  """

  def __init__(self, batches: Iterator[Tree], counts: Iterable[int], capacity: int, mesh: Mesh):
    """Starts the thread.

    Args:
      batches: this host's part of every batch, leaves ``[B / hosts, ...]``.
      counts: how many batches each stack is to hold, at most ``capacity``.
      capacity: K.
      mesh: where the batches go.
    """
    self._batches, self._counts, self._capacity = batches, counts, capacity
    self._sharding = NamedSharding(mesh, PartitionSpec(None, ("data", "fsdp")))
    self._queue: queue.Queue = queue.Queue(_AHEAD)
    self._stopped = threading.Event()
    self._ended = False
    self._thread = threading.Thread(target=self._run, name="ilx-feed", daemon=True)
    self._thread.start()

  def _run(self) -> None:
    try:
      for count in self._counts:
        if self._stopped.is_set():
          return
        self._put((self._stack([self._next() for _ in range(count)]), count))
      self._put(None)
    except BaseException as error:
      self._put(error)

  def _next(self) -> Tree:
    try:
      return next(self._batches)
    except StopIteration:
      raise RuntimeError("the data ended in the middle of training; batches must be endless") from None

  def _stack(self, batches: list[Tree]) -> Tree:
    def place(*leaves: np.ndarray) -> jax.Array:
      stack = np.empty((self._capacity, *leaves[0].shape), leaves[0].dtype)
      np.stack(leaves, out=stack[: len(leaves)])
      stack[len(leaves) :] = 0  # never looked at, but the same bits in every run
      return jax.make_array_from_process_local_data(self._sharding, stack)

    return jax.tree.map(place, *batches)

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
    item = self._queue.get()
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
    self._thread.join()
    if close := getattr(self._batches, "close", None):
      close()

"""Batches from data in host memory or memory-mapped: the same, bit for bit, as from data on the device."""

from collections.abc import Iterator

import jax
import numpy as np

from ilx.data import sampling
from ilx.data.episodes import Episodes
from ilx.types import Tree, View

# Batches of which the rows are drawn at once: one call of a jitted program costs as much as drawing ten.
_AT_ONCE = 64


def batches(
  view: View,
  episodes: Episodes,
  batch_size: int,
  key: jax.Array,
  *,
  start: int = 0,
  host: tuple[int, int] = (0, 1),
) -> Iterator[Tree]:
  """Endless batches; batch ``i`` depends on ``key`` and ``i`` alone, so ``start`` is all that resuming needs.

  Args:
    view: what an item is.
    episodes: prepared by the view; numpy columns, memory maps or ``Images``. Every host has them all, and touches only
      the rows of its own items.
    batch_size: B, over all hosts together.
    key: batch ``i`` is ``view.sample(fold_in(key, i), ...)``.
    start: the first batch.
    host: (h, H): this host gets items ``h B / H`` to ``(h + 1) B / H - 1`` of every batch, so that the number of hosts
      changes nothing.

  Yields:
    Leaves ``[B / H, ...]``, numpy.

  Raises:
    ValueError: where the batch cannot be divided among the hosts.
  """
  index, count = host
  if not 0 <= index < count or batch_size % count:
    raise ValueError(f"batch_size={batch_size} and host {index} of {count}: every host must get as many items")
  mine = slice(index * batch_size // count, (index + 1) * batch_size // count)
  rows = np.asarray(episodes.rows)
  ahead = sampling.positions_many(key, episodes, start, _AT_ONCE, batch_size)
  while True:
    start += _AT_ONCE
    # The next ones are drawn while these are gathered.
    drawn, ahead = rows[np.asarray(ahead)], sampling.positions_many(key, episodes, start, _AT_ONCE, batch_size)
    for batch in drawn:
      yield view.take(episodes, batch[mine])

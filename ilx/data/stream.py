"""The streamed tier: batches straight from a dataset's shards, for what fits nowhere.

``schedule`` says which items batch ``i`` holds; ``reading`` reads them. For every virtual stream that a host serves,
the block of episodes in use is in memory, in columns as everywhere (pictures encoded), and the next one is being
read. So memory stays flat, at about twice ``buffer_bytes`` for a host that serves all streams; but never below two
episodes a stream.

Grain's threads make batches ahead, from a dataset with random access (``grain.MapDataset``); where it stands is one
number. Its elements are a few batches each where batches are small: a hundred small gathers, and a hundred passages
through Grain, take longer than one. Episodes are read by threads of our own, each block once, whichever of Grain's
threads asks first.

A dataset that has no more items than the batches made at once, and fits into ``buffer_bytes``, is read once and kept
(``small``).

What differs from drawing out of memory: items come without replacement, each once an epoch, and those of one batch and
the next are of the blocks in use. At any place of a batch each item is as likely as any other, as it is there.
"""

import dataclasses
import functools
import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ilx.data import index as index_lib
from ilx.data import rlds, sampling, splits
from ilx.data import selection as selection_lib
from ilx.data.dividing import check_hosts, default_streams
from ilx.data.episodes import Episodes
from ilx.data.index import Index
from ilx.data.mixing import check_shares, differences, layout
from ilx.data.reading import Batches, Reader, is_small
from ilx.data.rlds import EVERYTHING, Info, Selection
from ilx.data.schedule import Schedule
from ilx.data.small import Shuffle, SmallReader
from ilx.data.sources import Source, read
from ilx.data.statistics import merge
from ilx.types import View


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
  """A dataset, or a mixture, that is read while it is learnt from; see ``open`` and ``mixture``.

  Attributes:
    sources: the datasets. Episodes are numbered through all of them, in order.
    shares: of the items drawn, each dataset's; None: as the numbers of its items that can be drawn.
  """

  sources: tuple[Source, ...]
  shares: tuple[float, ...] | None = None

  @property
  def info(self) -> Info:
    """Of the (first) dataset."""
    return self.sources[0].info

  @functools.cached_property
  def index(self) -> Index:
    """Lengths, returns and statistics of all episodes, from which ``ilx.data.spec`` is made."""
    return functools.reduce(_join, (source.index for source in self.sources))

  @property
  def num_episodes(self) -> int:
    """E."""
    return sum(len(source.records) for source in self.sources)

  @property
  def lengths(self) -> np.ndarray:
    """Transitions in every episode, int64 ``[E]``."""
    return np.concatenate([source.index.length for source in self.sources])

  @property
  def num_transitions(self) -> int:
    """Steps with an action that counts."""
    return int(self.lengths.sum())

  @property
  def weights(self) -> np.ndarray:
    """Of each transition of an episode among those of its dataset, float64 ``[E]``, at most 1; 0: never drawn."""
    return np.concatenate(
      [np.ones(len(x.records)) if x.weights is None else x.weights / x.weights.max() for x in self.sources]
    )

  def read(self, numbers: Any) -> Episodes:
    """Some episodes by number, at least one, in columns; raises as ``ilx.data.load``."""
    numbers = np.asarray(numbers).reshape(-1)
    if not len(numbers) or numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= self.num_episodes:
      raise ValueError(f"read: episodes {numbers.tolist()}; expected numbers from 0 to {self.num_episodes - 1}")
    return read(self.sources, numbers.astype(np.int64))

  def batches(
    self,
    view: View,
    batch_size: int,
    seed: int,
    *,
    start: int = 0,
    host: tuple[int, int] = (0, 1),
    streams: int | None = None,
    buffer_bytes: int = 256 << 20,
    threads: int = 2,
  ) -> Batches:
    """Endless batches; batch ``i`` depends on the dataset, ``seed``, ``i`` and the sizes alone, not on the host.

    Args:
      view: what an item is.
      batch_size: B, over all hosts together.
      seed: of the order.
      start: the first batch.
      host: (h, H): this host gets items ``h B / H`` to ``(h + 1) B / H - 1`` of every batch, and reads those alone.
      streams: V, which divides B; H must divide it. By default see ``dividing.default_streams``.
      buffer_bytes: what the blocks of all streams take at most, measured as on disk, or an episode each, if that is
        more; the next ones take as much again. The more, the more episodes a batch mixes, up to a quarter of all.
      threads: that read ahead, and as many that make batches.

    Yields:
      Leaves ``[B / H, ...]``, numpy.

    Raises:
      ValueError: where numbers do not go together, no item is left to draw, or, when batches are asked for, a record is
        damaged; names it.

    Warns:
      UserWarning: where an episode for every stream takes more than ``buffer_bytes``.
    """
    if batch_size < 1:
      raise ValueError(f"batch_size={batch_size} must be at least 1")
    if streams is None:
      streams = default_streams(batch_size)
    if streams < 1 or batch_size % streams:
      raise ValueError(f"batch_size={batch_size} is no multiple of streams={streams}")
    check_hosts(host, batch_size, streams)
    if start < 0 or threads < 1 or buffer_bytes < 1:
      raise ValueError(
        f"start={start} must be at least 0, threads={threads} and buffer_bytes={buffer_bytes} at least 1"
      )
    items = self._items(view)
    weights = self._weights(items)
    drawn = items * (weights > 0)
    episode_bytes = self._bytes()
    if is_small(drawn.sum(), batch_size) and np.count_nonzero(drawn) * episode_bytes <= buffer_bytes:
      small = SmallReader(self.sources, view, Shuffle(items, seed=seed, weights=weights), batch_size, host)
      return Batches(small, start, threads)
    # Blocks on the border of two streams are read twice: with four for every stream, one in four at most.
    block = max(1, min(round(buffer_bytes / (streams * episode_bytes)), np.count_nonzero(items) // (4 * streams)))
    plan = Schedule(items, seed=seed, streams=streams, block=block, weights=weights)
    place, hosts = host
    mine = range(place * streams // hosts, (place + 1) * streams // hosts)
    if streams * episode_bytes > buffer_bytes:
      two = 2 * episode_bytes
      warnings.warn(
        f"{self.info.directory}: an episode takes {_binary(episode_bytes)} on average, so that two for each of "
        f"{streams} streams take about {_binary(streams * two)}, of which {_binary(len(mine) * two)} on this host: "
        f"more than twice buffer_bytes={_binary(buffer_bytes)}. Fewer streams or shorter episodes take less",
        stacklevel=2,
      )
    return Batches(Reader(self.sources, view, plan, batch_size, mine, start, threads), start, threads)

  def _items(self, view: View) -> np.ndarray:
    """How many items each episode has, int64 ``[E]``."""
    lengths, places = np.unique(self.lengths, return_inverse=True)
    return np.array([len(view.starts(int(length))) for length in lengths], np.int64)[places]

  def _bytes(self) -> float:
    """Of an episode on disk, on average."""
    total = 0.0
    for source in self.sources:
      for part in splits.chunks(splits.parse(source.split, source.info.splits), source.info.splits):
        total += part.file.stat().st_size * (part.stop - part.start) / part.length
    return max(1.0, total / self.num_episodes)

  def _weights(self, items: np.ndarray) -> np.ndarray:
    """Of each item of an episode, float64 ``[E]``, as for data in memory."""
    weights = self.weights
    source = np.repeat(np.arange(len(self.sources)), [len(x.records) for x in self.sources])
    if not np.any(items * weights):
      which = "every episode" if weights.all() else "every episode with weight"
      raise ValueError(f"{self.info.directory}: no item is left to draw from; {which} is too short")
    shares = None if self.shares is None else np.array(self.shares)
    return sampling.item_weights(items, weights, source, shares)


def open(
  directory_or_name: str | os.PathLike,
  split: str = "train",
  selection: Selection = EVERYTHING,
  weights: np.ndarray | sampling.Weigh | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> Stream:
  """A dataset to stream. Its index is made first where there is none, in one pass over it.

  Args:
    directory_or_name: see ``rlds.resolve``.
    split: in TFDS' syntax.
    selection: which fields become which columns.
    weights: ``[E]``, how often each transition of an episode is drawn, relative to others; or what makes them of
      lengths and returns, such as ``sampling.top_return(0.1)``. Episodes of weight 0 are not read.
    progress: called while the index is made, with the episodes and steps seen so far.

  Raises:
    FileNotFoundError: where the dataset or one of its files is missing.
    ValueError: where the index shows damage, or the weights do not go with the episodes.
  """
  info = rlds.read_info(rlds.resolve(directory_or_name))
  records = rlds.open_split(info, split)
  index = index_lib.read(info, split, selection, progress)
  if callable(weights):
    weights = weights(index.length, index.episode_return)
  if weights is not None:
    weights = sampling.check_weights(weights, len(records))
  return Stream((Source(info, selection._replace(lazy=True), split, records, index, weights),))


def mixture(streams: Mapping[str, Stream], weights: Mapping[str, float] | None = None) -> Stream:
  """Several datasets as one.

  Args:
    streams: by name; each of one dataset.
    weights: each one's share of the items drawn, relative to the others', whatever the view. By default a dataset has
      the share of its items that can be drawn, so that without weights every item is drawn as often as any other.
      Weights within a dataset stay as they are, and change no dataset's share.

  Raises:
    TypeError: where ``streams`` is no dict.
    ValueError: where the datasets do not fit together, with all their differences; where ``weights`` name other
      datasets, or a share is not above 0.
  """
  if not isinstance(streams, Mapping):
    raise TypeError(f'mixture: expected a dict of streams, such as {{"a": a, "b": b}}, got {type(streams).__name__}')
  if not streams or any(len(stream.sources) != 1 for stream in streams.values()):
    raise ValueError("mixture: expected streams of one dataset each")
  sources = tuple(stream.sources[0] for stream in streams.values())
  indices = {name: stream.sources[0].index for name, stream in streams.items()}
  layouts = {name: layout({"observation": x.observation, "action": x.action}) for name, x in indices.items()}
  for name, source in zip(streams, sources, strict=True):
    plan = selection_lib.plan(source.info.features, source.selection, source.info.directory / "features.json")
    layouts[name] |= {field.replace("steps/", "extras/", 1): "there" for field in jax.tree.leaves(plan.extras)}
  if found := differences(layouts):
    raise ValueError("mixture: the datasets differ:\n  " + "\n  ".join(found))
  if weights is None:
    return Stream(sources)
  shares = check_shares(streams, weights)
  return Stream(sources, tuple(shares[name] for name in streams))


def _binary(size: float) -> str:
  place = min(3, max(0, math.frexp(size)[1] - 1) // 10)
  return f"{size / 2 ** (10 * place):.1f} {('B', 'KiB', 'MiB', 'GiB')[place]}"


def _join(a: Index, b: Index) -> Index:
  return Index(
    length=np.concatenate([a.length, b.length]),
    episode_return=np.concatenate([a.episode_return, b.episode_return]),
    is_terminal=np.concatenate([a.is_terminal, b.is_terminal]),
    statistics={
      name: merge(a.statistics[name], b.statistics[name]) if name in a.statistics and name in b.statistics else found
      for name, found in (a.statistics | b.statistics).items()
    },
    observation=a.observation,
    action=a.action,
  )

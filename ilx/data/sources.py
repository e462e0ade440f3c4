"""Episodes of one dataset or several, any by number, from their records into columns."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ilx.data import rlds
from ilx.data.episodes import Episodes, from_columns
from ilx.data.images import Images
from ilx.data.index import Index
from ilx.data.rlds import Info, Records, Selection


class Source(NamedTuple):
  """One dataset of a stream.

  Attributes:
    info: of the dataset.
    selection: which fields become which columns; pictures stay encoded in memory.
    split: for errors.
    records: its episodes, serialised.
    index: what is known of them without reading.
    weights: ``[E]``, how often each item of an episode is drawn, relative to others; None: all alike.
  """

  info: Info
  selection: Selection
  split: str
  records: Records
  index: Index
  weights: np.ndarray | None


def read(sources: Sequence[Source], numbers: np.ndarray) -> Episodes:
  """Some episodes in columns; their numbers count through all sources, source after source.

  Raises:
    ValueError: where one is damaged; names file and record.
  """
  ends = np.cumsum([len(source.records) for source in sources])
  owners = np.searchsorted(ends, numbers, side="right")
  # Neighbours of one source are read together; what comes of all keeps the order of ``numbers``.
  parts = []
  for owner, found in itertools.groupby(range(len(numbers)), key=owners.__getitem__):
    before = ends[owner] - len(sources[owner].records)
    parts.append(_read(sources[owner], [int(numbers[place] - before) for place in found]))
  return parts[0] if len(parts) == 1 else _concatenate(parts)


def _read(source: Source, numbers: list[int]) -> Episodes:
  where = f"split {source.split!r}"
  records = [source.records[number] for number in numbers]
  try:
    expected = (len(records), sum(len(record) for _, record in records))
    return rlds.assemble(source.info, source.selection, records, where=where, expected=expected)
  except ValueError:
    for number, record in zip(numbers, records, strict=True):
      try:
        rlds.assemble(source.info, source.selection, [record], where=where, first=number)
      except ValueError as error:
        raise ValueError(f"{error} (record {source.records.where(number)[1]} of the file)") from None
    raise


def _concatenate(parts: list[Episodes]) -> Episodes:
  def join(*leaves: Any) -> Any:
    if all(isinstance(leaf, Images) for leaf in leaves):
      return Images.concatenate(leaves)
    leaves = tuple(map(np.asarray, leaves))  # of pictures stored in two ways, the pixels
    if len({(leaf.dtype, leaf.shape[1:]) for leaf in leaves}) > 1:
      found = ", ".join(f"{leaf.dtype} {list(leaf.shape[1:])}" for leaf in leaves)
      raise ValueError(f"the datasets of the mixture have columns that differ: {found}")
    return np.concatenate(leaves)

  names = ("observation", "action", "reward", "discount", "is_terminal", "extras")
  columns = {name: jax.tree.map(join, *(getattr(part, name) for part in parts)) for name in names}
  steps = np.concatenate([np.diff(part.starts) for part in parts])
  return from_columns(starts=np.concatenate([[0], np.cumsum(steps)]), **columns)

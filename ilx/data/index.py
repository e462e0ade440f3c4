"""The index of a split: how long its episodes are, what they returned, and the statistics of their steps.

Made in one pass that takes little memory whatever the split's size, and kept beside the dataset's other derived files
(``derived``), so it holds for one fingerprint of the dataset. Streaming, weighting and specs need no more of
the data than this.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ilx.data import derived, index_format, records, rlds
from ilx.data.episodes import Episodes, returns
from ilx.data.index_format import Index
from ilx.data.rlds import EVERYTHING, Info, Selection
from ilx.data.statistics import Accumulator, sample

# Records decoded at once: this many, or fewer of so many bytes.
_RECORDS = 1024
_BYTES = 8 << 20


def read(
  info: Info,
  split: str = "train",
  selection: Selection = EVERYTHING,
  progress: Callable[[int, int], None] | None = None,
) -> Index:
  """The index of a split; made, and kept for the next time, where there is none yet.

  Several processes may ask at once: one makes it, the others wait. A kept index that is damaged is made anew, with a
  warning that names it.

  Args:
    info: of the dataset.
    split: in TFDS' syntax.
    selection: which fields are observation and action; its ``lazy`` and ``extras`` make no difference.
    progress: called while the index is made, with the episodes and steps seen so far.

  Raises:
    FileNotFoundError: where a shard is missing.
    ValueError: where the dataset is damaged (see ``rlds.load``).

  Warns:
    UserWarning: where the index cannot be kept, such as on a full disk; it is made all the same.
  """
  return derived.kept(
    info,
    where(info, split, selection),
    "the index is made anew whenever the dataset is opened",
    lambda: build(info, split, selection, progress),
    index_format.encode,
    index_format.decode,
  )


def where(info: Info, split: str = "train", selection: Selection = EVERYTHING) -> Path:
  """The file that keeps the index, or would; see ``derived.find``."""
  asked = [tuple(part) for part in records.parts(info, split)]
  return derived.find(info, f"index-{derived.key('index', index_format.VERSION, asked, _used(selection))}")


def build(
  info: Info,
  split: str = "train",
  selection: Selection = EVERYTHING,
  progress: Callable[[int, int], None] | None = None,
) -> Index:
  """As ``read``, always from the dataset; keeps nothing."""
  total = sum(part.stop - part.start for part in records.parts(info, split))
  accumulators = {name: Accumulator() for name in ("observation", "action", "reward")}
  lengths, earned, terminal = [], [], []
  shapes: Any = None
  seen = steps = 0
  for block in _blocks(info, split, _used(selection)):
    columns = {"observation": block.observation, "action": block.action}
    found = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), columns)
    if shapes is not None and found != shapes:
      raise ValueError(f"{info.directory}: split {split!r}: steps are {found} from episode {seen} on, {shapes} before")
    shapes = found
    sizes = np.diff(block.starts)
    accumulators["observation"].update(block.observation, sample(sizes, total, seen))
    counts = np.ones(block.num_steps, bool)
    counts[block.starts[1:] - 1] = False
    accumulators["action"].update(jax.tree.map(lambda x, rows=counts: np.asarray(x)[rows], block.action))
    accumulators["reward"].update(block.reward[counts])
    lengths.append(sizes - 1)
    earned.append(returns(block))
    terminal.append(block.is_terminal[block.starts[1:] - 1])
    seen, steps = seen + block.num_episodes, steps + block.num_steps
    if progress is not None:
      progress(seen, steps)
  return Index(
    length=np.concatenate(lengths),
    episode_return=np.concatenate(earned),
    is_terminal=np.concatenate(terminal),
    statistics={name: accumulator.result() for name, accumulator in accumulators.items() if accumulator.count},
    observation=shapes["observation"],
    action=shapes["action"],
  )


def _used(selection: Selection) -> Selection:
  return selection._replace(lazy=True, extras=())


def _blocks(info: Info, split: str, selection: Selection) -> Iterator[Episodes]:
  """The split's episodes, some at a time."""
  block: list[tuple[Path, bytes]] = []
  before = size = 0

  def assemble() -> Episodes:
    return rlds.assemble(info, selection, block, where=f"split {split!r}", first=before)

  for record in rlds.read_records(info, split):
    if block and (len(block) == _RECORDS or size + len(record[1]) > _BYTES):
      yield assemble()
      before, size, block = before + len(block), 0, []
    block.append(record)
    size += len(record[1])
  if block:
    yield assemble()

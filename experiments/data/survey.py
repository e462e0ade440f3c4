"""One pass over a dataset, in memory that does not grow with it."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.data import activity, bounds, fields
from experiments.data.frames import Frames
from experiments.data.measure import Distinct, Moments, Sample, Words
from experiments.data.reading import Chunk, chunks
from ilx.data.rlds import Info

# Rows of a field that histograms, quantiles and counts of distinct values are made from.
_ROWS, _SAMPLE_BYTES = 20_000, 32 << 20
# Fields of more numbers a step are looked at as a whole, by so many numbers of every row.
_DIMENSIONS, _POOLED = 1024, 64
_EPISODES = 100_000
_FLAGS = ("steps/is_first", "steps/is_last", "steps/is_terminal")
# Parts of an episode that the idle share is told by.
TIMELINE = 20


class Field(NamedTuple):
  """What is gathered of a field of numbers.

  Attributes:
    shape: of one step.
    is_float: whether they are real numbers.
    pooled: whether all its numbers count as one dimension.
    moments: exact, of every dimension.
    sample: rows ``[n, D]``.
    outside, at_bounds: int64 ``[D]``, values out of and on the bounds that the metadata give; actions only.
  """

  shape: tuple[int, ...]
  is_float: bool
  pooled: bool
  moments: Moments
  sample: Sample
  outside: np.ndarray
  at_bounds: np.ndarray


class Same(NamedTuple):
  """The longest stretch of one and the same action.

  Attributes:
    steps: how many.
    length: transitions of its episode.
    split: where that is.
    episode: its number there, of those that could be read.
  """

  steps: int
  length: int
  split: str
  episode: int


class Survey:
  """What is known of a dataset after its chunks were added."""

  def __init__(self, info: Info, tolerance: float = 0.0):
    self.info, self.tolerance = info, tolerance
    self.fields: dict[str, Field] = {}
    self.texts: dict[str, Words] = {}
    self.metadata: dict[str, Any] = {}
    self.episodes = Sample(_EPISODES, seed=1)
    self.splits: dict[str, dict[str, int]] = {}
    self.problems: list[str] = []
    self.num_problems = 0
    self.steps = self.idle = self.moves = self.terminals = 0
    self.flags = dict.fromkeys(_FLAGS, 0)
    self.nonzero_rewards = 0
    self.timeline = np.zeros((2, TIMELINE), np.int64)
    self.same: Same | None = None
    self.distinct_steps, self.distinct_episodes = Distinct(), Distinct()
    self.split_hashes: dict[str, Distinct] = {}
    self.returns, self.lengths = Moments(1), Moments(1)
    self.pictures: dict[str, Distinct] = {}
    self.frames = Frames(info)
    self._bounds = bounds.of(info)
    self._features = fields.of_steps(info)

  def report(self, problem: str) -> None:
    """Notes what could not be read."""
    self.num_problems += 1
    if len(self.problems) < 20:
      self.problems.append(problem)

  def add(self, chunk: Chunk) -> None:
    """Takes some episodes."""
    columns, starts = chunk.columns, chunk.starts
    count, episodes = int(starts[-1]), len(starts) - 1
    last = np.zeros(count, bool)
    last[starts[1:] - 1] = True
    self.steps += count
    self.moves += count - episodes
    tally = self.splits.setdefault(chunk.split, {"episodes": 0, "steps": 0})
    self._same(chunk, tally["episodes"])
    tally["episodes"] += episodes
    tally["steps"] += count
    self._numbers(columns, last)
    self._idle(chunk, last)
    self._hashes(chunk)
    self._ends(chunk, last)
    self.frames.add(chunk)
    for name, value in columns.items():
      if self._features[name].kind == "text":
        self._text(name, value, starts)
    for metadata in chunk.metadata:
      for name, value in metadata.items():
        self._beside(name, value)

  def _numbers(self, columns: dict[str, Any], last: np.ndarray) -> None:
    for name, value in columns.items():
      if not isinstance(value, np.ndarray) or name in _FLAGS:
        continue
      if name.split("/")[1] in ("action", "reward", "discount"):
        value = value[~last]  # carries no meaning there
      rows = value.reshape(len(value), math.prod(value.shape[1:]))
      field = self.fields.get(name)
      if field is None:
        pooled = rows.shape[1] > _DIMENSIONS or fields.is_pixels(self._features[name])
        dims = 1 if pooled else rows.shape[1]
        kept = max(500, min(_ROWS, _SAMPLE_BYTES // max(1, rows.itemsize * (_POOLED if pooled else dims))))
        zeros = np.zeros(dims, np.int64)
        field = Field(
          value.shape[1:], value.dtype.kind == "f", pooled, Moments(dims), Sample(kept), zeros, zeros.copy()
        )
        self.fields[name] = field
      if not len(rows):
        continue
      field.moments.add(rows.reshape(-1, 1) if field.pooled else rows)
      if field.pooled:
        places = np.random.default_rng(0).choice(rows.shape[1], _POOLED, replace=False)
        rows = rows[:, places]
      field.sample.add({"values": rows}, len(rows))
      given = self._bounds.get(name)
      if given is not None and len(given.low) == rows.shape[1] == len(field.outside):
        low, high = given.low, given.high
        field.outside[...] += ((rows < low - 1e-6) | (rows > high + 1e-6)).sum(axis=0)
        field.at_bounds[...] += ((rows == low) | (rows == high)).sum(axis=0)

  def _idle(self, chunk: Chunk, last: np.ndarray) -> None:
    idle = activity.idle(chunk.columns, chunk.starts, self.tolerance)
    self.idle += int(idle.sum())
    lengths = np.diff(chunk.starts)
    place = np.arange(len(idle)) - np.repeat(chunk.starts[:-1], lengths)
    part = place * TIMELINE // np.repeat(np.maximum(lengths - 1, 1), lengths)
    self.timeline[0] += np.bincount(part[idle], minlength=TIMELINE)[:TIMELINE]
    self.timeline[1] += np.bincount(part[~last], minlength=TIMELINE)[:TIMELINE]

  def _same(self, chunk: Chunk, before: int) -> None:
    found = activity.longest_same(chunk.columns, chunk.starts)
    episode = int(np.argmax(found))
    if found[episode] > (self.same.steps if self.same else 0):
      length = int(chunk.starts[episode + 1] - chunk.starts[episode]) - 1
      self.same = Same(int(found[episode]), length, chunk.split, before + episode)

  def _hashes(self, chunk: Chunk) -> None:
    hashes = {}
    for name, value in chunk.columns.items():
      if name in _FLAGS or name == "steps/discount":
        continue
      hashes[name] = activity.column_hashes(value)
      if self._features[name].kind == "image":
        self.pictures.setdefault(name, Distinct()).add(hashes[name])
    rows = activity.combine(hashes)
    self.distinct_steps.add(rows)
    episodes = activity.combine({"": activity.episode_hashes(rows, chunk.starts), "others": chunk.others})
    self.distinct_episodes.add(episodes)
    self.split_hashes.setdefault(chunk.split, Distinct()).add(episodes)

  def _ends(self, chunk: Chunk, last: np.ndarray) -> None:
    columns, starts = chunk.columns, chunk.starts
    for name in _FLAGS:
      if name in columns:
        self.flags[name] += int(np.count_nonzero(columns[name]))
    terminal = columns.get("steps/is_terminal")
    ended = np.zeros(len(starts) - 1, bool) if terminal is None else terminal.reshape(-1)[starts[1:] - 1].astype(bool)
    self.terminals += int(ended.sum())
    table = {"length": np.diff(starts) - 1, "terminal": ended}
    self.lengths.add(table["length"][:, None])
    reward = columns.get("steps/reward")
    if reward is not None and reward.size == len(last):
      reward = np.where(last, 0.0, reward.reshape(-1).astype(np.float64))
      self.nonzero_rewards += int(np.count_nonzero(reward))
      table["return"] = np.add.reduceat(reward, starts[:-1])
      self.returns.add(table["return"][:, None])
    self.episodes.add(table, len(ended))

  def _text(self, name: str, value: list[bytes], starts: np.ndarray) -> None:
    words = self.texts.setdefault(name, Words())
    for start, stop in itertools.pairwise(starts):
      # An episode counts a text once, however many of its steps carry it.
      for text in dict.fromkeys(value[start:stop]):
        words.add(text.decode(errors="replace"))

  def _beside(self, name: str, value: Any) -> None:
    if isinstance(value, float | int) and not isinstance(value, bool):
      self.metadata.setdefault(name, Sample(_EPISODES, seed=2)).add({"values": np.array([value], np.float64)}, 1)
    elif isinstance(value, bool | str):
      self.metadata.setdefault(name, Words()).add(value)


def survey(
  info: Info,
  splits: list[str],
  *,
  max_episodes: int | None = None,
  tolerance: float = 0.0,
  visit: Callable[[Chunk], None] = lambda chunk: None,
) -> Survey:
  """Reads the splits once.

  Args:
    info: of the dataset.
    splits: their names, or what ``rlds.read_records`` takes.
    max_episodes: the first so many of each split.
    tolerance: see ``activity.idle``.
    visit: called with every chunk, such as to show progress.
  """
  found = Survey(info, tolerance)
  for split in splits:
    for chunk in chunks(info, split, found.report, max_episodes):
      found.add(chunk)
      visit(chunk)
  return found

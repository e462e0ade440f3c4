"""The plan of a cleaning: what stays of every episode, decided in one pass."""

import collections
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.data import activity, bounds, fields, reading, tolerant
from experiments.data.rules import Rules
from ilx.data import example, shards
from ilx.data.rlds import Info


class Kept(NamedTuple):
  """An episode that stays: steps ``start`` to ``stop - 1`` of a record."""

  split: str
  episode: int
  file: Path
  record: int
  start: int
  stop: int


class UnfitError(ValueError):
  """No damage of an episode: the rules do not make a dataset of it."""


class Plan(NamedTuple):
  """What is done to a dataset.

  Attributes:
    kept: the episodes that stay, in their order.
    files: how many records each of their files has.
    log: an entry for every episode that goes or changes: "split", "episode", "file", "record", "what" and "why".
    before, after: "episodes" and "transitions".
  """

  kept: list[Kept]
  files: dict[Path, int]
  log: list[dict[str, Any]]
  before: collections.Counter[str]
  after: collections.Counter[str]


def plan(
  info: Info,
  splits: list[str],
  rules: Rules,
  chosen: Collection[tuple[Path, int]] | None = None,
  visit: Callable[[], None] = lambda: None,
  check: Callable[[bytes, Kept], None] = lambda content, kept: None,
) -> Plan:
  """Decides about every episode.

  Args:
    info: of the dataset.
    splits: names of splits, in the order in which duplicates are looked for.
    rules: see there; ``where`` was already answered by ``chosen``.
    chosen: (file, number of the record in it) of the episodes that may stay; all by default.
    visit: called after every record.
    check: called with a record and what is to stay of it; raises ValueError where that cannot be written.

  Raises:
    ValueError: where something cannot be read and damage is not to be skipped, or a rule does not fit the dataset.
  """
  planner = _Planner(info, rules, check)
  for split in splits:
    first = 0
    for path, length in zip(*info.splits[split], strict=True):
      planner.shard(split, first, path, length, chosen, visit)
      first += length
  return planner.plan


class _Planner:
  def __init__(self, info: Info, rules: Rules, check: Callable[[bytes, Kept], None]):
    self.plan = Plan([], {}, [], collections.Counter(), collections.Counter())
    self._info, self._rules, self._check = info, rules, check
    self._fields = {name: feature for name, feature in fields.of_steps(info).items() if fields.examined(feature)}
    self._beside = {name: feature for name, feature in fields.of_episodes(info).items() if fields.examined(feature)}
    self._seen: dict[int, Path] = {}  # hashes of the steps of what stays
    if "steps/reward" not in self._fields or math.prod(self._fields["steps/reward"].shape) != 1:
      raise ValueError(f"{info.directory}: the steps have no reward of one number")
    self._clipped = bounds.to_clip(info, self._fields) if rules.clip_actions else {}
    if rules.drop_idle_start or rules.drop_idle_end:
      activity.check(info, rules.idle_ignore)
    self._success = f"episode_metadata/{rules.success_key}"
    if rules.success_key and self._success not in self._beside:
      there = ", ".join(name.removeprefix("episode_metadata/") for name in self._beside) or "none"
      raise ValueError(f"{info.directory}: episodes have no metadata {rules.success_key!r}; there: {there}")

  def shard(
    self,
    split: str,
    first: int,
    path: Path,
    length: int,
    chosen: Collection[tuple[Path, int]] | None,
    visit: Callable[[], None],
  ) -> None:
    """Decides about the episodes of one file."""
    before = len(self.plan.kept)
    count = 0
    damaged = None
    for index, found in tolerant.records(path, self._info.file_format, length):
      if index is None:
        damaged = str(found)
        self._damaged(split, None, path, None, damaged)
        continue
      count = index + 1
      visit()
      if isinstance(found, ValueError):
        self._damaged(split, first + index, path, index, str(found))
      elif chosen is not None and (path, index) not in chosen:
        steps = fields.count_steps(example.parse(found), self._fields)
        self.plan.before.update(episodes=1, transitions=steps - 1)
        self._drop(split, first + index, path, index, "where", f"not {self._rules.where}")
      else:
        self._episode(split, first + index, path, index, found)
    self.plan.files[path] = count
    if damaged is not None and path.is_file():
      try:
        shards.open(path, self._info.file_format, count).close()
      except ValueError:
        # Its records can be read one after the other, but not by their numbers, which writing needs.
        for kept in self.plan.kept[before:]:
          self._drop(split, kept.episode, path, kept.record, "damaged", damaged)
          self.plan.after.subtract(episodes=1, transitions=kept.stop - kept.start - 1)
        del self.plan.kept[before:]
        self._seen = {found: file for found, file in self._seen.items() if file != path}

  def _episode(self, split: str, episode: int, path: Path, index: int, content: bytes) -> None:
    rules, where = self._rules, (split, episode, path, index)
    try:
      record = example.parse(content)
      steps = fields.count_steps(record, self._fields)
      if steps < 1:
        raise ValueError("the episode is empty")
      columns = reading.values(self._fields, record, steps)
      beside = reading.values(self._beside, record, 1)
    except ValueError as error:
      self._damaged(*where, str(error))
      return
    reward = columns["steps/reward"].reshape(-1).astype(np.float64)
    self.plan.before.update(episodes=1, transitions=steps - 1)
    if rules.success_key and not np.all(beside[self._success][0]):
      self._drop(*where, "failed", f"{rules.success_key} is {reading.scalar(beside[self._success])}")
      return
    start, stop = self._trimmed(columns, reward, steps)
    total = float(reward[start : stop - 1].sum())
    if stop - start - 1 < max(1, rules.min_length):
      idle = f" after {steps - stop + start} idle steps were dropped" if stop - start < steps else ""
      self._drop(*where, "short", f"{stop - start - 1} transitions{idle}; at least {max(1, rules.min_length)}")
    elif not math.isfinite(total):
      self._refuse(*where, "field 'steps/reward' is NaN or inf")
    elif rules.min_return is not None and total < rules.min_return:
      self._drop(*where, "return", f"{total:g} is below {rules.min_return:g}")
    elif rules.max_return is not None and total > rules.max_return:
      self._drop(*where, "return", f"{total:g} is above {rules.max_return:g}")
    elif problem := self._problem(content, Kept(*where, start, stop)):
      self._refuse(*where, problem)
    elif rules.drop_duplicates and self._repeats(columns | fields.others(record, columns), path):
      self._drop(*where, "duplicate", "its steps equal those of an earlier episode that stays")
    else:
      self._keep(Kept(*where, start, stop), columns, steps)

  def _problem(self, content: bytes, kept: Kept) -> str | None:
    """Why an episode cannot be written, if so."""
    try:
      self._check(content, kept)
    except UnfitError as error:
      raise ValueError(f"{kept.file}, record {kept.record}: {error}") from None
    except ValueError as error:
      return str(error)
    return None

  def _repeats(self, columns: Mapping[str, Any], path: Path) -> bool:
    """Whether an episode that stays has the same steps; only one that stays may come here."""
    found = int(activity.content_hash(columns)[0])
    if found in self._seen:
      return True
    self._seen[found] = path
    return False

  def _keep(self, kept: Kept, columns: Mapping[str, Any], steps: int) -> None:
    where = (kept.split, kept.episode, kept.file, kept.record)
    if kept.start:
      self._log(*where, "trimmed", "idle start", steps=kept.start)
    if kept.stop < steps:
      self._log(*where, "trimmed", "idle end", steps=steps - kept.stop)
    outside = 0
    for name, edges in self._clipped.items():
      rows = columns[name].reshape(steps, -1)[kept.start : kept.stop - 1]
      outside += int(((rows < edges.low.astype(np.float32)) | (rows > edges.high.astype(np.float32))).sum())
    if outside:
      self._log(*where, "clipped", "actions out of bounds", values=outside)
    self.plan.kept.append(kept)
    self.plan.after.update(episodes=1, transitions=kept.stop - kept.start - 1)

  def _trimmed(self, columns: Mapping[str, Any], reward: np.ndarray, steps: int) -> tuple[int, int]:
    """The steps that stay; one at least."""
    rules = self._rules
    if not (rules.drop_idle_start or rules.drop_idle_end):
      return 0, steps
    ignored = [f"steps/{name}" for name in rules.idle_ignore]
    # A transition that earned something is never dropped, nor what happened on the other side of it.
    idle = activity.idle(columns, np.array([0, steps]), rules.idle_tolerance, ignored) & (reward == 0)
    start, stop = 0, steps
    if rules.drop_idle_start:
      # The last step is never idle.
      start = int(np.argmin(idle))
    if rules.drop_idle_end:
      # The observation that an idle transition led to is the one it came from.
      while stop - 1 > start and idle[stop - 2]:
        stop -= 1
    return start, stop

  def _damaged(self, split: str, episode: int | None, path: Path, index: int | None, message: str) -> None:
    """Of what could not be read, and so was not counted."""
    self._refuse(split, episode, path, index, message)
    if index is not None:
      self.plan.before.update(episodes=1)

  def _refuse(self, split: str, episode: int | None, path: Path, index: int | None, message: str) -> None:
    if not self._rules.skip_damaged:
      record = "" if index is None else f", record {index}"
      raise ValueError(f"{path}{record}: {message}; to leave out what is damaged, give --skip_damaged")
    self._drop(split, episode, path, index, "damaged", message)

  def _drop(self, split: str, episode: int | None, path: Path, index: int | None, what: str, why: str) -> None:
    self._log(split, episode, path, index, "dropped", why, rule=what)

  def _log(
    self, split: str, episode: int | None, path: Path, index: int | None, what: str, why: str, **more: Any
  ) -> None:
    entry = {"split": split, "episode": episode, "file": path.name, "record": index, "what": what, "why": why} | more
    self.plan.log.append({key: value for key, value in entry.items() if value is not None})

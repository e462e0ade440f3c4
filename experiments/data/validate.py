"""Checks every record of a dataset and names what is wrong.

Every file is read to its end: checksums, numbers of records, fields, types and shapes, flags, NaN and inf, ranges of
actions and discounts, texts; every picture is decoded. A damaged file or record does not hide the others. Errors are
what makes data unusable or wrong; warnings are what to look at.

Exit code: 0 no errors (and, with --strict, no warnings), 1 some, 2 the check could not be made.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from experiments import outputs
from experiments.data import activity, bounds, checks, fields, terminal, tolerant, whole
from experiments.data.measure import Distinct, Moments
from experiments.data.problems import ERROR, WARNING, Problems
from ilx.data import decode, example, rlds
from ilx.data.rlds import Info

ARGUMENTS = "DATASET"


class Result(NamedTuple):
  """What a validation found.

  Attributes:
    problems: see ``Problems``.
    episodes: readable ones.
    steps: in them.
    terminals: episodes that ended by the task.
    returns: undiscounted, of every episode.
    directory: the dataset's.
  """

  problems: Problems
  episodes: int
  steps: int
  terminals: int
  returns: Moments
  directory: pathlib.Path


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""
  flags.DEFINE_integer(
    "most", 20, "Problems shown of each kind of each field; the others are counted.", 1, flag_values=values
  )
  flags.DEFINE_bool("strict", False, "Exit with 1 for warnings too.", flag_values=values)
  flags.DEFINE_string("json", None, "File for the problems as JSON.", flag_values=values)
  flags.DEFINE_string(
    "split", None, "The name of the one split to check, no part of it; by default all.", flag_values=values
  )


def main(arguments: Sequence[str], values: flags.FlagValues) -> int:
  """Validates one dataset; returns the exit code."""
  report = outputs.check(values.json, "--json") if values.json else None
  result = validate(arguments[0], values.split, most=values.most)
  show(result)
  if report is not None:
    outputs.write(report, json.dumps(to_json(result), indent=1) + "\n")
  bad = result.problems.total(ERROR) + (result.problems.total(WARNING) if values.strict else 0)
  return 1 if bad else 0


def validate(dataset: str | os.PathLike, split: str | None = None, *, most: int = 20) -> Result:
  """Checks a dataset, or one split of it.

  Raises:
    FileNotFoundError: where there is no such dataset.
    ValueError: where what describes it is damaged, or there is no such split.
  """
  info = rlds.read_info(rlds.resolve(dataset))
  if split is not None and split not in info.splits:
    there = ", ".join(info.splits) or "none"
    raise ValueError(f"{info.directory}: no split {split!r}; --split takes the name of one: {there}")
  splits = list(info.splits) if split is None else [split]
  checker = _Checker(info, most)
  total = sum(info.splits[name].num_episodes for name in splits)
  with terminal.progress("records", total) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
    for name in splits:
      for _ in checker.split(name, pool):
        advance(1)
  checker.finish(complete=split is None)
  return Result(checker.problems, checker.episodes, checker.steps, checker.terminals, checker.returns, info.directory)


class _Checker:
  """The state of one validation."""

  def __init__(self, info: Info, most: int):
    self.info, self.problems = info, Problems(most)
    problems = self.problems
    self.episodes = self.steps = self.terminals = 0
    self._fields, self._beside = fields.of_steps(info), fields.of_episodes(info)
    self._ragged = {
      name: decode.choose(info.features, [name, *self._counter()])
      for name, feature in (self._fields | self._beside).items()
      if not fields.examined(feature) and getattr(feature, "kind", "") != "unknown"
    }
    self._bounds = whole.bounds(bounds.of(info), self._fields, problems)
    self._ends = whole.Ends(most)
    self.true = {name: 0 for name in self._fields if name.split("/")[1] in ("is_first", "is_last", "is_terminal")}
    self._actions: dict[str, Moments] = {}
    self._rewards = 0
    self.returns = Moments(1)
    self._distinct = Distinct()
    checks.layout(self._fields, lambda *args, **where: problems.add(*args, file="features.json", **where))

  def _counter(self) -> list[str]:
    """A field that tells the number of steps, which one of varying shape may not."""
    names = [name for name, feature in self._fields.items() if fields.examined(feature) and feature.shape == ()]
    return sorted(names, key=lambda name: name != "steps/reward")[:1]

  def split(self, name: str, pool: ThreadPoolExecutor) -> Iterator[None]:
    """Checks one split; yields after every record."""
    episode = 0
    for path, length in zip(*self.info.splits[name], strict=True):
      for index, found in tolerant.records(path, self.info.file_format, length):
        where = {"file": path, "record": index, "split": name, "episode": None if index is None else episode + index}
        if isinstance(found, bytes):
          self._record(found, where, pool)
          yield
        elif index is None:
          self.problems.add(ERROR, "file", str(found), file=path, split=name)
        else:
          self.problems.add(ERROR, "damaged record", str(found), **where)
          yield
      # As dataset_info.json counts, so that numbers agree with what other tools say.
      episode += length

  def _record(self, content: bytes, where: dict[str, Any], pool: ThreadPoolExecutor) -> None:
    def note(level: str, kind: str, message: str, **more: Any) -> None:
      self.problems.add(level, kind, message, **where, **more)

    try:
      record = example.parse(content)
    except ValueError as error:
      note(ERROR, "damaged record", str(error))
      return
    checks.ragged(record, self._ragged, self._fields, note)
    if not fields.count_steps(record, self._fields):
      note(ERROR, "empty", "the episode has no steps")
      return
    good = checks.episode(record, self._fields, self._beside, self._bounds, pool, note)
    self.episodes += 1
    self._ends.add(good, where)
    self._gather(good, fields.others(record, good))

  def _gather(self, good: dict[str, Any], others: dict[str, Any]) -> None:
    """What shows only over the whole dataset."""
    if not good:
      return
    steps = len(next(iter(good.values())))
    self.steps += steps
    for name in self.true:
      self.true[name] += int(np.count_nonzero(good[name])) if name in good else 0
    if np.size(good.get("steps/is_terminal", ())) == steps:
      self.terminals += bool(np.reshape(good["steps/is_terminal"], -1)[-1])
    if "steps/reward" in good:
      reward = good["steps/reward"].reshape(-1)[:-1]
      self._rewards += int(np.count_nonzero(reward))
      self.returns.add(reward.sum(dtype=np.float64).reshape(1, 1))
    for name, action in good.items():
      if activity.inside(name, bounds.ACTION) and isinstance(action, np.ndarray) and len(action) > 1:
        rows = action.reshape(len(action), -1)[:-1]
        self._actions.setdefault(name, Moments(rows.shape[1])).add(rows)
    self._distinct.add(activity.content_hash(good | others))

  def finish(self, complete: bool) -> None:
    """Notes what shows only over the whole dataset; ``complete``: all of its splits were read."""
    if not self.episodes:
      if not self.problems.total(ERROR):
        self.problems.add(ERROR, "empty", "the dataset has no episodes")
      return
    for name, count in self.true.items():
      # In tasks without an end of their own no step is terminal; the flags are in doubt where no step is last either.
      if not count and not (name == "steps/is_terminal" and self.true.get("steps/is_last")):
        self.problems.add(WARNING, "flag", "never true in any episode", field=name)
    if "steps/reward" in self._fields and not self._rewards:
      self.problems.add(WARNING, "reward", "always 0", field="steps/reward")
    for name, action in self._actions.items() if self.episodes > 1 else ():
      for dimension, value in checks.constant_dimensions(action.low, action.high):
        where = f"dimension {dimension} is" if len(action.low) > 1 else "it is"
        self.problems.add(WARNING, "constant action", f"{where} always {value:g}", field=name)
    if repeated := self._distinct.repeated:
      count = round(repeated * self.episodes)
      about = "" if self._distinct.exact else "about "
      self.problems.add(WARNING, "duplicates", f"{about}{count:,} of {self.episodes:,} episodes repeat an earlier one")
    self._ends.finish(self.problems)
    if complete:
      whole.summary(self.info, self.episodes, self.steps - self.episodes, self.returns, self.problems)
      named = {path.name for split in self.info.splits.values() for path in split.files}
      for path in sorted(self.info.directory.iterdir()):
        if path.is_file() and f".{self.info.file_format}-" in path.name and path.name not in named:
          self.problems.add(WARNING, "file", "not named in dataset_info.json", file=path)


def show(result: Result) -> None:
  """Prints the problems, errors first, and the verdict."""
  problems = result.problems
  for problem in sorted(problems.kept, key=lambda problem: problem.level != ERROR):
    print(terminal.printable(str(problem)))
  for level, kind, field, count in problems.left_out():
    print(terminal.printable(f"{level}: {count:,} more of {kind}{f' in field {field!r}' if field else ''}"))
  errors, warnings = problems.total(ERROR), problems.total(WARNING)
  print(
    f"{terminal.printable(str(result.directory))}: {result.episodes:,} episodes, {result.steps:,} steps: "
    f"{errors:,} error{'s' if errors != 1 else ''}, {warnings:,} warning{'s' if warnings != 1 else ''}"
  )


def to_json(result: Result) -> dict[str, Any]:
  """What ``--json`` holds."""
  return {
    "directory": str(result.directory),
    "episodes": result.episodes,
    "steps": result.steps,
    "errors": result.problems.total(ERROR),
    "warnings": result.problems.total(WARNING),
    "problems": [
      {key: value for key, value in problem._asdict().items() if value is not None} for problem in result.problems.kept
    ],
    "left_out": [
      {"level": level, "kind": kind, "field": field, "count": count}
      for level, kind, field, count in result.problems.left_out()
    ],
  }

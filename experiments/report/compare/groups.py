"""Runs that are the same but for the seed, as one group; and what groups are called.

What was played is seldom in a config: it is the dataset's, which may be built anew between two runs. So runs whose
results name different environments are never one group, nor of one task. Nor are runs that learnt from different
versions of a dataset: these count as if their configs named them.
"""

import dataclasses
import json
import pathlib
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.report import facts
from experiments.report.compare import fields, progress
from experiments.report.run import Run

# Fields that say which run it is of several alike, where it is kept and how it is watched; not what is learnt.
ASIDE = (
  "seed",
  "seeds",
  "workdir",
  "evaluation.video",
  "evaluation.beside",
  "checkpoint_minutes",
  "keep",
  "keep_every",
  "data_timeout",
  "data_deadline",
)
# Fields that say what is to be learnt from and played.
TASK = ("dataset", "env_id", "env_kwargs")
_WATCHED = re.compile(r"evaluation\.|.*_every$|heldout$")
# Fields in the name of a group, and characters of each.
_SHOWN, _LONGEST = 3, 40


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
  """Runs that are the same but for the seed.

  Attributes:
    place: of its method among the methods, 0, 1, ...: runs of one agent on several tasks have the same.
    method: what it is called beside the others of its task.
    task: the dataset's name.
    agent: the agent's name.
    env_id: of the environment, empty where it is not known (yet), None without one.
    runs: its runs.
  """

  place: int
  method: str
  task: str
  agent: str
  env_id: str | None
  runs: list[Run]

  @property
  def title(self) -> str:
    """What it is called beside groups of other tasks."""
    return f"{self.method} on {self.task}"


class _Alike(NamedTuple):
  task: str
  agent: str
  config: dict[str, Any]
  runs: list[Run]
  suffix: str


def of(runs: Sequence[Run]) -> list[Group]:
  """The groups, those of a task one after the other, otherwise in the order of ``runs``."""
  alike: dict[str, list[Run]] = {}
  runs = _with_versions(runs)
  for run in runs:
    kept = {name: value for name, value in fields.of(run).items() if name not in ASIDE and value is not None}
    alike.setdefault(json.dumps(kept, sort_keys=True), []).append(run)
  apart = [part for same in alike.values() for part in _by_environment(same)]
  played: dict[str, set[str]] = {}
  for run in runs:
    if (place := facts.played_in(run.result)) is not None:
      played.setdefault(_task(run), set()).add(place)
  several = {task for task, places in played.items() if len(places) > 1}
  found = [_named(part, suffix, several) for same in apart for part, suffix in _without_twins(same)]
  tasks = list(dict.fromkeys(one.task for one in found))
  found.sort(key=lambda one: tasks.index(one.task))
  telling = {agent: _telling([one for one in found if one.agent == agent]) for agent in {one.agent for one in found}}
  methods = _methods(found, telling)
  places = {method: place for place, method in enumerate(dict.fromkeys(methods))}
  titles = _titles(found)
  return [
    Group(places[method], method, titles[one.task], one.agent, _environment(one.runs), one.runs)
    for one, method in zip(found, methods, strict=True)
  ]


def _with_versions(runs: Sequence[Run]) -> list[Run]:
  """With the versions in the configs, where the same words on data mean several; unknown ones say nothing."""
  found: dict[Any, set[str]] = {}
  for run in runs:
    if run.versions:
      found.setdefault(_dataset(run), set()).add(facts.versioned(_dataset(run), run.versions))
  return [
    run._replace(config={**run.config, "dataset": facts.versioned(_dataset(run), run.versions)})
    if len(found.get(_dataset(run), ())) > 1
    else run
    for run in runs
  ]


def _dataset(run: Run) -> str:
  return facts.name(run.config.get("dataset"))


def _by_environment(runs: list[Run]) -> list[list[Run]]:
  """Runs of one config by what they were played in; those that do not tell (yet) are with the others if these agree."""
  parts: dict[str | None, list[Run]] = {}
  for run in runs:
    parts.setdefault(facts.played_in(run.result), []).append(run)
  return list(parts.values()) if len(parts.keys() - {None}) > 1 else [runs]


def _task(run: Run) -> str:
  """As the config has it."""
  config = fields.of(run)
  return json.dumps([config.get(name) for name in TASK])


def _named(runs: list[Run], suffix: str, several: Collection[str]) -> _Alike:
  """``several``: tasks that were played in more than one environment."""
  task = _task(runs[0])
  if task in several:
    place = next((place for run in runs if (place := facts.played_in(run.result)) is not None), None)
    told = "environment not known yet" if place is None else f"played in {place}"
    task = json.dumps([*json.loads(task), told])
  return _Alike(task, facts.agent({}, runs[0].config), fields.of(runs[0]), runs, suffix)


def _without_twins(runs: list[Run]) -> list[tuple[list[Run], str]]:
  """Several runs of the same seed would count as several seeds: they are apart, and named by their folders."""
  if len(_apart(runs)) == 1:
    return [(runs, "")]
  parents: dict[pathlib.Path, list[Run]] = {}
  for run in runs:
    parents.setdefault(run.folder.parent, []).append(run)
  parts = [part for same in parents.values() for part in _apart(same)]
  by_parent = len({part[0].folder.parent.name for part in parts}) == len(parts)
  return [(part, part[0].folder.parent.name if by_parent else _folders(part)) for part in parts]


def _folders(runs: Sequence[Run]) -> str:
  more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
  return f"{runs[0].folder.name}{more}"


def _apart(runs: Sequence[Run]) -> list[list[Run]]:
  parts: list[tuple[list[Run], set[Any]]] = []
  for run in runs:
    seeds = set(progress.seeds(run))
    for own, taken in parts:
      if not seeds & taken:
        own.append(run)
        taken |= seeds
        break
    else:
      parts.append(([run], seeds))
  return [own for own, _ in parts]


def _telling(found: Sequence[_Alike]) -> list[str]:
  """Few fields that tell groups of one agent on the same task apart: always the one that tells the most of them."""

  def parts(names: Sequence[str]) -> int:
    return len({json.dumps([one.task, *(one.config.get(name) for name in names)]) for one in found})

  tasks = {one.task for one in found}
  differ = [name for task in tasks for name in fields.differing([one.config for one in found if one.task == task])]
  # What an agent does says more than how it is watched.
  left = sorted(
    {name for name in differ if name not in ASIDE}, key=lambda name: (_WATCHED.match(name) is not None, name)
  )
  chosen: list[str] = []
  while parts(chosen) < parts(left):
    chosen.append(max(left, key=lambda name: parts([*chosen, name])))
  return sorted(chosen, key=left.index)


def _methods(found: Sequence[_Alike], telling: Mapping[str, Sequence[str]]) -> list[str]:
  """What each is called: its agent, and the first fields in which it differs from others of its task."""
  whole = [((one.agent, *_values(one, telling[one.agent])), one.suffix) for one in found]
  short = {key: _shortened(key[0]) + (f" ({key[1]})" if key[1] else "") for key in whole}
  taken, numbers, names = Counter(short.values()), Counter(), {}
  for key, name in short.items():
    numbers[name] += 1
    names[key] = f"{name} #{numbers[name]}" if taken[name] > 1 else name
  return [names[key] for key in whole]


def _values(one: _Alike, names: Sequence[str]) -> list[str]:
  ends = [name.rpartition(".")[2] for name in names]
  shown = [end if ends.count(end) == 1 else name for name, end in zip(names, ends, strict=True)]
  return [
    f"{short}={fields.text(one.config[name])}" if one.config.get(name) is not None else f"no {short}"
    for name, short in zip(names, shown, strict=True)
  ]


def _shortened(words: Sequence[str]) -> str:
  first = [
    word if len(word) <= _LONGEST else f"{word[:_LONGEST]}\N{HORIZONTAL ELLIPSIS}" for word in words[: _SHOWN + 1]
  ]
  return ", ".join(first + (["\N{HORIZONTAL ELLIPSIS}"] if len(words) > _SHOWN + 1 else []))


def _titles(found: Sequence[_Alike]) -> dict[str, str]:
  """By task the dataset's name; where several would have the same, all that tells them apart."""
  short = {one.task: facts.data({}, one.runs[0].config) for one in found}
  titles = {}
  for task, title in short.items():
    twins = [other for other, name in short.items() if name == title]
    whole = ", ".join(fields.text(value) for value in json.loads(task) if value not in ("", None))
    titles[task] = title if len(twins) == 1 else whole
  return titles


def _environment(runs: Sequence[Run]) -> str | None:
  if any(not facts.plays(run.result, run.config) for run in runs):
    return None
  return next((str(name) for run in runs if (name := run.result.get("env_id") or run.config.get("env_id"))), "")

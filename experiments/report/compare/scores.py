"""What groups score: over the seeds that are finished, and over the updates."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.report import facts
from experiments.report import heldout as likeness
from experiments.report.compare import progress
from experiments.report.compare.groups import Group
from experiments.report.run import Run, Series, by_seed, interval, number, numbers
from ilx.evaluation import summary

RETURN = "eval/return_mean"


class Score(NamedTuple):
  """A mean and its 95 % interval, over seeds and episodes; of one seed over its episodes, and None where not known."""

  mean: float
  band: tuple[float, float] | None


class Point(NamedTuple):
  """A group after some updates: the mean over ``count`` seeds, and the 95 % interval as in ``Score``."""

  step: int
  mean: float
  band: tuple[float, float] | None
  count: int


def parts(group: Group) -> list[Mapping[str, Any]]:
  """What the results of the finished runs say of every seed."""
  return [part for run in group.runs for part in progress.parts(run)]


def seeds(group: Group) -> int:
  """The number of seeds, finished or not."""
  return sum(len(progress.seeds(run)) for run in group.runs)


def episodes(group: Group) -> list[int]:
  """The numbers of episodes that seeds are scored by, increasing: usually one."""
  found = [
    number(part.get("episodes", run.result.get("episodes"))) for run in group.runs for part in progress.parts(run)
  ]
  return sorted({int(count) for count in found if count is not None})


@functools.lru_cache(maxsize=10_000)
def returns(group: Group) -> Score | None:
  """The mean return of the finished seeds; None where none was played."""
  played = [part for part in parts(group) if number(part.get("return_mean")) is not None]
  if len(played) == 1:
    return Score(number(played[0]["return_mean"]), interval(played[0].get("return_ci95")))
  if not played:
    return None
  each = [numbers(part.get("returns")) for part in played]
  if each[0] and len({len(own) for own in each}) == 1:
    return _score(np.array(each))
  # Every seed counts alike, however many episodes it played.
  return _score(np.array([number(part["return_mean"]) for part in played]))


def normalized(group: Group) -> list[float]:
  """The normalised score of every finished seed; empty where one is not known."""
  found = [facts.scores(part)[0].normalized for part in parts(group)]
  return [] if None in found else found


def mean_of(group: Group, key: str) -> float | None:
  """The mean over finished seeds of a number of the result; None where one does not know it."""
  found = [number(part.get(key)) for part in parts(group)]
  return None if not found or None in found else float(np.mean(found))


def heldout(group: Group, path: str, key: str) -> Score | None:
  """The mean over finished seeds of a measure of likeness to held-out actions; None where one does not know it.

  ``path``: of which part of the action, see ``report.heldout.of_parts``.
  """
  found = [number(one.get(path, {}).get(key)) for one in held(group)]
  if not found or None in found:
    return None
  return _score(np.array(found)) if len(found) > 1 else Score(found[0], None)


def held(group: Group) -> list[dict[str, Mapping[str, Any]]]:
  """What finished seeds say of held-out actions, by the part of the action."""
  return [likeness.of_parts(likeness.found(part)) for part in parts(group)]


def curve(group: Group, metric: str) -> list[Point]:
  """A metric over the updates, increasing; empty where it was not logged, or never finite."""
  each = [series for run in group.runs for series in _each(run, metric)]
  values: dict[int, list[float]] = {}
  for series in each:
    for step, value in zip(series.steps, map(number, series.values), strict=True):
      if value is not None:
        values.setdefault(step, []).append(value)
  logged = _intervals(group.runs[0]) if len(each) == 1 and metric == RETURN else {}
  found = []
  for step, own in sorted(values.items()):
    band = logged.get(step) if len(own) == 1 else summary(np.array(own), resamples=2000)["mean_ci95"]
    found.append(Point(step, float(np.mean(own)), band, len(own)))
  return found


def as_json(group: Group) -> dict[str, Any]:
  """What the table of scores says of a group, for programs; None where it is not known."""
  score, scaled = returns(group), normalized(group)
  return {
    "agent": group.agent,
    "name": group.method,
    "dataset": group.task,
    "env_id": group.env_id,
    "seeds": seeds(group),
    "seeds_finished": len(parts(group)),
    "episodes": episodes(group),
    "return_mean": score and score.mean,
    "return_ci95": score and score.band,
    "normalized_score": float(np.mean(scaled)) if scaled else None,
    "success_rate": mean_of(group, "success_rate"),
    "heldout": likeness.over_seeds([likeness.found(part) for part in parts(group)]) or None,
    "last_step": max(map(progress.last_step, group.runs)),
    "runs": {str(run.folder): progress.state(run) for run in group.runs},
  }


def without_evaluation(runs: Sequence[Run]) -> list[Run]:
  """Those that play, as far as is known, but have no evaluation in the log (yet)."""
  return [run for run in runs if facts.plays(run.result, run.config) and not facts.finite(_floats(run))]


def _floats(run: Run) -> list[float]:
  logged = run.series.get(RETURN)
  return [value for value in logged.values if isinstance(value, float)] if logged else []


def _each(run: Run, metric: str) -> list[Series]:
  """Of every seed; of a run that logged the mean of its seeds alone, that."""
  return by_seed(run.series, metric) or [run.series[name] for name in (metric,) if name in run.series]


def _intervals(run: Run) -> dict[int, tuple[float, float]]:
  logged = run.series.get("eval/return_ci95", Series([], []))
  return {step: band for step, band in zip(logged.steps, logged.values, strict=True) if isinstance(band, tuple)}


def _score(values: np.ndarray) -> Score:
  found = summary(values)
  return Score(found["mean"], found["mean_ci95"])

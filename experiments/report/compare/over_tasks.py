"""Statistics over seeds and tasks together, of ``ilx.evaluation.aggregates``."""

from collections.abc import Collection, Sequence
from html import escape

import numpy as np

from experiments.report import axes, parts
from experiments.report.compare import drawing, scores, words
from experiments.report.compare.groups import Group
from ilx.evaluation import aggregates
from ilx.evaluation.aggregates import Estimate

# Thresholds of the performance profiles.
_POINTS = 301


def section(groups: Sequence[Group]) -> str:
  """IQM, mean, optimality gap, probability of improvement and performance profiles; empty where none makes sense.

  That takes normalised scores, and of some setting two of them at least.
  """
  found = {(group.method, group.task): own for group in groups if (own := scores.normalized(group))}
  if not found:
    return ""
  several = len({group.task for group in groups}) > 1
  chosen, tasks = _complete(found)
  methods = {group.method: group for group in reversed(groups) if group.method in chosen}
  methods = {method: methods[method] for method in chosen}
  each = {method: [np.array(found[method, task]) for task in tasks] for method in methods}
  if max(sum(map(len, own)) for own in each.values()) < 2:
    return ""
  lacking = [group.title for group in groups if group.method not in methods or group.task not in tasks]
  note = f"Left out, so that all have the same tasks, or for want of a normalised score: {words.listed(lacking)}."
  whole = ' class="whole"' if len(methods) > 3 else ""
  content = (
    f'{_table(methods, each)}<div class="pair"><div{whole}>{_profiles(methods, each)}</div>'
    f"<div{whole}>{_pairs(methods, each)}</div></div>{words.note(note) if lacking else ''}"
  )
  return parts.section(f"Over {words.counted(len(tasks), 'task')}" if several else "Over the seeds", content)


def _complete(found: Collection[tuple[str, str]]) -> tuple[list[str], list[str]]:
  """Methods and tasks of which all pairs are there, and as many pairs as possible; of equally many the most tasks.

  Looked at are each task alone, what each method has, and what all of them have.
  """
  methods, tasks = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
  having = {method: [task for task in tasks if (method, task) in found] for method in methods}
  choices = [[task] for task in tasks] + [*having.values()]
  choices += [shared] if (shared := [task for task in tasks if all(task in own for own in having.values())]) else []
  complete = [([m for m in methods if all(task in having[m] for task in chosen)], chosen) for chosen in choices]
  return max(complete, key=lambda one: (len(one[0]) * len(one[1]), len(one[1])))


def _table(methods: dict[str, Group], each: dict[str, list[np.ndarray]]) -> str:
  counts = {len(own) for tasks in each.values() for own in tasks}
  banded = _banded(each)
  rows = [
    words.row(
      words.name(group),
      [
        (f"{sum(map(len, each[method])):,}", True),
        (_estimate(aggregates.interquartile_mean(each[method]), banded), True),
        (_estimate(aggregates.mean(each[method]), banded), True),
        (_estimate(aggregates.optimality_gap(each[method]), banded), True),
      ],
    )
    for method, group in methods.items()
  ]
  heads = [("Agent", False), ("Scores", True), ("Interquartile mean", True), ("Mean", True), ("Optimality gap", True)]
  how = (
    "Of normalised scores, one for every seed and task. Interquartile mean: of the middle half of all. Optimality gap: "
    "what is lacking to 100 on average; less is better (Agarwal et al. 2021). "
  )
  how += "95 % intervals by a bootstrap of the seeds of every task." if banded else "One seed a task: no intervals."
  if banded and 1 in counts:
    how += " What has one seed does not widen them: they are too narrow."
  if len(counts) > 1:
    how += " Numbers of seeds differ: tasks with more of them weigh more, but in the mean."
  return words.table(heads, rows, "Statistics over tasks and seeds") + words.note(how)


def _banded(each: dict[str, list[np.ndarray]]) -> bool:
  """Whether intervals say anything: the bootstrap draws the seeds of every task anew, and of one always the same."""
  return any(len(own) > 1 for tasks in each.values() for own in tasks)


def _estimate(found: Estimate, banded: bool, decimals: int = 1) -> str:
  return words.score(scores.Score(found.value, (found.low, found.high) if banded else None), decimals)


def _profiles(methods: dict[str, Group], each: dict[str, list[np.ndarray]]) -> str:
  every = np.concatenate([own for tasks in each.values() for own in tasks])
  low, high = min(0.0, float(every.min())), 1.1 * max(1.0, float(every.max()))
  thresholds = np.linspace(low, high, _POINTS)
  drawn = []
  for method, group in methods.items():
    share, below, above = aggregates.performance_profile(each[method], thresholds)
    points = [
      (float(t), 100 * float(s), (100 * float(b), 100 * float(a)), True)
      for t, s, b, a in zip(thresholds, share, below, above, strict=True)
    ]
    drawn.append(drawing.Line(drawing.colour(group.place), points))
  label = "Share of the seeds above a normalised score. " + "; ".join(
    f"{method}: {np.mean(np.concatenate(each[method]) > 50):.0%} above 50" for method in methods
  )
  x, y = axes.tight(low, high, count=6), axes.tight(0, 100, count=5)
  chart = drawing.lines(drawn, [], label, x=x, y=y)
  bands = "; bands: 95 % interval" if _banded(each) else ""
  caption = f"<figcaption>Per cent of seeds and tasks above a normalised score{bands}.</figcaption>"
  return f"<figure><h4>Performance profiles</h4>{chart}{words.legend([*methods.values()], [])}{caption}</figure>"


def _pairs(methods: dict[str, Group], each: dict[str, list[np.ndarray]]) -> str:
  if len(methods) < 2:
    return ""
  rows = []
  banded = _banded(each)
  for ours, group in methods.items():
    others = {theirs: each[theirs] for theirs in methods if theirs != ours}
    better = {theirs: aggregates.probability_of_improvement(each[ours], own) for theirs, own in others.items()}
    cells = [(_estimate(better[theirs], banded, 2) if theirs in better else "", True) for theirs in methods]
    rows.append(words.row(words.name(group), cells))
  heads = [("Better than", False), *((escape(method), True) for method in methods)]
  how = "Probability that a run of the row is better than one of the column, on a task drawn at random."
  table = words.table(heads, rows, "Probability of improvement")
  return f'<h4>Probability of improvement</h4>{table}<p class="soft">{how}</p>'

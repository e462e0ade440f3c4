"""Likeness to held-out actions: what result.json says of it, as sentences and as sections of the report."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from experiments.report import charts, text
from experiments.report.run import Run, Series, by_seed, interval, number
from ilx.evaluation import summary


class Measure(NamedTuple):
  """A number that says how like the policy's actions are to those held out; ``share``: a part of one, as per cent."""

  key: str
  title: str
  share: bool


# Of continuous and of discrete actions; the first of each is the one that is named first.
MEASURES = (
  Measure("mean_absolute_error", "Mean absolute error", False),
  Measure("root_mean_squared_error", "Root mean squared error", False),
  Measure("explained", "Variance explained", True),
  Measure("accuracy", "Accuracy", True),
  Measure("balanced_accuracy", "Mean recall of actions", True),
  Measure("all_right", "All choices right", True),
  Measure("log_likelihood", "Log-likelihood, in nats", False),
  Measure("commonest_share", "Commonest action alone", True),
)
# Those that are drawn over the updates.
DRAWN = ("mean_absolute_error", "explained", "accuracy")
_COLUMNS = {
  "mean_absolute_error": "Mean absolute error",
  "root_mean_squared_error": "Root mean squared error",
  "std": "Standard deviation of the actions",
  "explained": "Variance explained",
  "count": "Times taken",
  "recall": "Recall",
}
# What was compared.
_COUNTED = ("split", "dataset", "episodes", "transitions")
# Those that are shown of each of several choices.
_OF_CHOICES = ("accuracy", "balanced_accuracy", "commonest_share")
_NOTHING = "\N{EN DASH}"


def found(result: Mapping[str, Any]) -> Mapping[str, Any]:
  """What ``result.json`` says of held-out actions; empty where it says nothing."""
  about = result.get("heldout")
  return about if isinstance(about, Mapping) else {}


def of_parts(about: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """What is said of every part of the action, by its path and a slash; of an action of one part by the empty string."""
  parts = about.get("parts")
  if not isinstance(parts, Mapping):
    return {"": about} if about else {}
  return {f"{path}/": part for path, part in parts.items() if isinstance(part, Mapping)}


def paths(metrics: Iterable[str]) -> list[str]:
  """The paths of the parts that logged metrics are of, as of ``of_parts``."""
  keys = "|".join(measure.key for measure in MEASURES)
  found = (re.fullmatch(rf"eval/heldout_((?:.+/)?)(?:{keys})", name) for name in metrics)
  return list(dict.fromkeys(match[1] for match in found if match))


def titled(path: str, title: str) -> str:
  """``stick: mean absolute error``."""
  return f"{path[:-1]}: {title[0].lower()}{title[1:]}" if path else title


def measures(result: Mapping[str, Any], minus: str = text.MINUS) -> list[tuple[str, str]]:
  """(name, value) of what was measured; behind the value its interval, where there is one."""
  return [
    (titled(path, measure.title), shown(value, measure.share, minus) + _band(about, measure, minus))
    for path, about in of_parts(found(result)).items()
    for measure in MEASURES
    if (value := number(about.get(measure.key))) is not None
  ]


def _band(about: Mapping[str, Any], measure: Measure, minus: str) -> str:
  band = interval(about.get(f"{measure.key}_ci95"))
  return f" ({' to '.join(shown(edge, measure.share, minus) for edge in band)})" if band else ""


def over_seeds(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """What ``result.json`` would say of several seeds: means of what all of them know, and 95 % intervals over them.

  Args:
    each: of every seed what ``found`` gives.

  Returns:
    As ``found``, with intervals as ``accuracy_ci95`` and the like where there are several seeds, and without
    single dimensions and choices; empty where nothing is known of all.
  """
  parts = [of_parts(about) for about in each]
  told = {path: _means([own.get(path, {}) for own in parts]) for path in (parts[0] if parts else {})}
  told = {path: about for path, about in told.items() if about}
  if not told:
    return {}
  first = each[0]
  same = {key: first[key] for key in first if key in _COUNTED and all(about.get(key) == first[key] for about in each)}
  return same | (told[""] if "" in told else {"parts": {path[:-1]: about for path, about in told.items()}})


def _means(abouts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  means: dict[str, Any] = {}
  for measure in MEASURES:
    values = [number(about.get(measure.key)) for about in abouts]
    if None in values:
      continue
    means[measure.key] = float(np.mean(values))
    if len(values) > 1 and measure.key != "commonest_share":  # the data's own
      means[f"{measure.key}_ci95"] = summary(np.array(values))["mean_ci95"]
  return means


def shown(value: float, share: bool, minus: str = text.MINUS) -> str:
  """A measure as text."""
  return f"{text.fixed(100 * value, 1, minus)} %" if share else text.significant(value, minus)


def counts(result: Mapping[str, Any]) -> str:
  """``2,500 transitions of 10 held-out episodes (val of other)``; empty where it is not known."""
  about = found(result)
  transitions, episodes = number(about.get("transitions")), number(about.get("episodes"))
  if transitions is None or episodes is None:
    return ""
  of = f" of {text.short_datasets(str(about['dataset']))}" if about.get("dataset") else ""
  split = f" ({about['split']}{of})" if about.get("split") else ""
  return f"{transitions:,.0f} transitions of {episodes:,.0f} held-out episodes{split}"


def verdict(result: Mapping[str, Any]) -> str:
  """A sentence, of several parts of the action one each; empty where nothing was held out."""
  said = {path: _sentence(about, counts(result)) for path, about in of_parts(found(result)).items()}
  return " ".join(f"{path[:-1]}: {sentence}" if path else sentence for path, sentence in said.items() if sentence)


def _sentence(about: Mapping[str, Any], where: str) -> str:
  explained, accuracy = number(about.get("explained")), number(about.get("accuracy"))
  error, common = number(about.get("mean_absolute_error")), number(about.get("commonest_share"))
  if accuracy is not None:
    several = isinstance(about.get("choices"), list)
    which = "the commonest of each" if several else "the commonest one"
    beside = f"; always {which} would be right in {shown(common, True)}" if common is not None else ""
    if several:
      return f"The policy's choices are those made in {shown(accuracy, True)} of {where}, on average{beside}."
    return f"The policy chooses the action taken in {shown(accuracy, True)} of {where}{beside}."
  if error is None:
    return ""
  more = "" if explained is None else f" and explain {shown(explained, True)} of their variance"
  if explained is not None and explained < 0:
    more = ", which is worse than always the mean action"
  return f"The policy's actions are off by {text.significant(error)} on average over {where}{more}."


def section(run: Run) -> str:
  """Curves of the measures over the updates, and a table of every dimension, action or choice; empty without any."""
  about = found(run.result)
  plots = [
    plot
    for path in paths(run.series)
    for measure in MEASURES
    if (series := run.series.get(f"eval/heldout_{path}{measure.key}")) and (plot := _curve(path, measure, series, run))
  ]
  if not about and not plots:
    return ""
  rows = "".join(
    f'<tr><th scope="row">{escape(title)}</th><td class="num">{escape(value)}</td></tr>'
    for title, value in measures(run.result)
  )
  table = f'<table class="facts"><tbody>{rows}</tbody></table>' if rows else ""
  where = counts(run.result)
  note = f'<p class="note">{escape(where[:1].upper() + where[1:])}, none of them played.</p>' if where else ""
  each = "".join(_each(part, f" of {path[:-1]}" if path else "") for path, part in of_parts(about).items())
  return f"<section><h2>Held-out actions</h2>{note}{''.join(plots)}{table}{each}</section>"


def _curve(path: str, measure: Measure, series: Series, run: Run) -> str:
  points = [(s, v) for s, v in zip(series.steps, map(number, series.values), strict=True) if v is not None]
  if len(points) < 2 or measure.key not in DRAWN:
    return ""
  steps, values = [s for s, _ in points], [100 * v if measure.share else v for _, v in points]
  first, last = shown(points[0][1], measure.share), shown(points[-1][1], measure.share)
  titles = [f"update {s:,}: {shown(v, measure.share)}" for s, v in points]
  title = titled(path, measure.title)
  label = f"{title} {first} at {steps[0]:,} updates, {last} at {steps[-1]:,}"
  each = [
    (own.steps, [math.nan if (x := number(v)) is None else 100 * x if measure.share else x for v in own.values])
    for own in by_seed(run.series, f"eval/heldout_{path}{measure.key}")
  ]
  chart = charts.lines(steps, values, [], [], label, titles, height=200, each=each)
  caption = f"{title}{', per cent' if measure.share else ''}, over updates"
  caption += "; thin lines: every seed" if each else ""
  return f"<figure>{chart}<figcaption>{escape(caption)}</figcaption></figure>"


def _each(about: Mapping[str, Any], of: str) -> str:
  """A row for every dimension, action or choice of the action; ``of``: which part's."""
  if isinstance(about.get("choices"), list):
    return _choices(about["choices"], of)
  for key, name in (("dimensions", "Dimension"), ("actions", "Action")):
    columns = about.get(key)
    if not isinstance(columns, Mapping):
      continue
    kept = {title: columns[c] for c, title in _COLUMNS.items() if isinstance(columns.get(c), list)}
    length = max(map(len, kept.values()), default=0)
    if not length or len({len(column) for column in kept.values()}) != 1:
      continue
    shares = (_COLUMNS["explained"], _COLUMNS["recall"])
    cells = {title: [_cell(value, title in shares) for value in column] for title, column in kept.items()}
    return _table(name, of, _names(columns.get("names"), length), cells)
  return ""


def _choices(choices: list[Any], of: str) -> str:
  """A row for each of several choices; of those between two, of buttons above all, how often the second is taken."""
  choices = [choice if isinstance(choice, Mapping) else {} for choice in choices]
  actions = [one if isinstance(one := choice.get("actions"), Mapping) else {} for choice in choices]
  pressed = [_pressed(one) for one in actions]
  columns = {
    "Pressed in the data": [share for share, _ in pressed],
    "Recall of presses": [recall for _, recall in pressed],
    **{m.title: [number(choice.get(m.key)) for choice in choices] for m in MEASURES if m.key in _OF_CHOICES},
  }
  cells = {
    title: [_NOTHING if value is None else escape(shown(value, True)) for value in column]
    for title, column in columns.items()
    if any(value is not None for value in column)
  }
  if not cells:
    return ""
  buttons = all(len(one["count"]) == 2 if isinstance(one.get("count"), list) else False for one in actions)
  return _table("Button" if buttons else "Choice", of, _names([c.get("name") for c in choices], len(choices)), cells)


def _pressed(actions: Mapping[str, Any]) -> tuple[float | None, float | None]:
  """How often the second of two was taken, as a share, and its recall; None where there are not two."""
  count, recall = actions.get("count"), actions.get("recall")
  counts = list(map(number, count)) if isinstance(count, list) else []
  if len(counts) != 2 or None in counts or min(counts) < 0 or not sum(counts):
    return None, None
  return counts[1] / sum(counts), number(recall[1]) if isinstance(recall, list) and len(recall) == 2 else None


def _names(given: Any, count: int) -> list[str]:
  """Those given, where they are so many texts; else numbers."""
  known = isinstance(given, list) and len(given) == count and all(isinstance(name, str) for name in given)
  return given if known else [str(place) for place in range(count)]


def _table(what: str, of: str, names: list[str], columns: Mapping[str, list[str]]) -> str:
  """A table, closed until asked for; ``columns``: cells of HTML by heading."""
  heads = "".join(f'<th scope="col" class="num">{escape(title)}</th>' for title in columns)
  rows = "".join(
    f'<tr><th scope="row">{escape(name)}</th>'
    + "".join(f'<td class="num">{column[place]}</td>' for column in columns.values())
    + "</tr>"
    for place, name in enumerate(names)
  )
  title = escape(f"Every {what.lower()}{of}")
  # It scrolls sideways where it is too wide, so it must take the keyboard's focus.
  return (
    f'<details class="soft"><summary>{title}</summary><div class="wide" tabindex="0" role="region" '
    f'aria-label="{title}"><table><thead><tr><th scope="col">{what}</th>'
    f"{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"
  )


def _cell(value: Any, share: bool) -> str:
  found = number(value)
  return "none" if found is None else escape(shown(found, share))

"""Likeness to held-out actions: what result.json says of it, as sentences and as sections of the report."""

import math
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple

from experiments.report import charts, text
from experiments.report.run import Run, Series, by_seed, number


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
  """(name, value) of what was measured."""
  return [
    (titled(path, measure.title), shown(value, measure.share, minus))
    for path, about in of_parts(found(result)).items()
    for measure in MEASURES
    if (value := number(about.get(measure.key))) is not None
  ]


def shown(value: float, share: bool, minus: str = text.MINUS) -> str:
  """A measure as text."""
  return f"{text.fixed(100 * value, 1, minus)} %" if share else text.significant(value, minus)


def counts(result: Mapping[str, Any]) -> str:
  """``2,500 transitions of 10 held-out episodes (val)``; empty where it is not known."""
  about = found(result)
  transitions, episodes = number(about.get("transitions")), number(about.get("episodes"))
  if transitions is None or episodes is None:
    return ""
  split = f" ({about['split']})" if about.get("split") else ""
  return f"{transitions:,.0f} transitions of {episodes:,.0f} held-out episodes{split}"


def verdict(result: Mapping[str, Any]) -> str:
  """A sentence, of several parts of the action one each; empty where nothing was held out."""
  said = {path: _sentence(about, counts(result)) for path, about in of_parts(found(result)).items()}
  return " ".join(f"{path[:-1]}: {sentence}" if path else sentence for path, sentence in said.items() if sentence)


def _sentence(about: Mapping[str, Any], where: str) -> str:
  explained, accuracy = number(about.get("explained")), number(about.get("accuracy"))
  error, common = number(about.get("mean_absolute_error")), number(about.get("commonest_share"))
  if accuracy is not None:
    beside = f"; always the commonest one would be right in {shown(common, True)}" if common is not None else ""
    return f"The policy chooses the action taken in {shown(accuracy, True)} of {where}{beside}."
  if error is None:
    return ""
  more = "" if explained is None else f" and explain {shown(explained, True)} of their variance"
  if explained is not None and explained < 0:
    more = ", which is worse than always the mean action"
  return f"The policy's actions are off by {text.significant(error)} on average over {where}{more}."


def section(run: Run) -> str:
  """Curves of the measures over the updates, and the table of every dimension or action; empty without any."""
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
  """A row for every dimension of the action, or every action; ``of``: which part's."""
  for key, name in (("dimensions", "Dimension"), ("actions", "Action")):
    columns = about.get(key)
    if not isinstance(columns, Mapping):
      continue
    kept = {title: columns[c] for c, title in _COLUMNS.items() if isinstance(columns.get(c), list)}
    length = max(map(len, kept.values()), default=0)
    if not length or len({len(column) for column in kept.values()}) != 1:
      continue
    heads = "".join(f'<th scope="col" class="num">{title}</th>' for title in kept)
    shares = (_COLUMNS["explained"], _COLUMNS["recall"])
    rows = "".join(
      f'<tr><th scope="row">{place}</th>'
      + "".join(f'<td class="num">{_cell(column[place], title in shares)}</td>' for title, column in kept.items())
      + "</tr>"
      for place in range(length)
    )
    return (
      f'<details class="soft"><summary>Every {name.lower()}{escape(of)}</summary>'
      f'<table><thead><tr><th scope="col">{name}</th>'
      f"{heads}</tr></thead><tbody>{rows}</tbody></table></details>"
    )
  return ""


def _cell(value: Any, share: bool) -> str:
  found = number(value)
  return "none" if found is None else escape(shown(found, share))

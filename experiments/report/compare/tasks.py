"""A task: learning curves of its groups, and their scores beside the references."""

from collections.abc import Sequence
from html import escape

from experiments.report import axes, charts, facts, heldout, parts, text
from experiments.report.charts import Reference
from experiments.report.compare import drawing, overview, scores, words
from experiments.report.compare.groups import Group
from experiments.report.compare.scores import Point
from experiments.report.run import number
from experiments.report.sections import NAMES


def section(groups: Sequence[Group]) -> str:
  """For every task its curves and scores."""
  tasks = list(dict.fromkeys(group.task for group in groups))
  found = [_task(groups, [group for group in groups if group.task == task]) for task in tasks]
  return parts.section("Learning curves", "".join(found))


def references(groups: Sequence[Group]) -> list[Reference]:
  """The expert's, the data's and a random policy's return, of the first result of the task that knows them."""
  results = [part for group in groups for part in [*(run.result for run in group.runs), *scores.parts(group)]]
  found = []
  for kind in facts.REFERENCES:
    value = next((x for result in results if (x := number(result.get(f"{kind}_return"))) is not None), None)
    found += [] if value is None else [Reference(kind, value)]
  return found


def _task(every: Sequence[Group], groups: Sequence[Group]) -> str:
  decimals = overview.decimals_of(every, groups[0].task)
  figures = [_chart(groups, *metric) for metric in _metrics(groups)]
  figures.append(_scores(groups, decimals))
  shown = [chart for chart in figures if chart] or [words.note("Nothing was evaluated (yet).")]
  places = sorted({overview.environment(group) for group in groups})
  head = f'<h3>{escape(groups[0].task)}</h3><p class="soft">{escape("; ".join(places))}</p>'
  columns = "".join(f"<div>{chart}</div>" for chart in shown)
  return f'<div class="task">{head}<div class="pair">{columns}</div></div>'


def _metrics(groups: Sequence[Group]) -> list[tuple[str, str, bool]]:
  """What is drawn over the updates: (metric, heading, whether a share)."""
  logged = dict.fromkeys(name for group in groups for run in group.runs for name in run.series)
  held = [
    (f"eval/heldout_{path}{m.key}", heldout.titled(path, f"{m.title} on held-out actions"), m.share)
    for path in heldout.paths(logged)
    for m in heldout.MEASURES
    if m.key in heldout.DRAWN
  ]
  return [(scores.RETURN, "Mean return", False), *held]


def _chart(groups: Sequence[Group], metric: str, title: str, share: bool) -> str:
  curves = [(group, points) for group in groups if (points := scores.curve(group, metric))]
  if not curves:
    return ""
  scale = 100 if share else 1
  drawn = [_line(group, points, scale) for group, points in curves]
  values = [value for line in drawn for _, value, _, _ in line.points]
  known = references(groups) if metric == scores.RETURN else []
  near = drawing.shown(known, values)
  decimals = text.decimals_for(values)
  label = f"{title} over updates. " + "; ".join(
    f"{group.method}: {text.fixed(scale * points[-1].mean, decimals)} at {points[-1].step:,}"
    for group, points in curves
  )
  chart = drawing.lines(drawn, near, label)
  places = text.decimals_for(r.value for r in known)
  far = [
    f" {NAMES[r.kind]} ({text.fixed(r.value, places)}) is {'below' if r.value < min(values) else 'above'} the chart."
    for r in known
    if r not in near
  ]
  caption = f"{title}{', per cent' if share else ''}, over updates.{''.join(far)} {_meaning(curves)}"
  legend = words.legend(groups, near)
  return f"<figure><h4>{escape(title)}</h4>{chart}{legend}<figcaption>{escape(caption)}</figcaption></figure>"


def _meaning(curves: Sequence[tuple[Group, Sequence[Point]]]) -> str:
  """What bands and faint lines are."""
  several = any(point.count > 1 for _, points in curves for point in points)
  alone = any(point.band and point.count == 1 for _, points in curves for point in points)
  said = []
  if several:
    said.append("Lines: mean of the seeds; bands: its 95 % interval over the seeds.")
  if alone:
    said.append(f"{'Of one seed' if several else 'Bands'}: 95 % interval over the episodes.")
  if any(point.count < scores.seeds(group) for group, points in curves for point in points):
    said.append("Dotted: not all seeds are there.")
  return " ".join(said)


def _line(group: Group, points: Sequence[Point], scale: float) -> drawing.Line:
  count = scores.seeds(group)
  decimals = text.decimals_for(scale * point.mean for point in points)
  drawn, titles = [], []
  for point in points:
    band = (scale * point.band[0], scale * point.band[1]) if point.band else None
    drawn.append((point.step, scale * point.mean, band, point.count >= count))
    title = f"{group.method}, update {point.step:,}: {text.fixed(scale * point.mean, decimals)}"
    title += f", 95 % interval {parts.band(band, decimals)}" if band else ""
    titles.append(f"{title}, {point.count} of {words.counted(count, 'seed')}")
  return drawing.Line(drawing.colour(group.place), drawn, titles)


def _scores(groups: Sequence[Group], decimals: int) -> str:
  """A row for every group and reference: the mean, its interval, and every seed."""
  found = [(group, score) for group in groups if (score := scores.returns(group))]
  if not found:
    return words.note("No run of this task is finished and scored yet.") if groups[0].env_id is not None else ""
  known = references(groups)
  each = {id(group): [number(part.get("return_mean")) for part in scores.parts(group)] for group, _ in found}
  values = [x for own in each.values() for x in own if x is not None]
  values += [edge for _, score in found for edge in score.band or ()] + [r.value for r in known]
  axis = axes.linear(values, count=4)
  rows = [
    _row(
      words.name(group),
      words.score(score, decimals),
      drawing.track(
        axis,
        score.mean,
        score.band,
        [x for x in each[id(group)] if x is not None] if len(each[id(group)]) > 1 else [],
        drawing.colour(group.place),
      ),
    )
    for group, score in found
  ]
  rows += [
    _row(NAMES[r.kind], text.fixed(r.value, decimals), drawing.track(axis, r.value, None, [], r.kind)) for r in known
  ]
  rows += [
    f'<tr><th scope="row">{words.name(group)}</th><td class="rail-cell quiet">not scored yet</td><td></td></tr>'
    for group in groups
    if group not in [scored for scored, _ in found]
  ]
  ruler = f'<tr class="axis" aria-hidden="true"><td></td><td class="rail-cell">{charts.ruler(axis)}</td></tr>'
  body = f'<table class="compare"><tbody>{"".join(rows)}{ruler}</tbody></table>'
  meaning = "Small dots: seeds; bars: 95 % interval." if any(len(own) > 1 for own in each.values()) else ""
  caption = f"<figcaption>Mean return of the last checkpoint. {meaning}</figcaption>"
  return f"<figure><h4>Score after the last update</h4>{body}{caption}</figure>"


def _row(name: str, value: str, track: str) -> str:
  return f'<tr><th scope="row">{name}</th><td class="rail-cell">{track}</td><td class="num">{value}</td></tr>'

"""Charts of several groups, each in the colour of its method."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from experiments.report import axes, svg
from experiments.report.axes import Axis
from experiments.report.charts import Reference, near

# The style sheet has as many colours, and ways to dash lines for what comes after them.
COLOURS, DASHES = 8, 3


class Line(NamedTuple):
  """One group's curve.

  Attributes:
    kind: its classes, of ``colour``.
    points: (x, y, band or None, whole), x increasing: the band is ``(low, high)``; a point that is not ``whole`` speaks
      of a part of the seeds alone.
    titles: a tooltip for every point, or none.
  """

  kind: str
  points: Sequence[tuple[float, float, tuple[float, float] | None, bool]]
  titles: Sequence[str] = ()


def colour(place: int) -> str:
  """The classes of what is drawn for the method of this number."""
  dash = place // COLOURS % DASHES
  return f"g{place % COLOURS}" + (f" d{dash}" if dash else "")


def shown(references: Sequence[Reference], values: Sequence[float]) -> list[Reference]:
  """The references near enough to the values to be drawn with them."""
  return [one for one in references if near(one.value, (min(values), max(values)))]


def lines(
  groups: Sequence[Line],
  references: Sequence[Reference],
  label: str,
  height: int = 300,
  x: Axis | None = None,
  y: Axis | None = None,
) -> str:
  """Curves with their bands. The axes are made for what is there unless they are given.

  Args:
    groups: at least one, each of at least one point, finite.
    references: horizontal lines.
    label: what the chart shows, in words.
    height: in pixels.
    x, y: the axes.
  """
  every = [point for group in groups for point in group.points]
  edges = [edge for _, _, band, _ in every if band for edge in band]
  y = y or axes.linear([*(value for _, value, _, _ in every), *edges, *(one.value for one in references)])
  last = max(point[0] for point in every)
  x = x or axes.tight(min(0, *(point[0] for point in every)), max(last, 1), count=6)
  body = [svg.grid_y(y), svg.ticks_x(x)]
  for one in references:
    body.append(svg.line(0, 100 - y.percent(one.value), 100, 100 - y.percent(one.value), f"ref {one.kind}"))
  paths = "".join(_band(group, x, y) for group in groups) + "".join(_curve(group, x, y) for group in groups)
  body.append(f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{paths}</svg>')
  body += [_dots(group, x, y) for group in groups]
  return svg.framed(body, label, height)


def track(axis: Axis, value: float, band: tuple[float, float] | None, each: Sequence[float], kind: str) -> str:
  """A row of a comparison: a dot with its interval on a shared axis, and a small one for every seed."""
  body = [svg.line(axis.percent(m), 0, axis.percent(m), 100, "mark") for m, _ in axis.ticks]
  body.append(svg.line(0, 50, 100, 50, "rail"))
  if band:
    body.append(svg.line(axis.percent(band[0]), 50, axis.percent(band[1]), 50, "span"))
  body += [f'<circle class="one" cx="{axis.percent(one):.2f}%" cy="50%" r="2.5"/>' for one in each]
  body.append(f'<circle cx="{axis.percent(value):.2f}%" cy="50%" r="5.5"/>')
  return f'<svg class="track {kind}" aria-hidden="true">{"".join(body)}</svg>'


def key(kind: str) -> str:
  """A short sample of a curve, for legends and tables."""
  return f'<svg class="key {kind}" aria-hidden="true">{svg.line(0, 50, 100, 50, "curve")}</svg>'


def _band(group: Line, x: Axis, y: Axis) -> str:
  spans = [(x.percent(s), 100 - y.percent(b[0]), 100 - y.percent(b[1])) for s, _, b, _ in group.points if b]
  if len(spans) < 2:
    return ""
  low = svg.thin([(at, edge) for at, edge, _ in spans])
  high = svg.thin([(at, edge) for at, _, edge in spans])
  return svg.path([*low, *reversed(high)], f"band {group.kind}", close=True)


def _curve(group: Line, x: Axis, y: Axis) -> str:
  """Whole stretches, and beside them, fainter, those of a part of the seeds."""
  at = [(x.percent(s), 100 - y.percent(value), whole) for s, value, _, whole in group.points]
  gap = (math.nan, math.nan)
  solid = [(a, b) if whole else (a, math.nan) for a, b, whole in at]
  faint = []
  for before, after in itertools.pairwise(at):
    faint += [gap] if before[2] and after[2] else [*([] if faint[-1:] == [before[:2]] else [before[:2]]), after[:2]]
  paths = [svg.path(part, f"curve {group.kind}") for part in svg.segments(svg.thin(solid)) if len(part) > 1]
  return "".join(paths + [svg.path(part, f"curve few {group.kind}") for part in svg.segments(faint) if len(part) > 1])


def _dots(group: Line, x: Axis, y: Axis) -> str:
  """Of few points each, with its tooltip; and the interval that is alone, so that no band can show it."""
  points = group.points if len(group.points) <= 40 else []
  found = []
  if len(spans := [(step, band) for step, _, band, _ in group.points if band]) == 1:
    at, (low, high) = x.percent(spans[0][0]), spans[0][1]
    found.append(svg.line(at, 100 - y.percent(low), at, 100 - y.percent(high), "whisker"))
  titles = group.titles or [""] * len(points)
  found += [svg.dot(x.percent(p[0]), 100 - y.percent(p[1]), t) for p, t in zip(points, titles, strict=False)]
  return f'<g class="{group.kind}">{"".join(found)}</g>'

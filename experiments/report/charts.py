"""Charts as inline SVG: positions in per cent and text in pixels, so that they fit any width and stay legible.

Colours come from the page's style sheet by class. Nothing here sets a style attribute, which the page's
Content-Security-Policy would refuse.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from experiments.report import axes, svg
from experiments.report.axes import Axis


class Reference(NamedTuple):
  """A line to compare with: ``kind`` is its class and name (expert, data or random)."""

  kind: str
  value: float


def lines(
  steps: Sequence[float],
  values: Sequence[float],
  bands: Sequence[tuple[float, float] | None],
  references: Sequence[Reference],
  label: str,
  titles: Sequence[str] = (),
  height: int = 260,
  each: Sequence[tuple[Sequence[float], Sequence[float]]] = (),
) -> str:
  """A curve over updates with an interval band, dots, and horizontal reference lines.

  Args:
    steps: updates, increasing.
    values: one a step; NaN leaves a gap.
    bands: ``(low, high)`` or None, one a step; empty for none at all.
    references: horizontal lines.
    label: what the chart shows, in words, for those who do not see it.
    titles: a tooltip for each point, which then has a dot (values must be finite), or none.
    height: in pixels.
    each: steps and values of what the curve is the mean of, for thin lines; NaN leaves a gap.
  """
  finite = [v for own in (values, *(own for _, own in each)) for v in own if math.isfinite(v)]
  edges = [edge for band in bands if band for edge in band]
  positive = not references and not edges and min(finite) > 0
  y = axes.logarithmic(finite) if positive and max(finite) > 30 * min(finite) else None
  y = y or axes.linear([*finite, *edges, *(r.value for r in references)])
  x = axes.tight(min(0, steps[0]), max(steps[-1], 1), count=6)
  points = [(x.percent(s), 100 - y.percent(v)) for s, v in zip(steps, values, strict=True)]
  body = [svg.grid_y(y), svg.ticks_x(x)]
  body += [svg.line(0, 100 - y.percent(r.value), 100, 100 - y.percent(r.value), f"ref {r.kind}") for r in references]
  spans = [
    (x.percent(s), 100 - y.percent(band[0]), 100 - y.percent(band[1]))
    for s, band in zip(steps, bands, strict=False)
    if band
  ]
  outline = [(p, low) for p, low, _ in spans] + [(p, high) for p, _, high in reversed(spans)]
  paths = svg.path(outline, "band", close=True) if len(spans) > 1 else ""
  for own_steps, own_values in each:
    thin = svg.thin([(x.percent(s), 100 - y.percent(v)) for s, v in zip(own_steps, own_values, strict=True)])
    paths += "".join(svg.path(part, "thin") for part in svg.segments(thin) if len(part) > 1)
  parts = svg.segments(svg.thin(points))
  paths += "".join(svg.path(part, "curve") for part in parts if len(part) > 1)
  body.append(f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{paths}</svg>')
  if len(spans) == 1:
    body.append(svg.line(spans[0][0], spans[0][1], spans[0][0], spans[0][2], "whisker"))
  if titles and len(points) <= 40:
    body += [svg.dot(*point, title) for point, title in zip(points, titles, strict=True)]
  else:
    body += [svg.dot(*part[0]) for part in parts if len(part) == 1]
  return svg.framed(body, label, height)


def histogram(values: Sequence[float], references: Sequence[Reference], label: str, height: int = 220) -> str:
  """Counts of ``values`` with vertical reference lines; those far outside the values are left out (see ``near``)."""
  edges = bins([*values])
  counts = [0] * (len(edges) - 1)
  width = edges[1] - edges[0]
  for value in values:
    counts[min(max(int((value - edges[0]) / width), 0), len(counts) - 1)] += 1
  return bars(edges, counts, references, label, height)


def bars(
  edges: Sequence[float], counts: Sequence[float], references: Sequence[Reference], label: str, height: int = 220
) -> str:
  """Bars between ``edges`` (one more than ``counts``) with vertical reference lines, as in ``histogram``."""
  shown = [r for r in references if near(r.value, edges)]
  low, high = min([edges[0], *(r.value for r in shown)]), max([edges[-1], *(r.value for r in shown)])
  x = axes.tight(low - 0.04 * (high - low), high + 0.04 * (high - low), count=6 if height > 150 else 3)
  y = axes.linear([0, max(counts)], count=min(4, max(1, math.ceil(max(counts)))))
  body = [svg.grid_y(y), svg.ticks_x(x)]
  for left, right, count in zip(edges, edges[1:], counts, strict=False):
    if count:
      a, b, top = x.percent(left), x.percent(right), 100 - y.percent(count)
      title = f"<title>{escape(f'{left:,.6g} to {right:,.6g}: {count:,.6g}')}</title>"
      body.append(
        f'<rect class="bar" x="{a:.3f}%" y="{top:.2f}%" width="{b - a:.3f}%" height="{100 - top:.2f}%">{title}</rect>'
      )
  body += [svg.line(x.percent(r.value), 0, x.percent(r.value), 100, f"ref {r.kind}") for r in shown]
  return svg.framed(body, label, height)


def scatter(xs: Sequence[float], ys: Sequence[float], label: str, height: int = 220) -> str:
  """One dot for each pair."""
  x, y = axes.linear(xs, count=6), axes.linear(ys, count=4)
  dots = "".join(
    f'<circle class="spot" cx="{x.percent(a):.2f}%" cy="{100 - y.percent(b):.2f}%" r="3"/>'
    for a, b in zip(xs, ys, strict=True)
  )
  return svg.framed([svg.grid_y(y), svg.ticks_x(x), dots], label, height)


def bins(values: Sequence[float]) -> list[float]:
  """Edges of 1 to 30 equal bins with round borders, of about Freedman and Diaconis' (1981) width."""
  ordered = sorted(values)
  low, high = ordered[0], ordered[-1]
  if high - low <= 1e-9 * max(abs(low), abs(high)):
    half = 0.02 * abs(low) or 0.5
    return [low - half, low + half]
  count = len(ordered)
  spread = ordered[(3 * count) // 4] - ordered[count // 4]
  width = min(2 * spread / count ** (1 / 3), (high - low) / 4)
  step = max(axes.step_below(width) if width else 0.0, axes.nice_step((high - low) / 30))
  first = math.floor(low / step + 1e-9)
  last = max(math.ceil(high / step - 1e-9), first + 1)
  return [i * step for i in range(first, last + 1)]


def near(value: float, edges: Sequence[float]) -> bool:
  """Whether a reference can be drawn with the bins without squeezing them to less than a third of the width."""
  return edges[-1] - edges[0] >= (max(value, edges[-1]) - min(value, edges[0])) / 3


def track(axis: Axis, value: float, band: tuple[float, float] | None, marks: Sequence[float], kind: str) -> str:
  """One row of the comparison: a dot with its interval on a shared axis; ``marks`` are faint vertical lines."""
  body = [svg.line(axis.percent(m), 0, axis.percent(m), 100, "mark") for m in marks]
  body.append(svg.line(0, 50, 100, 50, "rail"))
  if band:
    body.append(svg.line(axis.percent(band[0]), 50, axis.percent(band[1]), 50, "span"))
  body.append(f'<circle cx="{axis.percent(value):.2f}%" cy="50%" r="{6 if kind == "policy" else 4.5}"/>')
  return f'<svg class="track {kind}" aria-hidden="true">{"".join(body)}</svg>'


def ruler(axis: Axis) -> str:
  """The tick labels under the comparison's rows."""
  return f'<svg class="track ruler" aria-hidden="true">{svg.ticks_x(axis, top=True)}</svg>'


def key(kind: str) -> str:
  """A short sample of a line for the legend."""
  return f'<svg class="key" aria-hidden="true">{svg.line(0, 50, 100, 50, kind)}</svg>'

"""What charts are drawn with: SVG elements at positions in per cent, of classes that the style sheet colours."""

import math
from collections.abc import Sequence
from html import escape

from experiments.report.axes import Axis

# More points than this are not visible; each bucket keeps its lowest and highest.
MAX_POINTS = 600


def framed(body: Sequence[str], label: str, height: int) -> str:
  """An SVG element over the whole width of its box, of ``height`` pixels; ``label`` tells in words what it shows."""
  inner = "".join(body)
  return (
    f'<div class="plot"><svg role="img" aria-label="{escape(label)}" width="100%" height="{height}">{inner}</svg></div>'
  )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
  """From one point to another, in per cent; ``kind`` is its class."""
  return f'<line class="{kind}" x1="{x1:.2f}%" y1="{y1:.2f}%" x2="{x2:.2f}%" y2="{y2:.2f}%"/>'


def dot(x: float, y: float, title: str = "") -> str:
  """A mark of a point, with a tooltip."""
  tip = f"<title>{escape(title)}</title>" if title else ""
  return f'<circle class="dot" cx="{x:.2f}%" cy="{y:.2f}%" r="3">{tip}</circle>'


def grid_y(axis: Axis) -> str:
  """Horizontal lines at the ticks, with their labels on the left."""
  parts = []
  for value, name in axis.ticks:
    at = 100 - axis.percent(value)
    parts.append(line(0, at, 100, at, "grid"))
    parts.append(f'<text class="tick" x="-8" y="{at:.2f}%" dy="0.32em" text-anchor="end">{escape(name)}</text>')
  return "".join(parts)


def ticks_x(axis: Axis, top: bool = False) -> str:
  """The labels of the ticks under the chart, or ``top``: under the upper edge."""
  # The label is placed under the chart by dy; the svg element does not clip it.
  y, dy = ("0%", "1.1em") if top else ("100%", "1.6em")
  return "".join(
    f'<text class="tick" x="{axis.percent(value):.2f}%" y="{y}" dy="{dy}" text-anchor="middle">{escape(name)}</text>'
    for value, name in axis.ticks
  )


def path(points: Sequence[tuple[float, float]], kind: str, close: bool = False) -> str:
  """A line through ``points``; ``close``: back to the first, for an area."""
  commands = "L".join(f"{x:.2f} {y:.2f}" for x, y in points)
  return f'<path class="{kind}" vector-effect="non-scaling-stroke" d="M{commands}{"Z" if close else ""}"/>'


def segments(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
  """Runs of points without a gap."""
  parts: list[list[tuple[float, float]]] = [[]]
  for point in points:
    if math.isfinite(point[1]):
      parts[-1].append(point)
    elif parts[-1]:
      parts.append([])
  return parts


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
  """At most about ``MAX_POINTS`` points: lowest and highest of each bucket, so that spikes and gaps stay visible."""
  if len(points) <= MAX_POINTS:
    return list(points)
  size = math.ceil(2 * len(points) / MAX_POINTS)
  kept = []
  for start in range(0, len(points), size):
    bucket = points[start : start + size]
    finite = [p for p in bucket if math.isfinite(p[1])]
    ends = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])} if finite else set()
    kept += sorted(ends) + [p for p in bucket if not math.isfinite(p[1])][:1]
  return kept

"""What several sections of the report are made of."""

from html import escape

from experiments.report import charts, facts, text
from experiments.report.charts import Reference
from experiments.report.run import Run


def references(run: Run) -> list[Reference]:
  """The expert's, the data's and a random policy's return, as far as they are known."""
  return [Reference(r.kind, r.value) for r in facts.scores(run.result)[1:] if r.value is not None]


def legend(own: list[tuple[str, str]], references: list[Reference]) -> str:
  """What the lines of a chart are: the chart's own as (class, name), then the references."""
  decimals = text.decimals_for(r.value for r in references)
  items = [(kind, name) for kind, name in own]
  items += [(f"ref {r.kind}", f"{r.kind} {text.fixed(r.value, decimals)}") for r in references]
  return f'<ul class="legend">{"".join(f"<li>{charts.key(kind)}{escape(name)}</li>" for kind, name in items)}</ul>'


def band(edges: tuple[float, float], decimals: int) -> str:
  """An interval as text."""
  return f"{text.fixed(edges[0], decimals)} to {text.fixed(edges[1], decimals)}"


def section(title: str, content: str) -> str:
  """A section with a heading, of plain text and HTML."""
  return f"<section><h2>{title}</h2>{content}</section>"

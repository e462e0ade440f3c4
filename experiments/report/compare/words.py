"""Pieces of HTML that sections of the comparison share. What comes from files is escaped here or where it is used."""

from collections.abc import Iterable, Sequence
from html import escape

from experiments.report import charts, parts, text
from experiments.report.charts import Reference
from experiments.report.compare import drawing
from experiments.report.compare.groups import Group
from experiments.report.compare.scores import Score

NOTHING = '<span class="quiet">\N{EN DASH}</span>'


def name(group: Group, task: str = "") -> str:
  """The group's name beside a sample of its curve, and under it the task, if given."""
  below = f"<small>{escape(task)}</small>" if task else ""
  return (
    f'<span class="name">{drawing.key(drawing.colour(group.place))}<span>{escape(group.method)}{below}</span></span>'
  )


def legend(groups: Sequence[Group], references: Sequence[Reference]) -> str:
  """The groups' curves, then the references."""
  own = "".join(f"<li>{name(group)}</li>" for group in groups)
  decimals = text.decimals_for(one.value for one in references)
  own += "".join(
    f"<li>{charts.key(f'ref {one.kind}')}{one.kind} {text.fixed(one.value, decimals)}</li>" for one in references
  )
  return f'<ul class="legend">{own}</ul>'


def note(sentence: str) -> str:
  """A remark, of plain text."""
  return f'<p class="note">{escape(sentence)}</p>'


def score(found: Score | None, decimals: int) -> str:
  """Mean and interval."""
  if found is None:
    return NOTHING
  band = f"<small>{parts.band(found.band, decimals)}</small>" if found.band else ""
  return f"{text.fixed(found.mean, decimals)}{band}"


def table(heads: Sequence[tuple[str, bool]], rows: Iterable[str], label: str) -> str:
  """A table that scrolls sideways in its own box: heads as (HTML, whether a column of numbers), rows as HTML."""
  cells = "".join(f'<th scope="col"{_number(right)}>{head}</th>' for head, right in heads)
  body = f'<table class="all"><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
  # It scrolls, so it must take the keyboard's focus.
  return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label)}">{body}</div>'


def row(head: str, cells: Iterable[tuple[str, bool]]) -> str:
  """A row of such a table, of HTML."""
  return f'<tr><th scope="row">{head}</th>{"".join(f"<td{_number(right)}>{cell}</td>" for cell, right in cells)}</tr>'


def listed(names: Sequence[str]) -> str:
  """``a, b and c``."""
  return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(count: int, word: str) -> str:
  """``1 run``, ``3 runs``."""
  return f"{count:,} {word}{'' if count == 1 else 's'}"


def _number(right: bool) -> str:
  return ' class="num"' if right else ""

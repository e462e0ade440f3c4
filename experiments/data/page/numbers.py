"""Fields of numbers: a table and a histogram for each dimension."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from experiments.data.page.overview import short
from experiments.report import charts, text

# Dimensions shown at once, and at all.
_OPEN, _TABLE = 9, 64


def sections(card: Mapping[str, Any]) -> str:
  """The action first, then the observation's fields, then the others, which are folded."""

  def order(name: str) -> tuple[int, str]:
    first = name.split("/")[1]
    return ({"action": 0, "observation": 1}.get(first, 2), name)

  out, others = [], []
  for name in sorted(card["numbers"], key=order):
    if order(name)[0] < 2:
      out.append(_field(name, card["numbers"][name]))
    else:
      others.append(_field(name, card["numbers"][name]))
  more = f"<section><details><summary>Other step fields</summary>{''.join(others)}</details></section>"
  return "".join(out) + (more if others else "")


def label(place: int, names: Sequence[str] | None) -> str:
  """A dimension's number and, where it has one, its name: as plain text."""
  return f"{place} {names[place]}" if names else str(place)


def _field(name: str, numbers: Mapping[str, Any]) -> str:
  shape = f" [{', '.join(map(str, numbers['shape']))}]" if numbers["shape"] else ""
  pooled = " All numbers of a step are taken together." if numbers["pooled"] else ""
  title = f"<h2><code>{escape(short(name))}</code>{shape}</h2>"
  if not any(numbers["count"]):
    return f'<section>{title}<p class="note">No finite value.</p></section>'
  count = len(numbers["mean"])
  plots = [_plot(numbers, i, count) for i in range(len(numbers["histograms"])) if numbers["histograms"][i]]
  grid = f'<div class="grid">{"".join(plots[:_OPEN])}</div>'
  if plots[_OPEN:]:
    grid += (
      f'<details class="soft"><summary>{len(plots) - _OPEN} more of {count} dimensions</summary>'
      f'<div class="grid">{"".join(plots[_OPEN:])}</div></details>'
    )
  whole = max(numbers["count"])
  sampled = (
    f" Histograms and quartiles from a sample of {numbers['sampled']:,} {'numbers' if numbers['pooled'] else 'steps'}."
    if numbers["sampled"] < whole
    else ""
  )
  note = f'<p class="soft">{pooled}{sampled}</p>' if pooled or sampled else ""
  return f"<section>{title}{note}{grid}{_choices(numbers)}{_table(numbers, count)}</section>"


def _plot(numbers: Mapping[str, Any], i: int, count: int) -> str:
  histogram = numbers["histograms"][i]
  low, high = text.significant(numbers["min"][i]), text.significant(numbers["max"][i])
  names = numbers.get("names")
  name = f"Dimension {label(i, names)}" if count > 1 else names[0] if names else "All values"
  words = f"{low} to {high}" if low != high else f"always {low}"
  chart = charts.bars(histogram["edges"], histogram["counts"], [], f"{name}: {words}", height=110)
  return f'<div><h3 class="soft">{escape(name)}: {words}</h3><figure>{chart}</figure></div>'


def _choices(numbers: Mapping[str, Any]) -> str:
  """The share of each choice that has a name; empty where none has."""
  chosen = numbers.get("choices")
  if not chosen:
    return ""
  rows = "".join(
    f'<tr><th scope="row">{escape(label(i, chosen["names"]))}</th><td class="num">{100 * share:.2g} %</td></tr>'
    for i, share in enumerate(chosen["share"][:_TABLE])
  )
  return (
    '<table><thead><tr><th scope="col">Choice</th><th scope="col" class="num">Share of the steps</th></tr></thead>'
    f"<tbody>{rows}</tbody></table>{_left(len(chosen['names']), 'choices')}"
  )


def _table(numbers: Mapping[str, Any], count: int) -> str:
  keys = ("mean", "std", "min", "q25", "median", "q75", "max")
  heads = "".join(f'<th scope="col" class="num">{key}</th>' for key in keys)
  rows = "".join(
    f'<tr><th scope="row">{escape(label(i, numbers.get("names")))}</th>'
    + "".join(f'<td class="num">{_number(numbers[key][i])}</td>' for key in keys)
    + f'<td class="num">{numbers["distinct"][i]:,}</td></tr>'
    for i in range(min(count, _TABLE))
  )
  return (
    '<details class="soft"><summary>The numbers</summary><div class="wide" tabindex="0" role="region" '
    f'aria-label="Statistics"><table><thead><tr><th scope="col"></th>{heads}<th scope="col" class="num">distinct</th>'
    f"</tr></thead><tbody>{rows}</tbody></table></div>{_left(count, 'dimensions')}</details>"
  )


def _left(count: int, what: str) -> str:
  return f'<p class="note">{count - _TABLE} more {what} are in the JSON.</p>' if count > _TABLE else ""


def _number(value: float | None) -> str:
  return "–" if value is None else text.significant(value)  # noqa: RUF001

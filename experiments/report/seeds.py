"""A row for every seed of a run of several."""

from collections.abc import Mapping
from html import escape
from typing import Any

from experiments.report import facts, heldout, parts, text
from experiments.report.run import Run, number


def section(run: Run) -> str:
  """The table of the seeds; empty for a run of one."""
  seeds = facts.seeds(run.result)
  if not seeds:
    return ""
  columns = _columns(run.result, seeds)
  heads = "".join(f'<th scope="col" class="num">{escape(name)}</th>' for name in columns)
  rows = "".join(
    f'<tr><th scope="row">{escape(str(seed.get("seed")))}</th>'
    + "".join(f'<td class="num">{escape(cells[place])}</td>' for cells in columns.values())
    + "</tr>"
    for place, seed in enumerate(seeds)
  )
  body = f'<table><thead><tr><th scope="col">Seed</th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
  return parts.section("Every seed", body)


def _columns(result: Mapping[str, Any], seeds: list[Mapping[str, Any]]) -> dict[str, list[str]]:
  """By heading a cell for every seed; columns of which nothing is known are left out."""
  columns: dict[str, list[str]] = {}
  if facts.plays(result):
    decimals, scores = facts.decimals(result), [facts.scores(seed)[0] for seed in seeds]
    columns["Mean return"] = ["" if s.value is None else text.fixed(s.value, decimals) for s in scores]
    columns["95 % interval over its episodes"] = [parts.band(s.band, decimals) if s.band else "" for s in scores]
    columns["Normalised"] = ["" if s.normalized is None else text.fixed(s.normalized, 1) for s in scores]
  for title in dict.fromkeys(title for seed in seeds for title, _ in heldout.measures(seed)):
    columns[title] = [dict(heldout.measures(seed)).get(title, "") for seed in seeds]
  losses = [number(seed.get("loss")) for seed in seeds]
  columns["Last loss"] = ["" if loss is None else text.significant(loss) for loss in losses]
  return {name: cells for name, cells in columns.items() if any(cells)}

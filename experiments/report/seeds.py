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
  # It scrolls sideways where it is too wide, so it must take the keyboard's focus.
  table = f'<table><thead><tr><th scope="col">Seed</th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
  wide = f'<div class="wide" tabindex="0" role="region" aria-label="Every seed">{table}</div>'
  return parts.section("Every seed", wide)


def _columns(result: Mapping[str, Any], seeds: list[Mapping[str, Any]]) -> dict[str, list[str]]:
  """By heading a cell for every seed; columns of which nothing is known are left out."""
  columns: dict[str, list[str]] = {}
  if facts.plays(result):
    decimals, scores = facts.decimals(result), [facts.scores(seed)[0] for seed in seeds]
    columns["Mean return"] = ["" if s.value is None else text.fixed(s.value, decimals) for s in scores]
    columns["95 % interval over its episodes"] = [parts.band(s.band, decimals) if s.band else "" for s in scores]
    columns["Normalised"] = ["" if s.normalized is None else text.fixed(s.normalized, 1) for s in scores]
  held = [heldout.of_parts(heldout.found(seed)) for seed in seeds]
  for path in dict.fromkeys(path for parts_of_seed in held for path in parts_of_seed):
    for measure in heldout.MEASURES:
      if measure.key != "commonest_share":  # the data's own
        found = [number(parts_of_seed.get(path, {}).get(measure.key)) for parts_of_seed in held]
        shown = ["" if x is None else heldout.shown(x, measure.share) for x in found]
        columns[heldout.titled(path, measure.title)] = shown
  losses = [number(seed.get("loss")) for seed in seeds]
  columns["Last loss"] = ["" if loss is None else text.significant(loss) for loss in losses]
  return {name: cells for name, cells in columns.items() if any(cells)}

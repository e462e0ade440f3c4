"""What differs between the configs of the groups, and what they were made with."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from experiments import revision
from experiments.report import details, parts
from experiments.report.compare import fields, progress, words
from experiments.report.compare.groups import Group
from experiments.report.run import Run


def section(groups: Sequence[Group]) -> str:
  """One column for every group, a row for every field that is not the same in all runs; then what all have."""
  configs = [fields.of(run) for group in groups for run in group.runs]
  names = fields.differing(configs)
  # A run of several seeds has the first of them in its config.
  several = len({json.dumps(progress.seeds(run)) for group in groups for run in group.runs}) > 1
  names = (["seed"] if several else []) + [name for name in names if name not in ("seed", "seeds")]
  rows = [_row(name, [_values(group, name) for group in groups]) for name in names]
  made = [(name, [_made(group, name) for group in groups]) for name in _names(groups)]
  made = [(name, cells) for name, cells in made if len({tuple(cell) for cell in cells}) > 1 or len(cells[0]) > 1]
  if made:
    rows.append(f'<tr class="head"><th scope="rowgroup">Made with</th>{"<td></td>" * len(groups)}</tr>')
    rows += [_row(name, cells) for name, cells in made]
  several_tasks = len({group.task for group in groups}) > 1
  heads = [("Field", False)]
  heads += [(words.name(group, group.task if several_tasks else ""), False) for group in groups]
  body = (
    words.table(heads, rows, "Fields that differ")
    if rows
    else words.note("Their configs are the same, and so is what they were made with.")
  )
  return parts.section("What differs", body + _assumed(groups) + _same(configs))


def _assumed(groups: Sequence[Group]) -> str:
  runs = [run for group in groups for run in group.runs if fields.assumed(run)]
  names = sorted({name for run in runs for name in fields.assumed(run)})
  if not runs:
    return ""
  return (
    f'<details class="soft"><summary>Older than some fields, which count as having their defaults: '
    f"{words.counted(len(runs), 'run')} ({words.counted(len(names), 'field')})</summary>"
    f'<p class="soft">{escape(words.listed(names))}</p></details>'
  )


def _same(configs: Sequence[Mapping[str, Any]]) -> str:
  differ = {*fields.differing(configs), "seed"}
  rows = [(name, fields.text(value)) for name, value in configs[0].items() if name not in differ]
  if not rows:
    return ""
  return (
    f'<details class="soft"><summary>The same in all runs ({words.counted(len(rows), "field")})</summary>'
    f"{details.pairs(rows)}</details>"
  )


def _row(name: str, cells: Iterable[Sequence[str]]) -> str:
  return words.row(escape(name), [("<br>".join(map(escape, values)) or words.NOTHING, False) for values in cells])


def _values(group: Group, field: str) -> list[str]:
  """What the runs of a group have, usually one value; nothing where it is not there, or None."""
  if field == "seed":
    return [_seeds([seed for run in group.runs for seed in progress.seeds(run)])]
  found = [fields.of(run).get(field) for run in group.runs]
  if all(value is None for value in found):
    return []
  return list(dict.fromkeys(map(fields.text, found)))


def _seeds(seeds: Sequence[Any]) -> str:
  if all(isinstance(seed, int) for seed in seeds):
    ordered = sorted(seeds)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[0] + len(ordered))):
      return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered))
  return ", ".join(map(str, seeds))


def _names(groups: Sequence[Group]) -> list[str]:
  results = [_about(run) for group in groups for run in group.runs]
  return list(dict.fromkeys(name for result in results for name in result))


def _made(group: Group, name: str) -> list[str]:
  """Of runs that have a result; the others do not tell yet."""
  return sorted({str(_about(run).get(name, "not recorded")) for run in group.runs if run.result})


def _about(run: Run) -> dict[str, Any]:
  versions, devices = run.result.get("versions"), run.result.get("devices")
  about = {"commit": revision.short(run.result["git_commit"])} if run.result.get("git_commit") else {}
  if isinstance(devices, list):
    about["devices"] = ", ".join(map(str, devices))
  return about | (versions if isinstance(versions, dict) else {})

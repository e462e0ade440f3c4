"""The table of results of a sweep: how far its runs are and what they score.

python -m experiments.launch table --workdir=runs/sweep

One row for each run, with the fields in which they differ; where some differ in the seed alone, or one run has several
seeds, also one row for all of these, with intervals over the seeds: of returns, over their episodes, too, and of the
likeness to held-out actions. Rows of runs that are no sweep's begin with the run's folder. A run of which a file is
damaged has a row that says so. The table is written to table.md and table.json in the folder, too.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments import markdown, outputs
from experiments.data import terminal
from experiments.launch import options, results, sweep
from experiments.launch.results import Row
from experiments.report import heldout, text
from experiments.report.run import interval, number
from ilx.training import logs

# What of a result is kept in table.json.
_SCORES = ("return_mean", "return_ci95", "return_iqm", "return_iqm_ci95", "normalized_score", "heldout", "loss")
_KEPT = (*_SCORES, "runs", "steps", "seconds")
# What is shown of it.
_NUMBERS = ("return_mean", "normalized_score", "loss", "seconds")
_AGENT = "agent.name"


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""
  flags.DEFINE_string("workdir", None, "Folder of the sweep, or any folder of runs.", flag_values=values)


def main(values: flags.FlagValues, rest: Sequence[str]) -> int:
  """Prints and writes the table; returns 0."""
  if rest:
    raise ValueError(f"unexpected argument {rest[0]!r}")
  if not values.workdir:
    raise ValueError("--workdir must name the sweep's folder, such as --workdir=runs/sweep")
  show(results.read(options.folder(values)), options.folder(values))
  return 0


def show(rows: Sequence[Row], folder: pathlib.Path) -> None:
  """Prints the table of the runs, and writes it to ``table.md`` and ``table.json`` in ``folder``."""
  together = results.over_seeds(rows)
  tables = [cells(some) for some in (together, rows) if some]
  for place, table in enumerate(tables):
    print(end="\n" if place else "", flush=True)
    terminal.table(*table)
  outputs.write(folder / "table.md", "\n".join(f"{_markdown(*table)}\n" for table in tables))
  about = {"runs": rows, "over_seeds": together}
  logs.write_json(folder / "table.json", {name: [_json(row) for row in some] for name, some in about.items()})
  print(f"table: {folder / 'table.md'}")


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
  """Heads and cells; a column of which no row has anything is left out."""
  fields = list(dict.fromkeys(name for row in rows for name in row.fields))
  fields.sort(key=lambda name: name != _AGENT)  # first of all
  names = sweep.short(fields)
  if _AGENT in names and "agent" not in names.values():
    names[_AGENT] = "agent"
  means = [mean for row in rows if (mean := number(row.result.get("return_mean"))) is not None]
  decimals = text.decimals_for(means)
  columns = {"run": [row.name for row in rows]} if _by_name(rows) else {}
  columns |= {names[field]: [_value(row.fields.get(field)) for row in rows] for field in fields}
  scores = [_scores(row.result, decimals) for row in rows]
  columns |= {head: [score.get(head, "") for score in scores] for head in dict.fromkeys(h for s in scores for h in s)}
  columns["state"] = ["" if row.state == "finished" else row.state for row in rows]
  kept = {head: column for head, column in columns.items() if any(column)}
  return list(kept), [list(line) for line in zip(*kept.values(), strict=True)]


def _by_name(rows: Sequence[Row]) -> bool:
  """Whether rows need the names of the runs: those of a sweep say what the fields do, unless several have the same."""
  fields = [json.dumps(dict(row.fields), sort_keys=True) for row in rows]
  return len({*fields}) < len(rows) or any(not row.fields or (row.name and "=" not in row.name) for row in rows)


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
  return markdown.table(heads, lines, [i for i in range(len(heads)) if all(_number(line[i]) for line in lines)])


def _json(row: Row) -> dict[str, Any]:
  return row._asdict() | {"result": {name: row.result[name] for name in _KEPT if name in row.result}}


def _scores(result: Mapping[str, Any], decimals: int) -> dict[str, str]:
  found = {}
  if result.get("runs"):
    found["seeds"] = str(result["runs"])
  mean, score, loss, seconds = (number(result.get(name)) for name in _NUMBERS)
  if mean is not None:
    found["return"] = text.fixed(mean, decimals, "-")
    if (band := interval(result.get("return_ci95"))) is not None:
      found["95 % interval"] = " to ".join(text.fixed(edge, decimals, "-") for edge in band)
  if score is not None:
    found["normalised"] = text.fixed(score, 1, "-")
  found |= {name.lower(): value for name, value in heldout.measures(result, "-")}
  if not result.get("runs") and mean is None and loss is not None:
    found["loss"] = text.significant(loss, "-")
  if seconds is not None:
    found["minutes"] = f"{seconds / 60:.1f}"
  return found


def _value(value: Any) -> str:
  return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _number(cell: str) -> bool:
  return not cell.strip("-0123456789.,e+%() to")

"""Rows as a table: with lines and colour on a terminal, plain elsewhere."""

import sys
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from experiments.benchmarks.measure import COSTS, Row

if TYPE_CHECKING:
  from rich.console import Console

HEADS = ("figure", "value", "by cpu", "beside", "its value", "ratio", "spread", "ratio by cpu", "bar", "reached")


def show(rows: Sequence[Row], facts: Mapping[str, Any], console: "Console | None" = None) -> None:
  """Prints the rows, what their columns mean, the notes and the machine."""
  cells = [_cells(row) for row in rows]
  console = console or _console()
  file: IO[str] = console.file if console else sys.stdout
  if console and console.is_terminal:
    _draw(cells, console)
  else:
    widths = [max(len(line[i]) for line in [HEADS, *cells]) for i in range(len(HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [HEADS, *cells]]
    # Not console.print: it would fold lines at 80 columns.
    file.write("\n".join(line.rstrip() for line in lines) + "\n\n")
  notes = dict.fromkeys(f"{row.name}: {row.note}" for row in rows if row.note)
  machine = (
    f"{facts['cpu']}, {facts['cores']} cores, {facts['devices']}; jax {facts['versions']['jax']}, "
    f"ilx {facts['ilx']} ({str(facts['git_commit'])[:12]}), {facts['date']}, load average {facts['load_average']}"
  )
  legend = (
    "Medians of alternating rounds by the wall clock; spread: the ratio's range over single rounds. By cpu: by the "
    "processor\ntime of this process, all threads together. Of times (s, us) less is better."
  )
  file.write("\n".join([legend, *notes, machine]) + "\n")
  file.flush()


def _console() -> "Console | None":
  try:
    from rich.console import Console
  except ImportError:  # where no more than an accelerator's figures are wanted
    return None
  return Console()


def _draw(cells: Sequence[Sequence[str]], console: "Console") -> None:
  from rich import box
  from rich.table import Table

  table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
  for head in HEADS:
    table.add_column(head, justify="left" if head in ("figure", "beside", "reached") else "right")
  for row in cells:
    table.add_row(*row)
  console.print(table)


def _cells(row: Row) -> tuple[str, ...]:
  wall, cpu = row.reached(row.value), row.reached(row.cpu_value)
  if wall is None:
    reached = ""
  elif wall or not cpu or row.unit == "updates/s":
    reached = "yes" if wall else "no"
  else:
    reached = "by cpu"
  return (
    row.name,
    f"{_number(row.value)} {row.unit}",
    _number(row.cpu_value),
    row.limit,
    _number(row.limit_value),
    _number(row.ratio),
    f"{_number(row.spread[0])} to {_number(row.spread[1])}",
    _number(row.cpu_ratio),
    "" if row.bar is None else f"{'<=' if row.unit in COSTS else '>='} {_number(row.bar)}",
    reached,
  )


def _number(value: float) -> str:
  """Three significant digits, without an exponent."""
  if value >= 1e6:
    return f"{value / 1e6:.3g} M"
  if value >= 1000:
    return f"{float(f'{value:.3g}'):,.0f}"
  return f"{value:.3g}"

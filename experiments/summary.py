"""The table that closes a run on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.report import facts, heldout, text
from experiments.report.run import number

NAMES = {"policy": "policy", "expert": "expert", "data": "data", "random": "random policy"}
HEADS = ("", "return", "95 % interval", "normalised", "episodes")


def terminal_table(result: Mapping[str, Any], console: Console | None = None) -> None:
  """Prints the scores, time and speed.

  Returns are printed beside the expert's, the data's and a random policy's; then likeness to held-out actions.

  On a terminal the table has lines and colour, elsewhere (a file, a pipe) it is plain ASCII.

  Args:
    result: what ``result.json`` holds; keys that are absent or None are said to be unknown.
    console: where to print; standard output by default.
  """
  console = console or Console()
  tables = [(HEADS, _rows(result))] if facts.plays(result) else []
  if held := heldout.measures(result, "-"):
    tables.append((("held-out actions", ""), [(name.lower(), value) for name, value in held]))
  title, closing = _title(result), _closing(result)
  unscored = [] if tables else [facts.unscored(result)]
  if rate := facts.success(result):
    closing = f"success in {rate}\n{closing}"
  if asked := facts.asked_for(result):
    closing = f"asked for {asked}\n{closing}"
  if console.is_terminal:
    console.print(Text(title, style="bold"))
    for heads, rows in tables:
      table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
      for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left")
      for row in rows:
        table.add_row(*row, style="bold cyan" if row[0] == NAMES["policy"] else None)
      console.print(table)
    console.print(Text("\n".join([*unscored, closing]), style="dim"))
    return
  lines = [line for heads, rows in tables for line in _plain([heads, *rows])]
  # Not console.print: it would fold lines at 80 columns.
  console.file.write("\n".join([title, *lines, *unscored, closing]) + "\n")
  console.file.flush()


def _plain(rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  return [
    "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
    for row in rows
  ]


def _rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
  scores = facts.scores(result)
  decimals = facts.decimals(result)
  episodes, seeds = number(result.get("episodes")), facts.seeds(result)

  def row(name: str, score: facts.Score, count: float | None) -> tuple[str, ...]:
    return (
      name,
      "unknown" if score.value is None else text.fixed(score.value, decimals, "-"),
      " to ".join(text.fixed(edge, decimals, "-") for edge in score.band) if score.band else "",
      "" if score.normalized is None else text.fixed(score.normalized, 1, "-"),
      f"{count:,.0f}" if count is not None and score.kind == "policy" else "",
    )

  of_seeds = [row(f"  seed {seed.get('seed')}", facts.scores(seed)[0], number(seed.get("episodes"))) for seed in seeds]
  total = None if episodes is None else episodes * max(1, len(seeds))
  policy, *others = [row(NAMES[score.kind], score, total) for score in scores]
  return [policy, *of_seeds, *others]


def _title(result: Mapping[str, Any]) -> str:
  title = facts.heading(result, {})
  if result.get("env_id"):
    title += f", {result['env_id']}"
  return ", ".join(filter(None, [title, facts.seed_words(result, {})]))


def _closing(result: Mapping[str, Any]) -> str:
  steps, seconds, speed = (number(result.get(key)) for key in ("steps", "seconds", "updates_per_second"))
  words = f"{steps:,.0f} updates" if steps is not None else "an unknown number of updates"
  if count := len(facts.seeds(result)):
    words += f" of each of {count} seeds"
  if seconds is not None:
    words += f" in {text.duration(seconds)}"
  return words + (
    f", {text.significant(speed)} {'of each' if count else 'updates'} a second" if speed is not None else ""
  )

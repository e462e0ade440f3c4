"""Prints a card of a dataset and writes a page about it.

The page is one self-contained HTML file: what is suspicious first, then returns, lengths, idle and repeated steps
and actions, sample frames, and every dimension of actions and observations. Datasets may be larger than memory.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from experiments import outputs
from experiments.data import card as card_lib
from experiments.data import options, page, survey, terminal
from experiments.data.page import overview
from experiments.report import text
from ilx.data import rlds

ARGUMENTS = "DATASET"


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""
  flags.DEFINE_string("html", None, "The page; by default NAME-VERSION.html in the current folder.", flag_values=values)
  flags.DEFINE_bool("page", True, "Write the page.", flag_values=values)
  flags.DEFINE_string("json", None, "File for the card as JSON, for scripts.", flag_values=values)
  flags.DEFINE_string("split", None, "What to look at, such as train[:10%]; by default all.", flag_values=values)
  flags.DEFINE_integer("max_episodes", None, "Only the first so many of each split.", 1, flag_values=values)
  options.define_idle_tolerance(values)


def main(arguments: Sequence[str], values: flags.FlagValues) -> int:
  """Describes one dataset; returns the exit code."""
  # Before the work, which may take hours.
  report = outputs.check(values.json, "--json") if values.json else None
  if values.page:
    outputs.check(values.html or "NAME-VERSION.html", "--html", "; --nopage leaves the page out")
  card, frames = describe(arguments[0], values.split, max_episodes=values.max_episodes, tolerance=values.idle_tolerance)
  show(card)
  if report is not None:
    outputs.write(report, json.dumps(plain(card), indent=1) + "\n")
    print(f"card  {values.json}")
  if values.page:
    # The name is the dataset's own, and no path.
    path = values.html or re.sub(r"[^\w.-]", "_", f"{card['name']}-{card['version']}.html")
    print(f"page  {page.write(path, plain(card), frames)}")
  return 0


def describe(
  dataset: str | os.PathLike, split: str | None = None, *, max_episodes: int | None = None, tolerance: float = 0.0
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
  """The card of a dataset and the sample frames by field.

  Raises:
    FileNotFoundError: where there is no such dataset.
    ValueError: where what describes it is damaged, there is no such split, or no episode can be read.
  """
  info = rlds.read_info(rlds.resolve(dataset))
  splits = [split] if split else list(info.splits)
  counts = [info.splits[name].num_episodes if name in info.splits else None for name in splits]
  total = None if None in counts else sum(min(count, max_episodes or count) for count in counts)
  with terminal.progress("episodes", total) as advance:
    found = survey.survey(
      info,
      splits,
      max_episodes=max_episodes,
      tolerance=tolerance,
      visit=lambda chunk: advance(len(chunk.metadata)),
    )
  if not found.steps:
    why = f": {found.problems[0]}" if found.problems else ""
    raise ValueError(f"{info.directory}: no episode could be read{why}")
  return card_lib.card(found, splits, max_episodes), found.frames.found


def plain(value: Any) -> Any:
  """The same with None for NaN and inf, which JSON lacks."""
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def show(card: Mapping[str, Any]) -> None:
  """Prints the card."""
  read, ends = card["read"], card["ends"]
  rows = [
    ("dataset", f"{card['name']} {card['version']} ({card['file_format']}, {text.size(card['bytes'])})"),
    ("folder", card["directory"]),
    ("splits", ", ".join(f"{name}: {found['episodes']:,}" for name, found in card["splits"].items())),
    ("read", f"{read['episodes']:,} episodes, {read['steps']:,} steps, {read['transitions']:,} transitions"),
  ]
  rows += [(key, str(value)) for key, value in card["metadata"].items() if isinstance(value, str | int | float)]
  for key in ("returns", "lengths"):
    if found := card[key]:
      rows.append((key, ", ".join(f"{name} {text.significant(value, '-')}" for name, value in found.items())))
  rows.append(("ends", f"{ends['terminal']:,} by the task, {ends['time_limit']:,} by a time limit or a cut"))
  repeated = card["duplicates"]
  rows.append(("idle", f"{100 * card['idle']['share']:.2g} % of the steps"))
  rows.append(
    ("repeated", f"{100 * repeated['steps']:.2g} % of the steps, {100 * repeated['episodes']:.2g} % of the episodes")
  )
  if same := card["same_action"]:
    rows.append(("same action", f"at most {overview.same_action(same)}"))
  for name, words in card["texts"].items():
    first, count = words["most_frequent"][0]
    rows.append((name.removeprefix("steps/"), f"{words['distinct']:,} different; {first!r} in {count:,} episodes"))
  terminal.table(("", ""), rows, numbers=False)
  print()
  terminal.table(("field", "type"), [(field["name"], field["type"]) for field in card["fields"]], numbers=False)
  print()
  for name, numbers in card["numbers"].items():
    if name.split("/")[1] in ("action", "observation"):
      _dimensions(name, numbers)
  for entry in card["findings"]:
    field = f"{entry['field'].removeprefix('steps/')}: " if entry["field"] else ""
    print(terminal.printable(f"{entry['level']}: {field}{entry['message']}"))


def _dimensions(name: str, numbers: Mapping[str, Any], most: int = 12) -> None:
  keys = ("mean", "std", "min", "median", "max")
  columns = {key: [text.significant(value, "-") for value in numbers[key][:most]] for key in keys}
  _rows(name, columns, len(numbers["mean"]), numbers.get("names"))
  if chosen := numbers.get("choices"):
    shares = [f"{100 * share:.2g} %" for share in chosen["share"][:most]]
    _rows(name, {"share": shares}, len(chosen["names"]), chosen["names"])


def _rows(name: str, columns: Mapping[str, Sequence[str]], count: int, names: Sequence[str] | None) -> None:
  """The first of ``count`` dimensions or choices, by their numbers and, where they have them, names."""
  rows = [(page.numbers.label(place, names), *cells) for place, cells in enumerate(zip(*columns.values(), strict=True))]
  if count > len(rows):
    rows.append((f"({count - len(rows)} more)", *([""] * len(columns))))
  terminal.table((name.removeprefix("steps/"), *columns), rows)
  print()

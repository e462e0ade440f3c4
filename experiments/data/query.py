"""Answers SQL over the table of a dataset's episodes.

The one table is called episodes, a row for each: split, file, index (in the file), episode (its number), length
(transitions), episode_return, return_rank, is_terminal, and everything that stands beside the steps, such as
episode_metadata. DESCRIBE episodes lists the columns with their types. The dialect is DuckDB's.

python -m experiments.data query DATASET "SELECT split, count(*), avg(episode_return) FROM episodes GROUP BY split"
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments.data import terminal
from experiments.report import text
from ilx.data import rlds, table

ARGUMENTS = "DATASET SQL"


def define(values: flags.FlagValues) -> None:
  """The flags of the command."""
  flags.DEFINE_string("split", "all", "The episodes to ask about, such as train[:10%].", flag_values=values)
  flags.DEFINE_bool("csv", False, "Print CSV.", flag_values=values)
  flags.DEFINE_bool("json", False, "Print one JSON object a row.", flag_values=values)
  flags.DEFINE_integer(
    "max_rows", 100, "Rows of the table that is printed; CSV and JSON have all.", 1, flag_values=values
  )


def main(arguments: Sequence[str], values: flags.FlagValues) -> int:
  """Answers one question; returns the exit code."""
  dataset, sql = arguments
  if values.csv and values.json:
    raise ValueError("give either --csv or --json")
  found = table.query(rlds.read_info(rlds.resolve(dataset)), sql, values.split)
  if values.csv:
    from pyarrow import csv

    csv.write_csv(found, sys.stdout.buffer)
  elif values.json:
    for batch in found.to_batches():
      for row in batch.to_pylist():
        print(json.dumps(row, default=str))
  else:
    columns = [column.to_pylist() for column in found.slice(0, values.max_rows).columns]
    rows = [[_cell(value) for value in row] for row in zip(*columns, strict=True)]
    terminal.table(found.column_names, rows, numbers=False)
    if found.num_rows > values.max_rows:
      print(f"({found.num_rows - values.max_rows:,} more rows: --max_rows, --csv or --json)")
  return 0


def chosen(info: rlds.Info, splits: Sequence[str], where: str) -> dict[str, set[int]]:
  """For every split the numbers of its episodes that meet a condition; ranks are over all of the splits."""
  found = table.select(info, where, "+".join(splits))
  result, first = {}, 0
  for split in splits:
    count = info.splits[split].num_episodes
    result[split] = set((found[(found >= first) & (found < first + count)] - first).tolist())
    first += count
  return result


def _cell(value: Any) -> str:
  if value is None:
    return ""
  if isinstance(value, float | np.floating):
    return text.significant(float(value), "-")
  return str(value)

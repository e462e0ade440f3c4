"""Answers SQL over the table of a dataset's episodes.

The one table is called episodes, a row for each: split, file, index (in the file), episode (its number), length
(transitions), episode_return, return_rank, is_terminal, and everything that stands beside the steps, such as
episode_metadata. DESCRIBE episodes lists the columns with their types. The dialect is DuckDB's.

python -m experiments.data query DATASET "SELECT split, count(*), avg(episode_return) FROM episodes GROUP BY split"
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.data import fields, terminal, tolerant
from experiments.report import text
from ilx.data import rlds, shards, table

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


def chosen(info: rlds.Info, splits: Sequence[str], where: str, *, skip_damaged: bool = False) -> set[tuple[Path, int]]:
  """The (file, number of the record in it) of the episodes that meet a condition; ranks are over all of the splits.

  Args:
    info: of the dataset.
    splits: names of splits.
    where: a condition in SQL over the table of episodes.
    skip_damaged: asks about what can be read; what cannot is chosen, for the caller to come upon.

  Raises:
    ValueError: for a wrong condition, and for damage that is not skipped.
  """
  bad: set[tuple[Path, int]] = set()
  spelt = list(splits)
  if skip_damaged:
    info, spelt, bad = _readable(info, splits)
  if not spelt:
    return bad
  found = table.query(info, f'SELECT file, "index" FROM episodes WHERE {where}', "+".join(spelt))
  return bad | {(info.directory / row["file"], row["index"]) for row in found.to_pylist()}


def _readable(info: rlds.Info, splits: Sequence[str]) -> tuple[rlds.Info, list[str], set[tuple[Path, int]]]:
  """What of a damaged dataset the table can be made of.

  Returns:
    The dataset with the lengths that its files have, the readable episodes in TFDS' syntax, and all other records.
  """
  wanted = [name for name, field in fields.of_episodes(info).items() if getattr(field, "kind", "") != "unknown"]
  wanted += [name for name in ("steps/reward", "steps/is_terminal") if name in fields.of_steps(info)]
  found, spelt, bad = {}, [], set()
  for split in splits:
    files, good = [], []
    for path, promised in zip(*info.splits[split], strict=True):
      records = [
        (index, isinstance(record, bytes) and _can_decode(info, record, wanted))
        for index, record in tolerant.records(path, info.file_format, promised)
        if index is not None
      ]
      if not records or not _can_open(path, info.file_format, len(records)):
        bad.update((path, index) for index, _ in records)
        continue
      files.append((path, len(records)))
      good += [can for _, can in records]
      bad.update((path, index) for index, can in records if not can)
    found[split] = rlds.Split(tuple(path for path, _ in files), tuple(length for _, length in files))
    spelt += _ranges(split, good)
  return info._replace(splits=info.splits | found), spelt, bad


def _can_decode(info: rlds.Info, record: bytes, wanted: list[str]) -> bool:
  try:
    rlds.decode_episode(info, record, wanted)
  except ValueError:
    return False
  return True


def _can_open(path: Path, file_format: str, count: int) -> bool:
  try:
    shards.open(path, file_format, count).close()
  except ValueError:
    return False
  return True


def _ranges(split: str, good: list[bool]) -> list[str]:
  """The good episodes of a split in TFDS' syntax."""
  if all(good):
    return [split] if good else []
  edges = np.flatnonzero(np.diff([False, *good, False]))
  return [f"{split}[{start}:{stop}]" for start, stop in edges.reshape(-1, 2)]


def _cell(value: Any) -> str:
  if value is None:
    return ""
  if isinstance(value, float | np.floating):
    return text.significant(float(value), "-")
  return str(value)

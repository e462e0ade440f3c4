"""Indexing columns that are no arrays as if they were."""

import numpy as np


def rows_at(index: int | slice | np.ndarray, length: int, what: tuple[str, str]) -> np.ndarray:
  """The rows that an index means, integers in ``[0, length)`` of the index's shape.

  Args:
    index: an integer, a slice, or an array of integers or bools; negative integers count from the end.
    length: how many rows there are.
    what: is indexed, and what its rows are called, for errors, such as ("chain", "rows").

  Raises:
    IndexError: where one is outside.
  """
  if isinstance(index, slice):
    index = np.arange(*index.indices(length))
  rows = np.asarray(index)
  if rows.dtype == bool:
    if rows.shape != (length,):
      raise IndexError(f"{what[0]}: bools {list(rows.shape)} for {length} {what[1]}")
    rows = np.flatnonzero(rows)
  if rows.size and (rows.min() < -length or rows.max() >= length):
    raise IndexError(f"{what[0]}: index {rows.min()} to {rows.max()} in {length} {what[1]}")
  return rows % max(1, length)

"""Columns of Parquet files as arrays, checked; every error names the file and the column."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# A file may hold this much, and as many times its size: a few bytes can stand for one long text or list many times.
_MOST, _TIMES = 256 << 20, 1000
# What the rows that are decoded at a time may take, and how many they are at most.
_AT_ONCE, _ROWS = 256 << 20, 4096
_WIDTHS = {"BOOLEAN": 0.125, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 8}


def library() -> Any:
  """``pyarrow.parquet``.

  Raises:
    ImportError: where it is not installed; names the extra.
  """
  try:
    import pyarrow.parquet
  except ImportError:
    raise ImportError('Parquet files need pyarrow: pip install "ilx[data]"') from None
  return pyarrow.parquet


def rows(path: os.PathLike, columns: Sequence[str] | None, key: str | None = None, value: Any = None) -> Any:
  """A table of ``columns`` (None: all), of the rows whose ``key`` is ``value``; other row groups are not read.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is damaged or lacks a column.
  """
  parquet = library()
  import pyarrow

  try:
    with parquet.ParquetFile(path) as file:
      schema = file.schema_arrow
      needed = list(columns or []) + ([key] if key is not None else [])
      if missing := [name for name in needed if name not in schema.names]:
        raise ValueError(f"{path}: no column {missing[0]!r}; there are {', '.join(schema.names)}")
      chosen = list(schema.names) if columns is None else list(dict.fromkeys(columns))
      read = list(dict.fromkeys([*chosen, *([key] if key is not None else [])]))
      groups = [group for group in range(file.num_row_groups) if key is None or _may_hold(file, group, key, value)]
      found = list(batches(file, path, read, groups))
      if key is not None:
        import pyarrow.compute as compute

        found = [batch.filter(compute.equal(batch.column(key), value)) for batch in found]
      types = pyarrow.schema([schema.field(name) for name in read])
      return pyarrow.Table.from_batches(found, found[0].schema if found else types).select(chosen)
  except FileNotFoundError:
    raise FileNotFoundError(f"{path} is missing: an incomplete copy?") from None
  except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
    raise ValueError(f"{path}: no Parquet file that can be read: {error}") from None


def batches(file: Any, path: os.PathLike, columns: Sequence[str], groups: Sequence[int] | None = None) -> Iterator[Any]:
  """Record batches of an open file, few rows at a time where rows may be long.

  Raises:
    ValueError: where the columns would take much more memory than a file of this size can need.
  """
  groups = range(file.num_row_groups) if groups is None else groups
  most = _MOST + _TIMES * os.path.getsize(path)
  taken = 0
  for group in groups:
    stated, rows = _sizes(file.metadata.row_group(group), columns)
    if taken + stated > most:
      raise ValueError(_too_much(path, taken + stated))
    for batch in file.iter_batches(rows, row_groups=[group], columns=list(columns)):
      taken += batch.nbytes
      if taken > most:
        raise ValueError(_too_much(path, taken))
      yield batch


def _too_much(path: os.PathLike, taken: int) -> str:
  size = os.path.getsize(path)
  return f"{path}: {size} bytes that unpack to {taken} or more: damaged, or made to fill the memory"


def _sizes(group: Any, columns: Sequence[str]) -> tuple[int, int]:
  """The bytes that a row group takes at least, and how many of its rows to decode at a time."""
  stated, longest = 0, 1
  for index in range(group.num_columns):
    column = group.column(index)
    if not any(column.path_in_schema == name or column.path_in_schema.startswith(f"{name}.") for name in columns):
      continue
    if column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
      # Any row may be the longest text, again and again.
      stated += column.total_uncompressed_size
      longest = max(longest, column.total_uncompressed_size)
    else:
      stated += max(column.total_uncompressed_size, int(_WIDTHS[column.physical_type] * column.num_values))
      longest = max(longest, 8 * column.num_values // max(1, group.num_rows))
  return stated, max(1, min(_ROWS, _AT_ONCE // longest))


def _may_hold(file: Any, group: int, key: str, value: Any) -> bool:
  """Whether a row group may have rows whose ``key`` is ``value``."""
  about = file.metadata.row_group(group)
  for index in range(about.num_columns):
    column = about.column(index)
    if column.path_in_schema == key and column.is_stats_set and column.statistics.has_min_max:
      low, high = column.statistics.min, column.statistics.max
      return not isinstance(low, type(value)) or bool(low <= value <= high)
  return True


def array(table: Any, name: str, shape: tuple[int, ...], where: str) -> np.ndarray:
  """A column as ``[rows, *shape]``, from numbers or (nested) lists of them.

  Raises:
    ValueError: where a value is missing, is no number, or lists have another length than ``shape`` says.
  """
  import pyarrow as pa

  values = table[name].combine_chunks()
  if isinstance(values, pa.ChunkedArray):  # a column without rows, in some releases
    values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
  wanted = (len(values), *shape)
  while True:
    if values.null_count:
      row = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False))) * len(table) // max(1, len(values))
      raise ValueError(f"{where}, row {row}: column {name!r} has no value")
    if isinstance(values, pa.ExtensionArray):
      values = values.storage
    elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
      lengths = np.diff(values.offsets.to_numpy())
      if len(set(lengths.tolist())) > 1:
        row = int(np.argmax(lengths != lengths[0])) * len(table) // len(values)
        raise ValueError(f"{where}, row {row}: column {name!r} has a list of another length than row 0")
      values = values.flatten()
    elif pa.types.is_fixed_size_list(values.type):
      values = values.flatten()
    else:
      break
  if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)):
    raise ValueError(f"{where}: column {name!r} is {values.type}; expected numbers")
  found = values.to_numpy(zero_copy_only=False)
  if found.size != int(np.prod(wanted)):
    raise ValueError(f"{where}: column {name!r} has {found.size} values, meta/info.json says shape {list(shape)} a row")
  return found.reshape(wanted)


def pictures(table: Any, name: str, root: pathlib.Path, where: str) -> Iterator[bytes | pathlib.Path]:
  """The picture files of a column of {"bytes", "path"}; a path is one within ``root``.

  Raises:
    ValueError: where there is no such file, or it lies outside ``root``.
  """
  for row, value in enumerate(table[name]):
    found = value.as_py()
    if not isinstance(found, dict) or not (found.get("bytes") or found.get("path")):
      raise ValueError(f"{where}, row {row}: no picture")
    if found.get("bytes"):
      yield found["bytes"]
      continue
    path = (root / found["path"]).resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_file():
      raise ValueError(f"{where}, row {row}: no picture file {found['path']!r} in {root}")
    yield path

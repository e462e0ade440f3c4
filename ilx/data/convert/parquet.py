"""Columns of Parquet files as arrays, checked; every error names the file and the column."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


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
    schema = parquet.read_schema(path)
    needed = list(columns or []) + ([key] if key is not None else [])
    if missing := [name for name in needed if name not in schema.names]:
      raise ValueError(f"{path}: no column {missing[0]!r}; there are {', '.join(schema.names)}")
    chosen = None if columns is None else list(dict.fromkeys(columns))
    return parquet.read_table(
      path, columns=chosen, filters=None if key is None else [(key, "==", value)], partitioning=None
    )
  except FileNotFoundError:
    raise FileNotFoundError(f"{path} is missing: an incomplete copy?") from None
  except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
    raise ValueError(f"{path}: no Parquet file that can be read: {error}") from None


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

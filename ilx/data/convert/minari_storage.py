"""How Minari stores episodes: HDF5, Arrow or Parquet; each gives the same ``Raw``."""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from ilx.data import files
from ilx.data.convert import hdf5
from ilx.data.convert.minari_spaces import Space

_FILE = "main_data.hdf5"
# What the densest of compressions make of a byte.
_MAX_RATIO = 1032


class Raw(NamedTuple):
  """One episode as stored: trees of arrays, lists of strings, or lists of JPEG files as bytes.

  Attributes:
    observation: T + 1 rows.
    action: T rows.
    reward: T rows.
    terminated: T rows.
    infos: by name, those asked for.
  """

  observation: Any
  action: Any
  reward: np.ndarray
  terminated: np.ndarray
  infos: dict[str, Any]


class Hdf5Storage:
  """Groups ``episode_<n>`` in ``main_data.hdf5``."""

  def __init__(self, folder: pathlib.Path, observation: Space, action: Space):
    """Opens nothing."""
    self._file = hdf5.File(folder / _FILE)
    self._spaces = observation, action

  def where(self, index: int) -> str:
    """What errors call an episode."""
    return f"{self._file.path}: episode_{index}"

  def count(self) -> int:
    """How many episodes there are."""
    return sum(name.startswith("episode_") for name in self._file.names())

  def attributes(self, index: int) -> dict[str, Any]:
    """What is stored of an episode in single values."""
    group = f"episode_{index}"
    return {name: self._file.attribute(group, name) for name in self._file.attributes(group)}

  def read(self, index: int, infos: tuple[str, ...]) -> Raw:
    """One episode; raises ValueError where it is damaged."""
    group = f"episode_{index}"
    observation, action = self._spaces
    return Raw(
      self._tree(f"{group}/observations", observation),
      self._tree(f"{group}/actions", action),
      self._file.read(f"{group}/rewards"),
      self._file.read(f"{group}/terminations"),
      {name: _strings(self._file.read(f"{group}/infos/{name}")) for name in infos},
    )

  def _tree(self, name: str, space: Space) -> Any:
    if space.kind == "Dict":
      return {key: self._tree(f"{name}/{key}", part) for key, part in space.parts.items()}
    if space.kind == "Tuple":
      return {key: self._tree(f"{name}/_index_{key}", part) for key, part in space.parts.items()}
    rows = self._file.read(name)
    if space.is_image and rows.shape[1:] != space.shape:
      return [np.asarray(row, np.uint8).tobytes() for row in rows]
    return _strings(rows)


class ArrowStorage:
  """A folder of Arrow or Parquet files for every episode, and a ``metadata.json`` in it."""

  def __init__(self, folder: pathlib.Path, observation: Space, action: Space, file_format: str):
    """Opens nothing."""
    self._folder, self._format = folder, file_format
    self._spaces = observation, action

  def where(self, index: int) -> str:
    """What errors call an episode."""
    return str(self._folder / str(index))

  def count(self) -> int:
    """How many episodes there are."""
    return sum(path.name.isdecimal() for path in self._folder.iterdir())

  def attributes(self, index: int) -> dict[str, Any]:
    """What is stored of an episode in single values."""
    path = self._folder / str(index) / "metadata.json"
    found = files.read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
      raise ValueError(f"{path}: the top level must be an object")
    return found

  def read(self, index: int, infos: tuple[str, ...]) -> Raw:
    """One episode; raises ValueError where it is damaged."""
    columns = self._columns(index)
    observation, action = self._spaces
    try:
      reward, terminated = (np.asarray(columns[name])[:-1] for name in ("rewards", "terminations"))
      found = {name: _info(columns["infos"], name) for name in infos}
      return Raw(
        _arrow_tree(columns["observations"], observation), _arrow_tree(columns["actions"][:-1], action),
        reward, terminated, found,
      )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
      raise ValueError(f"{self.where(index)}: columns are not what metadata.json says ({error})") from None

  def _columns(self, index: int) -> dict[str, Any]:
    try:
      import pyarrow
      from pyarrow import dataset, parquet
    except ImportError:
      raise ImportError('Arrow and Parquet files need pyarrow: pip install "ilx[data]"') from None
    folder = self._folder / str(index)
    paths = sorted(str(path) for path in folder.glob(f"*.{self._format}"))
    if not paths:
      raise ValueError(f"{folder}: has no {self._format} file")
    try:
      for path in paths if self._format == "parquet" else []:
        about = parquet.read_metadata(path)
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        if size > _MAX_RATIO * pathlib.Path(path).stat().st_size:
          raise ValueError(f"declares {size} bytes, more than it can hold")
      table = dataset.dataset(paths, format=self._format).to_table()
      table.validate(full=True)
      return {name: _one(table.column(name)) for name in table.column_names}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
      raise ValueError(f"{folder}: cannot be read ({error})") from None


def metadata(folder: pathlib.Path) -> dict[str, Any]:
  """A dataset's ``metadata.json``, with Infinity and NaN, which are no JSON, as strings.

  Raises:
    FileNotFoundError: where there is none.
    ValueError: where it is no JSON object.
  """
  path = folder / "metadata.json"
  try:
    found = json.loads(path.read_text(), parse_constant=str)
  except FileNotFoundError:
    raise FileNotFoundError(
      f"{path} is missing: not a Minari dataset of version 0.5 or later; for an older one, open and save it with Minari"
    ) from None
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path}: not JSON ({error})") from None
  if not isinstance(found, dict):
    raise ValueError(f"{path}: the top level must be an object")
  return found


def _strings(rows: np.ndarray) -> Any:
  """Text as a list of str, others as they are."""
  if rows.dtype.kind not in "OS":
    return rows
  return [text.decode("utf-8") if isinstance(text, bytes) else text for text in rows.tolist()]


def _one(column: Any) -> Any:
  found = column.combine_chunks()
  return found if not hasattr(found, "chunks") else found.chunk(0)


def _info(array: Any, name: str) -> Any:
  """A part of a struct, by a path with "/"; Minari notes the shape of its rows in the field's metadata."""
  shape = None
  for part in name.split("/"):
    noted = (array.type.field(part).metadata or {}).get(b"shape")
    shape = None if noted is None else tuple(int(size) for size in noted.split(b",") if size)
    array = array.field(part)
  if "string" in str(array.type):
    return array.to_pylist()
  rows = _numbers(array)
  return rows if shape is None else rows.reshape(len(rows), *shape)


def _arrow_tree(array: Any, space: Space) -> Any:
  if space.parts:
    return {key: _arrow_tree(array.field(key)[: len(array)], part) for key, part in space.parts.items()}
  if space.kind == "Text" or (space.is_image and str(array.type) in ("binary", "large_binary")):
    return array.to_pylist()
  rows = _numbers(array)
  return rows.reshape(len(rows), *space.shape) if space.kind != "Discrete" else rows


def _numbers(array: Any) -> np.ndarray:
  """Numbers ``[T]``, or ``[T, size]`` from lists."""
  rows = len(array)
  if "list" in str(array.type):
    array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(rows, -1)
  return array.to_numpy(zero_copy_only=False)

"""The formats that can be converted: which one a path is, and opening it."""

import importlib
import inspect
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ilx.data.convert import archive
from ilx.data.convert.source import Source

# Formats with a module of their name in ``ilx.data.convert`` that has ``open``.
MODULES = ("d4rl", "minari", "robomimic", "ogbench", "lerobot", "logs")
FORMATS = ("auto", "npz", *MODULES)
_HDF5 = bytes.fromhex("894844460d0a1a0a")


def detect(path: str | pathlib.Path, mapping: str | None = None) -> str:
  """The format of what lies at a path, by the names in it.

  Args:
    path: a file or folder.
    mapping: a mapping file, which only game logs have.

  Raises:
    FileNotFoundError: where there is nothing.
    ValueError: where it is none of ``FORMATS``.
  """
  path = pathlib.Path(path).expanduser()
  if not path.exists():
    raise FileNotFoundError(f"{path}: no such file or folder")
  if mapping is not None:
    return "logs"
  if path.is_dir():
    if (path / "meta" / "info.json").is_file():
      return "lerobot"
    if any(_is_minari(folder) for folder in (path, path / "data")):
      return "minari"
    if (path / "dataset_info.json").is_file():
      raise ValueError(f"{path} is an RLDS dataset already")
    raise ValueError(
      f"{path}: not a folder of LeRobot or Minari; for game logs give --mapping, for others --format, "
      f"one of {', '.join(FORMATS)}"
    )
  with path.open("rb") as file:
    start = file.read(8)
  if start == _HDF5:
    return _hdf5(path)
  if start[:2] == b"PK":
    keys = set(archive.keys(path))
    # OGBench has no rewards: its tasks are goals.
    return "ogbench" if {"observations", "actions", "terminals"} <= keys and "rewards" not in keys else "npz"
  raise ValueError(f"{path}: neither HDF5 nor npz; give --format, one of {', '.join(FORMATS)}")


def _is_minari(folder: pathlib.Path) -> bool:
  """Whether a folder has Minari's HDF5 file, or its metadata beside episodes in Arrow or Parquet files."""
  if (folder / "main_data.hdf5").is_file():
    return True
  try:
    found = json.loads((folder / "metadata.json").read_text())
  except (OSError, ValueError, RecursionError):
    return False
  return isinstance(found, dict) and found.get("data_format") in ("arrow", "parquet")


def _hdf5(path: pathlib.Path) -> str:
  try:
    import h5py
  except ImportError:
    raise ImportError(f'{path} is HDF5, which needs h5py: pip install "ilx[data]"') from None
  try:
    with h5py.File(path, "r") as file:
      names = list(file)
      if (
        "data" in names and isinstance(file["data"], h5py.Group) and any(key.startswith("demo") for key in file["data"])
      ):
        return "robomimic"
  except OSError as error:
    raise ValueError(f"{path} is damaged: {error}") from None
  if {"observations", "actions"} <= set(names):
    return "d4rl"
  if any(name.startswith("episode_") for name in names):
    return "minari"
  raise ValueError(f"{path}: HDF5, but neither D4RL, Minari nor robomimic; it has {', '.join(names[:8]) or 'nothing'}")


def open_source(path: str, name: str, mapping: str | None, options: Mapping[str, Any]) -> Source:
  """Opens a source.

  Args:
    path: the recordings.
    name: one of ``MODULES``.
    mapping: of game logs.
    options: further arguments of the format's ``open``.

  Raises:
    ValueError: for an unknown option, a mapping where none belongs or none where one does, and as ``open``.
  """
  module = importlib.import_module(f"ilx.data.convert.{name}")
  given = dict(options)
  if name == "logs":
    if mapping is None:
      raise ValueError("--format=logs needs --mapping, a YAML or JSON file that says what is what")
    given["mapping"] = mapping
  elif mapping is not None:
    raise ValueError(f"--mapping is for game logs, not for --format={name}")
  if name == "minari" and pathlib.Path(path).name == "main_data.hdf5":
    path = str(pathlib.Path(path).parent.parent)
  known = known_options(module)
  for option in options:
    if option not in known or option == "mapping":
      there = ", ".join(sorted(set(known) - {"mapping"})) or "none"
      raise ValueError(f"--option={option}: --format={name} has no such option; there are: {there}")
  try:
    return module.open(path, **given)
  except TypeError as error:
    raise ValueError(f"--option: {error}") from None


def inputs(path: str, name: str) -> list[pathlib.Path]:
  """The files and folders that a format reads, opened by a path."""
  found = pathlib.Path(path).expanduser()
  if name == "minari" and found.is_file():
    return [found.parent]
  if name != "ogbench":
    return [found]
  beside = found.with_name(f"{found.stem}-val{found.suffix}")
  return [found, beside] if beside.is_file() else [found]


def known_options(module: Any) -> list[str]:
  """The names of the options that a format's ``open`` takes."""
  parameters = inspect.signature(module.open).parameters.values()
  if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
    # Handed on to what it returns.
    parameters = inspect.signature(inspect.get_annotations(module.open, eval_str=True)["return"]).parameters.values()
  return [parameter.name for parameter in parameters if parameter.name not in ("path", "self")]


def parse_options(texts: Sequence[str]) -> dict[str, Any]:
  """KEY=VALUE pairs; values are JSON where they can be, lists become tuples."""
  found = {}
  for text in texts:
    key, equals, value = text.partition("=")
    if not equals or not key:
      raise ValueError(f"--option={text}: expected KEY=VALUE")
    try:
      parsed = json.loads(value)
    except ValueError:
      parsed = value
    found[key] = tuple(parsed) if isinstance(parsed, list) else parsed
  return found

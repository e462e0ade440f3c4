"""What a dataset folder says about itself: where it is, its splits, files and fields."""

import difflib
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from ilx.data import features as features_lib
from ilx.data import files, shards
from ilx.data.splits import Split

# The most that file systems take.
_NAME_BYTES = 255


class Info(NamedTuple):
  """What a dataset folder says about itself.

  Attributes:
    directory: the version folder.
    name: of the dataset.
    version: such as "1.0.0".
    features: the tree of ``features.json``.
    splits: by name.
    file_format: "array_record" or "tfrecord".
    metadata: the content of ``metadata.json``; empty where there is none.
  """

  directory: Path
  name: str
  version: str
  features: dict[str, Any]
  splits: dict[str, Split]
  file_format: str
  metadata: dict[str, Any]


def root() -> Path:
  """Where named datasets live: ``$ILX_DATA_DIR``, by default ``~/.cache/ilx``."""
  chosen = os.environ.get("ILX_DATA_DIR")
  if chosen:
    return Path(chosen).expanduser()
  return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ilx"


def resolve(directory_or_name: str | os.PathLike, version: str | None = None) -> Path:
  """The version folder of a dataset.

  Args:
    directory_or_name: a version folder; a folder of versions; or a name, or ``name/version``, under ``root()``.
    version: of a folder of versions, the one to take; None: the newest.

  Raises:
    FileNotFoundError: where there is none; names the nearest ones, or the versions that there are.
  """
  given = Path(directory_or_name).expanduser()
  folders = (given, root() / given)
  for folder in folders:
    if os.path.isfile(folder / "dataset_info.json"):  # Path's own raises where the name is too long
      return folder
    if chosen := [path for path in _versions(folder) if version in (None, path.name)]:
      return chosen[-1]
  wanted = given if version is None else given / version
  for folder in (wanted.parent, root() / wanted.parent) if wanted.parent.name else ():
    if versions := _versions(folder):
      there = ", ".join(path.name for path in versions)
      raise FileNotFoundError(f"{folder} has no version {wanted.name!r}; there: {there}")
  names = sorted(path.name for path in root().iterdir() if _versions(path)) if root().is_dir() else []
  near = difflib.get_close_matches(str(directory_or_name), names, n=3, cutoff=0.4)
  found = f"nearest: {', '.join(near)}" if near else f"there: {', '.join(names) or 'none'}"
  raise FileNotFoundError(
    f"no dataset {str(directory_or_name)!r}: neither a folder with dataset_info.json "
    f"nor a name under {root()} ({found})"
  )


def _versions(folder: Path) -> list[Path]:
  if not os.path.isdir(folder):
    return []
  try:
    inside = list(folder.iterdir())
  except PermissionError:  # such as lost+found
    return []
  numbered = [(re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", path.name), path) for path in inside]
  found = [(tuple(map(int, match.groups())), path) for match, path in numbered if match]
  return [path for _, path in sorted(found) if (path / "dataset_info.json").is_file()]


def read_info(directory: str | os.PathLike) -> Info:
  """Reads ``dataset_info.json``, ``features.json`` and ``metadata.json`` of a version folder.

  Raises:
    FileNotFoundError: where one of the first two is missing.
    ValueError: where one is not understood; names file and field.
  """
  directory = Path(directory).absolute()  # files are opened later, maybe from elsewhere
  path = directory / "dataset_info.json"
  content = _read_json(path)
  name, version = str(content.get("name", directory.parent.name)), str(content.get("version", directory.name))
  # TFDS wrote no fileFormat while TFRecord was the only one.
  file_format = str(content.get("fileFormat", "tfrecord"))
  if file_format not in shards.FORMATS:
    raise ValueError(f"{path}: fileFormat {file_format!r} is not supported; supported: {', '.join(shards.FORMATS)}")
  splits = {}
  try:
    for split in content["splits"]:
      lengths = tuple(int(length) for length in split["shardLengths"])
      if any(length < 0 for length in lengths):
        raise ValueError(f"negative shardLengths in split {split['name']!r}")
      template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
      names = [_shard_name(template, name, split["name"], file_format, i, len(lengths)) for i in range(len(lengths))]
      splits[split["name"]] = Split(tuple(directory / name for name in names), lengths)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{path}: splits are malformed: {error!r}") from None
  metadata_path = directory / "metadata.json"
  metadata = _read_json(metadata_path) if metadata_path.exists() else {}
  features = features_lib.read(directory / "features.json")
  return Info(directory, name, version, features, splits, file_format, metadata)


def _read_json(path: Path) -> dict[str, Any]:
  content = files.read_json(path)
  if not isinstance(content, dict):
    raise ValueError(f"{path}: the top level must be an object")
  return content


def shard_of(index: int, count: int) -> str:
  """How a file says which of ``count`` it is: ``00002-of-00010``, in more digits where the count has more."""
  digits = max(5, len(str(count)))
  return f"{index:0{digits}}-of-{count:0{digits}}"


def _shard_name(template: str, name: str, split: str, file_format: str, index: int, count: int) -> str:
  whole = shard_of(index, count)
  place, _, total = whole.partition("-of-")
  values = {
    "DATASET": name,
    "SPLIT": split,
    "FILEFORMAT": file_format,
    "SHARD_INDEX": place,
    "NUM_SHARDS": total,
    "SHARD_X_OF_Y": whole,
  }
  path = Path(re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template))
  if path.is_absolute() or ".." in path.parts:
    raise ValueError(f"filepathTemplate {template!r} leaves the dataset's folder")
  if any(len(part.encode()) > _NAME_BYTES for part in path.parts):
    raise ValueError(f"filepathTemplate {template!r} gives names longer than files can have")
  return str(path)

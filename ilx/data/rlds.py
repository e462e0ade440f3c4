"""RLDS datasets on disk: a TFDS folder whose records are whole episodes, read without TensorFlow."""

import difflib
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ilx.data import columns, example, files, shards
from ilx.data import features as features_lib
from ilx.data.episodes import Episodes, from_columns


class Split(NamedTuple):
  """Files of one split, and how many episodes each holds."""

  files: tuple[Path, ...]
  lengths: tuple[int, ...]

  @property
  def num_episodes(self) -> int:
    """E."""
    return sum(self.lengths)


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


def resolve(directory_or_name: str | os.PathLike) -> Path:
  """The version folder of a dataset.

  Args:
    directory_or_name: a version folder; a folder of versions, of which the newest is taken; or a name, or
      ``name/version``, under ``root()``.

  Raises:
    FileNotFoundError: where there is none; names the nearest ones.
  """
  given = Path(directory_or_name).expanduser()
  for folder in (given, root() / given):
    if (folder / "dataset_info.json").is_file():
      return folder
    if versions := _versions(folder):
      return versions[-1]
  names = sorted(path.name for path in root().iterdir() if _versions(path)) if root().is_dir() else []
  near = difflib.get_close_matches(str(directory_or_name), names, n=3, cutoff=0.4)
  found = f"nearest: {', '.join(near)}" if near else f"there: {', '.join(names) or 'none'}"
  raise FileNotFoundError(
    f"no dataset {str(directory_or_name)!r}: neither a folder with dataset_info.json "
    f"nor a name under {root()} ({found})"
  )


def _versions(folder: Path) -> list[Path]:
  if not folder.is_dir():
    return []
  numbered = [(re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", path.name), path) for path in folder.iterdir()]
  found = [(tuple(map(int, match.groups())), path) for match, path in numbered if match]
  return [path for _, path in sorted(found) if (path / "dataset_info.json").is_file()]


def read_info(directory: str | os.PathLike) -> Info:
  """Reads ``dataset_info.json``, ``features.json`` and ``metadata.json`` of a version folder.

  Raises:
    FileNotFoundError: where one of the first two is missing.
    ValueError: where one is not understood; names file and field.
  """
  directory = Path(directory)
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


def _shard_name(template: str, name: str, split: str, file_format: str, index: int, count: int) -> str:
  digits = max(5, len(str(count)))
  values = {
    "DATASET": name,
    "SPLIT": split,
    "FILEFORMAT": file_format,
    "SHARD_INDEX": f"{index:0{digits}}",
    "NUM_SHARDS": f"{count:0{digits}}",
    "SHARD_X_OF_Y": f"{index:0{digits}}-of-{count:0{digits}}",
  }
  path = Path(re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template))
  if path.is_absolute() or ".." in path.parts:
    raise ValueError(f"filepathTemplate {template!r} leaves the dataset's folder")
  return str(path)


def read_records(info: Info, split: str, num_episodes: int | None = None) -> Iterator[tuple[Path, bytes]]:
  """The (file, serialised episode) pairs of a split, in order; the first ``num_episodes`` of them.

  Raises:
    FileNotFoundError: where a shard is missing.
    ValueError: for an unknown split, too large a ``num_episodes``, or a damaged shard; names it.
  """
  if split not in info.splits:
    raise ValueError(f"{info.directory}: no split {split!r}; there: {', '.join(info.splits) or 'none'}")
  paths, lengths = info.splits[split]
  total = sum(lengths)
  wanted = total if num_episodes is None else num_episodes
  if not 1 <= wanted <= total:
    raise ValueError(f"{info.directory}: num_episodes is {wanted}, but split {split!r} has {total} episodes")
  taken = np.cumsum((0, *lengths))
  needed = [(file, length) for file, length, before in zip(paths, lengths, taken, strict=False) if before < wanted]
  for file, _ in needed:
    if not file.is_file():
      raise FileNotFoundError(f"{file} is missing: the dataset is incomplete; copy or build it again")
  for file, length in needed:
    records = shards.read(file, info.file_format, length)
    # A shard of which all is wanted is read to its very end, where a surplus would show.
    for record in records if wanted >= length else itertools.islice(records, wanted):
      yield file, record
    wanted -= length


class Selection(NamedTuple):
  """Which fields of a step become which columns; names are relative to a step, such as "observation/state".

  Attributes:
    observation: one name, which gives an array; several, which give nested dicts, "observation/" left out; by default
      every field of the observation that has a place in arrays.
    action: the same; by default the field "action".
    extras: names of further step fields that ``Episodes.extras`` is to have.
    fill: (RLDS field, value) pairs for fields that the dataset lacks, such as ``(("reward", 0.0),)``.
    lazy: whether pictures stay encoded (``ilx.data.Images``) until they are looked at.
  """

  observation: str | tuple[str, ...] | None = None
  action: str | tuple[str, ...] | None = None
  extras: tuple[str, ...] = ()
  fill: tuple[tuple[str, float | bool], ...] = ()
  lazy: bool = False


EVERYTHING = Selection()


def load(
  directory_or_name: str | os.PathLike,
  split: str = "train",
  num_episodes: int | None = None,
  *,
  selection: Selection = EVERYTHING,
) -> Episodes:
  """A dataset in columns, decoded at memory speed.

  Real numbers become float32, integers int32, bool and uint8 (images, decoded) stay; text fields have no place in
  arrays and are left out of the observation. A missing ``discount`` is 1 everywhere. Nothing else is made up:
  ``observation``, ``action``, ``reward`` and ``is_terminal`` must be there.

  Args:
    directory_or_name: see ``resolve``.
    split: its name.
    num_episodes: the first so many; all by default.
    selection: which fields become which columns.

  Returns:
    ``Episodes`` of numpy arrays.

  Raises:
    FileNotFoundError: where the dataset or one of its files is missing.
    ValueError: where a file is damaged, disagrees with ``features.json`` or ``dataset_info.json``, or holds what
      no episode can (NaN, inf, no steps, ``is_first`` or ``is_last`` in a wrong place); names file, field, episode.
  """
  info = read_info(resolve(directory_or_name))
  records = read_records(info, split, num_episodes)
  paths, lengths = info.splits.get(split, Split((), ()))
  size = sum(path.stat().st_size for path in paths if path.exists())
  wanted = num_episodes or sum(lengths)
  return assemble(info, selection, records, where=f"split {split!r}", expected=(wanted, size))


def assemble(
  info: Info,
  selection: Selection,
  records: Iterable[tuple[Path, bytes]],
  *,
  where: str = "",
  expected: tuple[int, int] = (0, 0),
) -> Episodes:
  """Episodes from serialised ones.

  Args:
    info: of their dataset.
    selection: which fields become which columns.
    records: (file, serialised episode) pairs; the file is named in errors.
    where: what of the dataset they are, for errors.
    expected: how many episodes, and how many bytes at most, make room for at once; 0: unknown.

  Raises:
    ValueError: as ``load``.
  """
  fields = columns.step_columns(info.features, info.directory / "features.json")
  starts = [0]
  for file, record in records:
    try:
      steps = columns.append(fields, example.parse(record))
    except ValueError as error:
      raise ValueError(f"{file}: episode {len(starts) - 1} of {where}: {error}") from None
    if len(starts) == 1:
      # Memory that is never touched is never taken, so an estimate may be generous; files bound it.
      columns.reserve(fields, min(steps * expected[0], steps * expected[1] * 4 // len(record) + steps))
    starts.append(starts[-1] + steps)
  return _episodes(fields, np.array(starts, np.int64), f"{info.directory}: {where}")


def _episodes(fields: dict[str, columns.Column], starts: np.ndarray, where: str) -> Episodes:
  """Checks the flags against the record boundaries and gathers the columns."""
  first, last = starts[:-1], starts[1:] - 1
  _check_flag(fields, "is_first", first, starts, where)
  _check_flag(fields, "is_last", last, starts, where)
  _check_flag(fields, "is_terminal", last, starts, where)
  action = fields["steps/action"].values
  reward = fields["steps/reward"].values.reshape(-1).astype(np.float32, copy=False)
  discount = fields.get("steps/discount")
  return from_columns(
    observation=columns.tree(column for name, column in fields.items() if name.startswith("steps/observation")),
    action=action.astype(np.int32) if action.dtype.kind != "f" else action,
    reward=reward,
    discount=np.ones_like(reward) if discount is None else discount.values.reshape(-1).astype(np.float32, copy=False),
    is_terminal=fields["steps/is_terminal"].values.reshape(-1).astype(bool, copy=False),
    starts=starts,
  )


def _check_flag(fields: dict[str, columns.Column], name: str, rows: np.ndarray, starts: np.ndarray, where: str) -> None:
  """The flag may be true at ``rows`` alone. It may be false there: a record can be a part cut from an episode."""
  column = fields.get(f"steps/{name}")
  if column is None:
    return
  values = column.values.reshape(-1)
  if np.count_nonzero(values) > np.count_nonzero(values[rows]):
    stray = np.setdiff1d(np.flatnonzero(values), rows)
    episode = int(np.searchsorted(starts, stray[0], side="right")) - 1
    step, steps = int(stray[0] - starts[episode]), int(starts[episode + 1] - starts[episode])
    raise ValueError(
      f"{where}, episode {episode}: field 'steps/{name}' is true at step {step} of {steps}; "
      "one record must be one episode"
    )

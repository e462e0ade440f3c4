"""What a LeRobot dataset's ``meta`` folder says: features, tasks, and where every episode lies."""

import dataclasses
import itertools
import json
import math
import pathlib
import re
import string
from typing import Any, NamedTuple

from ilx.data import files
from ilx.data.convert import lines, parquet


class Episode(NamedTuple):
  """Where one episode lies.

  Attributes:
    index: its ``episode_index``.
    length: rows, one a frame.
    split: its split.
    data: the Parquet file, relative to the dataset's folder.
    videos: by feature, the video file, and the seconds at which the episode begins there.
  """

  index: int
  length: int
  split: str
  data: str
  videos: dict[str, tuple[str, float]]


@dataclasses.dataclass(frozen=True)
class Meta:
  """A dataset's metadata.

  Attributes:
    root: its folder.
    version: such as "v2.1".
    fps: frames a second.
    robot_type: as recorded, or None.
    features: ``info.json``'s features, by name: "dtype", "shape", "names".
    tasks: texts by ``task_index``.
    subtasks: texts by ``subtask_index``; empty where there are none.
    episodes: those in a split, in order.
    left_out: episodes that no split names.
  """

  root: pathlib.Path
  version: str
  fps: float
  robot_type: str | None
  features: dict[str, dict[str, Any]]
  tasks: dict[int, str]
  subtasks: dict[int, str]
  episodes: tuple[Episode, ...]
  left_out: int

  @property
  def name(self) -> str:
    """The folder's name."""
    return self.root.resolve().name

  def of_kind(self, *dtypes: str) -> list[str]:
    """Features of these dtypes: "video", "image"."""
    return [name for name, feature in self.features.items() if feature["dtype"] in dtypes]


def read_meta(root: pathlib.Path) -> Meta:
  """Reads it; see ``lerobot.open``."""
  path = root / "meta" / "info.json"
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing: {root} is no LeRobot dataset")
  info = files.read_json(path)
  features = _features(info, path)
  version = info.get("codebase_version")
  if version in ("v2.0", "v2.1"):
    rows = _read_lines(root / "meta" / "episodes.jsonl", ("episode_index", "length"))
    tasks = _texts(_read_lines(root / "meta" / "tasks.jsonl", ("task_index", "task")), "task")
    subtasks = {}
  elif version == "v3.0":
    rows = _episode_rows(root, features)
    tasks = _text_table(root / "meta" / "tasks.parquet", "task")
    subtask_path = root / "meta" / "subtasks.parquet"
    subtasks = _text_table(subtask_path, "subtask") if subtask_path.is_file() else {}
  else:
    raise ValueError(
      f"{path}: codebase_version is {version!r}; v2.0, v2.1 and v3.0 are read: convert it with LeRobot's own scripts"
    )
  fps = info.get("fps")
  if not isinstance(fps, int | float) or not 0 < fps < 1e6:
    raise ValueError(f"{path}: field 'fps' is {fps!r}; expected frames a second")
  rows.sort(key=lambda row: row["episode_index"])
  if (total := info.get("total_episodes", len(rows))) != len(rows):
    raise ValueError(f"{path}: total_episodes is {total!r}, but {root / 'meta'} lists {len(rows)}: an incomplete copy?")
  split_of = _splits(info.get("splits") or {"train": f"0:{len(rows)}"}, path)
  videos = [name for name, feature in features.items() if feature["dtype"] == "video"]
  episodes = []
  for row in rows:
    if (split := split_of(row["episode_index"])) is not None:
      place = _place_v3 if version == "v3.0" else _place_v2
      episodes.append(Episode(row["episode_index"], row["length"], split, *place(info, row, videos, path)))
  return Meta(
    root, version, fps, info.get("robot_type"), features, tasks, subtasks, tuple(episodes), len(rows) - len(episodes)
  )


def _features(info: Any, path: pathlib.Path) -> dict[str, dict[str, Any]]:
  features = info.get("features") if isinstance(info, dict) else None
  if not isinstance(features, dict):
    raise ValueError(f"{path}: no field 'features'; not a LeRobot dataset's")
  for name, feature in features.items():
    shape = feature.get("shape") if isinstance(feature, dict) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) and size > 0 for size in shape):
      raise ValueError(f"{path}: feature {name!r} has no shape of whole numbers")
    if not isinstance(feature.get("dtype"), str):
      raise ValueError(f"{path}: feature {name!r} has no dtype")
  for name in ("action", "timestamp", "frame_index", "episode_index", "task_index"):
    if name not in features:
      raise ValueError(f"{path}: no feature {name!r}; there are {', '.join(features)}")
  # Texts a step other than the task's have no place among arrays.
  return {name: feature for name, feature in features.items() if feature["dtype"] not in ("string", "language")}


def _read_lines(path: pathlib.Path, fields: tuple[str, ...]) -> list[dict[str, Any]]:
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing: an incomplete copy?")
  found = []
  with path.open("rb") as file:
    for number, line in enumerate(lines.bounded(file, path), 1):
      if not line.strip():
        continue
      try:
        row = json.loads(line.decode())
      except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}, line {number}: no JSON: {error}") from None
      _check_row(row, fields, f"{path}, line {number}")
      found.append(row)
  return found


def _check_row(row: Any, fields: tuple[str, ...], where: str) -> None:
  for field in fields:
    value = row.get(field) if isinstance(row, dict) else None
    if not isinstance(value, str if field in ("task", "subtask") else int) or (field == "length" and value < 1):
      raise ValueError(f"{where}: field {field!r} is {value!r}")


def _texts(rows: list[dict[str, Any]], kind: str) -> dict[int, str]:
  return {row[f"{kind}_index"]: row[kind] for row in rows}


def _text_table(path: pathlib.Path, kind: str) -> dict[int, str]:
  """Texts by index; they are the table's index, which pandas names by ``kind`` or ``__index_level_0__``."""
  table = parquet.rows(path, None)
  texts = next((name for name in (kind, "__index_level_0__") if name in table.column_names), None)
  if texts is None or f"{kind}_index" not in table.column_names:
    raise ValueError(f"{path}: columns {', '.join(table.column_names)}; expected {kind}_index and the texts")
  try:
    rows = [{f"{kind}_index": row[f"{kind}_index"], kind: row[texts]} for row in table.to_pylist()]
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: column {texts!r} is no text: {error}") from None
  for number, row in enumerate(rows):
    _check_row(row, (f"{kind}_index", kind), f"{path}, row {number}")
  return _texts(rows, kind)


def _episode_rows(root: pathlib.Path, features: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
  paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
  if not paths:
    raise FileNotFoundError(f"{root / 'meta' / 'episodes'} has no Parquet files: an incomplete copy?")
  columns = ["episode_index", "length", "data/chunk_index", "data/file_index"]
  for name, feature in features.items():
    if feature["dtype"] == "video":
      columns += [f"videos/{name}/{key}" for key in ("chunk_index", "file_index", "from_timestamp")]
  found = []
  for path in paths:
    for number, row in enumerate(parquet.rows(path, columns).to_pylist()):
      _check_row(row, ("episode_index", "length"), f"{path}, row {number}")
      found.append(row)
  return found


def _splits(splits: Any, path: pathlib.Path) -> Any:
  """The function from an episode's index to its split, or None."""
  ranges = []
  for name, text in splits.items() if isinstance(splits, dict) else ():
    match = re.fullmatch(r"(\d*):(\d*)", str(text))
    if not match:
      raise ValueError(f"{path}: split {name!r} is {text!r}; expected a range of episodes such as '0:50'")
    ranges.append((int(match[1] or 0), int(match[2]) if match[2] else math.inf, name))
  ranges.sort()
  for (_, stop, one), (start, _, other) in itertools.pairwise(ranges):
    if start < stop:
      raise ValueError(f"{path}: splits {one!r} and {other!r} share episodes")
  return lambda index: next((name for start, stop, name in ranges if start <= index < stop), None)


def _place_v2(info: Any, row: Any, videos: list[str], path: pathlib.Path) -> tuple[str, dict[str, tuple[str, float]]]:
  index, size = row["episode_index"], info.get("chunks_size")
  if not isinstance(size, int) or size < 1:
    raise ValueError(f"{path}: field 'chunks_size' is {size!r}; expected a whole number")
  numbers = {"episode_chunk": index // size, "episode_index": index}
  data = _filled(info, "data_path", path, **numbers)
  return data, {name: (_filled(info, "video_path", path, video_key=name, **numbers), 0.0) for name in videos}


def _place_v3(info: Any, row: Any, videos: list[str], path: pathlib.Path) -> tuple[str, dict[str, tuple[str, float]]]:
  def numbers(prefix: str) -> dict[str, Any]:
    return {key: row[f"{prefix}/{key}"] for key in ("chunk_index", "file_index")}

  found = {}
  for name in videos:
    start = row[f"videos/{name}/from_timestamp"]
    if not isinstance(start, float) or not 0 <= start < math.inf:
      raise ValueError(f"{path.parent}: episode {row['episode_index']}: from_timestamp of {name!r} is {start!r}")
    found[name] = (_filled(info, "video_path", path, video_key=name, **numbers(f"videos/{name}")), start)
  return _filled(info, "data_path", path, **numbers("data")), found


def _filled(info: Any, key: str, path: pathlib.Path, **values: Any) -> str:
  """A path of ``info.json`` with its numbers filled in; templates may not look into objects or leave the folder."""
  template = info.get(key)
  try:
    names = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    if not names <= values.keys():
      raise ValueError(f"unknown parts {sorted(names - values.keys())}")
    filled = template.format(**values)
  except (ValueError, TypeError, KeyError) as error:
    raise ValueError(f"{path}: field {key!r} is {template!r}: {error}") from None
  if filled.startswith("/") or ".." in filled.split("/"):
    raise ValueError(f"{path}: field {key!r} is {template!r}, which leads out of the dataset")
  return filled

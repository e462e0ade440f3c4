"""Reads a run folder, whatever of it there is, for the report."""

import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments import versions

# A data URI larger than this makes browsers slow to open the page.
MAX_VIDEO_BYTES = 32 * 2**20
FLOAT32_MAX = 3.4028235e38
# How the name of a metric of one seed ends.
_SEED = r"/seed(-?\d+)"


class Series(NamedTuple):
  """Values of one logged metric over the updates.

  Attributes:
    steps: updates made, increasing.
    values: floats, NaN where the log holds none (it was not finite), or ``(low, high)`` pairs for intervals.
  """

  steps: list[int]
  values: list[Any]


class Run(NamedTuple):
  """The content of a run folder; ``config`` and ``result`` are empty where the file is not there (yet).

  ``versions`` are its datasets', by the names that the config has; empty where they are not recorded.
  """

  folder: pathlib.Path
  config: dict[str, Any]
  result: dict[str, Any]
  series: dict[str, Series]
  broken_lines: int
  video: bytes | None
  video_bytes: int
  versions: dict[str, str]


def read(workdir: str | pathlib.Path, with_video: bool = True) -> Run:
  """Reads ``config.json``, ``log.jsonl``, ``result.json``, ``datasets.json`` and ``episode.mp4`` of a run folder.

  Each may be absent.

  Of the video only the size where not ``with_video``: those of many runs are more than one needs at once.

  Raises:
    FileNotFoundError: the folder does not exist or holds none of the three JSON files.
    ValueError: ``config.json``, ``result.json`` or ``datasets.json`` is damaged.
  """
  folder = pathlib.Path(workdir)
  if not folder.is_dir():
    raise FileNotFoundError(f"{folder}: no such run folder; name the folder of a run")
  if not any((folder / name).is_file() for name in ("config.json", "log.jsonl", "result.json")):
    raise FileNotFoundError(f"{folder}: no config.json, log.jsonl or result.json here; name the folder of a run")
  series, broken_lines = read_log(folder / "log.jsonl")
  video = folder / "episode.mp4"
  size = video.stat().st_size if video.is_file() else 0
  return Run(
    folder=folder,
    config=read_object(folder / "config.json"),
    result=read_object(folder / "result.json"),
    series=series,
    broken_lines=broken_lines,
    video=video.read_bytes() if with_video and 0 < size <= MAX_VIDEO_BYTES else None,
    video_bytes=size,
    versions=versions.numbers(versions.read(folder)),
  )


def read_log(path: pathlib.Path) -> tuple[dict[str, Series], int]:
  """The log's metrics by name, and the number of lines that could not be read.

  Where a step was logged twice (a run that was resumed) the later line counts.
  """
  columns: dict[str, dict[int, Any]] = {}
  broken = 0
  lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
  for line in filter(str.strip, lines):
    try:
      row = json.loads(line)
      step = int(row["step"])
    except (ValueError, TypeError, KeyError, OverflowError):
      broken += 1
      continue
    for name, value in row.items():
      if name == "step":
        continue
      if isinstance(value, list):
        value = interval(value)
        if value is None:
          continue
      else:
        value = math.nan if number(value) is None else float(value)
      columns.setdefault(name, {})[step] = value
  return {name: Series(steps := sorted(c), [c[s] for s in steps]) for name, c in columns.items()}, broken


def by_seed(series: Mapping[str, Series], name: str) -> list[Series]:
  """The series of every seed of a metric, ``name/seed0``, ...; empty for a run of one seed."""
  found = {int(match[1]): s for key, s in series.items() if (match := re.fullmatch(re.escape(name) + _SEED, key))}
  return [found[seed] for seed in sorted(found)]


def of_all_seeds(name: str) -> bool:
  """Whether a metric is not one seed's."""
  return re.search(_SEED + "$", name) is None


def number(value: Any) -> float | None:
  """``value`` as a float; None if it is no number (booleans are none) or beyond float32, in which runs compute."""
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= FLOAT32_MAX:
    return None
  return float(value)


def interval(value: Any) -> tuple[float, float] | None:
  """``[low, high]`` as two finite floats, None if it is anything else."""
  if not isinstance(value, (list, tuple)) or len(value) != 2:
    return None
  low, high = number(value[0]), number(value[1])
  return None if low is None or high is None else (low, high)


def numbers(value: Any) -> list[float]:
  """The finite numbers in a list, in order; empty if ``value`` is not a list."""
  return [x for x in map(number, value) if x is not None] if isinstance(value, (list, tuple)) else []


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
  """Leaves of nested dicts by dotted path; lists count as leaves."""
  if not isinstance(tree, dict):
    return {prefix: tree}
  leaves = {}
  for key, value in tree.items():
    path = f"{prefix}.{key}" if prefix else str(key)
    leaves.update(flatten(value, path) if isinstance(value, dict) and value else {path: value})
  return leaves


def read_object(path: pathlib.Path) -> dict[str, Any]:
  """The JSON object in a file, empty where there is no file; ValueError for anything else."""
  if not path.is_file():
    return {}
  try:
    value = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path}: not valid JSON ({error}); repair or delete it and write the report again") from error
  if not isinstance(value, dict):
    raise ValueError(f"{path}: must hold a JSON object, got {type(value).__name__}; repair or delete it")
  return value

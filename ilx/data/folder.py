"""A dataset folder that is written: what it may be called, its shards, and the files that describe them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ilx.data import features, files, values
from ilx.data.info import shard_of

_MAX_FILE_NAME = 255  # of all common file systems


class Shards(NamedTuple):
  """What was written of one split.

  Attributes:
    lengths: episodes in each file.
    num_bytes: of all records.
  """

  lengths: tuple[int, ...]
  num_bytes: int


def shard_lengths(num_episodes: int, episodes_per_shard: int) -> tuple[int, ...]:
  """How many episodes go into each file."""
  return tuple(min(episodes_per_shard, num_episodes - i) for i in range(0, num_episodes, episodes_per_shard))


def shard_name(name: str, split: str, index: int, count: int) -> str:
  """The name of one file, as TFDS expects it."""
  return f"{name}-{split}.array_record-{shard_of(index, count)}"


def describe(
  folder: Path,
  name: str,
  version: str,
  splits: Mapping[str, Shards],
  found: Mapping[str, Any],
  metadata: Mapping[str, Any],
) -> None:
  """Writes ``dataset_info.json``, ``features.json`` and ``metadata.json``; the same bytes for the same content.

  Raises:
    ValueError: where metadata is not JSON.
    OSError: where a file cannot be written.
  """
  text = json_text(metadata)
  listed = [
    {
      "name": split,
      "numBytes": str(written.num_bytes),
      "shardLengths": [str(length) for length in written.lengths],
      "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    for split, written in sorted(splits.items())
  ]
  info = {"name": name, "version": version, "fileFormat": "array_record", "splits": listed}
  files.write_text(folder / "metadata.json", text)
  files.write_text(folder / "dataset_info.json", json_text(info))
  features.write(folder / "features.json", found)
  files.sync_folder(folder)


def summary(returns: np.ndarray, num_transitions: int) -> dict[str, Any]:
  """What ``metadata.json`` says of episodes with these undiscounted returns, at least one."""
  return {
    "num_episodes": len(returns),
    "num_transitions": num_transitions,
    "data_return": float(np.mean(returns)),
    "data_return_std": float(np.std(returns)),
  }


def json_text(content: Mapping[str, Any]) -> str:
  """Metadata as it stands in ``metadata.json``.

  Raises:
    ValueError: where it is not JSON.
  """
  try:
    return json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
  except (TypeError, ValueError) as error:
    raise ValueError(f"metadata is not JSON: {error}") from None


def check_options(name: str, version: str, split: str, episodes_per_shard: int, image_format: str | None) -> None:
  """Raises ValueError where a dataset cannot be written so."""
  check_names(name, version, split)
  if episodes_per_shard < 1:
    raise ValueError(f"Recorder: episodes_per_shard is {episodes_per_shard}; at least 1")
  if image_format not in (None, *values.IMAGE_FORMATS):
    raise ValueError(f"Recorder: image_format {image_format!r} is none of {', '.join(values.IMAGE_FORMATS)}")


def check_names(name: str, version: str, split: str) -> None:
  """Raises ValueError where a dataset cannot be called so."""
  for what, value, pattern in (
    ("name", name, r"[A-Za-z][\w-]*"),
    ("version", version, r"\d+\.\d+\.\d+"),
    ("split", split, r"\w[\w-]*"),
  ):
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
      raise ValueError(f"Recorder: {what} {value!r} does not match {pattern}")
  # Workers write a file under a name of 33 letters more first.
  if len(shard_name(name, split, 0, 1)) > _MAX_FILE_NAME - 33:
    raise ValueError(f"Recorder: name {name!r} and split {split!r} are too long together for the name of a file")

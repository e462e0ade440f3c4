"""Small datasets of robots that never were, written record by record so that they can be spoilt."""

import io
import json
import pathlib

import ml_dtypes
import numpy as np
from PIL import Image

from ilx.data import example, features, shards
from ilx.data.features import Feature, Sequence

NUMBER = Feature("tensor", (), np.dtype(np.float32))
FLAG = Feature("tensor", (), np.dtype(bool))
TEXT = Feature("text", (), np.dtype(object))
FEATURES = {
  "steps": Sequence(
    {
      "observation": {
        "state": Feature("tensor", (3,), np.dtype(np.float32)),
        "image": Feature("image", (16, 20, 3), np.dtype(np.uint8), "png"),
      },
      "action": Feature("tensor", (2,), np.dtype(np.float32)),
      "reward": NUMBER,
      "discount": NUMBER,
      "is_first": FLAG,
      "is_last": FLAG,
      "is_terminal": FLAG,
      "language_instruction": TEXT,
    }
  ),
  "episode_metadata": {"success": FLAG, "operator": TEXT},
}


def with_fields(**more) -> dict:
  """The features with some fields of a step added or replaced."""
  return FEATURES | {"steps": Sequence(FEATURES["steps"].feature | more)}


def png(pixels: np.ndarray) -> bytes:
  target = io.BytesIO()
  Image.fromarray(pixels).save(target, "PNG")
  return target.getvalue()


def episode(seed: int, length: int = 6, terminal: bool = True) -> dict:
  """The lists of one record with ``length`` transitions."""
  random = np.random.default_rng(seed)
  steps = length + 1
  place = np.arange(steps)
  return {
    "steps/observation/state": random.normal(size=(steps, 3)).astype(np.float32),
    "steps/observation/image": [png(random.integers(0, 255, (16, 20, 3), np.uint8)) for _ in range(steps)],
    "steps/action": random.uniform(-1, 1, (steps, 2)).astype(np.float32),
    "steps/reward": np.where(place < length, 1.0, 0.0).astype(np.float32),
    "steps/discount": np.where((place == length - 1) & terminal, 0.0, 1.0).astype(np.float32),
    "steps/is_first": place == 0,
    "steps/is_last": place == length,
    "steps/is_terminal": (place == length) & terminal,
    "steps/language_instruction": [b"open the drawer" if seed % 3 else b"close it"] * steps,
    "episode_metadata/success": np.array([seed % 2 == 0]),
    "episode_metadata/operator": [f"person {seed % 2}".encode()],
  }


def unlike(feature: Feature | Sequence, name: str = "extra") -> list[dict]:
  """Two episodes that are the same but for one field of a step, ``name``, 1 in the one and 2 in the other."""
  records = [episode(0), episode(0)]
  for number, record in enumerate(records, 1):
    content = np.full(7, number, np.float32)
    if isinstance(feature, Sequence):
      record[f"steps/{name}/ragged_flat_values"] = content
      record[f"steps/{name}/ragged_row_lengths_0"] = np.ones(7, np.int64)
    else:
      record[f"steps/{name}"] = content
  return records


# Fields that columns of one shape have not, or not as they are stored.
ODD = {
  "bfloat16": Feature("tensor", (), np.dtype(ml_dtypes.bfloat16)),
  "ragged": Sequence(NUMBER),
  "optional": Feature("tensor", (), np.dtype(np.float32), optional=True),
  "any shape": Feature("tensor", (None,), np.dtype(np.float32)),
}


def write(
  folder: pathlib.Path,
  splits: dict[str, list[list[dict]]],
  *,
  file_format: str = "array_record",
  metadata: dict | None = None,
  found: dict = FEATURES,
  name: str = "robots",
) -> pathlib.Path:
  """Writes ``<folder>/<name>/1.0.0``: of every split the records of every shard; returns it."""
  directory = folder / name / "1.0.0"
  directory.mkdir(parents=True)
  listed = []
  for split, files in splits.items():
    for index, records in enumerate(files):
      path = directory / f"{name}-{split}.{file_format}-{index:05}-of-{len(files):05}"
      contents = [example.serialize(record) for record in records]
      if file_format == "array_record":
        shards.write_array_record(path, contents)
      else:
        path.write_bytes(b"".join(map(shards.frame_tfrecord, contents)))
    listed.append(
      {
        "name": split,
        "shardLengths": [str(len(records)) for records in files],
        "numBytes": "0",
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
      }
    )
  info = {"name": name, "version": "1.0.0", "fileFormat": file_format, "splits": listed}
  (directory / "dataset_info.json").write_text(json.dumps(info))
  bounds = {"env_id": "Robot-v0", "action_low": [-1, -1], "action_high": [1, 1]}
  (directory / "metadata.json").write_text(json.dumps(bounds if metadata is None else metadata))
  features.write(directory / "features.json", found)
  return directory


def shard(directory: pathlib.Path, index: int = 0, split: str = "train") -> pathlib.Path:
  return sorted(directory.glob(f"*-{split}.*"))[index]

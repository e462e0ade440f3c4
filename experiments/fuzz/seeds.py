"""Sound files of every kind, for the fuzzer to damage."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ilx import data
from ilx.data import rlds, shards, tfrecord
from ilx.data.images import Images


def picture(value: int, kind: str = "PNG", size: tuple[int, int] = (6, 5)) -> bytes:
  """A small encoded picture."""
  file = io.BytesIO()
  Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file, kind)
  return file.getvalue()


def write(folder: Path, name: str = "seeds") -> Path:
  """A dataset of a few short episodes with fields of every kind; returns its version folder."""
  rng = np.random.default_rng(0)
  with data.Recorder(folder, name=name, metadata={"env_id": "Pendulum-v1"}, episodes_per_shard=2) as recorder:
    for number in range(3):
      steps = 4 + number
      observation = {
        "state": rng.standard_normal((steps, 3)),
        "board": rng.integers(0, 255, (steps, 3, 2, 1), np.uint8),
        "count": rng.integers(-(2**31), 2**31 - 1, steps),
        "camera": Images.of([picture(10 * i, "JPEG" if number else "PNG") for i in range(steps)], (6, 5, 3)),
      }
      camera = observation.pop("camera")
      episode = data.episode(observation, rng.standard_normal((steps - 1, 2)), np.ones(steps - 1), terminal=True)
      episode["observation"]["camera"] = Images.of([picture(9 * i) for i in range(steps)], camera.shape[1:])
      episode["language_instruction"] = [f"go to place {number}"] * steps
      recorder.add(episode, metadata={"success": number > 0, "player": f"p{number}", "level": number})
  return recorder.path


def records(path: Path) -> list[bytes]:
  """The serialised episodes of a dataset."""
  return [record for _, record in rlds.read_records(rlds.read_info(path), "train")]


def as_tfrecord(contents: list[bytes]) -> bytes:
  """A TFRecord file."""
  return b"".join(map(tfrecord.frame, contents))


def as_array_record(contents: list[bytes], folder: Path) -> bytes:
  """An ArrayRecord file."""
  path = folder / "seed.array_record"
  shards.write_array_record(path, contents)
  return path.read_bytes()

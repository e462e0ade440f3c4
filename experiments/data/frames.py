"""Some pictures of some episodes, picked while the episodes pass by."""

import io
from typing import Any, NamedTuple

import numpy as np

from experiments.data import fields
from experiments.data.reading import Chunk
from ilx.data import images
from ilx.data.rlds import Info

EPISODES, MOMENTS, FIELDS = 4, 6, 8
# Larger ones are made smaller, so that the page stays light.
_SIDE, _BYTES = 160, 24_000


class Frame(NamedTuple):
  """One picture: a PNG or JPEG file; None where it cannot be decoded."""

  split: str
  episode: int
  step: int
  content: bytes | None


class Frames:
  """Pictures from evenly spaced episodes of every split, at evenly spaced times.

  Attributes:
    found: frames by the field's name, in the order of episodes and steps.
  """

  def __init__(self, info: Info):
    steps = fields.of_steps(info)
    named = [name for name, feature in sorted(steps.items()) if fields.is_pixels(feature) or _is_picture(feature)]
    self.found: dict[str, list[Frame]] = {name: [] for name in named[:FIELDS]}
    self._shapes = {name: steps[name].shape for name in self.found}
    self._info = info
    self._seen: dict[str, int] = {}

  def add(self, chunk: Chunk) -> None:
    """Takes what is wanted of some episodes."""
    first = self._seen.get(chunk.split, 0)
    count = len(chunk.starts) - 1
    self._seen[chunk.split] = first + count
    if not self.found:
      return
    for episode in self._wanted(chunk.split):
      if not first <= episode < first + count:
        continue
      start, stop = chunk.starts[episode - first], chunk.starts[episode - first + 1]
      for row in np.unique(np.linspace(start, stop - 1, MOMENTS).round().astype(int)):
        for name, frames in self.found.items():
          content = _file(chunk.columns[name][row], self._shapes[name])
          frames.append(Frame(chunk.split, episode, int(row - start), content))

  def _wanted(self, split: str) -> list[int]:
    known = self._info.splits.get(split)
    total = known.num_episodes if known else EPISODES
    share = max(1, EPISODES // max(1, len(self._info.splits) if known else 1))
    return np.unique(np.linspace(0, max(0, total - 1), share).round().astype(int)).tolist()


def _is_picture(feature: Any) -> bool:
  return fields.examined(feature) and feature.kind == "image" and feature.dtype == np.uint8


def _file(value: Any, shape: tuple[int | None, ...]) -> bytes | None:
  """A small PNG or JPEG file of a picture, given as pixels or as a file."""
  from PIL import Image

  try:
    pixels = value if isinstance(value, np.ndarray) else images.decode(value, shape)
  except ValueError:
    return None
  if isinstance(value, bytes) and max(pixels.shape[:2]) <= _SIDE and len(value) <= _BYTES:
    return value
  if pixels.ndim == 3:
    pixels = pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]
  picture = Image.fromarray(pixels)
  picture.thumbnail((_SIDE, _SIDE))
  target = io.BytesIO()
  picture.save(target, "JPEG", quality=80)
  return target.getvalue()

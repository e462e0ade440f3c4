"""The fields of a record as they are stored: checked one by one, pictures left encoded."""

import collections
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ilx.data import features as features_lib
from ilx.data import unpack
from ilx.data.features import Feature
from ilx.data.rlds import Info

# What a record holds under a name: numbers, or byte strings.
Stored = np.ndarray | list[bytes]


class FieldError(ValueError):
  """A field is not what ``features.json`` says; ``step`` is the first at fault, None where it is all of them."""

  def __init__(self, message: str, step: int | None = None):
    super().__init__(message)
    self.step = step


def of_steps(info: Info) -> dict[str, Any]:
  """The fields of a step by their names in a record, such as "steps/observation/state"; ragged ones are Sequences.

  Raises:
    ValueError: where the dataset has no steps.
  """
  steps = info.features.get("steps")
  if not isinstance(steps, features_lib.Sequence) or not isinstance(steps.feature, dict):
    raise ValueError(f"{info.directory / 'features.json'}: no RLDS dataset: 'steps' must be a Dataset of step fields")
  return dict(features_lib.flatten(steps.feature, "steps"))


def of_episodes(info: Info) -> dict[str, Any]:
  """The fields of a record beside its steps, such as "episode_metadata/success"."""
  return {
    name: feature
    for key, tree in info.features.items()
    if key != "steps"
    for name, feature in features_lib.flatten(tree, key)
  }


def examined(feature: Any) -> bool:
  """Whether ``values`` understands it: there in every record, of one shape in all steps, or pictures."""
  if not isinstance(feature, Feature) or feature.optional or feature.kind == "unknown":
    return False
  if feature.kind in ("image", "text"):
    return feature.kind == "image" or None not in feature.shape
  return None not in feature.shape and feature.dtype.kind in "fiubV"  # bfloat16 is a V


def is_pixels(feature: Any) -> bool:
  """Whether a tensor can be looked at: uint8 [height, width] with 1, 3, 4 or no channels, at least 16 by 16."""
  if not examined(feature) or feature.kind != "tensor" or feature.dtype != np.uint8:
    return False
  grey = len(feature.shape) == 2
  return (grey or (len(feature.shape) == 3 and feature.shape[-1] in (1, 3, 4))) and min(feature.shape[:2]) >= 16


def as_bytes(feature: Feature) -> bool:
  """Whether a record holds byte strings for it."""
  return feature.kind in ("text", "image") or feature.encoding != "none"


def count_steps(record: Mapping[str, Stored], fields: Mapping[str, Any]) -> int:
  """How many steps most fields agree on; 0 where there are none."""
  votes: collections.Counter[int] = collections.Counter()
  for name, feature in fields.items():
    stored = record.get(name)
    if stored is None or not examined(feature):
      continue
    size = _size(feature)
    if size and len(stored) % size == 0:
      # A flag or a number a step cannot be mistaken, a vector of another size can.
      votes[len(stored) // size] += 2 if size == 1 else 1
  return max(votes, key=lambda steps: (votes[steps], steps), default=0)


def values(feature: Feature, stored: Stored | None, steps: int) -> Stored:
  """A field over ``steps`` steps: an array ``[steps, ...]``, or one byte string a step for text and pictures.

  bfloat16 comes as float32.

  Raises:
    FieldError: where it is missing, of another type, size or range than ``features.json`` says.
  """
  if stored is None:
    raise FieldError("missing from the record")
  if len(stored) and as_bytes(feature) != isinstance(stored, list):
    found = "byte strings" if isinstance(stored, list) else f"{stored.dtype} numbers"
    raise FieldError(f"stored as {found} where features.json says {describe(feature)}")
  size = _size(feature)
  if len(stored) != steps * size:
    raise FieldError(f"{len(stored)} values where {steps} steps of {describe(feature)} have {steps * size}")
  if feature.kind in ("text", "image"):
    return list(stored)
  if as_bytes(feature):
    found = np.stack([_unpack(feature, content, step) for step, content in enumerate(stored)])
    return found.astype(np.float32) if feature.dtype.kind == "V" else found
  real = feature.dtype.kind in "fV"
  if not len(stored):
    return np.empty((steps, *feature.shape), np.float32 if real else feature.dtype)
  if (stored.dtype.kind == "f") != real:
    raise FieldError(f"stored as {stored.dtype} numbers where features.json says {describe(feature)}")
  if real:
    return stored.reshape(steps, *feature.shape)
  if feature.dtype != np.uint64:  # of which TFDS stores the bits as int64, so that none is outside
    low, high = (0, 1) if feature.dtype == bool else (np.iinfo(feature.dtype).min, np.iinfo(feature.dtype).max)
    if stored.min() < low or stored.max() > high:
      step = int(np.argmax((stored < low) | (stored > high))) // max(1, size)
      raise FieldError(f"integers outside {feature.dtype}", step)
  return stored.astype(feature.dtype, copy=False).reshape(steps, *feature.shape)


def others(record: Mapping[str, Stored], columns: Collection[str]) -> dict[str, Stored]:
  """The lists of a record's steps beside ``columns``, as they are stored: what ``values`` was not asked for."""
  return {name: stored for name, stored in record.items() if name.startswith("steps/") and name not in columns}


def describe(feature: Any) -> str:
  """``float32 [7]``, ``jpeg [64, 64, 3]``, ``text``."""
  if isinstance(feature, Feature) and feature.kind == "unknown":
    return "unknown"
  if not isinstance(feature, Feature):
    inner = feature.feature
    return f"sequence of {describe(inner) if not isinstance(inner, dict) else ', '.join(inner)}"
  kind = feature.encoding if feature.kind == "image" else "text" if feature.kind == "text" else str(feature.dtype)
  shape = f" [{', '.join('any' if size is None else str(size) for size in feature.shape)}]" if feature.shape else ""
  packed = f" {feature.encoding}" if feature.kind == "tensor" and feature.encoding != "none" else ""
  return f"{kind or 'image'}{shape}{packed}"


def _size(feature: Feature) -> int:
  """Stored values a step."""
  return 1 if feature.kind == "image" or feature.encoding != "none" else math.prod(feature.shape)


def _unpack(feature: Feature, content: bytes, step: int) -> np.ndarray:
  where = f"step {step}"
  try:
    return unpack.tensor(content, feature, feature.shape, where)
  except ValueError as error:
    raise FieldError(str(error).removeprefix(f"{where}: "), step) from None

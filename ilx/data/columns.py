"""From episodes on the wire to columns over all steps."""

import io
import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ilx.data.features import Feature, Sequence, flatten

_REQUIRED = ("observation", "action", "reward", "is_terminal")
_USED = (*_REQUIRED, "discount", "is_first", "is_last")


class Column:
  """One field of all steps: an array that grows by episodes.

  Attributes:
    name: as in the record, such as "steps/observation/state".
    feature: what ``features.json`` says about it.
    dtype: in memory: float32, int32, uint8 or bool.
  """

  def __init__(self, name: str, feature: Feature):
    self.name = name
    self.feature = feature
    stored = np.dtype(np.uint8) if feature.kind == "image" else feature.dtype
    self.dtype = {"f": np.dtype(np.float32), "b": stored, "u": stored, "i": stored}[stored.kind]
    if self.dtype.kind in "iu" and self.dtype != np.uint8:
      self.dtype = np.dtype(np.int32)
    self._real = self.dtype.kind == "f"
    self._as_bytes = feature.kind == "image" or feature.encoding != "none"
    self._array: np.ndarray | None = None
    self._size = 1  # values of one step, in the record
    self._rows = 0

  @property
  def values(self) -> np.ndarray:
    """``[N, ...]`` so far."""
    return self._array[: self._rows]

  def reserve(self, rows: int) -> None:
    """Makes room for ``rows`` steps altogether."""
    if self._array is not None and rows > len(self._array):
      grown = np.empty((rows, *self._array.shape[1:]), self.dtype)
      grown[: self._rows] = self.values
      self._array = grown

  def append(self, stored: np.ndarray | list[bytes] | None, steps: int) -> None:
    """Adds one episode of ``steps`` steps.

    Raises:
      ValueError: where it is not what ``features.json`` says, or is not finite.
    """
    if stored is None:
      raise ValueError(f"field {self.name!r} is missing from the record")
    if self._as_bytes != isinstance(stored, list) and len(stored):
      raise ValueError(f"field {self.name!r} is stored as another kind of list than features.json says")
    if self._array is None:
      self._array = np.empty((steps, *self._shape(stored, steps)), self.dtype)
      self._size = 1 if self._as_bytes else math.prod(self._array.shape[1:])
    if len(stored) != steps * self._size:
      shape = list(self._array.shape[1:])
      raise ValueError(
        f"field {self.name!r} has {len(stored)} values where {steps} steps of shape {shape} have {steps * self._size}"
      )
    end = self._rows + steps
    if end > len(self._array):
      self.reserve(max(end, len(self._array) * 3 // 2))
    target = self._array[self._rows : end]
    if self._as_bytes:
      for step, content in enumerate(stored):
        target[step] = self._decode(content, step)
    else:
      self._check_type(stored)
      target.reshape(-1)[...] = stored
    if self._real:
      finite = np.isfinite(target)
      if np.count_nonzero(finite) != finite.size:
        step = int((~finite.reshape(steps, -1).all(axis=1)).argmax())
        raise ValueError(f"field {self.name!r} is NaN or inf at step {step}")
    self._rows = end

  def _shape(self, stored: np.ndarray | list[bytes], steps: int) -> tuple[int, ...]:
    """One step's shape; what ``features.json`` leaves open is as in the first episode."""
    shape = self.feature.shape
    if None not in shape:
      return shape
    if self.feature.kind == "image":
      return _image(stored[0], shape).shape
    known = math.prod(size for size in shape if size is not None)
    if shape.count(None) > 1 or self.feature.encoding != "none" or not known or len(stored) % (steps * known):
      raise ValueError(f"field {self.name!r} has shape {shape}, which varies; columns need a fixed one")
    return tuple(len(stored) // (steps * known) if size is None else size for size in shape)

  def _check_type(self, stored: np.ndarray) -> None:
    # Values below 128 come as uint8 and fit every type of integer.
    if stored.dtype == (np.float32 if self._real else np.uint8):
      return
    if (stored.dtype.kind == "f") != self._real:
      raise ValueError(f"field {self.name!r} holds {stored.dtype} values where features.json says {self.feature.dtype}")
    if self.dtype != bool and stored.size:
      limits = np.iinfo(self.dtype)
      if stored.min() < limits.min or stored.max() > limits.max:
        raise ValueError(f"field {self.name!r} has integers outside {self.dtype}")

  def _decode(self, content: bytes, step: int) -> np.ndarray:
    shape, dtype = self._array.shape[1:], self.feature.dtype
    if self.feature.kind == "image":
      try:
        image = _image(content, shape)
      except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"field {self.name!r}, step {step}: {error}") from None
      return image
    size = math.prod(shape) * dtype.itemsize
    if self.feature.encoding == "zlib":
      try:
        content = zlib.decompressobj().decompress(content, size + 1)
      except zlib.error as error:
        raise ValueError(f"field {self.name!r}, step {step}: {error}") from None
    if len(content) != size:
      raise ValueError(f"field {self.name!r}, step {step}: {len(content)} bytes where {dtype} {shape} has {size}")
    values = np.frombuffer(content, dtype.newbyteorder("<")).reshape(shape)
    if self.dtype == np.int32 and values.size:
      limits = np.iinfo(np.int32)
      if values.min() < limits.min or values.max() > limits.max:
        raise ValueError(f"field {self.name!r}, step {step}: integers outside int32")
    return values


def _image(content: bytes, shape: tuple[int | None, ...]) -> np.ndarray:
  """Decodes a PNG or JPEG file of ``shape`` [height, width, channels] to uint8."""
  from PIL import Image

  mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(shape[-1] if len(shape) == 3 else None)
  if mode is None:
    raise ValueError(f"images of shape {shape} are not supported; supported: [height, width, 1, 3 or 4]")
  with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
    for size, wanted in zip((image.height, image.width), shape, strict=False):
      if wanted not in (None, size):
        raise ValueError(f"an image of {image.height} x {image.width} where features.json says {shape}")
    return np.asarray(image.convert(mode)).reshape(image.height, image.width, shape[-1])


def step_columns(features: dict[str, Any], path: Path) -> dict[str, Column]:
  """Columns for the RLDS fields of ``features``, by name; text fields of the observation are left out.

  Raises:
    ValueError: where a required field is missing or of a kind that has no place in arrays; names it and ``path``.
  """
  steps = features.get("steps")
  if not isinstance(steps, Sequence) or not isinstance(steps.feature, dict):
    raise ValueError(f"{path}: no RLDS dataset: 'steps' must be a Dataset of step fields")
  if missing := [name for name in _REQUIRED if name not in steps.feature]:
    raise ValueError(f"{path}: field 'steps/{missing[0]}' is missing; there: {', '.join(sorted(steps.feature))}")
  columns = {}
  for top in _USED:
    if top not in steps.feature:
      continue
    for name, feature in flatten(steps.feature[top], f"steps/{top}"):
      if isinstance(feature, Sequence):
        raise ValueError(f"{path}: field {name!r} is a Sequence inside a step, which has no place in columns")
      if feature.kind == "text":
        if top == "observation":
          continue
        raise ValueError(f"{path}: field {name!r} is text; expected numbers")
      if top != "observation" and name != f"steps/{top}":
        raise ValueError(f"{path}: field 'steps/{top}' is a dict; expected one tensor")
      if top not in ("observation", "action") and math.prod(size or 0 for size in feature.shape) != 1:
        raise ValueError(f"{path}: field {name!r} has shape {feature.shape}; expected one number a step")
      if feature.kind == "image" and feature.dtype != np.uint8:
        raise ValueError(f"{path}: field {name!r} is an image of {feature.dtype}; only uint8 images are decoded")
      columns[name] = Column(name, feature)
  if not any(name.startswith("steps/observation") for name in columns):
    raise ValueError(f"{path}: field 'steps/observation' has nothing but text")
  return columns


def append(columns: dict[str, Column], features: dict[str, np.ndarray | list[bytes]]) -> int:
  """Adds one parsed episode to all columns; returns its number of steps.

  Raises:
    ValueError: names the field at fault.
  """
  steps = len(features.get("steps/reward", ()))
  if not steps:
    raise ValueError("it is empty: field 'steps/reward' has no values")
  for name, column in columns.items():
    column.append(features.get(name), steps)
  return steps


def reserve(columns: dict[str, Column], rows: int) -> None:
  """Makes room in all columns."""
  for column in columns.values():
    column.reserve(rows)


def tree(columns: Iterable[Column]) -> Any:
  """The observation: one array, or nested dicts of arrays."""
  result: dict[str, Any] = {}
  for column in columns:
    *folders, leaf = column.name.split("/")[1:]
    node = result
    for folder in folders:
      node = node.setdefault(folder, {})
    node[leaf] = column.values
  return result["observation"]

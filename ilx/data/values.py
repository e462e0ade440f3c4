"""The values of one field on their way into a record: numbers, text or pictures."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ilx.data.features import Feature
from ilx.data.images import Images

IMAGE_FORMATS = ("png", "jpeg")

_MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpeg": b"\xff\xd8\xff"}
# Modes of a file that every decoder turns into these channels in the same way; others (16 bits, CMYK) differ.
_MODES = {1: ("1", "L"), 3: ("1", "L", "P", "RGB", "RGBA"), 4: ("RGB", "RGBA")}
_JPEG_QUALITY = 95

Value = np.ndarray | Images


def normalize(value: Any, name: str, image_format: str | None = None) -> Value:
  """A field of all steps as it is stored: float32, int32, uint8, bool, byte strings (``object``) or ``Images``.

  Args:
    value: numbers ``[T, ...]``; text ``[T]``: str, bytes or an array of them; or ``Images``.
    name: of the field, for errors.
    image_format: encodes uint8 ``[T, height, width, channels]`` with 1, 3 or 4 channels as "png" or "jpeg".

  Raises:
    ValueError: names the field and what about it cannot be stored.
  """
  if isinstance(value, Images):
    return _checked(value, name)
  if (texts := _texts(value)) is not None:
    return _text(texts, name)
  try:
    value = np.asarray(value)
  except ValueError as error:
    raise ValueError(f"episode: field {name!r} is no array: {error}") from None
  value = number(value, name)
  if image_format and value.dtype == np.uint8 and value.ndim == 4 and value.shape[-1] in _MODES:
    return _encode(value, name, image_format)
  return value


def number(value: Any, name: str, dtype: np.dtype | None = None) -> np.ndarray:
  """Numbers in the type that is stored, checked: ``dtype``, or the one that fits theirs.

  Raises:
    ValueError: names the field that is not a number, not finite, beyond int32, or for bools neither 0 nor 1.
  """
  value = np.asarray(value)
  if value.dtype.kind not in "fiub":
    raise ValueError(f"episode: field {name!r} is {value.dtype}; expected numbers")
  if dtype is None:
    dtype = np.dtype(np.float32 if value.dtype.kind == "f" else np.int32)
    dtype = value.dtype if value.dtype in (bool, np.uint8) else dtype
  if value.dtype.kind in "iu" and dtype == np.int32 and value.size:
    limits = np.iinfo(dtype)
    if value.min() < limits.min or value.max() > limits.max:
      raise ValueError(f"episode: field {name!r} has integers outside int32")
  if dtype.kind == "b" and not np.isin(value, (0, 1)).all():
    raise ValueError(f"episode: field {name!r} has values that are neither true nor false")
  with np.errstate(over="ignore"):
    value = value.astype(dtype, copy=False)
  if dtype.kind == "f" and not np.isfinite(value).all():
    step = int((~np.isfinite(value.reshape(len(value), -1)).all(axis=1)).argmax()) if value.ndim else 0
    raise ValueError(f"episode: field {name!r} is NaN or inf in float32 at step {step}")
  return value


def metadata(value: Any, name: str) -> np.ndarray:
  """An episode's metadatum as it is stored: text (``object`` ``[]``), bool, uint8, int64, float32 or float64.

  NaN stands for what is not known.

  Raises:
    ValueError: names the entry that is none of these, or infinite.
  """
  where = f"episode: metadata {name!r}"
  if isinstance(value, str | bytes):
    return np.array(_bytes(value, where), object)
  try:
    value = np.asarray(value)
  except ValueError as error:
    raise ValueError(f"{where} is no array: {error}") from None
  if value.dtype.kind not in "fiub" or not value.size:
    raise ValueError(
      f"{where} is {value.dtype} {list(value.shape)}; expected a string, a number or an array of numbers"
    )
  if value.dtype.kind == "f":
    if np.isinf(value).any():
      raise ValueError(f"{where} is infinite")
    return value.astype(np.float64 if value.dtype.itemsize > 4 else np.float32)
  if value.dtype in (bool, np.uint8):
    return value
  if value.dtype == np.uint64 and value.max() > np.iinfo(np.int64).max:
    raise ValueError(f"{where} is outside int64")
  return value.astype(np.int64)


def feature(value: Value, *, step: bool = True) -> Feature:
  """What ``features.json`` says of one step of a normalised field, or of a metadatum."""
  shape = value.shape[1:] if step else value.shape
  if isinstance(value, Images):
    return Feature("image", shape, value.dtype, _format(value.encoded(0)))
  if value.dtype == object:
    return Feature("text", shape, value.dtype)
  return Feature("tensor", shape, value.dtype, "bytes" if _as_bytes(value, step) else "none")


def stored(value: Value, *, step: bool = True) -> np.ndarray | list[bytes]:
  """A normalised field, or a metadatum, as it stands in an Example."""
  if isinstance(value, Images):
    return [value.encoded(index) for index in range(len(value))]
  if value.dtype == object:
    return value.reshape(-1).tolist()
  if _as_bytes(value, step):
    return [row.tobytes() for row in value] if step else [value.tobytes()]
  return value


def _as_bytes(value: np.ndarray, step: bool) -> bool:
  # Pixels as numbers of an Example would take up to two bytes each and many times as long to read; and an Example
  # has no doubles, but a time in seconds needs them.
  return (value.dtype == np.uint8 and value.ndim > 2) if step else value.dtype == np.float64


def _texts(value: Any) -> list[Any] | None:
  """The strings in ``value`` if that is what it holds."""
  if isinstance(value, list | tuple):
    return list(value) if value and isinstance(value[0], str | bytes) else None
  if isinstance(value, np.ndarray) and value.dtype.kind in "USTO" and value.ndim == 1:
    return value.tolist()
  return None


def _text(texts: list[Any], name: str) -> np.ndarray:
  result = np.empty(len(texts), object)
  for step, text in enumerate(texts):
    result[step] = _bytes(text, f"episode: field {name!r}, step {step},")
  return result


def _bytes(text: Any, where: str) -> bytes:
  if not isinstance(text, str | bytes):
    raise ValueError(f"{where} is {type(text).__name__}; expected numbers, or text alone")
  try:
    return text.encode() if isinstance(text, str) else str(text, "utf-8").encode()
  except UnicodeError as error:
    raise ValueError(f"{where} is no UTF-8 text: {error}") from None


def _format(content: bytes) -> str | None:
  return next((name for name, magic in _MAGIC.items() if content.startswith(magic)), None)


def _checked(pictures: Images, name: str) -> Images:
  """Raises where a picture is of another format, size or mode than the first, by its header alone."""
  from PIL import Image

  height, width, channels = pictures.shape[1:]
  if channels not in _MODES:
    raise ValueError(f"episode: field {name!r} has pictures of {channels} channels; supported: 1, 3 or 4")
  wanted = None
  for step in range(len(pictures)):
    content, where = pictures.encoded(step), f"episode: field {name!r}, step {step}"
    found = _format(content)
    wanted = wanted or found
    if found is None or found != wanted:
      raise ValueError(f"{where}: the picture is {found or 'neither PNG nor JPEG'}; expected {wanted or 'one of them'}")
    try:
      with Image.open(io.BytesIO(content), formats=(found,)) as picture:
        size, mode = (picture.height, picture.width), picture.mode
    except (OSError, SyntaxError, ValueError) as error:
      raise ValueError(f"{where}: the picture is damaged: {error}") from None
    if size != (height, width):
      raise ValueError(f"{where}: a picture of {size[0]} x {size[1]} where {height} x {width} was said")
    if mode not in _MODES[channels]:
      raise ValueError(f"{where}: a picture of mode {mode} has no {channels} channels of uint8")
  return pictures


def _encode(pixels: np.ndarray, name: str, image_format: str) -> Images:
  def encode(picture: np.ndarray) -> bytes:
    return encode_picture(picture, image_format, f"episode: field {name!r}")

  with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of Python's lock while it encodes
    contents: Sequence[bytes] = list(pool.map(encode, pixels))
  return Images.of(contents, pixels.shape[1:])


def encode_picture(pixels: np.ndarray, image_format: str, where: str = "a picture") -> bytes:
  """A PNG or JPEG file of uint8 ``[height, width, channels]``; raises ValueError, of ``where``, for four in JPEG."""
  from PIL import Image

  if image_format == "jpeg" and pixels.shape[-1] == 4:
    raise ValueError(f"{where} has four channels, which JPEG has not; choose png")
  target = io.BytesIO()
  picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
  picture.save(target, image_format, **({"quality": _JPEG_QUALITY} if image_format == "jpeg" else {}))
  return target.getvalue()

"""Pictures on their way into a dataset: cut, resized and encoded, one at a time."""

import collections
import dataclasses
import functools
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from ilx.data import images
from ilx.data.images import Images

# What Pillow may open as a picture of a folder; nothing that needs an outside program.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "GIF")
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 0x0112  # in EXIF


@dataclasses.dataclass(frozen=True)
class Look:
  """What becomes of a picture; first ``crop``, then ``resize``.

  Attributes:
    crop: left, top, width and height in pixels of the source.
    resize: width and height in pixels.
    channels: 3 for colour, 1 for grey.
    encoding: "jpeg" (quality 95) or "png". None keeps the bytes of PNG and JPEG files that nothing changes, and makes
      JPEG of all others.
  """

  crop: tuple[int, int, int, int] | None = None
  resize: tuple[int, int] | None = None
  channels: Literal[1, 3] = 3
  encoding: Literal["jpeg", "png"] | None = None

  def __post_init__(self):
    for name, size in (("crop", 4), ("resize", 2)):
      value = getattr(self, name)
      if value is not None and (len(value) != size or min(value[-2:]) < 1 or min(value) < 0):
        wanted = "left, top, width and height" if size == 4 else "width and height"
        raise ValueError(f"{name} is {list(value)}; expected {wanted} in pixels")
    if self.channels not in _MODES:
      raise ValueError(f"channels is {self.channels!r}; expected 3 for colour or 1 for grey")
    if self.encoding not in (None, "jpeg", "png"):
      raise ValueError(f"encoding is {self.encoding!r}; expected 'jpeg' or 'png'")


def look_of(about: Mapping[str, Any]) -> Look:
  """The look of what a mapping says of a field of frames; also as metadata.json and exported policies have it.

  Raises:
    ValueError: for values out of range.
  """
  names = [field.name for field in dataclasses.fields(Look) if field.name in about]
  return Look(
    **{name: tuple(about[name]) if name in ("crop", "resize") and about[name] else about[name] for name in names}
  )


def as_seen(pixels: np.ndarray, look: Look) -> np.ndarray:
  """A picture at play as it would be in the data: cut, resized, and encoded and decoded again.

  Where the data are of pictures that nothing changed, whose bytes were kept, play them as they are.

  Args:
    pixels: uint8 ``[height, width, 3]``.
    look: of the pictures that were learnt from.

  Returns:
    uint8 ``[height, width, channels]``.

  Raises:
    ValueError: where the crop leaves the picture.
  """
  return images.decode(from_array(pixels, look), (None, None, look.channels))


def from_array(pixels: np.ndarray, look: Look) -> bytes:
  """Encodes uint8 ``[height, width, 3]``.

  Raises:
    ValueError: where the crop leaves the picture.
  """
  from PIL import Image

  return _encoded(_changed(Image.fromarray(pixels), look), look)


def from_arrays(pixels: Iterable[np.ndarray], look: Look) -> Iterator[bytes]:
  """``from_array`` of one picture after the other, on all cores; few of them are in memory."""
  if (cores := os.cpu_count() or 1) == 1:
    yield from (from_array(picture, look) for picture in pixels)
    return
  waiting: collections.deque[Future[bytes]] = collections.deque()
  try:
    for picture in pixels:
      waiting.append(_pool(os.getpid()).submit(from_array, picture, look))
      if len(waiting) > 2 * cores:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
  finally:
    for future in waiting:
      future.cancel()


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
  """Pillow lets go of Python's lock while it works. By process, since threads do not survive a fork."""
  del process
  return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="ilx-frames")


def from_file(file: bytes | os.PathLike, look: Look) -> bytes:
  """Encodes a picture file, given by its bytes or its path; its pixels are always decoded, and so checked.

  It is turned as its EXIF orientation says; what is transparent is laid over black.

  Raises:
    ValueError: where it is damaged, no picture, has more than 8 bits a channel, or the crop leaves it.
  """
  from PIL import Image, ImageOps

  content = file if isinstance(file, bytes) else pathlib.Path(file).read_bytes()
  try:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
      image.load()
      if image.mode.startswith(("I", "F")):
        raise ValueError(
          f"a picture of {image.mode!r} pixels, with more than 8 bits; save it with 8, in the range you need"
        )
      kept = (image.format or "").lower()
      upright = ImageOps.exif_transpose(image)
      turned = image.getexif().get(_ORIENTATION, 1) != 1
      plain = image.mode == _MODES[look.channels] and not turned and not _transparent(image)
      unchanged = plain and look.crop is None and look.resize in (None, image.size)
      if unchanged and kept in ("png", "jpeg") and look.encoding in (None, kept):
        return content
      return _encoded(_changed(_opaque(upright), look), look)
  except (OSError, SyntaxError, Image.DecompressionBombError) as error:
    raise ValueError(f"no picture that can be read: {error}") from None


def pack(contents: Iterable[bytes], where: Any) -> Images:
  """A column of encoded pictures, which must be of one size.

  Raises:
    ValueError: where there is none, or one has another size than the first; names ``where`` and the picture.
  """
  found, shape = [], None
  for index, content in enumerate(contents):
    size = _shape(content)
    shape = shape or size
    if size != shape:
      raise ValueError(f"{where}: picture {index} has shape {size}, the ones before have {shape}; use resize")
    found.append(content)
  if shape is None:
    raise ValueError(f"{where}: no pictures")
  return Images.of(found, shape)


def in_folder(folder: os.PathLike) -> list[pathlib.Path]:
  """The picture files of a folder in natural order: frame_2 before frame_10."""
  files = (file for file in pathlib.Path(folder).iterdir() if file.suffix.lower() in _ENDINGS)
  return sorted(files, key=lambda file: natural(file.name))


def is_picture(path: os.PathLike) -> bool:
  """Whether a file's name ends as pictures' do."""
  return pathlib.Path(path).suffix.lower() in _ENDINGS


def natural(name: str) -> list[tuple[int, int, str]]:
  """A key that sorts names by the numbers in them."""
  return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"([0-9]+)", name) if part]


def _transparent(image: Any) -> bool:
  return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _opaque(image: Any) -> Any:
  """Laid over black, where it is transparent: hidden pixels may have any colour."""
  from PIL import Image

  if not _transparent(image):
    return image
  image = image.convert("RGBA")
  return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)


def _changed(image: Any, look: Look) -> Any:
  from PIL import Image

  if look.crop is not None:
    left, top, width, height = look.crop
    if left + width > image.width or top + height > image.height:
      raise ValueError(f"crop {list(look.crop)} leaves the picture of {image.width} x {image.height}")
    image = image.crop((left, top, left + width, top + height))
  image = image.convert(_MODES[look.channels])
  if look.resize is not None and look.resize != image.size:
    image = image.resize(look.resize, Image.Resampling.BILINEAR)
  return image


def _encoded(image: Any, look: Look) -> bytes:
  file = io.BytesIO()
  if look.encoding == "png":
    image.save(file, "PNG", compress_level=3)
  else:
    image.save(file, "JPEG", quality=95)
  return file.getvalue()


def _shape(content: bytes) -> tuple[int, int, int]:
  from PIL import Image

  with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
    return image.height, image.width, 1 if image.mode == "L" else 3

"""Pictures that stay encoded (PNG or JPEG) until they are looked at."""

import functools
import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ilx.data.indexing import rows_at

# Below this many, handing pictures to threads costs more than it gains.
_ALONE = 4
_UINT8 = np.dtype(np.uint8)
# Pillow's modes by the number of channels.
CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

# No picture of either kind has more pixels than this for each of its bytes: PNG is zlib inside, which unpacks to at
# most 1,032 times as much, of eight pixels a byte where they are black or white; in JPEG one bit stands for a block.
_MAX_RATIO = 8 * 1032


def size(content: bytes) -> tuple[int, int]:
  """(height, width) of a PNG or JPEG file; the pixels are not decoded.

  Raises:
    ValueError: where it is no such file, or claims more pixels than its bytes can hold.
  """
  return _read(content, lambda image: (image.height, image.width))


def decode(content: bytes, shape: tuple[int | None, ...], dtype: np.dtype = _UINT8) -> np.ndarray:
  """One PNG or JPEG file as an array of ``shape`` [height, width, channels]; None where any size will do.

  Args:
    content: the file.
    shape: of the picture; a file with more or fewer channels is converted, as TensorFlow does.
    dtype: uint8; uint16, which only PNG has; or float32 with one channel, of which PNG keeps the four bytes as
      channels.

  Raises:
    ValueError: where it is damaged, of another size, or ``shape`` is no picture's.
  """
  if dtype == np.float32:
    if len(shape) != 3 or shape[-1] != 1:
      raise ValueError(f"float32 images of shape {shape} are not supported; supported: [height, width, 1]")
    return decode(content, (*shape[:2], 4)).view("<f4").astype(np.float32, copy=False)
  mode = CHANNELS.get(shape[-1]) if len(shape) == 3 else None
  if mode is None:
    raise ValueError(f"images of shape {shape} are not supported; supported: [height, width, 1 to 4]")

  def pixels(image: Any) -> np.ndarray:
    # Before the pixels are decoded: a few bytes can claim a picture of any size.
    for found, wanted in zip((image.height, image.width), shape, strict=False):
      if wanted not in (None, found):
        raise ValueError(f"an image of {image.height} x {image.width} where features.json says {shape}")
    if dtype == np.uint16:
      return _decode_wide(content, image, shape[-1])
    if dtype != np.uint8:
      raise ValueError(f"images of {dtype} are not supported; supported: uint8, uint16, float32")
    if image.mode.startswith("I"):
      raise ValueError("an image of 16 bits where features.json says uint8")
    # Converting to its own mode would copy it.
    values = np.asarray(image if image.mode == mode else image.convert(mode))
    return values.reshape(image.height, image.width, shape[-1])

  return _read(content, pixels)


def _decode_wide(content: bytes, image, channels: int) -> np.ndarray:
  """A PNG of 16 bits a channel. Pillow keeps them in grey pictures only, FFmpeg in all."""
  import av

  if image.mode.startswith("I") and channels == 1:
    return np.asarray(image).astype(np.uint16).reshape(image.height, image.width, 1)
  layout = {1: "gray16le", 3: "rgb48le", 4: "rgba64le"}.get(channels)
  if layout is None or image.format != "PNG":
    raise ValueError(f"uint16 images of {channels} channels as {image.format} are not supported")
  try:
    frames = av.CodecContext.create("png", "r").decode(av.Packet(content))
    frame = frames[0].reformat(format=layout)
    pixels = np.frombuffer(frame.planes[0], "<u2").reshape(frame.height, frame.planes[0].line_size // 2)
  except (av.error.FFmpegError, IndexError, ValueError) as error:
    raise ValueError(f"a damaged PNG: {error}") from None
  return pixels[:, : frame.width * channels].reshape(frame.height, frame.width, channels).astype(np.uint16)


def _read(content: bytes, look: Callable[[Any], Any]) -> Any:
  """What ``look`` makes of the Pillow image, whose claimed size is one that the file can have."""
  from PIL import Image, UnidentifiedImageError

  try:
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
      pixels = image.height * image.width
      if pixels > len(content) * _MAX_RATIO:
        raise ValueError(f"an image of {image.height} x {image.width} in {len(content)} bytes")
      return look(image)
  except UnidentifiedImageError:
    raise ValueError("no PNG or JPEG file, or a damaged one") from None
  except ValueError:
    raise
  # Pillow lets out what its parsers of damaged chunks stumble over.
  except (OSError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError) as error:
    raise ValueError(str(error) or type(error).__name__) from None


class Images:
  """A column of encoded pictures of one shape that is indexed like a uint8 array ``[N, height, width, channels]``.

  Indexing with an integer, a slice or an array of integers decodes just those pictures, on all cores; ``np.asarray``
  decodes all. What is held is the encoded files, one after the other.

  Attributes:
    data: uint8 ``[bytes]``, may be a memory map.
    offsets: int64 ``[N + 1]``; picture ``i`` is bytes ``offsets[i]`` to ``offsets[i + 1]`` of ``data``.
    shape: (N, height, width, channels).
    dtype: uint8.
  """

  dtype = np.dtype(np.uint8)
  ndim = 4

  def __init__(self, data: np.ndarray, offsets: np.ndarray, picture: tuple[int, int, int]):
    """Raises ValueError where the offsets do not divide the data."""
    self.data, self.offsets = np.asarray(data), np.asarray(offsets)
    if self.offsets.ndim != 1 or not len(self.offsets) or np.any(np.diff(self.offsets) < 0):
      raise ValueError("images: offsets must be one rising row of integers")
    if self.offsets[0] < 0 or self.offsets[-1] > len(self.data):
      raise ValueError(f"images: offsets reach beyond the {len(self.data)} bytes of data")
    self.shape = (len(self.offsets) - 1, *picture)

  @classmethod
  def of(cls, contents: Sequence[bytes], picture: tuple[int, int, int]) -> "Images":
    """From encoded files; ``picture`` is (height, width, channels)."""
    offsets = np.concatenate([[0], np.cumsum([len(content) for content in contents], dtype=np.int64)])
    return cls(np.frombuffer(b"".join(contents), np.uint8), offsets, picture)

  @classmethod
  def concatenate(cls, parts: Sequence["Images"]) -> "Images":
    """Several columns of one shape, one after the other."""
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) != 1:
      raise ValueError(f"images: columns of {sorted(shapes)} do not go together")
    data = np.concatenate([part.data[part.offsets[0] : part.offsets[-1]] for part in parts])
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    return cls(data, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]), shapes.pop())

  def __len__(self) -> int:
    return self.shape[0]

  @property
  def nbytes(self) -> int:
    """Bytes held, encoded."""
    return int(self.offsets[-1] - self.offsets[0]) + self.offsets.nbytes

  def encoded(self, index: int) -> bytes:
    """The file of one picture."""
    return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

  def part(self, start: int, stop: int) -> "Images":
    """Pictures ``start`` to ``stop - 1``, still encoded; a view."""
    return Images(self.data, self.offsets[start : stop + 1], self.shape[1:])

  def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
    rows = rows_at(index, len(self), ("images", "pictures"))
    flat = rows.reshape(-1)
    # A window asks for each picture as often as it shows it; each is decoded once.
    wanted, places = np.unique(flat, return_inverse=True)
    once = len(wanted) == len(flat)
    if once:
      wanted = flat
    self.check(wanted)
    found = np.empty((len(wanted), *self.shape[1:]), np.uint8)
    self.decode(wanted, found)
    return (found if once else found[places]).reshape(*rows.shape, *self.shape[1:])

  def check(self, rows: np.ndarray) -> None:
    """Before memory is taken: whether the pictures ``rows`` can be as large as their shape says.

    Raises:
      ValueError: where they cannot; names the smallest file.
    """
    sizes = self.offsets[rows + 1] - self.offsets[rows]
    height, width = self.shape[1:3]
    if len(rows) and height * width * len(rows) > int(sizes.sum()) * _MAX_RATIO:
      least = int(sizes.argmin())
      raise ValueError(f"picture {rows[least]}: an image of {height} x {width} in {sizes[least]} bytes")

  def decode(self, rows: np.ndarray, out: np.ndarray) -> None:
    """Decodes the pictures ``rows`` (integers ``[n]``) into ``out`` ``[n, height, width, channels]``, on all cores.

    Raises:
      ValueError: where one is damaged or of another shape; names its row.
    """

    data, shape = memoryview(np.ascontiguousarray(self.data)), self.shape[1:]
    begins, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()

    def fill(places: range) -> None:
      for place in places:
        try:
          out[place] = decode(data[begins[place] : ends[place]], shape)
        except ValueError as error:
          raise ValueError(f"picture {rows[place]}: {error}") from None

    if len(rows) < _ALONE:
      fill(range(len(rows)))
      return
    # One part for each core: handing pictures over takes up to a third of the time of a small JPEG.
    cores = os.cpu_count()
    for _ in _pool(os.getpid()).map(fill, (range(core, len(rows), cores) for core in range(cores))):
      pass

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy  # decoding always makes new memory
    return self[:] if dtype is None else self[:].astype(dtype)

  def __repr__(self) -> str:
    return f"Images({self.shape}, {self.nbytes} bytes encoded)"


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
  """Pillow lets go of Python's lock while it decodes. By process, since threads do not survive a fork."""
  del process
  return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="ilx-images")

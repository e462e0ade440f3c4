"""Pictures: decoding each kind, and columns of them that are indexed like arrays."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ilx.data import images
from ilx.data.images import Images

_RNG = np.random.default_rng(0)


def png(pixels, **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, options.pop("format", "PNG"), **options)
  return file.getvalue()


def raw_png(width, height, depth, color, rows):
  """A PNG by the standard, of bytes as they stand in it."""

  def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

  head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
  data = zlib.compress(b"".join(b"\0" + row for row in rows))
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


PIXELS = _RNG.integers(0, 256, (9, 6, 5, 3), np.uint8)
COLUMN = Images.of([png(picture) for picture in PIXELS], (6, 5, 3))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("height", [6, None])
def test_decode_png(channels, height):
  pixels = _RNG.integers(0, 256, (6, 5, channels), np.uint8)
  content = png(pixels.squeeze(-1) if channels == 1 else pixels)
  found = images.decode(content, (height, 5, channels))
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, pixels)


def test_decode_converts_channels():
  grey = _RNG.integers(0, 256, (6, 5), np.uint8)
  np.testing.assert_array_equal(images.decode(png(grey), (6, 5, 3)), np.repeat(grey[..., None], 3, -1))
  color = _RNG.integers(0, 256, (6, 5, 4), np.uint8)
  np.testing.assert_array_equal(images.decode(png(color), (6, 5, 3)), color[..., :3])


def test_decode_jpeg():
  content = png(PIXELS[0], format="JPEG")
  np.testing.assert_array_equal(images.decode(content, (6, 5, 3)), np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize(("channels", "color"), [(1, 0), (3, 2), (4, 6)])
def test_decode_sixteen_bits(channels, color):
  pixels = _RNG.integers(0, 2**16, (6, 7, channels), np.uint16)
  content = raw_png(7, 6, 16, color, [row.astype(">u2").tobytes() for row in pixels])
  found = images.decode(content, (6, 7, channels), np.dtype(np.uint16))
  assert found.dtype == np.uint16
  np.testing.assert_array_equal(found, pixels)


def test_decode_reals():
  pixels = _RNG.standard_normal((6, 5, 1)).astype(np.float32)
  found = images.decode(png(pixels.view(np.uint8)), (6, 5, 1), np.dtype(np.float32))
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(
  ("content", "shape", "dtype", "problem"),
  [
    (b"", (6, 5, 3), np.uint8, "no PNG or JPEG"),
    (png(PIXELS[0])[:60], (6, 5, 3), np.uint8, "."),
    (png(PIXELS[0], format="GIF"), (6, 5, 3), np.uint8, "no PNG or JPEG"),
    (png(PIXELS[0]), (6, 6, 3), np.uint8, r"an image of 6 x 5 where features.json says \(6, 6, 3\)"),
    (png(PIXELS[0]), (6, 5), np.uint8, r"shape \(6, 5\) are not supported"),
    (png(PIXELS[0]), (6, 5, 5), np.uint8, "are not supported"),
    (png(PIXELS[0]), (6, 5, 3), np.int64, "images of int64 are not supported"),
    (png(PIXELS[0]), (6, 5, 3), np.float32, r"\[height, width, 1\]"),
    (raw_png(2, 1, 16, 0, [bytes(4)]), (1, 2, 1), np.uint8, "16 bits where features.json says uint8"),
    (png(PIXELS[0], format="JPEG"), (6, 5, 3), np.uint16, "uint16 images of 3 channels as JPEG"),
    (raw_png(60_000, 1_400, 8, 0, [b"x"]), (None, None, 1), np.uint8, "an image of 1400 x 60000 in"),
    (raw_png(2**30, 2**30, 8, 0, [b"x"]), (None, None, 1), np.uint8, "."),
  ],
)
@pytest.mark.filterwarnings("ignore:Image size")
def test_decode_errors(content, shape, dtype, problem):
  with pytest.raises(ValueError, match=problem):
    images.decode(content, shape, np.dtype(dtype))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_give_value_errors_alone(data):
  kinds = (png(PIXELS[0]), png(PIXELS[0], format="JPEG"), raw_png(7, 6, 16, 2, [bytes(42)] * 6))
  content = bytearray(data.draw(st.sampled_from(kinds)))
  for _ in range(data.draw(st.integers(1, 4))):
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
  del content[data.draw(st.integers(len(content) // 2, 2 * len(content))) :]
  for dtype in (np.uint8, np.uint16):
    try:
      found = images.decode(bytes(content), (None, None, 3), np.dtype(dtype))
      assert found.ndim == 3
    except ValueError:
      pass


def test_size():
  assert images.size(png(PIXELS[0])) == (6, 5)
  assert images.size(png(PIXELS[0], format="JPEG")) == (6, 5)


@pytest.mark.parametrize(
  "index",
  [
    0,
    -1,
    np.int64(3),
    slice(None),
    slice(1, 8, 3),
    slice(5, 1, -1),
    slice(4, 4),
    [2, 0, 2, 8],
    np.array([[1, 2], [3, -9]]),
    np.arange(9) % 2 == 0,
    np.zeros(0, int),
  ],
)
def test_is_indexed_like_an_array(index):
  found = COLUMN[index]
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, PIXELS[index])


def test_is_like_an_array():
  assert (COLUMN.shape, len(COLUMN), COLUMN.ndim, COLUMN.dtype) == (PIXELS.shape, 9, 4, np.uint8)
  np.testing.assert_array_equal(np.asarray(COLUMN), PIXELS)
  np.testing.assert_array_equal(np.asarray(COLUMN, np.float32), PIXELS.astype(np.float32))
  with pytest.raises(IndexError, match=r"bools \[2\] for 9 pictures"):
    COLUMN[[True, False]]
  for index in (9, -10, [0, 9]):
    with pytest.raises(IndexError, match="in 9 pictures"):
      COLUMN[index]


def test_parts_and_concatenation_stay_encoded():
  part = COLUMN.part(2, 5)
  np.testing.assert_array_equal(part, PIXELS[2:5])
  assert part.encoded(0) == COLUMN.encoded(2)
  joined = Images.concatenate([part, COLUMN.part(0, 1), COLUMN.part(7, 9)])
  np.testing.assert_array_equal(joined, PIXELS[[2, 3, 4, 0, 7, 8]])
  with pytest.raises(ValueError, match="do not go together"):
    Images.concatenate([part, Images.of([], (1, 1, 3))])


def test_many_are_decoded_in_the_right_places():
  rows = _RNG.integers(0, 9, 500)
  np.testing.assert_array_equal(COLUMN[rows], PIXELS[rows])
  out = np.empty((500, 6, 5, 3), np.uint8)
  COLUMN.decode(rows, out)
  np.testing.assert_array_equal(out, PIXELS[rows])


@pytest.mark.parametrize("count", [2, 50])
def test_a_damaged_picture_is_named(count):
  contents = [png(PIXELS[0])] * count
  contents[1] = contents[1][:-30]
  with pytest.raises(ValueError, match="picture 1: "):
    Images.of(contents, (6, 5, 3))[:]


def test_black_and_white_takes_little():
  """A blank mask of one bit a pixel: eight pixels a byte before zlib."""
  file = io.BytesIO()
  Image.new("1", (1024, 1024)).save(file, "PNG")
  assert file.tell() < 1024 * 1024 / 4096
  assert images.size(file.getvalue()) == (1024, 1024)


def test_no_shape_takes_memory_that_the_files_cannot_fill():
  column = Images.of([png(PIXELS[0])] * 3, (10**9, 10**9, 3))
  with pytest.raises(ValueError, match="picture 0: an image of 1000000000 x 1000000000 in"):
    column[:]


@pytest.mark.parametrize("offsets", [[], [0, 5, 3], [-1, 4], [0, 11], [[0, 1]]])
def test_offsets_must_divide_the_data(offsets):
  with pytest.raises(ValueError, match="images: offsets"):
    Images(np.zeros(10, np.uint8), np.array(offsets, int), (1, 1, 3))

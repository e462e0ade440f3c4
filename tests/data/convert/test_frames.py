import io
import itertools
import struct

import av
import numpy as np
import pytest
from PIL import Image

from ilx.data.convert import frames, video
from ilx.data.convert.frames import Look

# What codecs make of a grey.
NEAR = 6


def grey(level, height=48, width=64):
  return np.full((height, width, 3), level, np.uint8)


def write_video(path, levels, rate=30, codec="libx264", size=(48, 64), **options):
  """A video of grey frames."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    for level in levels:
      frame = av.VideoFrame.from_ndarray(grey(level, *size), format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path


def png(pixels, kind="PNG"):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind)
  return file.getvalue()


def levels_of(decoded):
  return np.array([int(pixels[5, 5, 0]) for pixels in decoded])


CONTAINERS = [
  ("a.mp4", "libx264", {}),
  ("keyframes.mp4", "libx264", {"g": "10", "bf": "2"}),
  ("open-groups.mp4", "libx264", {"x264-params": "open-gop=1:keyint=7:bframes=3:b-adapt=0"}),
  ("b-frames.mp4", "mpeg4", {"g": "7", "bf": "2", "qscale": "2"}),
  ("a.ts", "libx264", {"g": "7", "bf": "3"}),
  ("a.mkv", "libx264", {"g": "10"}),
  ("a.webm", "libvpx-vp9", {}),
  ("vp8.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16"}),
  ("a.avi", "mpeg4", {"qscale": "2"}),
  ("b-frames.avi", "mpeg4", {"bf": "2"}),
  ("a.mov", "mjpeg", {}),
]


@pytest.mark.parametrize(("name", "codec", "options"), CONTAINERS, ids=[name for name, *_ in CONTAINERS])
def test_every_frame_of_a_video_is_found_by_its_time(tmp_path, name, codec, options):
  levels = np.arange(20, 220, 4)
  path = write_video(tmp_path / name, levels, codec=codec, **options)
  times = video.clock(path)
  assert video.count(path) == len(times) == 50
  assert times == pytest.approx(times[0] + np.arange(50) / 30, abs=1e-3)
  assert np.abs(levels_of(video.frames(path, times, 1e-3)) - levels).max() <= NEAR
  # From anywhere: a keyframe before must be found.
  for start in range(1, 50, 4):
    found = levels_of(itertools.islice(video.frames(path, times[start:], 1e-3), 2))
    assert np.abs(found - levels[start : start + 2]).max() <= NEAR
  # Leaving out, and showing one twice.
  chosen = [33, 34, 34, 37, 49]
  assert np.abs(levels_of(video.frames(path, times[chosen], 1e-3)) - levels[chosen]).max() <= NEAR


def test_frames_of_irregular_times_are_told_apart(tmp_path):
  path = tmp_path / "a.mkv"
  at = [0, 40, 100, 105, 400]
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=1000)
    stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
    for index, when in enumerate(at):
      frame = av.VideoFrame.from_ndarray(grey(40 * index + 20), format="rgb24")
      frame.pts = when
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  assert video.clock(path) == pytest.approx(np.array(at) / 1000)
  assert np.abs(levels_of(video.frames(path, [0.1, 0.4], 1e-3)) - [100, 180]).max() <= NEAR
  with pytest.raises(
    ValueError, match=r"a\.mkv: no frame at 0\.2000 s \(within 0\.001 s\): the next frame is at 0\.4000 s"
  ):
    list(video.frames(path, [0.1, 0.2], 1e-3))
  with pytest.raises(ValueError, match=r"a\.mkv: no frame at 0\.5000 s .*the video ends before"):
    list(video.frames(path, [0.1, 0.5], 1e-3))


def test_videos_that_are_none_or_damaged_are_refused(tmp_path):
  good = write_video(tmp_path / "good.mp4", range(0, 200, 2)).read_bytes()
  path = tmp_path / "bad.mp4"
  for content in (b"", b"hello" * 99, good[: len(good) // 2]):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.mp4: (no video that can be read|a damaged video|no video in it)"):
      list(video.frames(path, video.clock(path), 1e-3))
  middle = bytearray(good)
  middle[900:1100] = bytes(200)  # of the frames' own bytes
  path.write_bytes(middle)
  with pytest.raises(ValueError, match=r"bad\.mp4: (a damaged video|the frame at|no frame at)"):
    list(video.frames(path, video.clock(path), 1e-3))
  with pytest.raises(FileNotFoundError, match=r"none\.mp4 is missing"):
    video.clock(tmp_path / "none.mp4")


def test_damaged_frames_that_the_decoder_would_patch_are_refused(tmp_path):
  path = tmp_path / "bad.avi"
  rng = np.random.default_rng(0)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=30)
    stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
    for _ in range(20):
      frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (48, 64, 3), np.uint8), format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  content = bytearray(path.read_bytes())
  content[len(content) // 2 : len(content) // 2 + 60] = bytes(60)
  path.write_bytes(content)
  with pytest.raises(ValueError, match=r"bad\.avi: (the frame at 0\.\d+ s is damaged|a damaged video)"):
    list(video.frames(path, video.clock(path), 1e-3))


def test_a_file_with_sound_alone_is_no_video(tmp_path):
  path = tmp_path / "sound.mkv"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
    frame.sample_rate = 8000
    container.mux(stream.encode(frame))
  with pytest.raises(ValueError, match=r"sound\.mkv: no video in it"):
    video.clock(path)


def test_a_video_without_frames_is_refused(tmp_path):
  path = tmp_path / "empty.mkv"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=30)
    stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
    container.start_encoding()
  with pytest.raises(ValueError, match=r"empty\.mkv: (a video without frames|no video that can be read)"):
    video.clock(path)


def test_pictures_are_cropped_then_resized():
  pixels = np.zeros((20, 40, 3), np.uint8)
  pixels[5:15, 10:30] = [200, 100, 50]
  content = frames.from_array(pixels, Look(crop=(10, 5, 20, 10), resize=(10, 5), encoding="png"))
  assert content[:4] == b"\x89PNG"
  found = np.asarray(Image.open(io.BytesIO(content)))
  assert found.shape == (5, 10, 3)
  assert np.array_equal(found[2, 5], [200, 100, 50])
  assert (found == found[0, 0]).all()
  assert np.asarray(Image.open(io.BytesIO(frames.from_array(pixels, Look(channels=1))))).shape == (20, 40)
  with pytest.raises(ValueError, match=r"crop \[10, 5, 31, 10\] leaves the picture of 40 x 20"):
    frames.from_array(pixels, Look(crop=(10, 5, 31, 10)))


def test_files_that_nothing_changes_keep_their_bytes():
  content = png(grey(7))
  assert frames.from_file(content, Look()) is content
  assert frames.from_file(content, Look(encoding="png")) is content
  assert frames.from_file(content, Look(encoding="jpeg"))[:2] == b"\xff\xd8"
  assert frames.from_file(content, Look(channels=1)) != content
  assert frames.from_file(png(grey(7), "BMP"), Look())[:2] == b"\xff\xd8"
  # A palette with transparency becomes plain colours.
  palette = io.BytesIO()
  Image.fromarray(grey(9)).convert("P").save(palette, "PNG")
  found = frames.from_file(palette.getvalue(), Look(encoding="png"))
  assert Image.open(io.BytesIO(found)).mode == "RGB"


def test_damaged_pictures_are_refused(tmp_path):
  content = png(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
  for bad in (b"", b"GIF89a", content[: len(content) // 2], b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
    with pytest.raises(ValueError, match="no picture that can be read"):
      frames.from_file(bad, Look())


def test_pictures_of_one_column_are_of_one_size():
  packed = frames.pack([png(grey(1)), png(grey(2))], "somewhere")
  assert packed.shape == (2, 48, 64, 3)
  assert packed[1][0, 0, 0] == 2
  with pytest.raises(ValueError, match=r"somewhere: picture 1 has shape \(10, 64, 3\), the ones before have"):
    frames.pack([png(grey(1)), png(grey(1, 10))], "somewhere")
  with pytest.raises(ValueError, match="somewhere: no pictures"):
    frames.pack([], "somewhere")


def test_folders_are_read_in_natural_order(tmp_path):
  for name in ("frame_10.png", "frame_2.PNG", "frame_1.jpg", "notes.txt", "a.png"):
    (tmp_path / name).touch()
  expected = ["a.png", "frame_1.jpg", "frame_2.PNG", "frame_10.png"]
  assert [file.name for file in frames.in_folder(tmp_path)] == expected
  assert frames.is_picture("x/y.JPEG")


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"crop": (0, 0, 0, 5)}, r"crop is \[0, 0, 0, 5\]; expected left, top, width and height"),
    ({"crop": (0, 0, 5)}, "crop is"),
    ({"resize": (0, 5)}, r"resize is \[0, 5\]; expected width and height"),
    ({"channels": 4}, "channels is 4"),
    ({"encoding": "gif"}, "encoding is 'gif'"),
  ],
)
def test_looks_are_checked(settings, message):
  with pytest.raises(ValueError, match=message):
    Look(**settings)


def opened(content):
  return np.asarray(Image.open(io.BytesIO(content)))


def test_pictures_are_turned_as_their_exif_says():
  pixels = np.zeros((40, 64, 3), np.uint8)
  pixels[:, :32] = 200
  file, image = io.BytesIO(), Image.fromarray(pixels)
  exif = image.getexif()
  exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
  image.save(file, "JPEG", exif=exif, quality=95)
  found = opened(frames.from_file(file.getvalue(), Look()))
  assert found.shape == (64, 40, 3)
  assert found[:28].min() > 190
  assert found[36:].max() < 10
  assert opened(frames.from_file(file.getvalue(), Look(crop=(0, 0, 40, 28)))).min() > 190


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_is_black_whatever_it_hides(mode):
  pixels = np.full((8, 8, 4), 255, np.uint8)
  pixels[4:, :, 3] = 0
  file, options = io.BytesIO(), {}
  image = Image.fromarray(pixels)
  if mode == "RGB":
    pixels[4:, :, :3] = [255, 0, 255]
    image, options = Image.fromarray(pixels[..., :3].copy()), {"transparency": (255, 0, 255)}
  image = image.quantize(4) if mode == "P" else image.convert(mode)
  image.save(file, "PNG", **options)
  for look in (Look(encoding="png"), Look(encoding="png", channels=1)):
    found = opened(frames.from_file(file.getvalue(), look))
    assert (found[:4] == 255).all()
    assert not found[4:].any()


@pytest.mark.parametrize(("dtype", "kind"), [(np.uint16, "PNG"), (np.float32, "TIFF"), (np.int32, "TIFF")])
def test_pictures_of_more_than_8_bits_are_refused(dtype, kind):
  content = png(np.full((8, 8), 1, dtype), kind)
  with pytest.raises(ValueError, match="with more than 8 bits; save it with 8"):
    frames.from_file(content, Look())


def turned(path, *matrix):
  """The video with another display matrix: 16.16 numbers."""
  content = bytearray(path.read_bytes())
  start = content.find(b"tkhd") + 44
  content[start : start + 36] = struct.pack(">9i", *matrix)
  path.write_bytes(content)
  return path


def test_videos_are_turned_as_players_do(tmp_path):
  path = tmp_path / "a.mp4"
  pixels = np.zeros((48, 64, 3), np.uint8)
  pixels[:, :32] = 200
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"crf": "5"})
    stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode())
  one, unit = 1 << 16, 1 << 30
  (found,) = video.frames(turned(path, 0, one, 0, -one, 0, 0, 48 * one, 0, unit), [0.0], 1e-3)  # clockwise
  assert found.shape == (64, 48, 3)
  assert found[:28].min() > 190
  assert found[36:].max() < 10
  (found,) = video.frames(turned(path, -one, 0, 0, 0, -one, 0, 64 * one, 48 * one, unit), [0.0], 1e-3)
  assert found.shape == (48, 64, 3)
  assert found[:, :28].max() < 10
  (found,) = video.frames(turned(path, 0, -one, 0, one, 0, 0, 0, 64 * one, unit), [0.0], 1e-3)  # to the left
  assert found[36:].min() > 190
  assert found[:28].max() < 10
  for matrix in ((46341, 46341, 0, -46341, 46341, 0, 0, 0, unit), (-one, 0, 0, 0, one, 0, 64 * one, 0, unit)):
    with pytest.raises(ValueError, match=r"a\.mp4: is to be shown mirrored or at an angle"):
      list(video.frames(turned(path, *matrix), [0.0], 1e-3))


def test_no_video_leads_to_other_files(tmp_path):
  for ending in ("ts", "mp4"):
    write_video(tmp_path / f"secret.{ending}", [20, 40, 60])
  playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n"
  for name, text in (
    ("a.m3u8", playlist),
    ("a.mp4", playlist),
    ("b.mp4", "ffconcat version 1.0\nfile secret.mp4\n"),
    ("c.ffconcat", "ffconcat version 1.0\nfile secret.mp4\n"),
    ("d.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"),
  ):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="no video that can be read"):
      video.clock(tmp_path / name)
  with pytest.raises(ValueError, match=r"c\.ffconcat: .*playlists that name other files are not followed"):
    video.clock(tmp_path / "c.ffconcat")


def test_a_name_is_no_address(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write_video(tmp_path / "a.mp4", [20, 40])
  (tmp_path / "a.mp4").rename("concat:a.mp4")
  assert len(video.clock("concat:a.mp4")) == 2


def test_frames_that_an_edit_cut_off_are_not_there(tmp_path):
  levels = np.arange(20, 220, 10)
  path = write_video(tmp_path / "a.mp4", levels, bf="0", g="8")
  content = bytearray(path.read_bytes())
  start = content.find(b"elst") + 16  # where the shown part begins: five frames later
  content[start : start + 4] = struct.pack(">i", 5 * 512)
  path.write_bytes(content)
  times = video.clock(path)
  assert times == pytest.approx(np.arange(15) / 30, abs=1e-3)
  assert np.abs(levels_of(video.frames(path, times, 1e-3)) - levels[5:]).max() <= NEAR

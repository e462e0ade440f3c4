"""Frames of a video file: when they are shown, and their pixels, decoded in order."""

import contextlib
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# The most pixels of a frame; a few bytes can claim any size.
_MOST = 1 << 26
# Containers without times of their own: a frame's time is its number over the frame rate, and a jump loses count.
_TIMELESS = ("avi", "h264", "hevc", "mjpeg", "m4v")
# The containers that are opened: those that hold their frames themselves. Playlists, scripts and patterns of pictures
# name other files, or addresses.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,ivf,h264,hevc,mjpeg,m4v"
# Quarter turns to the left, by the signs of a display matrix: where x leads, right and down, and where y leads.
_TURNS = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}


def clock(path: str | os.PathLike) -> np.ndarray:
  """When every frame is shown, float64 ``[F]`` seconds, rising; read from the packets without decoding.

  Raises:
    ValueError: where the file is no video, is damaged, or two frames have one time.
  """
  with _opened(path) as (container, stream):
    packets = [packet for packet in _guarded(container.demux(stream), path) if packet.size and not packet.is_discard]
    if _timeless(container):
      times = np.arange(len(packets)) / float(_rate(stream, path))
    else:
      if any(packet.pts is None for packet in packets):
        raise ValueError(f"{path}: frames without a time; remux it (ffmpeg -fflags +genpts -i in -c copy out.mkv)")
      times = np.sort(np.array([packet.pts for packet in packets], np.float64)) * float(stream.time_base)
  if not len(times):
    raise ValueError(f"{path}: a video without frames")
  if len(times) > 1 and not np.all(np.diff(times) > 0):
    raise ValueError(f"{path}: frame {int(np.argmin(np.diff(times) > 0)) + 1} has the time of the frame before")
  return times


def count(path: str | os.PathLike) -> int:
  """How many frames there are; from the header where it says so, else from the packets.

  Raises:
    ValueError: see ``clock``.
  """
  with _opened(path) as (_, stream):
    if stream.frames:
      return stream.frames
  return len(clock(path))


def frames(path: str | os.PathLike, times: Sequence[float], tolerance: float) -> Iterator[np.ndarray]:
  """The frame shown at each of ``times``, uint8 ``[height, width, 3]``; one after the other is decoded, none is kept.

  Frames are turned as the file says (phones record so).

  Args:
    path: a video file.
    times: seconds, not falling. One that is asked for several times in a row is given as often.
    tolerance: how far a frame's time may be from the one asked for, in seconds.

  Raises:
    ValueError: where the file is damaged or there is no frame at one of the times; names the file and the time.
  """
  if not len(times):
    return
  decoded = _decoded(path, float(times[0]) - tolerance, float(times[0]) + tolerance)
  time, frame, pixels = -np.inf, None, None
  for wanted in times:
    while time < wanted - tolerance:
      time, frame = next(decoded, (np.inf, None))
      pixels = None
    if frame is None or time > wanted + tolerance:
      near = "the video ends before" if frame is None else f"the next frame is at {time:.4f} s"
      raise ValueError(f"{path}: no frame at {wanted:.4f} s (within {tolerance:.4g} s): {near}")
    if pixels is None:
      pixels = _upright(frame, path)
    yield pixels


def _upright(frame: Any, path: Any) -> np.ndarray:
  """A frame's pixels, turned as a player would."""
  pixels = frame.to_ndarray(format="rgb24")
  if (matrix := frame.side_data.get("DISPLAYMATRIX")) is None:
    return pixels
  right, down, _, right_of_y, down_of_y = struct.unpack("=9i", bytes(matrix))[:5]
  signs = tuple(np.sign([right, down, right_of_y, down_of_y]).tolist())
  if signs not in _TURNS:
    raise ValueError(f"{path}: is to be shown mirrored or at an angle; re-encode it upright (ffmpeg does)")
  return np.ascontiguousarray(np.rot90(pixels, _TURNS[signs]))


def _decoded(path: str | os.PathLike, start: float, limit: float) -> Iterator[tuple[float, Any]]:
  """(time, frame) in order, from a keyframe before ``start``, which is sought so that the first is before ``limit``."""
  # Where to look for the keyframe: some containers lead to one that is shown too late. At last from the beginning.
  for back in (0.0, 1.0, 15.0, np.inf):
    with _opened(path) as (container, stream):
      stream.thread_type = "AUTO"
      timeless = _timeless(container)
      rate = float(_rate(stream, path)) if timeless else 0.0
      sought = start - back > 0 and not timeless
      if sought and not _seek(container, stream, start - back):
        continue
      begun = not sought
      try:
        for index, frame in enumerate(_guarded(container.decode(stream), path)):
          # What is shown before a keyframe may lean on frames before it.
          if not begun and not frame.key_frame:
            continue
          if frame.is_corrupt:
            raise ValueError(f"{path}: the frame at {frame.time} s is damaged")
          if frame.pts is None and not timeless:
            raise ValueError(f"{path}: frames without a time; remux it (ffmpeg -fflags +genpts -i in -c copy out.mkv)")
          time = index / rate if timeless else float(frame.pts * frame.time_base)
          if not begun and time > limit:
            break
          begun = True
          yield time, frame
      except ValueError:
        if begun:
          raise
      if begun:
        return


def _seek(container: Any, stream: Any, time: float) -> bool:
  """Goes to a keyframe before ``time``; whether that can be done."""
  import av

  try:
    container.seek(int(time / float(stream.time_base)), stream=stream)
  except (av.FFmpegError, OverflowError):
    return False
  return True


def _timeless(container: Any) -> bool:
  return any(name in _TIMELESS for name in container.format.name.split(","))


def _rate(stream: Any, path: Any) -> Any:
  if not stream.average_rate:
    raise ValueError(f"{path}: a video without times and frame rate; give fps, or remux it")
  return stream.average_rate


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[Any, Any]]:
  """The container and its first video stream."""
  import av

  try:
    address = os.path.abspath(path)  # no name can be taken for an address, such as "concat:a"
    try:
      container = av.open(address, metadata_errors="ignore", container_options=_OPTIONS)
    except TypeError:  # from av 19 on there is no such argument, and no need for it
      container = av.open(address, container_options=_OPTIONS)
  except FileNotFoundError:
    raise FileNotFoundError(f"{path} is missing") from None
  except (av.FFmpegError, OSError) as error:
    reason = error.strerror or error
    if error.errno == errno.EINVAL:
      reason = f"damaged, or none of {_CONTAINERS}; playlists that name other files are not followed"
    raise ValueError(f"{path}: no video that can be read: {reason}") from None
  with container:
    if not container.streams.video:
      raise ValueError(f"{path}: no video in it")
    stream = container.streams.video[0]
    if stream.codec_context is None:
      raise ValueError(f"{path}: no video that can be read: its codec is unknown, or the file is damaged")
    if not 0 < stream.width * stream.height <= _MOST:
      raise ValueError(f"{path}: frames of {stream.width} x {stream.height}; at most {_MOST} pixels")
    yield container, stream


def _guarded(items: Iterator[Any], path: Any) -> Iterator[Any]:
  """Turns what the decoder raises into one sentence."""
  import av

  try:
    yield from items
  except av.FFmpegError as error:
    raise ValueError(f"{path}: a damaged video: {error.strerror or error}") from None

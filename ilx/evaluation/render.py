"""Replays episodes in their environment and writes a video; a program of its own, started by ``video.record_video``.

Apart from the process that trains, because where OpenGL is missing MuJoCo ends its process instead of raising, and
drivers crash. So it imports nothing of ilx, and is told what to do in a file:

  python render.py FOLDER

with ``FOLDER/job.json`` (``env_id``, ``env_kwargs``, ``action_repeat``, ``limit``, ``stride``, ``fps``, ``path``; of
every episode ``seeds``, ``is_terminal``) and ``FOLDER/episodes.npz`` (of every episode ``action_0``, ``reward_0``).
"""

import contextlib
import ctypes
import functools
import json
import math
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

# Of MuJoCo's pictures, in pixels; small ones have half of that. Drawn at twice the size, without anti-aliasing, and
# scaled down.
_MUJOCO_SIZE = (480, 360)
# Of small pictures; others are twice as wide, unless the environment draws them smaller.
_SMALLEST_WIDTH = 240
# About and behind pictures.
_DARK = (24, 24, 27)
_SCENES = {"envpool.mujoco.gym": "assets_gym", "envpool.mujoco.dmc": "assets_dmc"}
# Software rendering spends nine tenths of its time on shadows and on anti-aliasing. The haze is that of the horizon.
_QUALITY = '<visual><quality shadowsize="0" offsamples="0"/><rgba haze="0.35 0.4 0.38 1"/></visual></mujoco>'
_FLOOR = re.compile(r'(<geom\b[^>]*\bname="floor"[^>]*\bsize=")(?:40 40|20 20) ')
_TILES = re.compile(r'(<material\b[^>]*\bname="MatPlane"[^>]*\btexrepeat=")[^"]*')


def main(folder: pathlib.Path) -> None:
  """Does the job described in ``folder``."""
  job = json.loads((folder / "job.json").read_text())
  small = len(job["seeds"]) > 1
  cells = []
  with np.load(folder / "episodes.npz", allow_pickle=False) as episodes:
    for i, seed in enumerate(job["seeds"]):
      env, action, reward = _make(job, seed, folder, small), episodes[f"action_{i}"], episodes[f"reward_{i}"]
      options = {"stride": job["stride"], "repeat": job["action_repeat"], "limit": job["limit"], "small": small}
      cells.append(_frames(env, action, reward, job["is_terminal"][i], **options))
  _write(job["path"], _grid(cells), job["fps"], len(cells))


def _make(job: dict[str, Any], seed: int, folder: pathlib.Path, small: bool) -> Any:
  if job["env_id"].startswith("gymnasium:"):
    return _make_gymnasium(job, seed)
  import envpool
  from envpool import registration

  options = {"num_envs": 1, "seed": seed, "render_mode": "rgb_array", **job["env_kwargs"]}
  family = registration.registry.specs[job["env_id"]][0]
  if family.startswith("envpool.mujoco"):
    options |= dict(
      zip(("render_width", "render_height"), (side * (1 if small else 2) for side in _MUJOCO_SIZE), strict=True)
    )
  scenes = pathlib.Path(registration.base_path, "mujoco", _SCENES.get(family, ""))
  if family in _SCENES and scenes.is_dir():
    copy = folder / "mujoco" / scenes.name
    if not copy.exists():
      _copy_scenes(scenes, copy)
    options["base_path"] = str(folder)
  env = envpool.make(job["env_id"], "gymnasium", **options)
  if family.startswith("envpool.mujoco"):
    _publish_egl(pathlib.Path(envpool.__file__).parent)
  return env


def _make_gymnasium(job: dict[str, Any], seed: int) -> Any:
  import gymnasium

  env_id = job["env_id"].removeprefix("gymnasium:")
  make = functools.partial(gymnasium.make, env_id, **{"render_mode": "rgb_array", **job["env_kwargs"]})
  env = gymnasium.vector.SyncVectorEnv([make])
  env.reset = functools.partial(env.reset, seed=seed)
  return env


def _copy_scenes(scenes: pathlib.Path, copy: pathlib.Path) -> None:
  """Copies the scenes: without shadows, ten times faster to draw in software, and with floors that do not end.

  A good HalfCheetah leaves the 80 m that are drawn within ten seconds. Things move the same: ``_frames`` checks.
  """
  for file in scenes.rglob("*"):
    target = copy / file.relative_to(scenes)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".xml":
      target.write_text(_scenery(file.read_text()))
    elif file.is_file():
      target.symlink_to(file)


def _scenery(scene: str) -> str:
  scene = _QUALITY.join(scene.rsplit("</mujoco>", 1))
  # A plane of size 0 is drawn to the horizon, with `texrepeat` tiles a metre; to the physics all planes are endless.
  endless, floors = _FLOOR.subn(r"\g<1>0 0 ", scene)
  return _TILES.sub(r"\g<1>0.75 0.75", endless) if floors else scene


def _publish_egl(package: pathlib.Path) -> None:
  """Makes EGL's symbols visible to the whole process: MuJoCo looks for them there, but Python loads libraries apart."""
  for library in [*package.parent.glob("envpool.libs/libEGL*"), "libEGL.so.1"]:
    with contextlib.suppress(OSError):
      ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
      return


def _frames(
  env: Any,
  action: np.ndarray,
  reward: np.ndarray,
  is_terminal: bool,
  *,
  stride: int,
  repeat: int,
  limit: int,
  small: bool,
) -> Iterator[Any]:
  """PIL images of every ``stride``-th environment step and the last, of at most ``limit``.

  Raises:
    RuntimeError: where the replay earns other rewards than the episode did.
  """
  env.reset()
  total, steps = 0.0, 0
  yield _captioned(env.render()[0], "step 0   return 0.0", small)
  for t in range(len(action)):
    earned = np.float32(0)
    for k in range(repeat):
      _, reward_now, terminated, truncated, _ = env.step(action[t : t + 1])
      earned, steps = earned + np.float32(reward_now[0]), steps + 1
      over = bool(terminated[0] or truncated[0]) or steps == limit
      last_of_action = over or k + 1 == repeat
      last = last_of_action and t + 1 == len(action)
      if last_of_action and earned != reward[t]:
        raise RuntimeError(f"the replay earned {earned} at step {steps}, the episode {reward[t]}")
      if last or steps % stride == 0:
        ending = "   terminated" if last and is_terminal else ""
        yield _captioned(env.render()[0], f"step {steps}   return {total + float(earned):.1f}{ending}", small)
      if over:
        break
    total += float(earned)


def _captioned(frame: np.ndarray, text: str, small: bool) -> Any:
  """The picture at its final size, both sides even, with a line of text above it."""
  from PIL import Image, ImageDraw, ImageFont

  image = Image.fromarray(frame)
  width = _SMALLEST_WIDTH * (1 if small else 2)
  if image.width >= 2 * width:
    image = image.reduce(image.width // width)
  elif image.width < _SMALLEST_WIDTH:
    scale = -(-_SMALLEST_WIDTH // image.width)
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
  strip = 18 if small else 24
  size = (image.width + image.width % 2, image.height + image.height % 2 + strip)
  canvas = Image.new("RGB", size, _DARK)
  canvas.paste(image, (0, strip))
  font = ImageFont.load_default(size=11 if small else 14)
  ImageDraw.Draw(canvas).text((8, 3 if small else 4), text, fill=(228, 228, 231), font=font)
  return canvas


def _grid(cells: list[Iterator[Any]]) -> Iterator[Any]:
  """Pictures of all, in rows; of an episode that is over the last one stays, darker."""
  from PIL import Image

  columns = math.ceil(math.sqrt(len(cells)))
  latest: list[Any] = [None] * len(cells)
  over = [False] * len(cells)
  while True:
    for i, cell in enumerate(cells):
      image = None if over[i] else next(cell, None)
      if image is not None:
        latest[i] = image
      elif not over[i]:
        over[i] = True
        if len(cells) > 1:
          latest[i] = Image.blend(latest[i], Image.new("RGB", latest[i].size, _DARK), 0.5)
    if all(over):
      return
    width, height = latest[0].size
    canvas = Image.new("RGB", (columns * width, -(-len(cells) // columns) * height), _DARK)
    for i, image in enumerate(latest):
      canvas.paste(image, (i % columns * width, i // columns * height))
    yield canvas


def _write(path: str, frames: Iterator[Any], fps: int, count: int) -> None:
  """H.264 in MP4, as browsers play it, at most about 90 kB a second and episode; the last frame stays for a second."""
  import av

  with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
    stream = container.add_stream("libx264", rate=fps)
    stream.pix_fmt = "yuv420p"
    rate = f"{700 * min(count, 4)}k"
    stream.options = {"crf": "25", "maxrate": rate, "bufsize": rate}
    image = None
    for number, image in enumerate(frames):
      if number == 0:
        stream.width, stream.height = image.size
      container.mux(stream.encode(av.VideoFrame.from_image(image)))
    for _ in range(fps):
      container.mux(stream.encode(av.VideoFrame.from_image(image)))
    container.mux(stream.encode())


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))

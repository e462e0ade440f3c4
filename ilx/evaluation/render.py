"""Replays an episode in its environment and writes a video; a program of its own, started by ``video.record_video``.

Apart from the process that trains, because where OpenGL is missing MuJoCo ends its process instead of raising, and
drivers crash. So it imports nothing of ilx, and is told what to do in a file:

  python render.py FOLDER

with ``FOLDER/job.json`` (``env_id``, ``env_kwargs``, ``seed``, ``stride``, ``fps``, ``path``, ``is_terminal``) and
``FOLDER/episode.npz`` (``action``, ``reward``).
"""

import contextlib
import ctypes
import functools
import json
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

# Of MuJoCo's pictures, in pixels; drawn at twice that, without anti-aliasing, and scaled down.
_MUJOCO_SIZE = (480, 360)
_SMALLEST_WIDTH = 240
_SCENES = {"envpool.mujoco.gym": "assets_gym", "envpool.mujoco.dmc": "assets_dmc"}
# Software rendering spends nine tenths of its time on shadows and on anti-aliasing. The haze is that of the horizon.
_QUALITY = '<visual><quality shadowsize="0" offsamples="0"/><rgba haze="0.35 0.4 0.38 1"/></visual></mujoco>'
_FLOOR = re.compile(r'(<geom\b[^>]*\bname="floor"[^>]*\bsize=")(?:40 40|20 20) ')
_TILES = re.compile(r'(<material\b[^>]*\bname="MatPlane"[^>]*\btexrepeat=")[^"]*')


def main(folder: pathlib.Path) -> None:
  """Does the job described in ``folder``."""
  job = json.loads((folder / "job.json").read_text())
  with np.load(folder / "episode.npz", allow_pickle=False) as episode:
    action, reward = episode["action"], episode["reward"]
  env = _make(job, folder)
  frames = _frames(env, action, reward, job["stride"], job["is_terminal"])
  _write(job["path"], frames, job["fps"])


def _make(job: dict[str, Any], folder: pathlib.Path) -> Any:
  if job["env_id"].startswith("gymnasium:"):
    return _make_gymnasium(job)
  import envpool
  from envpool import registration

  options = {"num_envs": 1, "seed": job["seed"], "render_mode": "rgb_array", **job["env_kwargs"]}
  family = registration.registry.specs[job["env_id"]][0]
  if family.startswith("envpool.mujoco"):
    options |= {"render_width": 2 * _MUJOCO_SIZE[0], "render_height": 2 * _MUJOCO_SIZE[1]}
  scenes = pathlib.Path(registration.base_path, "mujoco", _SCENES.get(family, ""))
  if family in _SCENES and scenes.is_dir():
    _copy_scenes(scenes, folder / "mujoco" / scenes.name)
    options["base_path"] = str(folder)
  env = envpool.make(job["env_id"], "gymnasium", **options)
  if family.startswith("envpool.mujoco"):
    _publish_egl(pathlib.Path(envpool.__file__).parent)
  return env


def _make_gymnasium(job: dict[str, Any]) -> Any:
  import gymnasium

  env_id = job["env_id"].removeprefix("gymnasium:")
  make = functools.partial(gymnasium.make, env_id, **{"render_mode": "rgb_array", **job["env_kwargs"]})
  env = gymnasium.vector.SyncVectorEnv([make])
  env.reset = functools.partial(env.reset, seed=job["seed"])
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


def _frames(env: Any, action: np.ndarray, reward: np.ndarray, stride: int, is_terminal: bool) -> Iterator[Any]:
  """PIL images of every ``stride``-th step and the last.

  Raises:
    RuntimeError: where the replay earns other rewards than the episode did.
  """
  env.reset()
  total = 0.0
  yield _captioned(env.render()[0], "step 0   return 0.0")
  for t in range(len(action)):
    _, earned, *_ = env.step(action[t : t + 1])
    if np.float32(earned[0]) != reward[t]:
      raise RuntimeError(f"the replay earned {earned[0]} at step {t + 1}, the episode {reward[t]}")
    total += float(earned[0])
    last = t + 1 == len(action)
    if last or (t + 1) % stride == 0:
      ending = "   terminated" if last and is_terminal else ""
      yield _captioned(env.render()[0], f"step {t + 1}   return {total:.1f}{ending}")


def _captioned(frame: np.ndarray, text: str) -> Any:
  """The picture at its final size, both sides even, with a line of text above it."""
  from PIL import Image, ImageDraw, ImageFont

  image = Image.fromarray(frame)
  if image.size == (2 * _MUJOCO_SIZE[0], 2 * _MUJOCO_SIZE[1]):
    image = image.reduce(2)
  elif image.width < _SMALLEST_WIDTH:
    scale = -(-_SMALLEST_WIDTH // image.width)
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
  strip = 24
  size = (image.width + image.width % 2, image.height + image.height % 2 + strip)
  canvas = Image.new("RGB", size, (24, 24, 27))
  canvas.paste(image, (0, strip))
  ImageDraw.Draw(canvas).text((8, 4), text, fill=(228, 228, 231), font=ImageFont.load_default(size=14))
  return canvas


def _write(path: str, frames: Iterator[Any], fps: int) -> None:
  """H.264 in MP4, as browsers play it, at most about 90 kB a second; the last frame stays for a second."""
  import av

  with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
    stream = container.add_stream("libx264", rate=fps)
    stream.pix_fmt = "yuv420p"
    stream.options = {"crf": "25", "maxrate": "700k", "bufsize": "700k"}
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

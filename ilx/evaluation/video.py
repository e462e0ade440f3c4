"""Videos of policies at play."""

import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import jax
import numpy as np

from ilx.evaluation import environments, gymnasium, playing
from ilx.evaluation.acting import Policy
from ilx.evaluation.trajectories import Episode
from ilx.types import Agent, Tree

# Environment steps in a second of the world, as gymnasium's ``render_fps`` has them; others are shown at 30.
_STEPS_PER_SECOND = {
  "Acrobot": 15, "Ant": 20, "BipedalWalker": 50, "BipedalWalkerHardcore": 50, "CarRacing": 50, "CartPole": 50,
  "HalfCheetah": 20, "Hopper": 125, "Humanoid": 67, "HumanoidStandup": 67, "InvertedDoublePendulum": 20,
  "InvertedPendulum": 25, "LunarLander": 50, "LunarLanderContinuous": 50, "MountainCar": 30,
  "MountainCarContinuous": 30, "Pendulum": 30, "Pusher": 20, "Reacher": 50, "Swimmer": 25, "Walker2d": 125,
}  # fmt: skip
_DEFAULT_STEPS_PER_SECOND = 30
_MAX_FPS = 32
# Episodes of one video.
_MOST = 64
# A second of video takes about a second to draw without a GPU.
_TIMEOUT_SECONDS = 180

_log = logging.getLogger(__name__)


def record_video(
  agent: Agent | Policy,
  params: Tree,
  env_id: str,
  path: str | os.PathLike,
  *,
  seed: int = 0,
  episodes: int = 1,
  max_seconds: float = 10.0,
  env_kwargs: dict[str, Any] | None = None,
  sample: bool = False,
) -> pathlib.Path | None:
  """Plays episodes and writes their first ``max_seconds``, in real time, as an MP4 (H.264) that browsers play.

  One is drawn large, several side by side in a grid. They are played here, then replayed and drawn in another process,
  which may die without harm. MuJoCo's tasks need EGL, from a GPU's driver or from Mesa, which draws without a GPU; no
  display is needed.

  Args:
    agent: only ``act`` and ``carry`` are used.
    params: what ``act`` takes.
    env_id: EnvPool's name of the task, or ``"gymnasium:..."``.
    path: of the video; its folder is made. A video that is there stays until the new one is complete.
    seed: any integer >= 0, of the environments and the sampled actions. The starts are those of the first slots in
      ``evaluate``.
    episodes: how many, at most 64.
    max_seconds: length in the time of the task.
    env_kwargs: the task's own options.
    sample: draw actions from the policy instead of taking its mode.

  Returns:
    The path, or None where the task cannot be drawn here; the reason is logged as a warning.

  Raises:
    ValueError: for an unknown ``env_id`` or wrong actions, as ``evaluate``; for ``episodes`` out of range.
  """
  if not 1 <= episodes <= _MOST:
    raise ValueError(f"a video shows 1 to {_MOST} episodes, not {episodes}")
  path = pathlib.Path(path).absolute()
  env_kwargs = dict(env_kwargs or {})
  rate = _STEPS_PER_SECOND.get(env_id.removeprefix(gymnasium.PREFIX).rsplit("-", 1)[0], _DEFAULT_STEPS_PER_SECOND)
  stride = -(-rate // _MAX_FPS)
  limit = max(1, round(max_seconds * rate))
  limit = min(limit, environments.time_limit(env_id, **env_kwargs) or limit)
  played = _play(agent, params, env_id, seed, episodes, limit, env_kwargs, sample)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f".{path.name}.{os.getpid()}.part")
  times, options = environments.repetitions(env_id, env_kwargs)
  job = {
    "env_id": env_id,
    "env_kwargs": options,
    "action_repeat": times,
    "limit": limit,
    "stride": stride,
    "fps": round(rate / stride),
    "path": str(part),
    "seeds": environments.slot_seeds(seed, episodes).tolist(),
    "is_terminal": [episode.is_terminal for episode in played],
  }
  try:
    failure = _render(job, played)
    if failure:
      _log.warning("No video of %s: %s", env_id, failure)
      return None
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)
  return path


def _play(
  agent: Agent | Policy,
  params: Tree,
  env_id: str,
  seed: int,
  episodes: int,
  limit: int,
  env_kwargs: dict[str, Any],
  sample: bool,
) -> list[Episode]:
  """The starts of episodes, one of every slot, of at most ``limit`` environment steps."""
  env = environments.make(env_id, episodes, seed, **{**env_kwargs, "max_episode_steps": limit})
  found: list[Episode] = []
  key = jax.random.key(seed, impl="threefry2x32") if sample else None
  playing.play(agent, params, env, episodes=episodes, key=key, on_episode=lambda _, episode: found.append(episode))
  return found


def _render(job: dict[str, Any], episodes: list[Episode]) -> str | None:
  """Runs ``render.py``; what went wrong in one line, or None."""
  if isinstance(episodes[0].action, dict):
    return "actions of several parts are not drawn"
  # The pictures of several are a quarter of the size.
  timeout = _TIMEOUT_SECONDS * max(1.0, len(episodes) / 4)
  with tempfile.TemporaryDirectory(prefix="ilx-video-") as folder:
    pathlib.Path(folder, "job.json").write_text(json.dumps(job))
    columns = {f"{name}_{i}": getattr(one, name) for i, one in enumerate(episodes) for name in ("action", "reward")}
    np.savez(pathlib.Path(folder, "episodes.npz"), **columns)
    program = pathlib.Path(__file__).with_name("render.py")
    try:
      done = subprocess.run(
        # -P: the program's folder is no place to import from. MuJoCo leaves a log where it is started.
        [sys.executable, "-P", str(program), folder],
        cwd=folder,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
      )
    except subprocess.TimeoutExpired:
      return f"drawing took more than {timeout:.0f} s"
    except OSError as error:
      return f"{sys.executable} could not be started ({error})"
  # MuJoCo's error handler exits with status 1 or, in some versions, 0.
  if done.returncode == 0 and pathlib.Path(job["path"]).is_file():
    return None
  reason = (done.stderr.strip() or f"the program ended with status {done.returncode}").splitlines()[-1]
  if "EGL" in reason or "OpenGL" in reason:
    reason += " (MuJoCo draws with EGL: install a GPU driver with EGL, or Mesa: apt install libegl1 libegl-mesa0)"
  return reason

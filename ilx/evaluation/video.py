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

from ilx.evaluation import environments, gymnasium, rollout
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
# A second of video takes about a second to draw without a GPU.
_TIMEOUT_SECONDS = 180

_log = logging.getLogger(__name__)


def record_video(
  agent: Agent | rollout.Policy,
  params: Tree,
  env_id: str,
  path: str | os.PathLike,
  *,
  seed: int = 0,
  max_seconds: float = 10.0,
  env_kwargs: dict[str, Any] | None = None,
  sample: bool = False,
) -> pathlib.Path | None:
  """Plays one episode and writes its first ``max_seconds``, in real time, as an MP4 (H.264) that browsers play.

  The episode is played here, then replayed and drawn in another process, which may die without harm. MuJoCo's tasks
  need EGL, from a GPU's driver or from Mesa, which draws without a GPU; no display is needed.

  Args:
    agent: only ``act`` and ``carry`` are used.
    params: what ``act`` takes.
    env_id: EnvPool's name of the task, or ``"gymnasium:..."``.
    path: of the video; its folder is made. A video that is there stays until the new one is complete.
    seed: any integer >= 0, of the environment and the sampled actions. The start is slot 0's in ``evaluate``.
    max_seconds: length in the time of the task.
    env_kwargs: the task's own options.
    sample: draw actions from the policy instead of taking its mode.

  Returns:
    The path, or None where the task cannot be drawn here; the reason is logged as a warning.

  Raises:
    ValueError: for an unknown ``env_id`` or wrong actions, as ``evaluate``.
  """
  path = pathlib.Path(path).absolute()
  env_kwargs = dict(env_kwargs or {})
  rate = _STEPS_PER_SECOND.get(env_id.removeprefix(gymnasium.PREFIX).rsplit("-", 1)[0], _DEFAULT_STEPS_PER_SECOND)
  stride = -(-rate // _MAX_FPS)
  episode, env_seed = _play(agent, params, env_id, seed, max(1, round(max_seconds * rate)), env_kwargs, sample)
  path.parent.mkdir(parents=True, exist_ok=True)
  part = path.with_name(f".{path.name}.{os.getpid()}.part")
  job = {
    "env_id": env_id,
    "env_kwargs": env_kwargs,
    "seed": env_seed,
    "stride": stride,
    "fps": round(rate / stride),
    "path": str(part),
    "is_terminal": episode.is_terminal,
  }
  try:
    failure = _render(job, episode)
    if failure:
      _log.warning("No video of %s: %s", env_id, failure)
      return None
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)
  return path


def _play(
  agent: Agent | rollout.Policy, params: Tree, env_id: str, seed: int, max_steps: int, env_kwargs: dict, sample: bool
) -> tuple[Episode, int]:
  """The start of an episode, and the seed that the environment made it from."""
  env = environments.make(env_id, 1, seed, **env_kwargs)
  limit = min(max_steps, env.config["max_episode_steps"])
  env = environments.make(env_id, 1, seed, **{**env_kwargs, "max_episode_steps": limit})
  episodes: list[Episode] = []
  key = jax.random.key(seed) if sample else None
  rollout.play(agent, params, env, episodes=1, key=key, on_episode=lambda _, episode: episodes.append(episode))
  return episodes[0], int(environments.slot_seeds(seed, 1)[0])


def _render(job: dict[str, Any], episode: Episode) -> str | None:
  """Runs ``render.py``; what went wrong in one line, or None."""
  if isinstance(episode.action, dict):
    return "actions of several parts are not drawn"
  with tempfile.TemporaryDirectory(prefix="ilx-video-") as folder:
    pathlib.Path(folder, "job.json").write_text(json.dumps(job))
    np.savez(pathlib.Path(folder, "episode.npz"), action=episode.action, reward=episode.reward)
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
        timeout=_TIMEOUT_SECONDS,
      )
    except subprocess.TimeoutExpired:
      return f"drawing took more than {_TIMEOUT_SECONDS} s"
    except OSError as error:
      return f"{sys.executable} could not be started ({error})"
  # MuJoCo's error handler exits with status 1 or, in some versions, 0.
  if done.returncode == 0 and pathlib.Path(job["path"]).is_file():
    return None
  reason = (done.stderr.strip() or f"the program ended with status {done.returncode}").splitlines()[-1]
  if "EGL" in reason or "OpenGL" in reason:
    reason += " (MuJoCo draws with EGL: install a GPU driver with EGL, or Mesa: apt install libegl1 libegl-mesa0)"
  return reason

"""Recordings in ``.npz`` files, as other projects publish them, turned into RLDS datasets.

What was decided once for all layouts (``layouts.PRESETS`` says what differs between them):

* Ends. Only ends of the task are terminal. Where flags mix them with time limits, an episode as long as the time limit
  ended by it and a shorter one by an end of the task. An unflagged last episode was cut, which is a time limit.
* What followed the last action. Where it was not recorded, a terminal episode repeats its last observation as the
  terminal one (a terminal observation's value is never bootstrapped), and an episode that ended by a time limit loses
  its last action: its last recorded observation becomes its last step. Stated returns are of the whole recording.
* Actions out of bounds are clipped, as environments do before they move; rewards stay as they were recorded, though
  some environments (HalfCheetah, Hopper) charged for the action as it was given. ``clip=False`` keeps the actions.
* Floats become float32, discrete actions int32 ``[N]`` (from whole floats or one-hot rows too, given ``Discrete``),
  uint8 stays uint8 and other integers become int32.
* Arrays that a layout does not name (AdroitHandDoor's initial states, the names of policies) are left out.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ilx.data.convert import archive, layouts
from ilx.data.convert import arrays as checked
from ilx.data.convert.layouts import Layout
from ilx.types import Continuous, Discrete


@dataclasses.dataclass(frozen=True)
class Recording:
  """A recording in columns: N actions in E episodes.

  Attributes:
    observation: ``[N, ...]`` float32, uint8 or int32, what each action saw.
    final: ``[E, ...]``, what followed each episode's last action; None where it was not recorded.
    action: float32 ``[N, A]`` or int32 ``[N]``.
    reward: float32 ``[N]``.
    starts: int64 ``[E + 1]``; episode ``e`` is actions ``starts[e]`` to ``starts[e + 1] - 1``.
    terminal: bool ``[E]``, whether the episode ended by an end of the task.
    out_of_bounds: how many of the N actions left the bounds; 0 where these are not known.
    meta: the file's own ``meta`` (a JSON object in a text array), or {}.
  """

  observation: np.ndarray
  final: np.ndarray | None
  action: np.ndarray
  reward: np.ndarray
  starts: np.ndarray
  terminal: np.ndarray
  out_of_bounds: int
  meta: dict[str, Any]

  @property
  def returns(self) -> np.ndarray:
    """Undiscounted return of every episode as recorded, float64 ``[E]``."""
    return np.add.reduceat(self.reward.astype(np.float64), self.starts[:-1])


def meta(path: str | os.PathLike, *, max_bytes: int = 1 << 20) -> dict[str, Any]:
  """The JSON object in the file's text array ``meta``; {} where there is none.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is no npz file, or its ``meta`` is not a JSON object.
  """
  if "meta" not in archive.keys(path):
    return {}
  text = archive.load(path, ["meta"], max_bytes=max_bytes)["meta"]
  try:
    parsed = json.loads(str(text))
  except json.JSONDecodeError as error:
    raise ValueError(f"{path}: array 'meta' is not JSON ({error})") from None
  if not isinstance(parsed, dict) or not isinstance(parsed.get("env_kwargs", {}), dict):
    raise ValueError(f"{path}: array 'meta' must be a JSON object, and so must its env_kwargs")
  return parsed


def read(
  path: str | os.PathLike,
  preset: str | Layout = "auto",
  *,
  action: Continuous | Discrete | None = None,
  clip: bool = True,
  max_episode_steps: int | None = None,
  max_bytes: int = 8 << 30,
) -> Recording:
  """Reads and checks a recording.

  Args:
    path: an ``.npz`` file; nothing in it is unpickled.
    preset: a name in ``layouts.PRESETS``, "auto", a ``Layout``, or the path of a JSON file of its fields.
    action: the environment's actions. Without it integers are taken as discrete and nothing is known of bounds.
    clip: whether actions out of bounds are clipped.
    max_episode_steps: the time limit the recording was made with; by default the one in ``meta``'s ``env_kwargs``.
      Needed where flags mix ends of the task with time limits.
    max_bytes: the most memory the file's arrays may take.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: naming the file, the array, and where it fits the episode and step at fault.
  """
  layout = layouts.resolve(preset, archive.keys(path), path)
  about = meta(path)
  arrays = archive.load(path, layout.arrays(), max_bytes=max_bytes)
  if layout.stacked:
    arrays, layout = checked.unstack(arrays, layout, path)
  reward = checked.to_float32(checked.vector(arrays[layout.reward], layout.reward, path))
  starts = checked.boundaries(arrays, layout, len(reward), path)
  observation, final = checked.observations(arrays, layout, starts, path)
  actions, out_of_bounds = checked.actions(arrays[layout.action], layout.action, action, starts, path, clip=clip)
  checked.check_finite(reward, layout.reward, starts, path)
  checked.check_returns(arrays, layout, reward, starts, path)
  if max_episode_steps is None:
    max_episode_steps = about.get("env_kwargs", {}).get("max_episode_steps")
  terminal = checked.terminals(arrays, layout, starts, max_episode_steps, path)
  return Recording(observation, final, actions, reward, starts, terminal, out_of_bounds, about)


def steps(recording: Recording) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
  """Every episode as (observation ``[T+1, ...]``, action ``[T, ...]``, reward ``[T]``, terminal).

  What followed the last action is treated as this module's docstring says; an episode of one action, cut, with nothing
  recorded after it has no transition and is left out.
  """
  for episode, (start, stop) in enumerate(zip(recording.starts[:-1], recording.starts[1:], strict=True)):
    terminal = bool(recording.terminal[episode])
    observation = recording.observation[start:stop]
    if recording.final is not None:
      observation = np.concatenate([observation, recording.final[episode : episode + 1]])
    elif terminal:
      observation = np.concatenate([observation, observation[-1:]])
    else:
      stop -= 1
    if stop > start:
      yield observation, recording.action[start:stop], recording.reward[start:stop], terminal


def summary(recording: Recording) -> dict[str, Any]:
  """Counts and returns of a recording as read, and what writing it leaves out.

  ``dropped`` counts the last actions of episodes cut by a time limit whose next observation was not recorded.
  """
  returns = recording.returns
  cut = int((~recording.terminal).sum())
  return {
    "episodes": len(returns),
    "steps": len(recording.reward),
    "return_mean": float(returns.mean()),
    "return_min": float(returns.min()),
    "return_max": float(returns.max()),
    "terminals": int(recording.terminal.sum()),
    "time_limits": cut,
    "out_of_bounds": recording.out_of_bounds,
    "dropped": 0 if recording.final is not None else cut,
  }

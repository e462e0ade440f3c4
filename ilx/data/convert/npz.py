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
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ilx.data import rlds
from ilx.data.convert import archive, layouts
from ilx.data.convert import arrays as checked
from ilx.data.convert.layouts import Layout
from ilx.data.convert.recording import Recording, episodes, summary, write
from ilx.types import Continuous, Discrete

__all__ = [
  "Layout",
  "Recording",
  "convert",
  "default_name",
  "env_kwargs",
  "episodes",
  "meta",
  "read",
  "summary",
  "write",
]


def meta(path: str | os.PathLike) -> dict[str, Any]:
  """The JSON object in the file's text array ``meta``; {} where there is none.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is no npz file, or its ``meta`` is not a JSON object of at most 1 MB.
  """
  if "meta" not in archive.keys(path):
    return {}
  text = archive.load(path, ["meta"], max_bytes=4 << 20)["meta"]
  try:
    parsed = json.loads(str(text), parse_constant=_refuse_constant)
  except ValueError as error:
    raise ValueError(f"{path}: array 'meta' is not JSON ({error})") from None
  if not isinstance(parsed, dict) or not isinstance(parsed.get("env_kwargs", {}), dict):
    raise ValueError(f"{path}: array 'meta' must be a JSON object, and so must its env_kwargs")
  return parsed


def env_kwargs(about: Mapping[str, Any]) -> dict[str, Any]:
  """The task's options in a file's ``meta``, without the seed, which is the recording's."""
  return {key: value for key, value in about.get("env_kwargs", {}).items() if key != "seed"}


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
  if max_episode_steps is None:
    max_episode_steps = about.get("env_kwargs", {}).get("max_episode_steps")
  if not isinstance(max_episode_steps, int | None) or max_episode_steps == 0:
    raise ValueError(f"{path}: max_episode_steps is {max_episode_steps!r}; expected a whole number of steps")
  arrays = archive.load(path, layout.arrays(), max_bytes=max_bytes)
  flat, flat_layout = checked.unstack(arrays, layout, path) if layout.stacked else (arrays, layout)
  reward = checked.to_float32(checked.vector(flat[layout.reward], layout.reward, path))
  starts = checked.boundaries(flat, flat_layout, len(reward), path)
  observation, final = checked.observations(flat, flat_layout, starts, path)
  actions, out_of_bounds = checked.actions(flat[layout.action], layout.action, action, starts, path, clip=clip)
  checked.check_finite(reward, layout.reward, starts, path)
  checked.check_returns(flat, flat_layout, reward, starts, path)
  terminal = checked.terminals(flat, flat_layout, starts, max_episode_steps, path)
  recording = Recording(observation, final, actions, reward, starts, terminal, {})
  read_as = {
    "file": pathlib.Path(path).name,
    "sha256": _sha256(path),
    "layout": dataclasses.asdict(layout),
    "max_episode_steps": max_episode_steps,
    "out_of_bounds": out_of_bounds,
    "clipped": out_of_bounds > 0 and clip,
  }
  recording.metadata.update(_described(about, action))
  recording.metadata.update(
    data_return=float(recording.returns.mean()),
    data_return_std=float(recording.returns.std()),
    recording=read_as | summary(recording),
  )
  return recording


def convert(
  path: str | os.PathLike,
  directory: str | os.PathLike | None = None,
  *,
  preset: str | Layout = "auto",
  name: str | None = None,
  version: str = "1.0.0",
  metadata: Mapping[str, Any] | None = None,
  **options: Any,
) -> pathlib.Path:
  """``read``, then ``write``.

  Example::

    npz.convert("cs285_HalfCheetah-v4_expert.npz", preset="cs285", max_episode_steps=1000)
    episodes = ilx.data.load("cs285_halfcheetah-v4_expert")

  Args:
    path: see ``read``.
    directory: see ``write``; by default ``ilx.data.root()``.
    preset: see ``read``.
    name: see ``write``; by default ``default_name(path)``.
    version: see ``write``.
    metadata: see ``write``.
    **options: the other arguments of ``read``.

  Returns:
    The dataset's folder.

  Raises:
    FileNotFoundError, ValueError: see ``read``.
    FileExistsError, OSError: see ``write``.
  """
  recording = read(path, preset, **options)
  where = rlds.root() if directory is None else directory
  return write(recording, where, name=name or default_name(path), version=version, metadata=metadata)


def default_name(path: str | os.PathLike) -> str:
  """A dataset's name from its file's, in small letters."""
  name = re.sub(r"[^a-z0-9_-]+", "-", pathlib.Path(path).stem.lower()).lstrip("-_0123456789")
  if not name:
    raise ValueError(f"{path}: its name has no letters to name a dataset by; give a name")
  return name


def _described(about: dict[str, Any], action: Continuous | Discrete | None) -> dict[str, Any]:
  """Metadata from a file's ``meta`` and the environment's actions."""
  found = {key: about[key] for key in ("env_id", "source", "note") if key in about}
  found["env_kwargs"] = env_kwargs(about)
  if isinstance(about.get("source"), dict) and "license" in about["source"]:
    found["licence"] = about["source"]["license"]
  if isinstance(action, Continuous):
    found |= {"action_low": action.low.tolist(), "action_high": action.high.tolist()}
  if isinstance(action, Discrete):
    found["num_actions"] = action.num_actions
  return found


def _sha256(path: str | os.PathLike) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_constant(name: str) -> None:
  raise ValueError(f"{name} is no JSON number")

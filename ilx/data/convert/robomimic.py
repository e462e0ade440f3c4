"""robomimic's HDF5 files, turned into RLDS datasets. Followed: its documentation and its own scripts, version 0.5.

Layout: a group ``data/demo_<n>`` for every demonstration, with ``actions`` [T, A], ``rewards`` [T], ``dones`` [T],
``states`` [T, D] (the simulator's), ``obs/<key>`` [T, ...] and mostly ``next_obs/<key>`` [T, ...] (pictures as uint8
[T, height, width, 3]); attributes ``num_samples``, ``model_file`` (the simulator's XML), ``ep_meta`` (JSON; RoboCasa's
has the instruction in "lang"). ``data`` has the attribute ``env_args`` (JSON). ``mask/<key>`` lists names of
demonstrations: "train" and "valid" split them, others ("20_percent", "better") are subsets that may overlap.

What is kept: observations, actions, rewards and dones of every demonstration; ``states``, ``actions_abs`` and
``action_dict`` where asked for; ``env_args``; the masks. Lost: the simulator's XML, cameras' matrices, and next
observations but the last.

What was decided, beside what ``convert.npz`` says:

* ``dones`` say which steps end the task, as robomimic's own agents take them: the last one makes the last step
  terminal, earlier ones (the task was solved and the demonstration went on) become discounts of 0. robomimic writes
  ``dones`` at solved steps (mode 0), at the end of every demonstration (1) or both (2), and does not store which:
  ``terminal="success"`` takes rewards above 0 instead, ``terminal="never"`` neither.
* ``next_obs`` gives the final observation. Files without it lose a cut demonstration's last action, or repeat a
  terminal one's last observation.
* Actions are bounded by [-1, 1], robomimic's convention for ``actions``; other actions have no bounds.
* Episode metadata: "demo" (its name), "success" (whether a reward is above 0, where the environment's rewards are
  sparse), "mask_<key>" for every mask that is no split.
* "language_instruction" is there where any demonstration has an instruction; it is empty in those that have none.
* Demonstrations come in the order of their numbers.
"""

import json
import os
import re
from typing import Any, Literal

import numpy as np

from ilx.data.convert import d4rl_tasks, fields, hdf5, npz
from ilx.data.convert.source import Converted

_SPLITS = ("train", "valid")
_TERMINAL = ("dones", "success", "never")
# robomimic's EnvType: robosuite and iGibson, whose rewards are 1 where the task is solved unless they are shaped.
_SPARSE_TYPES = (1, 3)
_GYM_TYPE = 2


class Robomimic:
  """Demonstrations in a robomimic file; see ``open``."""

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    observations: tuple[str, ...] | None = None,
    actions: str = "actions",
    extras: tuple[str, ...] = (),
    splits: tuple[str, ...] = _SPLITS,
    terminal: Literal["dones", "success", "never"] = "dones",
    images: str = "png",
    clip: bool = True,
  ):
    """Reads what demonstrations there are, and the masks.

    Args:
      path: the HDF5 file.
      observations: keys in ``obs``; all by default.
      actions: the dataset of the actions, such as "actions_abs".
      extras: further datasets that become step fields, such as "states" or "action_dict/abs_pos".
      splits: masks that split the demonstrations; those in none of them become the split "rest". A file without these
        masks has the split "train" alone.
      terminal: what ends the task: see the module.
      images: "png", "jpeg" or "raw": how uint8 [T, height, width, 1, 3 or 4] is stored.
      clip: whether ``actions`` are clipped to [-1, 1].
    """
    fields.check_image_format(images)
    if terminal not in _TERMINAL:
      raise ValueError(f"robomimic: terminal is {terminal!r}; expected one of {', '.join(_TERMINAL)}")
    self._file = hdf5.File(path)
    self.name = npz.default_name(path)
    self._action, self._extras, self._terminal, self._images = actions, fields.names(extras), terminal, images
    self._demos = self._numbered()
    self._keys = self._observation_keys(None if observations is None else fields.names(observations))
    env = self._json(self._file.attribute("data", "env_args"), "env_args")
    self._sparse = env.get("type") in _SPARSE_TYPES and not _kwargs(env).get("reward_shaping", False)
    bounded = actions == "actions"
    self._clip = clip and bounded
    self._splits, self._masks = self._read_masks(fields.names(splits))
    self._instructed = any(self._instruction(demo) is not None for demo in self._demos)
    self.metadata: dict[str, Any] = {"source": f"robomimic: {self._file.path.name}", "env_args": env}
    if bounded:
      size = (*self._file.shape(f"data/{self._demos[0]}/actions"), 1)[1]
      self.metadata |= {"action_low": [-1.0] * size, "action_high": [1.0] * size}
    if env.get("type") == _GYM_TYPE and (known := d4rl_tasks.task(str(env.get("env_name")))) and known.env_id:
      self.metadata |= {"env_id": known.env_id, "env_kwargs": dict(known.env_kwargs), "note": known.note}
      self.metadata |= {"random_return": known.random_return, "expert_return": known.expert_return}
    self.metadata["recording"] = {
      "file": self._file.path.name,
      "format": "robomimic",
      "actions": actions,
      "terminal": terminal,
      "clipped": self._clip,
      "images": images,
    }

  def __len__(self) -> int:
    return len(self._demos)

  def __getitem__(self, index: int) -> Converted:
    demo = self._demos[index]
    group = f"data/{demo}"
    action = self._numbers(f"{group}/{self._action}")
    length = len(action)
    stated = self._file.attribute(group, "num_samples", length)
    if not length or stated != length:
      raise ValueError(f"{self._file.path}: {group!r} has {length} actions, but its num_samples is {stated}")
    if self._clip:
      where = self._where(f"{group}/{self._action}")
      action = fields.clipped(action, self.metadata["action_low"], self.metadata["action_high"], where)
    reward = self._vector(f"{group}/rewards", length)
    ends = self._ends(group, reward)
    observation = {key: self._numbers(f"{group}/obs/{key}", length) for key in self._keys}
    final = None
    if self._file.kind(f"{group}/next_obs") == "group":
      final = {key: self._last(f"{group}/next_obs/{key}", observation[key]) for key in self._keys}
    extras = {name.replace("/", "_"): self._numbers(f"{group}/{name}", length) for name in self._extras}
    steps = fields.complete(
      fields.nested(observation),
      None if final is None else fields.nested(final),
      action,
      reward,
      terminal=bool(ends[-1]),
      discount=(~ends).astype(np.float32),
      extras=extras,
    )
    steps["observation"] = _encoded(steps["observation"], self._images)
    if self._instructed:
      steps["language_instruction"] = [str(self._about(demo).get("lang") or "")] * len(steps["reward"])
    metadata: dict[str, Any] = {"demo": demo}
    if self._sparse:
      metadata["success"] = bool((reward > 0).any())
    metadata |= {f"mask_{key}": demo in demos for key, demos in self._masks.items()}
    return Converted(steps, metadata, self._splits.get(demo, "rest") if self._splits else "train")

  def _where(self, name: str) -> str:
    return f"{self._file.path}: dataset {name!r}"

  def _numbers(self, name: str, rows: int | None = None) -> np.ndarray:
    return fields.numbers(self._file.read(name), self._where(name), rows)

  def _vector(self, name: str, rows: int) -> np.ndarray:
    return fields.vector(self._numbers(name), self._where(name), rows).astype(np.float32)

  def _last(self, name: str, rows: np.ndarray) -> np.ndarray:
    """The last row of a next observation, of the shape and type of the observation's ``rows``."""
    if self._file.shape(name) != rows.shape:
      raise ValueError(f"{self._where(name)} has the shape {self._file.shape(name)}; the observation has {rows.shape}")
    return fields.numbers(self._file.read(name, len(rows) - 1, len(rows)), self._where(name), 1).astype(rows.dtype)

  def _ends(self, group: str, reward: np.ndarray) -> np.ndarray:
    """Which steps end the task, bool ``[T]``."""
    if self._terminal == "dones":
      return fields.flags(self._file.read(f"{group}/dones"), self._where(f"{group}/dones"), len(reward))
    return reward > 0 if self._terminal == "success" else np.zeros(len(reward), bool)

  def _numbered(self) -> list[str]:
    """Names of the demonstrations, in the order of their numbers."""
    if self._file.kind("data") != "group":
      raise ValueError(f"{self._file.path}: no group 'data', which robomimic's files have")
    names = self._file.names("data")
    for name in names:
      if not re.fullmatch(r"demo_\d+", name, re.ASCII):
        raise ValueError(f"{self._file.path}: 'data/{name}' is no demonstration; expected demo_0, demo_1 and so on")
    if not names:
      raise ValueError(f"{self._file.path}: group 'data' has no demonstrations")
    return sorted(names, key=lambda name: int(name.removeprefix("demo_")))

  def _observation_keys(self, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    group = f"data/{self._demos[0]}/obs"
    if self._file.kind(group) != "group":
      raise ValueError(
        f"{self._file.path}: no group {group!r}; a file of states alone gets its observations from robomimic's "
        "dataset_states_to_obs.py"
      )
    found = self._file.datasets(group)
    for key in wanted or ():
      if key not in found:
        raise ValueError(f"{self._file.path}: no dataset '{group}/{key}'; there: {', '.join(found)}")
    return tuple(found) if wanted is None else wanted

  def _read_masks(self, splits: tuple[str, ...]) -> tuple[dict[str, str], dict[str, frozenset[str]]]:
    """``(split of every demonstration in one, demonstrations in every other mask)``."""
    known, masks = set(self._demos), {}
    for key in self._file.names("mask") if self._file.kind("mask") == "group" else []:
      listed = self._file.read(f"mask/{key}").reshape(-1).tolist()
      demos = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in listed]
      if strange := sorted(set(demos) - known):
        raise ValueError(f"{self._where(f'mask/{key}')} lists {strange[0]!r}, which 'data' has not")
      masks[key] = frozenset(demos)
    of: dict[str, str] = {}
    for split in splits:
      if split not in masks and splits != _SPLITS:
        raise ValueError(f"{self._file.path}: no mask {split!r}; there: {', '.join(sorted(masks)) or 'none'}")
      for demo in masks.pop(split, ()):
        if demo in of:
          raise ValueError(f"{self._file.path}: {demo!r} is in both masks {of[demo]!r} and {split!r}, which are splits")
        of[demo] = split
    return of, masks

  def _instruction(self, demo: str) -> Any:
    """As it is there; None where there is none, or it cannot be read, which its demonstration's reader is told."""
    try:
      return self._about(demo).get("lang")
    except ValueError:
      return None

  def _about(self, demo: str) -> dict[str, Any]:
    return self._json(self._file.attribute(f"data/{demo}", "ep_meta"), f"data/{demo}: ep_meta")

  def _json(self, text: Any, what: str) -> dict[str, Any]:
    """The object in an attribute; {} where there is none."""
    if text is None:
      return {}
    try:
      found = json.loads(text, parse_constant=str)  # JSON has no infinity: "Infinity"
    except (TypeError, ValueError) as error:
      raise ValueError(f"{self._file.path}: attribute {what!r} is not JSON ({error})") from None
    if not isinstance(found, dict):
      raise ValueError(f"{self._file.path}: attribute {what!r} is no JSON object")
    return found


def open(path: str | os.PathLike, **options: Any) -> Robomimic:
  """The demonstrations in a robomimic file.

  Example::

    convert.write(robomimic.open("low_dim_v15.hdf5", extras=("states",)), ilx.data.root(), name="lift-ph")

  Args:
    path: the HDF5 file.
    **options: the other arguments of ``Robomimic``.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is damaged or is no robomimic file; names file and dataset.
  """
  return Robomimic(path, **options)


def _kwargs(env: dict[str, Any]) -> dict[str, Any]:
  found = env.get("env_kwargs")
  return found if isinstance(found, dict) else {}


def _encoded(observation: Any, images: str) -> Any:
  if isinstance(observation, dict):
    return {key: _encoded(value, images) for key, value in observation.items()}
  return fields.pictures(observation, images)

"""Minari datasets, turned into RLDS datasets, without Minari. Written after Minari 0.5.4; 0.5.0 and later are read.

Layout: a folder (``data``) with ``metadata.json`` (spaces, the environment's spec, who made it) and episodes, in one of
Minari's storages: ``main_data.hdf5`` with groups ``episode_<n>``, or folders ``<n>`` of Arrow or Parquet files. An
episode of T actions has T + 1 ``observations`` (arrays; groups for Dict and Tuple spaces; JPEG files for pictures;
strings for Text), T ``actions``, ``rewards``, ``terminations`` and ``truncations``, and may have T + 1 ``infos``.

What is kept: all of it but infos, unless asked for. Pictures that Minari compressed stay the same JPEG files. Tuples
become dicts with the keys "0", "1"...; "/" in a key becomes "_". float64 becomes float32.

What was decided, beside what ``convert.npz`` says:

* The last termination says whether the episode is terminal; earlier ones become discounts of 0.
* Bounded Box actions give ``action_low`` and ``action_high``, to which they are clipped; Discrete ones ``num_actions``,
  counted from the space's ``start``.
* ``env_id`` is the environment's where EnvPool has it by the same name and it was made without wrappers and with the
  options that its name stands for; ``env_spec`` is kept in any case. Reference scores become ``random_return`` and
  ``expert_return``.
* Episode metadata: "id", "seed" (text, since seeds go beyond int64; "" where there is none), and what else the first
  episode has in single values: text, or numbers, which are NaN in episodes without.
"""

import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ilx.data import encode
from ilx.data.convert import fields, minari_storage
from ilx.data.convert.minari_spaces import Space, parse
from ilx.data.convert.source import Converted
from ilx.data.images import Images

_SPACES = ("observation_space", "action_space")
_REFERENCES = {"ref_min_score": "random_return", "ref_max_score": "expert_return"}
_COUNTED = ("id", "seed", "total_steps")

_MUJOCO = "Ant|HalfCheetah|Hopper|Humanoid|HumanoidStandup|InvertedDoublePendulum|InvertedPendulum|Pusher|Reacher"
# Environments that EnvPool has by the names that Gymnasium has them by, and the options that are part of a name.
_ENVPOOL: tuple[tuple[str, dict[str, Any]], ...] = (
  (rf"({_MUJOCO}|Swimmer|Walker2d)-v[45]", {}),
  (r"CartPole-v[01]|Pendulum-v1|Acrobot-v1|MountainCar-v0|MountainCarContinuous-v0", {}),
  (r"LunarLander-v[23]|BipedalWalker-v3", {}),
  (r"LunarLanderContinuous-v[23]", {"continuous": True}),
  (r"BipedalWalkerHardcore-v3", {"hardcore": True}),
  (r"AdroitHand(Door|Hammer|Pen|Relocate)-v1", {"reward_type": "dense"}),
  (r"AdroitHand(Door|Hammer|Pen|Relocate)Sparse-v1", {"reward_type": "sparse"}),
)


class Minari:
  """Episodes of a Minari dataset; see ``open``."""

  def __init__(self, path: str | os.PathLike, *, infos: tuple[str, ...] = (), images: str = "png", clip: bool = True):
    """Reads ``metadata.json``.

    Args:
      path: the folder with ``metadata.json``, a file in it, or the folder that has it as ``data``.
      infos: names of infos that become step fields "infos/<name>", such as "qpos" or "state/speed".
      images: "png", "jpeg" or "raw": how pictures that Minari did not compress are stored.
      clip: whether actions are clipped to the space's bounds.
    """
    fields.check_image_format(images)
    folder = pathlib.Path(path).expanduser().absolute()
    folder = folder.parent if folder.is_file() else folder
    folder = folder / "data" if (folder / "data" / "metadata.json").is_file() else folder
    about = minari_storage.metadata(folder)
    self._observation, self._action = (_space(about, name, folder) for name in _SPACES)
    self._storage = _storage(about, folder, self._observation, self._action)
    self._bounds = self._action.bounds
    self._clip, self._images, self._infos = clip and self._bounds is not None, images, fields.names(infos)
    self._count = self._storage.count()
    if self._count != about.get("total_episodes"):
      raise ValueError(
        f"{folder}: has {self._count} episodes, but metadata.json says {about.get('total_episodes')}: it is incomplete"
      )
    self._defaults = _defaults(self._storage.attributes(0)) if self._count else {}
    dataset = str(about.get("dataset_id", folder.parent.name))
    self.name = re.sub(r"[^A-Za-z0-9_-]+", "-", dataset).strip("-").lower() or "minari"
    self.metadata = self._described(about, dataset)

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> Converted:
    if not 0 <= index < self._count:
      raise IndexError(f"{self.name} has {self._count} episodes")
    raw, where = self._storage.read(index, self._infos), self._storage.where(index)
    reward = fields.vector(raw.reward, f"{where}: rewards").astype(np.float32)
    length = len(reward)
    ends = fields.flags(raw.terminated, f"{where}: terminations", length)
    observation = self._tree(raw.observation, self._observation, length + 1, f"{where}: observations")
    action = self._tree(raw.action, self._action, length, f"{where}: actions")
    if self._action.kind == "Discrete":
      action = action - np.int32(self._action.start)
    if self._clip and self._bounds is not None:
      action = fields.clipped(action, self._bounds.low, self._bounds.high, f"{where}: actions")
    if not length:
      raise ValueError(f"{where}: has no actions")
    steps = encode.episode(observation, action, reward, terminal=bool(ends[-1]), discount=(~ends).astype(np.float32))
    if raw.infos:
      found = {name: _info(value, length + 1, f"{where}: infos/{name}") for name, value in raw.infos.items()}
      steps["infos"] = fields.nested(found)
    return Converted(steps, self._episode_metadata(index))

  def _tree(self, value: Any, space: Space, rows: int, where: str) -> Any:
    """A space's values, checked: arrays, ``Images`` or lists of strings, in dicts."""
    if space.parts:
      return {
        key.replace("/", "_"): self._tree(value[key], part, rows, f"{where}/{key}") for key, part in space.parts.items()
      }
    if isinstance(value, list) or space.kind == "Text":
      if len(value) != rows or not isinstance(value, list) or not (space.kind == "Text" or space.is_image):
        raise ValueError(f"{where} has {len(value)} rows that are no {space.kind}; expected {rows} that are")
      return value if space.kind == "Text" else Images.of(value, (*space.shape, 1)[:3])
    value = fields.numbers(value, where, rows)
    if value.shape[1:] != space.shape:
      raise ValueError(f"{where} is {list(value.shape)}; the space says {[rows, *space.shape]}")
    if space.is_image and self._images != "raw":
      value = value.reshape(rows, *(*space.shape, 1)[:3])
      return fields.pictures(value, self._images)
    return value

  def _episode_metadata(self, index: int) -> dict[str, Any]:
    found = self._storage.attributes(index)
    seed = found.get("seed")
    result: dict[str, Any] = {"id": index, "seed": "" if seed is None else str(seed)}
    for name, default in self._defaults.items():
      value = _single(found.get(name))
      result[name.replace("/", "_")] = value if isinstance(value, type(default)) else default
    return result

  def _described(self, about: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    found: dict[str, Any] = {"source": f"Minari: {dataset}"}
    spec = about.get("env_spec")
    try:
      spec = json.loads(spec, parse_constant=str) if isinstance(spec, str) else spec
    except ValueError as error:
      raise ValueError(f"{dataset}: metadata.json: 'env_spec' is not JSON ({error})") from None
    if isinstance(spec, dict):
      found["env_spec"] = spec
      found |= _env(spec)
    if self._bounds is not None:
      found |= {"action_low": self._bounds.low.tolist(), "action_high": self._bounds.high.tolist()}
    if self._action.kind == "Discrete":
      found["num_actions"] = self._action.n
    for theirs, ours in _REFERENCES.items():
      if isinstance(about.get(theirs), int | float):
        found[ours] = about[theirs]
    found["minari"] = {key: value for key, value in about.items() if key not in (*_SPACES, "env_spec")}
    found["recording"] = {"format": "minari", "clipped": self._clip, "images": self._images}
    return found


def open(path: str | os.PathLike, **options: Any) -> Minari:
  """The episodes of a Minari dataset.

  Example::

    convert.write(minari.open("~/.minari/datasets/mujoco/hopper/expert-v0"), ilx.data.root())

  Args:
    path: its folder.
    **options: the other arguments of ``Minari``.

  Raises:
    FileNotFoundError: where there is no ``metadata.json``.
    ValueError: where the dataset is damaged or has spaces that are not known; names file and episode.
  """
  return Minari(path, **options)


def _space(about: Mapping[str, Any], name: str, folder: pathlib.Path) -> Space:
  if name not in about:
    raise ValueError(f"{folder / 'metadata.json'}: lacks {name!r}; open and save the dataset with Minari 0.5 or later")
  return parse(about[name], f"{folder / 'metadata.json'}: {name!r}")


def _storage(
  about: Mapping[str, Any], folder: pathlib.Path, observation: Space, action: Space
) -> minari_storage.Hdf5Storage | minari_storage.ArrowStorage:
  kind = about.get("data_format", "hdf5")
  if kind == "hdf5":
    return minari_storage.Hdf5Storage(folder, observation, action)
  if kind in ("arrow", "parquet"):
    return minari_storage.ArrowStorage(folder, observation, action, kind)
  raise ValueError(f"{folder / 'metadata.json'}: data_format {kind!r} is not known; known: hdf5, arrow, parquet")


def _env(spec: Mapping[str, Any]) -> dict[str, Any]:
  """EnvPool's task and options, where it has the environment as it was made."""
  name = str(spec.get("id"))
  kwargs = {key: value for key, value in (spec.get("kwargs") or {}).items() if key != "render_mode"}
  for pattern, expected in _ENVPOOL:
    if re.fullmatch(pattern, name) and kwargs in ({}, expected) and not spec.get("additional_wrappers"):
      limit = spec.get("max_episode_steps")
      return {"env_id": name, "env_kwargs": {"max_episode_steps": limit} if isinstance(limit, int) else {}}
  return {}


def _single(value: Any) -> Any:
  """A number as float, text as it is; None for anything else."""
  if isinstance(value, bool | int | float):
    return float(value)
  return value if isinstance(value, str) else None


def _defaults(attributes: Mapping[str, Any]) -> dict[str, Any]:
  """What episodes without an attribute of the first get."""
  found = {name: _single(value) for name, value in attributes.items() if name not in _COUNTED}
  return {name: "" if isinstance(value, str) else float("nan") for name, value in found.items() if value is not None}


def _info(value: Any, rows: int, where: str) -> Any:
  if isinstance(value, list):
    if len(value) != rows:
      raise ValueError(f"{where} has {len(value)} rows; expected {rows}")
    return value
  return fields.numbers(value, where, rows)

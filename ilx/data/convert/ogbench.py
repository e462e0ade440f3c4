"""OGBench's npz files, turned into RLDS datasets.

Layout: ``<name>.npz`` and, beside it, ``<name>-val.npz``, each with flat arrays of one row a step: ``observations``
[N, ...] (float32, or uint8 pictures of 64 x 64 in the visual tasks), ``actions`` [N, A] (or [N] integers, in
powderworld), ``terminals`` [N], true on the last row of every trajectory, and in all but powderworld the simulator's
``qpos``, ``qvel`` and ``button_states`` [N, ...]. The last row of a trajectory is its final observation: nothing is
recorded of what its action led to.

What is kept: all of it but the last action of every trajectory. The simulator's states become step fields of the same
names. The second file becomes the split "val".

What was decided, beside what ``convert.npz`` says:

* All trajectories were cut: OGBench's tasks go on to a time limit, goals reached or not, so nothing is terminal.
* The files have no rewards, since they are for any goal; 0 is stored, and ``metadata.json`` says so. OGBench makes the
  rewards of its single-task variants from a goal that its environment knows. Arrays ``rewards`` and ``masks`` [N] made
  by it and saved in the file are used: ``masks`` become the discounts.
* Actions are clipped to [-1, 1], the bounds of all of OGBench's tasks but powderworld.

Trajectories are read fastest in their order (see ``npz_rows.Rows``).
"""

import os
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from ilx.data.convert import fields, npz
from ilx.data.convert.npz_rows import Rows
from ilx.data.convert.source import Converted

_NEEDED = ("observations", "actions", "terminals")
_STATES = ("qpos", "qvel", "button_states")
_NO_REWARD = "no rewards were recorded; 0 is stored"
_NAME = re.compile(
  r"(?P<env>(visual-)?(pointmaze|antmaze|humanoidmaze|antsoccer|cube|scene|puzzle|powderworld)(-[a-z0-9]+)?)"
  r"-(?P<kind>navigate|stitch|explore|play|noisy)-(?P<version>v\d+)"
)


class _Part(NamedTuple):
  """One file; trajectory ``i`` is rows ``starts[i]`` to ``stops[i] - 1``."""

  rows: Rows
  split: str
  starts: np.ndarray
  stops: np.ndarray


class OGBench:
  """Trajectories of an OGBench dataset; see ``open``."""

  def __init__(
    self, path: str | os.PathLike, *, val: bool = True, states: bool = True, images: str = "png", clip: bool = True
  ):
    """Reads the flags.

    Args:
      path: ``<name>.npz``.
      val: whether ``<name>-val.npz``, where it is there, becomes the split "val".
      states: whether the simulator's states become step fields.
      images: "png", "jpeg" or "raw": how uint8 [N, height, width, 1, 3 or 4] is stored.
      clip: whether actions are clipped to [-1, 1] where the name is one of OGBench's with such actions.
    """
    fields.check_image_format(images)
    path = pathlib.Path(path).expanduser()
    beside = path.with_name(f"{path.stem}-val{path.suffix}")
    self._parts = [_part(path, "val" if path.stem.endswith("-val") else "train")]
    if val and beside.is_file():
      self._parts.append(_part(beside, "val"))
    self._states, self._images = states, images
    self.name = npz.default_name(path)
    rows = self._parts[0].rows
    known = _NAME.fullmatch(path.stem.removesuffix("-val"))
    bounded = known is not None and len(rows.shape("actions")) == 2
    self._clip = clip and bounded
    self.metadata: dict[str, Any] = {"source": f"OGBench: {path.stem.removesuffix('-val')}"}
    if known is not None:
      self.metadata["ogbench_env"] = f"{known['env']}-{known['version']}"
    if bounded:
      size = rows.shape("actions")[1]
      self.metadata |= {"action_low": [-1.0] * size, "action_high": [1.0] * size}
    if not all("rewards" in part.rows.names for part in self._parts):
      self.metadata["note"] = _NO_REWARD
    self.metadata["recording"] = {
      "files": [part.rows.path.name for part in self._parts],
      "format": "ogbench",
      "clipped": self._clip,
      "images": images,
    }

  def __len__(self) -> int:
    return sum(len(part.starts) for part in self._parts)

  def __getitem__(self, index: int) -> Converted:
    for part in self._parts:
      if 0 <= index < len(part.starts):
        return self._converted(part, index)
      index -= len(part.starts)
    raise IndexError(f"{self.name} has {len(self)} trajectories")

  def _converted(self, part: _Part, index: int) -> Converted:
    start, stop = int(part.starts[index]), int(part.stops[index])
    where = f"{part.rows.path}: array {{!r}}, trajectory {index},"

    def read(name: str) -> np.ndarray:
      return fields.numbers(part.rows.read(name, start, stop), where.format(name))

    def read_vector(name: str) -> np.ndarray:
      return fields.vector(read(name), where.format(name))[:-1].astype(np.float32)

    action = read("actions")[:-1]
    if self._clip:
      action = fields.clipped(
        action, self.metadata["action_low"], self.metadata["action_high"], where.format("actions")
      )
    observation = read("observations")
    names = part.rows.names
    reward = read_vector("rewards") if "rewards" in names else np.zeros(len(action), np.float32)
    discount = read_vector("masks") if "masks" in names else None
    steps = fields.complete(
      observation[:-1], observation[-1:], action, reward, terminal=False, discount=discount, extras={}
    )
    steps["observation"] = fields.pictures(steps["observation"], self._images)
    states = {name: read(name) for name in _STATES if self._states and name in names}
    return Converted(steps | states, split=part.split)


def open(path: str | os.PathLike, **options: Any) -> OGBench:
  """The trajectories of an OGBench dataset.

  Example::

    convert.write(ogbench.open("antmaze-large-navigate-v0.npz"), ilx.data.root())

  Args:
    path: ``<name>.npz``.
    **options: the other arguments of ``OGBench``.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is damaged or is no OGBench dataset; names file and array.
  """
  return OGBench(path, **options)


def _part(path: pathlib.Path, split: str) -> _Part:
  rows = Rows(path)
  for name in _NEEDED:
    if name not in rows.names:
      raise ValueError(
        f"{path}: no array {name!r}, which OGBench's files have; it has {', '.join(rows.names) or 'none'}"
      )
  count = (*rows.shape("observations"), 0)[0]
  for name in rows.names:
    if name in (*_NEEDED, *_STATES, "rewards", "masks") and rows.shape(name)[:1] != (count,):
      raise ValueError(f"{path}: array {name!r} has the shape {rows.shape(name)}, but 'observations' {count} rows")
  if not count:
    raise ValueError(f"{path}: array 'observations' has no rows")
  last = fields.flags(rows.read("terminals", 0, count), f"{path}: array 'terminals'").copy()
  last[-1] = True  # a last trajectory that was cut
  stops = np.flatnonzero(last) + 1
  starts = np.append(0, stops[:-1])
  kept = stops - starts > 1  # one observation alone has no transition
  if not kept.any():
    raise ValueError(f"{path}: has no trajectory with an action")
  return _Part(rows, split, starts[kept], stops[kept])

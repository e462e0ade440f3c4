"""D4RL's HDF5 files, turned into RLDS datasets.

Layout: flat arrays of one row a step: ``observations`` [N, ...], ``actions`` [N, A], ``rewards`` and ``terminals``
[N] or [N, 1]; in most files ``timeouts`` [N], in some ``next_observations`` [N, ...]; ``infos/*`` [N, ...] (the
simulator's ``qpos`` and ``qvel``, goals, log-probabilities) and ``metadata/*`` (the algorithm; a policy's weights).

What is kept: all of it but arrays in ``metadata``, which hold policies. ``infos`` become step fields of the same names,
with "_" for "/". float64 becomes float32.

What was decided, beside what ``convert.npz`` says of ends, clipping and final observations:

* Episodes end where ``terminals`` or ``timeouts`` say so. Files without ``timeouts`` (version 0, kitchen) are cut where
  ``next_observations`` is not the next row; without that by the time limit, which D4RL's MuJoCo names tell; by
  ``terminals`` alone for kitchen, whose files mark every demonstration's end so.
* antmaze's ``terminals`` mark steps at the goal, after which the ant walks on, for many steps in a row: they become
  discounts of 0, which cut the bootstrap there. Its ``timeouts`` miss the resets of version 0 (D4RL's issue 77), so
  episodes also end where the ant jumps by more than 1.
* A step that is both terminal and a timeout is terminal. A last episode that nothing ends was cut.
* Actions are bounded by [-1, 1], as in every task of D4RL that ``d4rl_tasks`` knows.
* ``next_observations`` must be the next rows within an episode. After its last action they are its final observation.
* Rewards are kept as recorded; maze2d's are those of the observation that the action saw (D4RL's issue 194).
"""

import math
import os
from typing import Any, Literal

import numpy as np

from ilx.data.convert import d4rl_cuts, fields, hdf5, npz
from ilx.data.convert.d4rl_cuts import Cuts
from ilx.data.convert.d4rl_tasks import Task, task
from ilx.data.convert.source import Converted

_TERMINALS = ("auto", "ends", "goals")


class D4rl:
  """Episodes of a D4RL file; see ``open``."""

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    dataset: str | None = None,
    cuts: Cuts = "auto",
    max_episode_steps: int | None = None,
    terminals: Literal["auto", "ends", "goals"] = "auto",
    next_observations: bool = True,
    infos: tuple[str, ...] | None = None,
    clip: bool = True,
  ):
    """Reads the flags.

    Args:
      path: the HDF5 file.
      dataset: D4RL's name of it, such as "hopper-medium-v2", where the file's name is another; says what
        ``d4rl_tasks.task`` knows.
      cuts: how episodes are told apart: "timeouts" (with terminals), "next_observations" (there too where they are not
        the next row), "length" (by ``max_episode_steps``), "terminals" (by them alone), or "auto".
      max_episode_steps: the time limit it was recorded with.
      terminals: "ends" of the task, or "goals" after which the episode goes on; "auto" by the name.
      next_observations: whether that array is used where it is there.
      infos: which arrays in ``infos`` become step fields; all by default.
      clip: whether actions are clipped to [-1, 1] where the name is one of D4RL's.
    """
    for option, value, known_values in (("cuts", cuts, d4rl_cuts.CUTS), ("terminals", terminals, _TERMINALS)):
      if value not in known_values:
        raise ValueError(f"d4rl: {option} is {value!r}; expected one of {', '.join(known_values)}")
    self._file = hdf5.File(path, keep=True)
    self.name = npz.default_name(path)
    known = task(dataset or self._file.path.stem)
    self._clip = clip and known is not None
    self._goals = terminals == "goals" or (terminals == "auto" and known is not None and known.goals)
    self._next = next_observations and self._file.kind("next_observations") == "dataset"
    self._rows = self._checked_rows()
    self._infos = self._info_names(None if infos is None else fields.names(infos))
    self._cuts, limit = d4rl_cuts.choose(
      self._file, cuts, max_episode_steps, known, goals=self._goals, following=self._next
    )
    self._starts, self._stops = self._episodes(limit)
    self.metadata = self._described(known, dataset) | {
      "recording": {
        "file": self._file.path.name,
        "format": "d4rl",
        "cuts": self._cuts,
        "max_episode_steps": limit,
        "terminals": "goals" if self._goals else "ends",
        "next_observations": self._next,
        "clipped": self._clip,
        "steps": self._rows,
      }
    }

  def __len__(self) -> int:
    return len(self._starts)

  def __getitem__(self, index: int) -> Converted:
    start, stop = int(self._starts[index]), int(self._stops[index])
    observation = self._numbers("observations", start, stop, index)
    action = self._numbers("actions", start, stop, index)
    if self._clip:
      low, high = self.metadata["action_low"], self.metadata["action_high"]
      action = fields.clipped(action, low, high, self._where("actions", index))
    reward = self._numbers("rewards", start, stop, index)
    reward = fields.vector(reward, self._where("rewards", index)).astype(np.float32)
    flagged = fields.flags(self._file.read("terminals", start, stop), self._where("terminals", index), stop - start)
    terminal = bool(flagged[-1])
    final = self._final(observation, start, stop, index, terminal) if self._next else None
    extras = {
      name.replace("/", "_"): self._numbers(f"infos/{name}", start, stop, index) for name in sorted(self._infos)
    }
    discount = (~flagged).astype(np.float32) if self._goals else None
    steps = fields.complete(observation, final, action, reward, terminal=terminal, discount=discount, extras=extras)
    return Converted(steps)

  def _where(self, name: str, index: int) -> str:
    return f"{self._file.path}: dataset {name!r}, episode {index},"

  def _numbers(self, name: str, start: int, stop: int, index: int) -> np.ndarray:
    return fields.numbers(self._file.read(name, start, stop), self._where(name, index), stop - start)

  def _final(self, observation: np.ndarray, start: int, stop: int, index: int, terminal: bool) -> np.ndarray:
    """What followed the last action, after checking the rows before it."""
    following = self._numbers("next_observations", start, stop, index)
    differs = fields.differ(following[:-1], observation[1:])
    if differs.any():
      raise ValueError(
        f"{self._where('next_observations', index)} is not the next row of 'observations' at step "
        f"{int(np.argmax(differs))}: an episode ends there that no flag tells of; give cuts='next_observations', or "
        "next_observations=False to ignore the array"
      )
    if (
      terminal
      and stop < self._rows
      and np.array_equal(following[-1:], self._numbers("observations", stop, stop + 1, index))
    ):
      raise ValueError(
        f"{self._where('terminals', index)} is true at its last step, but 'next_observations' is the row after it: "
        "give terminals='goals' if the episode went on, or next_observations=False if the array is but shifted rows"
      )
    return following[-1:]

  def _checked_rows(self) -> int:
    """N; every array must have as many rows."""
    for name in ("observations", "actions", "rewards", "terminals"):
      if self._file.kind(name) != "dataset":
        there = ", ".join(self._file.names()) or "nothing"
        raise ValueError(f"{self._file.path}: no dataset {name!r}, which D4RL's files have; it has {there}")
    shape = self._file.shape("observations")
    rows = shape[0] if shape else 0
    if not rows:
      raise ValueError(f"{self._file.path}: dataset 'observations' has the shape {shape}; expected [N, ...]")
    if self._next and self._file.shape("next_observations") != shape:
      found = self._file.shape("next_observations")
      raise ValueError(f"{self._file.path}: dataset 'next_observations' is {found}, but 'observations' {shape}")
    for name in ("actions", "rewards"):
      if self._file.shape(name)[:1] != (rows,):
        raise ValueError(
          f"{self._file.path}: dataset {name!r} has the shape {self._file.shape(name)}, but 'observations' {rows} rows"
        )
    return rows

  def _flags(self, name: str) -> np.ndarray:
    return fields.flags(self._file.read(name), f"{self._file.path}: dataset {name!r}", self._rows)

  def _info_names(self, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Arrays in ``infos`` that have a row for every step."""
    # kitchen's files have a dataset of that name: the number of the demonstration
    found = self._file.datasets("infos") if self._file.kind("infos") == "group" else []
    for name in wanted or ():
      if name not in found:
        raise ValueError(f"{self._file.path}: no dataset 'infos/{name}'; there: {', '.join(found) or 'none'}")
    if wanted is not None:
      return wanted
    by_step = (name for name in found if self._file.shape(f"infos/{name}")[:1] == (self._rows,))
    return tuple(name for name in by_step if self._file.dtype(f"infos/{name}").kind in "fiub")

  def _episodes(self, limit: int | None) -> tuple[np.ndarray, np.ndarray]:
    """``starts, stops``, int64 ``[E]``; episodes that have no action left are left out."""
    terminals = self._flags("terminals")
    timeouts = self._flags("timeouts") if self._file.kind("timeouts") == "dataset" else None
    stops = d4rl_cuts.stops(self._file, self._cuts, limit, terminals, timeouts, goals=self._goals)
    starts = np.append(0, stops[:-1])
    # Without its final observation a cut episode of one action keeps none.
    kept = terminals[stops - 1] | (stops - starts > 1) | self._next
    if not kept.any():
      raise ValueError(f"{self._file.path}: has no episode with an action")
    return starts[kept], stops[kept]

  def _described(self, known: Task | None, dataset: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {"source": f"D4RL: {dataset or self._file.path.stem}"}
    if known is not None:
      size = math.prod(self._file.shape("actions")[1:])
      found |= {"action_low": [-1.0] * size, "action_high": [1.0] * size, "licence": "CC BY 4.0"}
      found |= {
        key: getattr(known, key)
        for key in ("env_id", "note", "random_return", "expert_return")
        if getattr(known, key) is not None
      }
      if known.env_id is not None:
        found["env_kwargs"] = dict(known.env_kwargs)
    about = self._metadata()
    return found | ({"d4rl": about} if about else {})

  def _metadata(self) -> dict[str, Any]:
    """What ``metadata`` says in single values: the algorithm, the iteration."""
    if self._file.kind("metadata") != "group":
      return {}
    found = {}
    for name in self._file.datasets("metadata"):
      if self._file.shape(f"metadata/{name}") == ():
        value = self._file.read(f"metadata/{name}").item()
        found[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return {name: value for name, value in found.items() if isinstance(value, str | bool | int | float)}


def open(path: str | os.PathLike, **options: Any) -> D4rl:
  """The episodes of a D4RL file.

  Example::

    convert.write(d4rl.open("halfcheetah_medium-v2.hdf5"), ilx.data.root())

  Args:
    path: the HDF5 file.
    **options: the other arguments of ``D4rl``.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is damaged, is no D4RL file, or does not tell its episodes apart; names file and dataset.
  """
  return D4rl(path, **options)

"""Where the episodes of a D4RL file begin and end."""

from typing import Literal

import numpy as np

from ilx.data.convert import fields
from ilx.data.convert.d4rl_tasks import Task
from ilx.data.convert.hdf5 import File

Cuts = Literal["auto", "timeouts", "next_observations", "length", "terminals"]
CUTS = ("auto", "timeouts", "next_observations", "length", "terminals")

_BLOCK = 1 << 16
# An ant walks less than a quarter of this in a step; mazes' cells, to which it is reset, are four times as wide.
_JUMP = 1.0


def choose(
  file: File, cuts: Cuts, limit: int | None, known: Task | None, *, goals: bool, following: bool
) -> tuple[str, int | None]:
  """How episodes are told apart, and the time limit where that is how.

  Args:
    file: the recording.
    cuts: what was asked for.
    limit: the time limit that was given.
    known: what the name says.
    goals: whether terminals mark steps at the goal.
    following: whether ``next_observations`` is used.

  Raises:
    ValueError: where the file lacks what that takes.
  """
  has_timeouts = file.kind("timeouts") == "dataset"
  if limit is not None and limit < 1:
    raise ValueError(f"{file.path}: max_episode_steps is {limit}; expected a whole number of steps")
  limit = limit or (known.max_episode_steps if known else None)
  if cuts == "auto":
    if has_timeouts:
      return "timeouts", None
    if following:
      return "next_observations", None
    if known and known.ended:
      return "terminals", None
    if limit and not goals:
      return "length", limit
    raise ValueError(
      f"{file.path}: has neither 'timeouts' nor 'next_observations' to tell time limits by; give max_episode_steps, "
      "the limit it was recorded with, or cuts='terminals' if 'terminals' ends every episode"
    )
  lacks = {"timeouts": not has_timeouts, "next_observations": not following, "length": not limit}
  if lacks.get(cuts):
    needed = "max_episode_steps" if cuts == "length" else f"the dataset {cuts!r}"
    raise ValueError(f"{file.path}: cuts={cuts!r} needs {needed}, which is not there")
  return cuts, limit if cuts == "length" else None


def stops(
  file: File, cuts: str, limit: int | None, terminals: np.ndarray, timeouts: np.ndarray | None, *, goals: bool
) -> np.ndarray:
  """The row behind every episode's last, int64 ``[E]``; the last one is the number of rows.

  Args:
    file: the recording.
    cuts: see ``choose``.
    limit: see ``choose``.
    terminals: bool ``[N]``.
    timeouts: bool ``[N]``, or None where there is none.
    goals: see ``choose``.
  """
  last = np.zeros_like(terminals) if goals else terminals.copy()
  if cuts in ("timeouts", "next_observations") and timeouts is not None:
    last |= timeouts
  if cuts == "next_observations":
    last |= _breaks(file, len(last))
  if goals:
    last |= _jumps(file, len(last))
  last[-1] = True
  found = np.flatnonzero(last) + 1
  if limit is None:
    return found
  limited, start = [], 0
  for stop in found.tolist():
    limited += [*range(start + limit, stop, limit), stop]
    start = stop
  return np.array(limited, np.int64)


def _breaks(file: File, rows: int) -> np.ndarray:
  """Where ``next_observations`` is not the next row, bool ``[N]``."""
  breaks = np.zeros(rows, bool)
  for start in range(0, rows - 1, _BLOCK):
    stop = min(start + _BLOCK, rows - 1)
    # in the type that is stored: files may hold one of the two in double precision
    after = file.read("observations", start + 1, stop + 1).astype(np.float32)
    said = file.read("next_observations", start, stop).astype(np.float32)
    breaks[start:stop] = fields.differ(after, said)
  return breaks


def _jumps(file: File, rows: int) -> np.ndarray:
  """Behind which rows the position, an observation's first two numbers, is another one altogether, bool ``[N]``."""
  jumps = np.zeros(rows, bool)
  for start in range(0, rows - 1, _BLOCK):
    stop = min(start + _BLOCK, rows - 1)
    position = file.read("observations", start, stop + 1).reshape(stop + 1 - start, -1)[:, :2]
    jumps[start:stop] = np.linalg.norm(np.diff(position, axis=0), axis=1) > _JUMP
  return jumps

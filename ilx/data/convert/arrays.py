"""From a recording's arrays to checked columns; every error names the file and the array at fault."""

import dataclasses
from typing import Any

import numpy as np

from ilx.data.convert.layouts import Layout
from ilx.types import Continuous, Discrete

Arrays = dict[str, np.ndarray]


def vector(array: np.ndarray, key: str, path: Any, length: int | None = None) -> np.ndarray:
  """``array`` as ``[N]``, from ``[N]`` or ``[N, 1]``."""
  flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
  if flat.ndim != 1 or (length is not None and len(flat) != length) or len(flat) == 0 or flat.dtype.kind == "U":
    size = "N" if length is None else length
    raise ValueError(f"{path}: array {key!r} has shape {array.shape} of {array.dtype}; expected numbers [{size}]")
  return flat


def to_float32(array: np.ndarray) -> np.ndarray:
  """``array`` in float32; what does not fit becomes infinite, for ``check_finite`` to name."""
  with np.errstate(over="ignore"):
    return array.astype(np.float32)


def unstack(arrays: Arrays, layout: Layout, path: Any) -> tuple[Arrays, Layout]:
  """Arrays ``[E, T, ...]`` laid out flat, ``[N, ...]``, without their padding, and the layout that they then have."""
  reward = arrays[layout.reward]
  if reward.ndim < 2:
    raise ValueError(f"{path}: array {layout.reward!r} has shape {reward.shape}; expected [E, T]")
  episodes, steps = reward.shape[:2]
  lengths_key = layout.lengths or "(shape)"
  lengths = vector(arrays.get(lengths_key, np.full(episodes, steps)), lengths_key, path, episodes)
  if lengths.dtype.kind not in "iu" or lengths.min() < 1 or lengths.max() > steps:
    raise ValueError(f"{path}: array {lengths_key!r} must be whole numbers from 1 to {steps}")
  flat = {**arrays, lengths_key: lengths}
  by_step = {layout.observation, layout.action, layout.reward, layout.next_observation, layout.starts, *layout.stops}
  if layout.terminal and arrays[layout.terminal].ndim > 1:
    by_step.add(layout.terminal)
  for key in by_step - {None}:
    rows = steps + int(layout.extra_observation and key == layout.observation)
    if arrays[key].shape[:2] != (episodes, rows):
      raise ValueError(f"{path}: array {key!r} has shape {arrays[key].shape}; expected [{episodes}, {rows}, ...]")
    flat[key] = arrays[key][np.arange(rows) < lengths[:, None] + rows - steps]
  return flat, dataclasses.replace(layout, stacked=False, lengths=lengths_key)


def boundaries(arrays: Arrays, layout: Layout, num_steps: int, path: Any) -> np.ndarray:
  """``starts``, int64 ``[E + 1]``, from each array that tells episodes apart; they must agree."""
  told: dict[str, np.ndarray] = {}
  if layout.lengths:
    lengths = vector(arrays[layout.lengths], layout.lengths, path)
    told[layout.lengths] = _starts(np.append(0, np.cumsum(lengths)), layout.lengths, num_steps, path)
  if layout.splits:
    splits = arrays[layout.splits].reshape(-1)
    told[layout.splits] = _starts(np.concatenate([[0], splits, [num_steps]]), layout.splits, num_steps, path)
  if layout.starts:
    first = _flags(arrays[layout.starts], layout.starts, path, num_steps)
    told[layout.starts] = _starts(np.append(np.flatnonzero(first), num_steps), layout.starts, num_steps, path)
  if layout.stops:
    last = np.zeros(num_steps, bool)
    for key in layout.stops:
      last |= _flags(arrays[key], key, path, num_steps)
    last[-1] = True  # a last episode that was cut
    key = " or ".join(layout.stops)
    told[key] = _starts(np.append(0, np.flatnonzero(last) + 1), key, num_steps, path)
  (key, starts), *others = told.items()
  for other, also in others:
    if not np.array_equal(starts, also):
      where = np.setxor1d(starts, also)[0]
      raise ValueError(f"{path}: arrays {key!r} and {other!r} disagree on whether an episode starts at step {where}")
  return starts


def observations(arrays: Arrays, layout: Layout, starts: np.ndarray, path: Any) -> tuple[np.ndarray, np.ndarray | None]:
  """``(observation [N, ...], final [E, ...] or None)``, finite, float32, uint8 or int32."""
  num_steps, episodes = int(starts[-1]), len(starts) - 1
  rows = num_steps + (episodes if layout.extra_observation else 0)
  observation = _numbers(arrays[layout.observation], layout.observation, path, rows)
  final = None
  if layout.extra_observation:
    row_starts = starts + np.arange(episodes + 1)
    check_finite(observation, layout.observation, row_starts, path)
    is_final = np.zeros(rows, bool)
    is_final[row_starts[1:] - 1] = True
    observation, final = observation[~is_final], observation[is_final]
  else:
    check_finite(observation, layout.observation, starts, path)
  if layout.next_observation:
    key = layout.next_observation
    following = _numbers(arrays[key], key, path, num_steps, like=observation)
    check_finite(following, key, starts, path)
    inside = np.ones(num_steps - 1, bool)
    inside[starts[1:-1] - 1] = False
    differs = inside & (following[:-1] != observation[1:]).reshape(num_steps - 1, -1).any(1)
    if differs.any():
      raise ValueError(
        f"{path}: array {key!r} at {_where(int(np.argmax(differs)), starts)} is not the next row of "
        f"{layout.observation!r}; expected steps in the order of play"
      )
    final = following[starts[1:] - 1]
  if layout.final_observation:
    key = layout.final_observation
    final = _numbers(arrays[key], key, path, episodes, like=observation)
    check_finite(final, key, None, path)
  return observation, final


def actions(
  array: np.ndarray, key: str, spec: Continuous | Discrete | None, starts: np.ndarray, path: Any, *, clip: bool
) -> tuple[np.ndarray, int]:
  """``(action, out_of_bounds)``: float32 ``[N, A]`` or int32 ``[N]``, and how many of the N leave the bounds."""
  num_steps = int(starts[-1])
  if len(array) != num_steps or array.ndim > 2 or array.dtype.kind == "U":
    raise ValueError(f"{path}: array {key!r} has shape {array.shape} of {array.dtype}; expected [{num_steps}, A]")
  discrete = isinstance(spec, Discrete) or (spec is None and array.dtype.kind in "biu")
  if discrete:
    return _discrete(array, key, spec, starts, path), 0
  action = to_float32(array.reshape(num_steps, -1))
  check_finite(action, key, starts, path)
  if spec is None:
    return action, 0
  if action.shape[1] != spec.size:
    raise ValueError(
      f"{path}: array {key!r} has {action.shape[1]} numbers an action; the environment takes {spec.size}"
    )
  outside = ((action < spec.low) | (action > spec.high)).any(1)
  return (np.clip(action, spec.low, spec.high) if clip else action), int(outside.sum())


def terminals(
  arrays: Arrays, layout: Layout, starts: np.ndarray, max_episode_steps: int | None, path: Any
) -> np.ndarray:
  """Whether each episode ended by an end of the task, bool ``[E]``."""
  lengths = np.diff(starts)
  flagged = np.ones(len(lengths), bool)
  if layout.ends == "never":
    return ~flagged
  if layout.terminal:
    flags = arrays[layout.terminal]
    per_step = len(flags) == starts[-1]
    flags = _flags(flags, layout.terminal, path, int(starts[-1]) if per_step else len(lengths))
    flagged = flags[starts[1:] - 1] if per_step else flags
    early = np.setdiff1d(np.flatnonzero(flags), starts[1:] - 1) if per_step else []
    if len(early):
      raise ValueError(f"{path}: array {layout.terminal!r} is true at {_where(early[0], starts)}, inside an episode")
  if layout.ends == "flags":
    return flagged
  if max_episode_steps is None:
    raise ValueError(
      f"{path}: its flags do not tell ends of the task from time limits; give max_episode_steps, the limit that it "
      "was recorded with"
    )
  longest = int(lengths.max())
  if longest > max_episode_steps:
    raise ValueError(
      f"{path}: episode {int(lengths.argmax())} has {longest} steps, more than max_episode_steps={max_episode_steps}; "
      "give the limit it was recorded with"
    )
  alike = int((flagged & (lengths == longest)).sum())
  if longest < max_episode_steps and alike > 1 and 2 * alike > flagged.sum():
    raise ValueError(
      f"{path}: {alike} of {len(lengths)} episodes have exactly {longest} steps, which looks like a time limit, but "
      f"max_episode_steps is {max_episode_steps}; give the limit it was recorded with, or a layout with ends='flags'"
    )
  return flagged & (lengths < max_episode_steps)


def check_returns(arrays: Arrays, layout: Layout, reward: np.ndarray, starts: np.ndarray, path: Any) -> None:
  """Compares the rewards' sums with the returns that the file states."""
  if layout.returns is None:
    return
  stated = vector(arrays[layout.returns], layout.returns, path, len(starts) - 1).astype(np.float64)
  sums = np.add.reduceat(reward.astype(np.float64), starts[:-1])
  off = ~np.isclose(sums, stated, rtol=1e-3, atol=1e-2)
  if off.any():
    e = int(np.argmax(off))
    raise ValueError(
      f"{path}: rewards of episode {e} sum to {sums[e]:.6g}, but array {layout.returns!r} says {stated[e]:.6g}"
    )


def check_finite(array: np.ndarray, key: str, starts: np.ndarray | None, path: Any) -> None:
  """Raises ``ValueError`` naming the first row that is not finite; rows are episodes without ``starts``."""
  if array.dtype.kind == "f":
    bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
    if bad.any():
      raise ValueError(f"{path}: array {key!r} is not finite at {_where(int(np.argmax(bad)), starts)}")


def _where(row: int, starts: np.ndarray | None) -> str:
  if starts is None:
    return f"episode {row}"
  episode = int(np.searchsorted(starts, row, "right")) - 1
  return f"episode {episode}, step {row - int(starts[episode])}"


def _starts(starts: np.ndarray, key: str, num_steps: int, path: Any) -> np.ndarray:
  if starts[0] != 0 or starts[-1] != num_steps or np.any(np.diff(starts) < 1) or np.any(starts != np.floor(starts)):
    raise ValueError(f"{path}: array {key!r} does not split the {num_steps} steps into episodes of at least one step")
  return starts.astype(np.int64)


def _flags(array: np.ndarray, key: str, path: Any, length: int) -> np.ndarray:
  flat = vector(array, key, path, length)
  if not np.all((flat == 0) | (flat == 1)):
    raise ValueError(f"{path}: array {key!r} must hold flags, true or false")
  return flat.astype(bool)


def _numbers(array: np.ndarray, key: str, path: Any, rows: int, like: np.ndarray | None = None) -> np.ndarray:
  flat = array[:, None] if array.ndim == 1 else array
  trailing = flat.shape[1:] if like is None else like.shape[1:]
  if flat.ndim < 2 or flat.shape != (rows, *trailing) or flat.dtype.kind == "U":
    shape = "..." if like is None else ", ".join(map(str, trailing))
    raise ValueError(
      f"{path}: array {key!r} has shape {array.shape} of {array.dtype}; expected numbers [{rows}, {shape}]"
    )
  if flat.dtype.kind != "f" and (flat.min() < np.iinfo(np.int32).min or flat.max() > np.iinfo(np.int32).max):
    raise ValueError(f"{path}: array {key!r} has numbers that do not fit int32")
  flat = to_float32(flat) if flat.dtype.kind == "f" else flat
  flat = flat if flat.dtype in (np.float32, np.uint8) else flat.astype(np.int32)
  if like is not None and flat.dtype != like.dtype:
    raise ValueError(
      f"{path}: array {key!r} has dtype {array.dtype}, which differs from the observations' {like.dtype}"
    )
  return flat


def _discrete(array: np.ndarray, key: str, spec: Discrete | None, starts: np.ndarray, path: Any) -> np.ndarray:
  if array.ndim == 2 and array.shape[1] == 1:
    array = array[:, 0]
  check_finite(array, key, starts, path)
  one_hot = spec is not None and array.ndim == 2 and array.shape[1] == spec.num_actions
  if one_hot and np.all((array == 0) | (array == 1)) and np.all(array.sum(1) == 1):
    return array.argmax(1).astype(np.int32)
  if array.ndim != 1 or np.any(array != np.floor(array)):
    raise ValueError(
      f"{path}: array {key!r} has shape {array.shape} of {array.dtype}; expected one whole number an action"
    )
  bad = (array < 0) | (array >= (np.iinfo(np.int32).max if spec is None else spec.num_actions))
  if bad.any():
    row = int(np.argmax(bad))
    most = "" if spec is None else f"; the environment has actions 0 to {spec.num_actions - 1}"
    raise ValueError(f"{path}: array {key!r} is {array[row]} at {_where(row, starts)}{most}")
  return array.astype(np.int32)

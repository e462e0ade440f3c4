"""One episode's fields from what a file holds of it, checked; every error starts with where it was found."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ilx.data import encode, values
from ilx.data.images import Images
from ilx.types import Tree

IMAGES = ("png", "jpeg", "raw")


def numbers(value: np.ndarray, where: str, rows: int | None = None) -> np.ndarray:
  """``value`` as float32, int32, uint8 or bool, finite, with ``rows`` rows.

  Raises:
    ValueError: where it is none of that.
  """
  value = np.asarray(value)
  if value.dtype.kind not in "fiub" or not value.ndim or (rows is not None and len(value) != rows):
    size = "N" if rows is None else rows
    raise ValueError(f"{where} is {value.dtype} {list(value.shape)}; expected numbers [{size}, ...]")
  if value.dtype in (np.uint8, bool):
    return value
  if value.dtype.kind in "iu":
    limits = np.iinfo(np.int32)
    if value.size and (value.min() < limits.min or value.max() > limits.max):
      raise ValueError(f"{where} has integers outside int32")
    return value.astype(np.int32, copy=False)
  with np.errstate(over="ignore"):
    value = value.astype(np.float32, copy=False)
  finite = np.isfinite(value)
  if not finite.all():
    row = int(np.argmin(finite.reshape(len(value), -1).all(axis=1)))
    raise ValueError(f"{where} is NaN or infinite in float32 at step {row}")
  return value


def vector(value: np.ndarray, where: str, rows: int | None = None) -> np.ndarray:
  """Numbers ``[N]``, from ``[N]`` or ``[N, 1]``.

  Raises:
    ValueError: where it is none of that.
  """
  value = numbers(value, where, rows)
  flat = value.reshape(len(value)) if value.shape[1:] in ((), (1,)) else value
  if flat.ndim != 1:
    raise ValueError(f"{where} is {value.dtype} {list(value.shape)}; expected one number a step")
  return flat


def flags(value: np.ndarray, where: str, rows: int | None = None) -> np.ndarray:
  """Bool ``[N]`` from flags or numbers that are 0 or 1.

  Raises:
    ValueError: where it is none of that.
  """
  flat = vector(value, where, rows)
  if flat.dtype != bool and not np.isin(flat, (0, 1)).all():
    raise ValueError(f"{where} must hold flags, 0 or 1")
  return flat.astype(bool)


def clipped(action: np.ndarray, low: Sequence[float], high: Sequence[float], where: str) -> np.ndarray:
  """Actions ``[T, A]`` within their bounds.

  Raises:
    ValueError: where there are not as many bounds as dimensions.
  """
  if action.shape[1:] != (len(low),):
    raise ValueError(f"{where} has the shape {list(action.shape)}; the bounds are for [T, {len(low)}]")
  return np.clip(action, np.float32(low), np.float32(high))


def pictures(pixels: np.ndarray, image_format: str) -> np.ndarray | Images:
  """uint8 ``[T, height, width, channels]`` as encoded pictures.

  What is not uint8 of 1, 3 or 4 channels stays as it is, and so does everything where the format is "raw".

  Args:
    pixels: any array.
    image_format: one of ``IMAGES``.
  """
  if image_format == "raw" or pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] not in (1, 3, 4):
    return pixels
  with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of Python's lock while it encodes
    contents = list(pool.map(lambda picture: values.encode_picture(picture, image_format), pixels))
  return Images.of(contents, pixels.shape[1:])


def check_image_format(image_format: str) -> None:
  """Raises ValueError for what is not one of ``IMAGES``."""
  if image_format not in IMAGES:
    raise ValueError(f"images is {image_format!r}; expected one of {', '.join(IMAGES)}")


def names(value: str | Sequence[str]) -> tuple[str, ...]:
  """Names given as one or as several."""
  return (value,) if isinstance(value, str) else tuple(value)


def complete(
  observation: Tree,
  final: Tree | None,
  action: Tree,
  reward: np.ndarray,
  *,
  terminal: bool,
  discount: np.ndarray | None = None,
  extras: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
  """An episode's steps from T rows, by the rules of ``convert.npz``.

  Where what followed the last action was not recorded, a terminal episode repeats its last observation, and a cut one
  loses its last action.

  Args:
    observation: ``[T, ...]``, what each action saw.
    final: ``[1, ...]``, what followed the last action; None where it was not recorded.
    action: ``[T, ...]``.
    reward: float32 ``[T]``.
    terminal: whether the episode ended by an end of the task.
    discount: float32 ``[T]``; by default as ``ilx.data.episode`` makes it.
    extras: further fields ``[T, ...]`` of the moments of the observations; what is not known of the last step
      repeats the row before it.

  Returns:
    Steps ``[T + 1, ...]`` as ``ilx.data.Recorder.add`` takes them; ``[T, ...]`` where the last action is lost.

  Raises:
    ValueError: where no action is left.
  """
  loses_last = final is None and not terminal
  if final is not None:
    observation = _join(observation, final)
  elif terminal:
    observation = _map(_repeat_last, observation)
  else:
    action, reward = _map(lambda x: x[:-1], action), reward[:-1]
    discount = None if discount is None else discount[:-1]
  steps = encode.episode(observation, action, reward, terminal=terminal, discount=discount)
  if taken := sorted(set(extras or {}) & set(encode.FIELDS)):
    raise ValueError(f"a further field is named {taken[0]!r}, which an episode has already; leave it out")
  further = {key: _map(lambda x: x if loses_last else _repeat_last(x), value) for key, value in (extras or {}).items()}
  return steps | further


def differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Which rows of two arrays ``[N, ...]`` differ, bool ``[N]``."""
  return (a != b).any(axis=tuple(range(1, a.ndim)))


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Nested dicts of values named by paths with "/"."""
  tree: dict[str, Any] = {}
  for name, value in flat.items():
    *groups, leaf = name.split("/")
    place = tree
    for group in groups:
      place = place.setdefault(group, {})
    place[leaf] = value
  return tree


def _map(function: Any, tree: Tree) -> Tree:
  return {key: _map(function, value) for key, value in tree.items()} if isinstance(tree, Mapping) else function(tree)


def _repeat_last(rows: np.ndarray) -> np.ndarray:
  return np.concatenate([rows, rows[-1:]])


def _join(rows: Tree, final: Tree) -> Tree:
  if isinstance(rows, Mapping):
    return {key: _join(rows[key], final[key]) for key in rows}
  return np.concatenate([rows, final])

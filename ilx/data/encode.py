"""From an episode's arrays to the fields of a record."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ilx.data.features import Feature
from ilx.types import Tree

FIELDS = ("observation", "action", "reward", "discount", "is_first", "is_last", "is_terminal")


def episode(
  observation: Tree, action: np.ndarray, reward: np.ndarray, *, terminal: bool, discount: np.ndarray | None = None
) -> dict[str, Any]:
  """One RLDS episode from what an environment gave.

  Args:
    observation: ``[T + 1, O]``, from the reset to what followed the last action.
    action: ``[T, A]`` or ``[T]`` integers.
    reward: ``[T]``, what each action earned.
    terminal: whether the episode ended by itself rather than by a time limit.
    discount: ``[T]``; by default 1, and 0 for the last action where ``terminal``.

  Returns:
    Arrays ``[T + 1, ...]`` by field, as ``Recorder.add`` takes them; the last step's action, reward and discount,
    which carry no meaning, are 0.

  Raises:
    ValueError: where lengths disagree or there is no action.
  """
  action, reward = np.asarray(action), np.asarray(reward, np.float32)
  length = len(action)
  sizes = {len(leaf) for leaf in jax.tree.leaves(observation)}
  if not length or reward.shape != (length,) or sizes != {length + 1}:
    raise ValueError(
      f"episode: {length} actions need {length} rewards and {length + 1} observations, "
      f"got rewards {reward.shape} and {sorted(sizes)} observations"
    )
  if discount is None:
    discount = np.ones(length, np.float32)
    discount[-1] = 0.0 if terminal else 1.0
  steps = np.arange(length + 1)
  return {
    "observation": jax.tree.map(np.asarray, observation),
    "action": np.concatenate([action, np.zeros_like(action[:1])]),
    "reward": np.append(reward, np.float32(0)),
    "discount": np.append(np.asarray(discount, np.float32), np.float32(0)),
    "is_first": steps == 0,
    "is_last": steps == length,
    "is_terminal": (steps == length) & bool(terminal),
  }


def normalize(episode: Mapping[str, Any]) -> dict[str, Any]:
  """An episode's fields in the types that are stored: float32, int32, uint8 or bool, checked.

  Raises:
    ValueError: names the field that is missing, of another length, not a number, not finite, or a misplaced flag.
  """
  if set(episode) != set(FIELDS):
    missing, unknown = sorted(set(FIELDS) - set(episode)), sorted(set(episode) - set(FIELDS))
    raise ValueError(f"episode: fields missing: {missing}, unknown: {unknown}; expected {', '.join(FIELDS)}")
  result = {name: _normalize_field(episode[name], name) for name in FIELDS}
  length = len(result["reward"]) if np.ndim(result["reward"]) == 1 else -1
  for name, value in flatten(result):
    if value.ndim == 0 or len(value) != length:
      raise ValueError(f"episode: field {name!r} has shape {value.shape}, but the reward has {length} steps")
    if name in ("discount", *FIELDS[4:]) and value.ndim != 1:
      raise ValueError(f"episode: field {name!r} has shape {value.shape}; expected one value a step")
  if length < 2:
    raise ValueError("episode: an episode has at least two steps, the last of them without action")
  for name, place in (("is_first", 0), ("is_last", length - 1)):
    if np.flatnonzero(result[name]).tolist() != [place]:
      raise ValueError(f"episode: field {name!r} must be true at step {place} of {length} alone")
  if result["is_terminal"][:-1].any():
    raise ValueError("episode: field 'is_terminal' is true before the last step")
  return result


def _normalize_field(value: Any, name: str) -> Any:
  if isinstance(value, Mapping):
    if name.split("/", 1)[0] != "observation" or not value:
      raise ValueError(f"episode: field {name!r} must be an array")
    if bad := [key for key in value if not isinstance(key, str) or not key or "/" in key]:
      raise ValueError(f"episode: field {name!r} has the key {bad[0]!r}; keys are strings without '/'")
    return {key: _normalize_field(value[key], f"{name}/{key}") for key in sorted(value)}
  value = np.asarray(value)
  if name in ("is_first", "is_last", "is_terminal"):
    dtype = np.dtype(bool)
  elif name in ("reward", "discount") or value.dtype.kind == "f":
    dtype = np.dtype(np.float32)
  elif value.dtype == bool or value.dtype == np.uint8:
    dtype = value.dtype
  else:
    dtype = np.dtype(np.int32)
  if value.dtype.kind not in "fiub":
    raise ValueError(f"episode: field {name!r} is {value.dtype}; expected numbers")
  if value.dtype.kind in "iu" and dtype == np.int32 and value.size:
    limits = np.iinfo(dtype)
    if value.min() < limits.min or value.max() > limits.max:
      raise ValueError(f"episode: field {name!r} has integers outside int32")
  with np.errstate(over="ignore"):
    value = value.astype(dtype, copy=False)
  if dtype.kind == "f" and not np.isfinite(value).all():
    step = int((~np.isfinite(value.reshape(len(value), -1)).all(axis=1)).argmax()) if value.ndim else 0
    raise ValueError(f"episode: field {name!r} is NaN or inf in float32 at step {step}")
  return value


def flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
  """(name, array) pairs, names joined by "/"."""
  for key, value in fields.items():
    if isinstance(value, Mapping):
      yield from flatten(value, f"{prefix}{key}/")
    else:
      yield f"{prefix}{key}", value


def step_features(fields: Mapping[str, Any]) -> dict[str, Any]:
  """What ``features.json`` says of one step of normalised fields."""
  return {
    key: step_features(value)
    if isinstance(value, Mapping)
    else Feature("tensor", value.shape[1:], value.dtype, "bytes" if _as_bytes(value) else "none")
    for key, value in fields.items()
  }


def stored(value: np.ndarray) -> np.ndarray | list[bytes]:
  """A normalised field as it stands in an Example."""
  return [step.tobytes() for step in value] if _as_bytes(value) else value


def _as_bytes(value: np.ndarray) -> bool:
  # Pixels as numbers of an Example would take up to two bytes each and many times as long to read.
  return value.dtype == np.uint8 and value.ndim > 2

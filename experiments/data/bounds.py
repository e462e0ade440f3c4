"""What ``metadata.json`` says of the least and the largest actions, by part where an action has several."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ilx.data.rlds import Info
from ilx.data.spec import BOUNDS

ACTION = "steps/action"


class Bounds(NamedTuple):
  """Of the action, or of a part of it.

  Attributes:
    low, high: float64 ``[A]``.
    discrete: whether they are 0 and the number of actions less one.
  """

  low: np.ndarray
  high: np.ndarray
  discrete: bool


def of(info: Info) -> dict[str, Bounds | None]:
  """The bounds by field, such as "steps/action/stick"; None where those that are given make no sense."""
  return dict(_of(ACTION, {key: info.metadata.get(key) for key in BOUNDS}))


def _of(name: str, given: Mapping[str, Any]) -> Iterator[tuple[str, Bounds | None]]:
  given = {key: value for key, value in given.items() if value is not None}
  parted = [value for value in given.values() if isinstance(value, Mapping)]
  if not given:
    return
  if len(parted) < len(given):
    yield name, None if parted else _read(given)
    return
  for part in dict.fromkeys(part for value in parted for part in value):
    yield from _of(f"{name}/{part}", {key: value.get(part) for key, value in given.items()})


def _read(given: Mapping[str, Any]) -> Bounds | None:
  try:
    if "action_low" in given and "action_high" in given:
      low, high = (np.asarray(given[end], np.float64).reshape(-1) for end in ("action_low", "action_high"))
      return Bounds(low, high, discrete=False) if len(low) == len(high) else None
    if "num_actions" not in given:
      return None
    high = np.asarray(given["num_actions"], np.float64).reshape(-1) - 1
    return Bounds(np.zeros_like(high), high, discrete="action_low" not in given)
  except (TypeError, ValueError):
    return None


def to_clip(info: Info, names: Collection[str]) -> dict[str, Bounds]:
  """The bounds of what is not discrete, among fields ``names``.

  Raises:
    ValueError: where there are none, or some that are no bounds.
  """
  found = {name: one for name, one in of(info).items() if name in names and (one is None or not one.discrete)}
  if not found or None in found.values():
    raise ValueError(f"{info.directory}: metadata.json gives no action_low and action_high to clip actions to")
  if not all(np.all(one.low <= one.high) for one in found.values()):
    raise ValueError(f"{info.directory}: action_low in metadata.json is not below action_high; correct it to clip")
  return found

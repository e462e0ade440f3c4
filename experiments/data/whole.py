"""Checks that take all episodes of a dataset: flags some of them lack, ends that are none, what metadata.json says."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.data.activity import inside
from experiments.data.bounds import ACTION, Bounds
from experiments.data.fields import Stored
from experiments.data.measure import Moments
from experiments.data.problems import ERROR, WARNING, Problems
from ilx.data.rlds import Info

# Where in every episode these flags are true, in a dataset that uses them.
_ENDS = {"is_first": 0, "is_last": -1}


class Ends:
  """How episodes begin and end, over a whole dataset."""

  def __init__(self, most: int):
    self._most = most
    self._flagged: Counter[tuple[str, str]] = Counter()
    self._lacking: Counter[tuple[str, str]] = Counter()
    self._first_lacking: dict[tuple[str, str], list[dict[str, Any]]] = {}
    self._terminal = self._bootstrapped = 0
    self._first_bootstrapped: dict[str, Any] = {}

  def add(self, good: Mapping[str, Stored], where: Mapping[str, Any]) -> None:
    """Takes the good fields of an episode and where it is: "file", "record", "split" and "episode"."""
    steps = len(next(iter(good.values()), ()))
    for name, place in _ENDS.items():
      value = good.get(f"steps/{name}")
      if value is None or not steps or np.size(value) != steps:
        continue
      key = name, where["split"]
      if np.reshape(value, -1)[place]:
        self._flagged[key] += 1
      else:
        self._lacking[key] += 1
        if self._lacking[key] <= self._most:
          self._first_lacking.setdefault(key, []).append(dict(where))
    terminal, discount = good.get("steps/is_terminal"), good.get("steps/discount")
    if terminal is None or discount is None or steps < 2 or np.size(terminal) != steps or np.size(discount) != steps:
      return
    if np.reshape(terminal, -1)[-1]:
      self._terminal += 1
      if np.reshape(discount, -1)[-2] > 0:
        self._bootstrapped += 1
        self._first_bootstrapped = self._first_bootstrapped or dict(where) | {"step": steps - 2}

  def finish(self, problems: Problems) -> None:
    """Notes what does not fit together."""
    used = {name for name, _ in self._flagged}
    for (name, split), count in self._lacking.items():
      if name not in used:
        continue  # the dataset does without
      flagged = self._flagged[name, split]
      edge = "first" if _ENDS[name] == 0 else "last"
      message = f"false at the {edge} step, where {flagged:,} of {flagged + count:,} episodes of the split have it true"
      # Where most have it, one without it is a mistake; where many do not, records may be parts cut from episodes.
      level = ERROR if flagged > count else WARNING
      if level == WARNING:
        message += "; is the record a part cut from an episode?"
      first = self._first_lacking[name, split]
      for index in range(count):
        # Those beyond are only counted.
        problems.add(level, "flag", message, field=f"steps/{name}", **(first[index] if index < len(first) else {}))
    if self._bootstrapped:
      problems.add(
        WARNING,
        "discount",
        f"above 0 before the terminal step, in {self._bootstrapped:,} of {self._terminal:,} episodes that have one; "
        "what goes by the discount alone sees no end there",
        field="steps/discount",
        **self._first_bootstrapped,
      )


def bounds(given: Mapping[str, Bounds | None], step_fields: Mapping[str, Any], problems: Problems) -> dict[str, Bounds]:
  """Notes bounds of actions that are none, ``given`` by the metadata; returns those that can be used, by field."""

  def note(name: str, message: str) -> None:
    part = name.removeprefix(ACTION).removeprefix("/")
    problems.add(ERROR, "metadata", f"{part}: {message}" if part else message, file="metadata.json")

  found = {}
  for name, one in given.items():
    if name not in step_fields:
      if any(inside(field, name) for field in step_fields):
        note(name, "the action has several parts: action_low, action_high and num_actions must be dicts of them")
      continue
    if one is None:
      note(name, "action_low, action_high or num_actions in metadata.json are no bounds")
    elif not len(bad := np.flatnonzero(~(one.low <= one.high))):
      found[name] = one
    elif one.discrete:
      note(name, f"num_actions is {one.high[bad[0]] + 1:g}; there must be one at least")
    else:
      low, high = one.low[bad[0]], one.high[bad[0]]
      note(name, f"action_low {low:g} is not below action_high {high:g} in dimension {bad[0]}")
  return found


def summary(info: Info, episodes: int, transitions: int, returns: Moments, problems: Problems) -> None:
  """Notes numbers in metadata.json that are not those of the episodes."""
  read = {"num_episodes": episodes, "num_transitions": transitions}
  if returns.count[0]:
    read |= {"data_return": float(returns.mean[0]), "data_return_std": float(returns.std[0])}
  # Sums of float32 in another order, and numbers that were rounded by hand.
  slack = 1e-3 * (abs(read.get("data_return", 0.0)) + read.get("data_return_std", 0.0)) + 1e-6
  for name, value in read.items():
    told = info.metadata.get(name)
    if told is None:
      continue
    number = isinstance(told, int | float) and not isinstance(told, bool)
    if not number or not math.isclose(told, value, rel_tol=0, abs_tol=slack if name.startswith("data") else 0):
      message = f"{name} is {told!r}, but the episodes give {value:.6g}" if number else f"{name} is {told!r}, no number"
      problems.add(WARNING, "metadata", message, file="metadata.json")

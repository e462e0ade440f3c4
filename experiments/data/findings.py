"""What is suspicious about a dataset, in sentences."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.data import activity, fields
from experiments.report import text

# A field of floats with no more distinct values than this, in so many steps, looks discretised.
_FEW, _ENOUGH = 16, 200


def findings(survey: Any, card: dict[str, Any]) -> list[dict[str, str]]:
  """Entries of "level" ("warning" or "note"), "field" (may be empty) and "message", warnings first."""
  found: list[dict[str, str]] = []

  def tell(level: str, field: str, message: str) -> None:
    found.append({"level": level, "field": field, "message": message})

  _reading(card, tell)
  _flags(survey, card, tell)
  _repetition(survey, card, tell)
  for name, numbers in card["numbers"].items():
    _numbers(survey, name, numbers, tell)
  return sorted(found, key=lambda entry: entry["level"] != "warning")


def _reading(card: dict[str, Any], tell: Callable) -> None:
  unreadable = card["unreadable"]
  if unreadable["count"]:
    first = unreadable["first"][0]
    tell("warning", "", f"{_count(unreadable['count'], 'thing')} could not be read, first: {first}; run validate")
  for name, seen in card["read"]["splits"].items():
    promised = card["splits"].get(name, {}).get("episodes")
    if card["read"]["whole"] and promised is not None and seen["episodes"] != promised:
      tell("warning", "", f"split {name} has {seen['episodes']:,} readable episodes of {promised:,}")


def _flags(survey: Any, card: dict[str, Any], tell: Callable) -> None:
  flags, episodes = survey.flags, card["read"]["episodes"]
  if not episodes:
    return
  for name in ("steps/is_first", "steps/is_last"):
    if not flags[name]:
      tell("warning", name, "never true: the episodes were cut out of longer ones, or the flags are not set")
    elif flags[name] != episodes:
      tell("warning", name, f"true {flags[name]:,} times in {episodes:,} episodes")
  if not flags["steps/is_terminal"]:
    tell("note", "steps/is_terminal", "never true: every episode ends by a time limit or a cut")
  elif flags["steps/is_terminal"] != survey.terminals:
    tell("warning", "steps/is_terminal", "true before an episode's last step: ilx.data.load refuses that")
  if not survey.nonzero_rewards and "steps/reward" in card["numbers"]:
    tell("warning", "steps/reward", "always 0: returns say nothing")
  if card["lengths"] and card["lengths"]["min"] < 1:
    tell("warning", "", "some episodes have one step only, and so no transition")


def _repetition(survey: Any, card: dict[str, Any], tell: Callable) -> None:
  repeated, about = card["duplicates"], "" if card["duplicates"]["exact"] else "about "
  if repeated["episodes"]:
    count = round(repeated["episodes"] * card["read"]["episodes"])
    verb = "repeats" if count == 1 else "repeat"
    tell("warning", "", f"{about}{_count(count, 'episode')} ({_percent(repeated['episodes'])}) {verb} an earlier one")
  for pair in repeated["shared"]:
    tell(
      "warning", "", f"{_percent(pair['share'])} of the episodes of split {pair['split']} are in {pair['other']} too"
    )
  # Each repeated episode repeats its steps: only what goes beyond is news.
  if repeated["steps"] > repeated["episodes"] + 0.01:
    tell("note", "", f"{about}{_percent(repeated['steps'])} of the steps repeat an earlier one")
  if card["idle"]["share"] > 0.01:
    level = "warning" if card["idle"]["share"] > 0.1 else "note"
    tell(level, "", f"{_percent(card['idle']['share'])} of the steps are idle: the action does nothing")
  for name, feature in fields.of_steps(survey.info).items():
    if not fields.examined(feature):
      tell("note", name, "cannot be looked at step by step: idle and repeated steps are told by the other fields alone")
  for name, pictures in card["pictures"].items():
    if pictures["repeated"] - repeated["steps"] > 0.05:
      tell("note", name, f"{_percent(pictures['repeated'])} of the pictures repeat an earlier one")


def _numbers(survey: Any, name: str, numbers: dict[str, Any], tell: Callable) -> None:
  if name in ("steps/reward", "steps/discount") and not any(numbers["not_finite"]):
    return
  low, high, std = (np.array(numbers[key], np.float64) for key in ("min", "max", "std"))
  level = "warning" if activity.inside(name, "steps/action") else "note"

  def dimensions(chosen: np.ndarray, level: str, message: str) -> np.ndarray:
    if chosen.any():
      places = np.flatnonzero(chosen)
      where = "" if len(chosen) == 1 else f"{_dimensions(places)} of {len(chosen)}: "
      tell(level, name, where + message)
    return chosen

  dimensions(np.array(numbers["not_finite"]) > 0, "warning", f"NaN or inf, {sum(numbers['not_finite']):,} in all")
  constant = dimensions(
    low == high, level, f"always {text.significant(low[low == high][0], '-')}" if _same(low, high) else "constant"
  )
  mode = np.array(numbers["most_frequent_share"])
  still = dimensions(~constant & (mode > 0.99), level, "nearly constant: one value in more than 99 % of the steps")
  distinct = np.array(numbers["distinct"])
  is_float = name in survey.fields and survey.fields[name].is_float
  few = np.full(len(low), False)
  acted = name.split("/")[1] in ("action", "observation")
  if is_float and acted and numbers["sampled"] >= _ENOUGH and not numbers["pooled"]:
    few = (distinct <= _FEW) & ~constant & ~still
    dimensions(few, "note", f"at most {distinct[few].max(initial=0)} different values: discretised?")
  outside = np.array(numbers["outside_bounds"])
  total = np.maximum(np.array(numbers["count"]), 1)
  dimensions(
    outside > 0,
    "warning",
    f"up to {_percent((outside / total).max(initial=0))} of the values out of the metadata's bounds",
  )
  edge = np.maximum(np.array(numbers["at_min"]), np.array(numbers["at_max"]))
  if is_float and acted and not numbers["pooled"]:
    saturated = (edge > 0.1) & ~constant & ~still & ~few
    dimensions(
      saturated,
      "note",
      f"saturated: up to {_percent(edge[saturated].max(initial=0))} of the values at the minimum or maximum",
    )
  q01, q99 = np.array(numbers["q01"]), np.array(numbers["q99"])
  reach = np.maximum(high - q99, q01 - low)
  heavy = ~constant & ~still & ~few & (reach > 10 * np.maximum(q99 - q01, 1e-12)) & np.isfinite(std)
  dimensions(heavy, "note", "heavy tails: extremes ten times as far out as 98 % of the values")


def _same(low: np.ndarray, high: np.ndarray) -> bool:
  """Whether the constant dimensions share one value."""
  constant = low[low == high]
  return len(constant) > 0 and (constant == constant[0]).all()


def _dimensions(places: np.ndarray) -> str:
  """``dimension 3``, ``dimensions 0-2, 7 and 40 more``."""
  runs = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
  words = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
  left = sum(len(run) for run in runs[6:])
  return f"dimension{'s' if len(places) > 1 else ''} {', '.join(words[:6])}" + (f" and {left} more" if left else "")


def _percent(share: float) -> str:
  return f"{100 * share:.0f} %" if share >= 0.1 or share == 0 else f"{100 * share:.2g} %"


def _count(number: int, what: str) -> str:
  return f"{number:,} {what}{'s' if number != 1 else ''}"

"""Which fields of a step become which columns of ``Episodes``."""

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ilx.data.features import Features, Sequence
from ilx.data.fields import Leaf, leaves

# RLDS' fields with one value a step; the first three make columns, the others are only checked.
_VALUES = ("reward", "discount", "is_terminal", "is_first", "is_last")
_FILLED = _VALUES[:3]


class Selection(NamedTuple):
  """Which fields of a step become which columns; names are relative to a step, such as "observation/state".

  A name of a folder, such as "observation/cameras", stands for all fields in it.

  Attributes:
    observation: one name, which gives an array (a folder: nested dicts); several, which give nested dicts,
      "observation/" left out; by default every field of the observation that has a place in arrays.
    action: the same, "action/" left out; by default the field "action", which may be a folder.
    extras: names of further step fields that ``Episodes.extras`` is to have, as nested dicts.
    fill: (field, value) pairs for what the dataset lacks of reward, discount and is_terminal, such as
      ``(("reward", 0.0),)``; is_terminal is that of last steps. Where the dataset has the field, its own values count.
    lazy: whether pictures stay encoded (``ilx.data.images.Images``) until they are looked at.
  """

  observation: str | tuple[str, ...] | None = None
  action: str | tuple[str, ...] | None = None
  extras: tuple[str, ...] = ()
  fill: tuple[tuple[str, float | bool], ...] = ()
  lazy: bool = False


EVERYTHING = Selection()


class Plan(NamedTuple):
  """A selection, applied to what a dataset has.

  Attributes:
    fields: to read, by name, such as "steps/observation/state".
    observation: a name of these, or nested dicts of names.
    action: the same.
    extras: nested dicts of names.
    fill: values of fields that the dataset lacks, by RLDS' name.
    lazy: whether pictures stay encoded.
  """

  fields: dict[str, Leaf]
  observation: Any
  action: Any
  extras: dict[str, Any]
  fill: dict[str, float | bool]
  lazy: bool


def plan(features: Mapping[str, Features], selection: Selection, path: Path) -> Plan:
  """What to read for a selection.

  Args:
    features: the tree of ``features.json``.
    selection: see there.
    path: of ``features.json``, for errors.

  Raises:
    ValueError: where a field is missing or of a kind that has no place in arrays; names it and ``path``.
  """
  steps = features.get("steps")
  if not isinstance(steps, Sequence) or not isinstance(steps.feature, dict):
    raise ValueError(f"{path}: no RLDS dataset: 'steps' must be a Dataset of step fields")
  there = {leaf.name: leaf for leaf in leaves(steps, "steps")}
  try:
    return _plan(there, selection, sorted(steps.feature))
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None


def _plan(there: dict[str, Leaf], selection: Selection, tops: list[str]) -> Plan:
  fill = dict(selection.fill)
  for name, value in fill.items():
    if name not in _FILLED:
      raise ValueError(f"Selection.fill: {name!r} cannot be filled in; only {', '.join(_FILLED)}")
    if not isinstance(value, bool | int | float | np.generic) or not math.isfinite(value):
      raise ValueError(f"Selection.fill: {name!r} is {value!r}; expected a number")
  for name in ("observation", "action"):
    if getattr(selection, name) is None and not _inside(there, name):
      raise ValueError(
        f"field 'steps/{name}' is missing; there: {', '.join(tops)}; choose others with Selection({name}=...)"
      )
  if selection.observation is None:
    # What has no place in arrays is left out where nobody asked for it by name.
    if alone := there.get("steps/observation"):
      _check(alone)
    able = [name for name in _inside(there, "observation") if not _problem(there[name])]
    if not able:
      raise ValueError("field 'steps/observation' has nothing but text and what varies; choose others")
    observation = _relative(able, "observation")
  else:
    observation = _tree(there, selection.observation, "observation")
  action = _tree(there, "action" if selection.action is None else selection.action, "action")
  extras = _nest({name[len("steps/") :]: name for name in _expand(there, selection.extras)})
  fields = {name: there[name] for tree in (observation, action, extras) for name in _names(tree)}
  for name in _names(action):
    if there[name].feature.kind == "image":
      raise ValueError(f"field {name!r} is an image; actions are numbers")
  for top in _VALUES:
    name = f"steps/{top}"
    if name in there:
      if math.prod(size or 0 for size in there[name].feature.shape) != 1 or len(there[name].lengths) != 1:
        raise ValueError(f"field {name!r} has shape {there[name].feature.shape}; expected one number a step")
      fields[name] = there[name]
      fill.pop(top, None)
    elif _inside(there, top):
      raise ValueError(f"field {name!r} is a dict; expected one tensor")
    elif top in ("reward", "is_terminal") and top not in fill:
      value = 0.0 if top == "reward" else False
      raise ValueError(
        f"field {name!r} is missing; there: {', '.join(tops)}; "
        f"pass Selection(fill=(({top!r}, {value}),)) to take it as {value}"
      )
  for leaf in fields.values():
    _check(leaf)
  return Plan(fields, observation, action, extras, fill, selection.lazy)


def _check(leaf: Leaf) -> None:
  if problem := _problem(leaf):
    raise ValueError(f"field {leaf.name!r} {problem}")


def _problem(leaf: Leaf) -> str:
  """Why a field has no place in arrays; empty where it has one."""
  feature = leaf.feature
  if feature.kind == "unknown":
    return f"cannot be read: {feature.problem}"
  if feature.kind == "text":
    return "is text; expected numbers (texts are in ilx.data.rlds.read_episodes)"
  if None in leaf.lengths[1:]:
    return "is a Sequence inside a step, whose length varies, which has no place in columns"
  if feature.has_own_shape:
    return f"has shape {feature.shape}, which varies; columns need a fixed one"
  if len(leaf.lengths) > 1 and feature.kind == "image":
    return "is a video inside a step, which has no place in columns"
  return ""


def _inside(there: Mapping[str, Leaf], name: str) -> list[str]:
  """Full names of the field ``name`` or of those in the folder ``name``."""
  return [full for full in there if full == f"steps/{name}" or full.startswith(f"steps/{name}/")]


def _expand(there: Mapping[str, Leaf], names: Iterable[str]) -> list[str]:
  result: dict[str, None] = {}
  for name in names:
    found = _inside(there, name)
    if not found:
      known = [full[len("steps/") :] for full in there]
      near = difflib.get_close_matches(name, known, n=3)
      hint = f"nearest: {', '.join(near)}" if near else f"there: {', '.join(known)}"
      raise ValueError(f"no step field {name!r} ({hint})")
    result.update(dict.fromkeys(found))
  return list(result)


def _tree(there: Mapping[str, Leaf], choice: str | Iterable[str], folder: str) -> Any:
  if isinstance(choice, str):
    return _relative(_expand(there, [choice]), choice)
  found = _expand(there, choice)
  if not found:
    raise ValueError(f"Selection.{folder} names no field")
  short = [name[len("steps/") :].removeprefix(f"{folder}/") for name in found]
  if len(set(short)) < len(short):
    twice = next(name for name in short if short.count(name) > 1)
    raise ValueError(f"Selection.{folder}: two fields would be called {twice!r}")
  return _nest(dict(zip(short, found, strict=True)))


def _relative(names: list[str], folder: str) -> Any:
  """A name alone where ``folder`` is the field itself, else nested dicts of what is in it."""
  if names == [f"steps/{folder}"]:
    return names[0]
  return _nest({name[len(f"steps/{folder}/") :]: name for name in names})


def _nest(names: Mapping[str, str]) -> dict[str, Any]:
  result: dict[str, Any] = {}
  for short, name in names.items():
    *folders, last = short.split("/")
    node = result
    for folder in folders:
      node = node.setdefault(folder, {})
      if not isinstance(node, dict):
        raise ValueError(f"{short!r} is a field inside another that is chosen, too")
    if last in node:
      raise ValueError(f"two fields would be called {short!r}")
    node[last] = name
  return result


def _names(tree: Any) -> Iterable[str]:
  if isinstance(tree, dict):
    for child in tree.values():
      yield from _names(child)
  else:
    yield tree

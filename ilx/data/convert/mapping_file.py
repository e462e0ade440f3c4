"""Reads a mapping file and resolves what it leaves open; see ``mapping`` for what it says."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from ilx.data.convert import actions, checks
from ilx.data.convert.mapping import Field, Mapping
from ilx.data.spec import BOUNDS

_MOST = 16 << 20
_RESERVED = ("observation", "action", "reward", "discount", "is_first", "is_last", "is_terminal")


def read(mapping: str | os.PathLike | dict[str, Any]) -> Mapping:
  """A checked mapping in which every field has its table and alignment.

  Args:
    mapping: a YAML or JSON file, or what it would hold.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: names the file and the key that is unknown, missing, wrong or contradicts another.
  """
  if isinstance(mapping, dict):
    return _resolved(checks.build(Mapping, mapping, "mapping"), "mapping")
  path = pathlib.Path(mapping)
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing: no mapping file")
  if path.stat().st_size > _MOST:
    raise ValueError(f"{path}: is larger than {_MOST >> 20} MiB: no mapping file")
  return _resolved(checks.build(Mapping, _parsed(path), str(path)), str(path))


def _parsed(path: pathlib.Path) -> Any:
  try:
    text = path.read_text(encoding="utf-8")
    if path.suffix.lower() == ".json":
      return json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path}: no JSON: {error}") from None
  try:
    import yaml
  except ImportError:
    raise ImportError('YAML files need pyyaml: pip install "ilx[data]"') from None
  try:
    # Aliases make of few bytes a document without end.
    events = yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    if any(isinstance(event, yaml.AliasEvent) for event in events):
      raise ValueError("has an alias (*name); write out what it stands for")
    return yaml.safe_load(text)
  except (yaml.YAMLError, RecursionError, ValueError) as error:
    raise ValueError(f"{path}: no YAML: {error}") from None


def _resolved(mapping: Mapping, where: str) -> Mapping:
  if not mapping.events:
    raise ValueError(f"{where}.events: is missing; actions come from a table of events")
  _check_names(mapping, where)
  if mapping.reward is not None and mapping.reward.kind not in ("number", "button"):
    raise ValueError(f"{where}.reward: a reward is a number, no {mapping.reward.kind}")
  changes: dict[str, Any] = {"action": _action(mapping, where), "clock": _clock(mapping, where)}
  for key, align in (("reward", "sum"), ("terminal", "any"), ("success", "any")):
    if isinstance(field := getattr(mapping, key), Field):
      if key != "reward" and field.kind != "button":
        raise ValueError(f"{where}.{key}: is true or false, so its kind is 'button', not {field.kind!r}")
      changes[key] = _field(field, mapping, f"{where}.{key}", align)
  for key, align in (("observation", "hold"), ("steps", "hold"), ("episode", None)):
    fields = getattr(mapping, key)
    changes[key] = {name: _field(field, mapping, f"{where}.{key}.{name}", align) for name, field in fields.items()}
  return dataclasses.replace(mapping, **changes)


def _action(mapping: Mapping, where: str) -> Any:
  """The action's fields, or those of its parts, with their tables and alignments."""
  if isinstance(mapping.action, dict):
    _check_bounds(mapping, where)
    return {name: _part(fields, mapping, f"{where}.action.{name}") for name, fields in mapping.action.items()}
  action = _vector(mapping.action, mapping, f"{where}.action")
  whole = [field.kind == "category" or (field.dtype == "int32" and not field.columns) for field in action]
  if any(whole) and len(action) > 1:
    raise ValueError(
      f"{where}.action[{whole.index(True)}]: an integer action is the only field; see 'button', or give the action "
      "several parts, each with a name"
    )
  return action


def _part(fields: tuple[Field, ...], mapping: Mapping, where: str) -> tuple[Field, ...]:
  part = _vector(fields, mapping, where)
  choices = [actions.is_choice(field) for field in part]
  if any(choices) and not all(choices):
    raise ValueError(
      f"{where}[{choices.index(True)}]: a category or integer is no dimension of a vector with numbers or buttons; "
      "make it a part of its own"
    )
  return part


def _vector(fields: tuple[Field, ...], mapping: Mapping, where: str) -> tuple[Field, ...]:
  found = tuple(_field(field, mapping, f"{where}[{index}]", "hold") for index, field in enumerate(fields))
  for index, field in enumerate(found):
    if field.kind == "text":
      raise ValueError(f"{where}[{index}]: an action is no text; use 'kind: category' with a vocabulary")
  return found


def _check_bounds(mapping: Mapping, where: str) -> None:
  """Of an action of several parts."""
  parts = ", ".join(mapping.action)
  for key in BOUNDS:
    given = mapping.metadata.get(key)
    if given is None:
      continue
    if not isinstance(given, dict):
      raise ValueError(f"{where}.metadata.{key}: is {given!r}; the action has parts, give each its own: {parts}")
    for name in given:
      if name not in mapping.action:
        near = checks.nearest(name, mapping.action)
        raise ValueError(f"{where}.metadata.{key}: the action has no part {name!r}{near}; there are {parts}")


def _field(field: Field, mapping: Mapping, where: str, align: str | None) -> Field:
  """The field with its table, and its alignment: ``align`` unless it says another; None in the episode's metadata."""
  source = _one_of(field.source, mapping.events, f"{where}.from", "events")
  if field.take is not None and align is not None:
    raise ValueError(f"{where}.take: is for fields of 'episode'; 'align' says what becomes of a step's records")
  if align is None:
    if field.kind in ("text", "category") and field.take not in (None, "first", "last"):
      raise ValueError(f"{where}.take: is {field.take!r}; of a {field.kind} only 'first' and 'last' can be taken")
    if field.align is not None:
      raise ValueError(f"{where}.align: the episode's metadata are of all records; say which by 'take'")
  if field.align == "sum" and field.fill is not None:
    raise ValueError(f"{where}.fill: is for 'hold' and 'press'; nothing is 0 where records are summed")
  if align is None:
    return dataclasses.replace(field, source=source, take=field.take or "last")
  return dataclasses.replace(field, source=source, align=field.align or align)


def _one_of(name: str | None, known: dict[str, Any], where: str, what: str) -> str:
  if name is None:
    if len(known) > 1:
      raise ValueError(f"{where}: is missing; there are several {what}: {', '.join(known)}")
    return next(iter(known))
  if name not in known:
    raise ValueError(f"{where}: no {what} {name!r}{checks.nearest(name, known)}; there are {', '.join(known)}")
  return name


def _clock(mapping: Mapping, where: str) -> Any:
  clock = mapping.clock
  source = clock.source or next(iter(mapping.frames or mapping.events))
  _one_of(source, mapping.frames | mapping.events, f"{where}.clock.from", "frames or events")
  if clock.fps is not None and (source in mapping.frames or mapping.events[source].time is None):
    raise ValueError(
      f"{where}.clock.fps: is for a table of events with times as the clock; frames have a key 'fps' of their own"
    )
  return dataclasses.replace(clock, source=source)


def _check_names(mapping: Mapping, where: str) -> None:
  if not mapping.frames and not mapping.observation:
    raise ValueError(f"{where}.observation: is missing, and so is 'frames'; what does the agent see?")
  if shared := mapping.frames.keys() & mapping.events.keys():
    raise ValueError(f"{where}.events.{min(shared)}: there are frames of that name; use another")
  if shared := mapping.frames.keys() & mapping.observation.keys():
    raise ValueError(f"{where}.observation.{min(shared)}: there are frames of that name; use another")
  if shared := set(_RESERVED) & mapping.steps.keys():
    raise ValueError(f"{where}.steps.{min(shared)}: is a field that every step has; use another name")
  if shared := {"episode", "segment", "segments", "success"} & mapping.episode.keys():
    raise ValueError(f"{where}.episode.{min(shared)}: is filled in already; use another name")

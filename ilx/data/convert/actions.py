"""The action of a mapping, one or of several parts: which type each is of, and what ``metadata.json`` says of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ilx.data.convert import checks
from ilx.data.convert.mapping import Field

Fields = tuple[Field, ...]


def is_choice(field: Field) -> bool:
  """Whether a field of a part is an integer, which is one among several."""
  return field.kind == "category" or field.dtype in ("int32", "uint8")


def is_flag(field: Field) -> bool:
  """Whether a field of a part is true or false: a button, unless it is counted or stored as a number."""
  return field.dtype == "bool" or (field.dtype is None and _is_pressed(field))


def part_dtype(fields: Fields) -> np.dtype:
  """Of a part of an action: int32 of choices, bool of flags alone, else float32."""
  if all(is_choice(field) for field in fields):
    return np.dtype(np.int32)
  return np.dtype(bool if all(is_flag(field) for field in fields) else np.float32)


def joined(values: list[np.ndarray]) -> np.ndarray:
  """An action of one part from its fields ``[S, ...]``: float32 ``[S, A]``, or int32 ``[S]`` of an integer alone."""
  if len(values) == 1 and values[0].dtype == np.int32 and values[0].ndim == 1:
    return values[0]
  return _vector(values, np.dtype(np.float32))


def joined_part(values: list[np.ndarray], fields: Fields) -> np.ndarray:
  """A part from its fields ``[S, ...]``: float32 ``[S, A]``; choices and flags ``[S, K]``, or ``[S]`` of one alone."""
  dtype = part_dtype(fields)
  if dtype != np.float32 and len(values) == 1 and values[0].ndim == 1:
    return values[0].astype(dtype)
  return _vector(values, dtype)


def _vector(values: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
  return np.concatenate([value.reshape(len(value), -1).astype(dtype) for value in values], axis=1)


def metadata(action: Fields | dict[str, Fields], given: Mapping[str, Any]) -> dict[str, Any]:
  """The mapping's metadata, and what else is known of the action.

  Args:
    action: the mapping's.
    given: the mapping's metadata, which go before what is known.

  Returns:
    ``given`` with ``action_low``, ``action_high``, ``num_actions`` and ``action_names``, as far as they are known; of
    an action of several parts, dicts of the parts that have them.
  """
  if not isinstance(action, dict):
    return _about(action) | given
  found: dict[str, Any] = {}
  for part, fields in action.items():
    for name, value in _about_part(fields).items():
      found.setdefault(name, {})[part] = value
  both = {name: found[name] | given[name] for name in found if isinstance(given.get(name), Mapping)}
  return found | given | both


def _about(fields: Fields) -> dict[str, Any]:
  if fields[0].kind == "category":
    return {"num_actions": len(fields[0].vocabulary), "action_names": list(fields[0].vocabulary)}
  found: dict[str, Any] = {}
  names = _names(fields)
  if all(_is_pressed(field) for field in fields):
    found = {"action_low": [0.0] * len(names), "action_high": [1.0] * len(names)}
  return found | _named(fields, names)


def _about_part(fields: Fields) -> dict[str, Any]:
  dtype = part_dtype(fields)
  if dtype == np.float32 or (len(fields) == 1 and fields[0].kind == "category"):
    return _about(fields)
  found: dict[str, Any] = {}
  # That booleans are choices of two needs no saying.
  if dtype == np.int32 and all(field.kind == "category" or _is_pressed(field) for field in fields):
    counts = [len(field.vocabulary) if field.kind == "category" else 2 for field in fields for _ in _names((field,))]
    alone = len(fields) == 1 and not fields[0].columns and not fields[0].vocabulary
    found = {"num_actions": counts[0] if alone else counts}
  return found | _named(fields, _names(fields))


def _is_pressed(field: Field) -> bool:
  """Whether a field is 0 or 1."""
  return field.kind == "button" and field.align != "sum"


def _names(fields: Fields) -> list[str]:
  """Of every dimension, where no column holds a list."""
  found: list[str] = []
  for field in fields:
    found += field.columns or (field.vocabulary if field.kind == "button" else ()) or (_label(field),)
  return found


def _named(fields: Fields, names: list[str]) -> dict[str, Any]:
  # A column of numbers may hold a list whose length is not known here.
  known = all(field.columns or field.kind in ("button", "category") for field in fields)
  return {"action_names": names} if known else {}


def _label(field: Field) -> str:
  """A column's name, with what tells it from others of the same column."""
  return " ".join([field.column, *(checks.plain(value) for _, values in field.where for value in values)])

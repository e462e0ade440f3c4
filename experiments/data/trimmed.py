"""The episodes that cleaning keeps, as a source that can be written."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data import bounds
from experiments.data.plan import Kept, UnfitError
from experiments.data.rules import Rules
from ilx.data import decode, rlds, shards
from ilx.data.convert.source import Converted
from ilx.data.images import Images
from ilx.data.rlds import Info

_NEEDED = ("action", "reward", "discount", "is_first", "is_last", "is_terminal")


class Trimmed:
  """A ``Source`` of trimmed and changed episodes; see ``ilx.data.convert.source``.

  Attributes:
    name: of the new dataset.
    metadata: its ``metadata.json``.
  """

  def __init__(
    self, info: Info, kept: list[Kept], files: Mapping[Path, int], rules: Rules, metadata: dict[str, Any], name: str
  ):
    """Raises ValueError where the rules name a field that is not there or cannot go."""
    self.name, self.metadata = name, metadata
    self._info, self._rules = info, rules
    self._kept, self._files = kept, files
    self._fields = _fields(info, rules)
    known = {name.removeprefix("steps/") for name in self._fields}
    for field, _ in rules.cast:
      if field not in known:
        raise ValueError(f"--cast: no field {field!r}; there: {', '.join(sorted(known))}")
    self._clipped = bounds.to_clip(info, self._fields) if rules.clip_actions else {}
    self._open: tuple[Path, shards.Reader] | None = None

  def of(self, kept: list[Kept], files: Mapping[Path, int], metadata: dict[str, Any]) -> "Trimmed":
    """The same rules for a plan."""
    found = copy.copy(self)
    found._kept, found._files, found.metadata = kept, files, metadata
    return found

  def __len__(self) -> int:
    return len(self._kept)

  def __getitem__(self, index: int) -> Converted:
    kept = self._kept[index]
    try:
      return self.of_record(self._record(kept), kept)
    except ValueError as error:
      raise ValueError(f"{kept.file}, record {kept.record}: {error}") from None

  def of_record(self, content: bytes, kept: Kept) -> Converted:
    """What is kept of a record.

    Raises:
      UnfitError: where the rules do not fit its fields.
      ValueError: where it is damaged.
    """
    episode = rlds.decode_episode(self._info, content, self._fields)
    whole = episode["steps"]
    steps = _part(whole, kept.start, kept.stop)
    # Idle steps were dropped at the end: the observation is the one the episode ended with, so it ends the same
    # way, and the discount of the transition that led to the end, 0 at the task's own, is that of the last one left.
    for name, ends in (("is_terminal", 1), ("discount", 2)):
      if name in steps and kept.stop < len(whole[name]):
        end = _part(whole[name], len(whole[name]) - ends, len(whole[name]))
        steps[name] = np.concatenate([steps[name][:-ends], end])
    return Converted(self._changed(steps, kept.stop - kept.start), dict(_beside(episode)), kept.split)

  def _record(self, kept: Kept) -> bytes:
    # Episodes come in the order of their files, so that one open file is enough.
    if self._open is None or self._open[0] != kept.file:
      if self._open is not None:
        self._open[1].close()
      self._open = kept.file, shards.open(kept.file, self._info.file_format, self._files[kept.file])
    return self._open[1][kept.record]

  def __getstate__(self) -> dict[str, Any]:
    return self.__dict__ | {"_open": None}

  def _changed(self, steps: dict[str, Any], length: int) -> dict[str, Any]:
    place = np.arange(length)
    steps["is_first"], steps["is_last"] = place == 0, place == length - 1
    for name in ("reward", "discount", "is_terminal"):
      if name in steps and np.size(steps[name]) == length:
        steps[name] = np.reshape(steps[name], length)
    _refuse_varying(steps, "")
    steps.setdefault("discount", np.ones(length, np.float32))
    if "is_terminal" not in steps:
      raise UnfitError("the steps have no is_terminal")
    for name, edges in self._clipped.items():
      node, leaf = _place(steps, name.removeprefix("steps/"))
      low, high = (edge.astype(np.float32).reshape(node[leaf].shape[1:]) for edge in (edges.low, edges.high))
      node[leaf] = np.clip(node[leaf], low, high)
    for field, dtype in self._rules.cast:
      node, leaf = _place(steps, field)
      node[leaf] = _cast(node[leaf], np.dtype(dtype), field)
    return steps


def _fields(info: Info, rules: Rules) -> list[str]:
  """The names of the fields that stay.

  Raises:
    ValueError: where a rule names an unknown field or one that RLDS needs.
  """
  names = [leaf.name for leaf in decode.leaves(info.features) if leaf.feature.kind != "unknown"]

  def inside(name: str, given: str) -> bool:
    return any(name == full or name.startswith(f"{full}/") for full in (given, f"steps/{given}"))

  for given in (*rules.keep_fields, *rules.drop_fields):
    if not any(inside(name, given) for name in names):
      there = ", ".join(name.removeprefix("steps/") for name in names)
      raise ValueError(f"{info.directory}: no field {given!r}; there: {there}")
  stay = []
  for name in names:
    needed = name.split("/")[0] == "steps" and name.split("/")[1] in _NEEDED
    if any(inside(name, given) for given in rules.drop_fields):
      if needed:
        raise ValueError(f"{info.directory}: RLDS needs the field {name!r}; it cannot be dropped")
    elif needed or not rules.keep_fields or any(inside(name, given) for given in rules.keep_fields):
      stay.append(name)
  if not any(name == "steps/observation" or name.startswith("steps/observation/") for name in stay):
    raise ValueError(f"{info.directory}: no field of the observation is left")
  return stay


def _part(value: Any, start: int, stop: int) -> Any:
  if isinstance(value, dict):
    return {key: _part(item, start, stop) for key, item in value.items() if item is not None}
  if isinstance(value, Images):
    return value.part(start, stop)
  # bfloat16 is no type of numpy's own.
  return value[start:stop].astype(np.float32 if value.dtype.kind == "V" else value.dtype, copy=False)


def _refuse_varying(tree: Mapping[str, Any], prefix: str) -> None:
  for key, value in tree.items():
    if isinstance(value, dict):
      _refuse_varying(value, f"{prefix}{key}/")
    elif value.dtype == object and not isinstance(value[0], str | bytes):
      name = f"{prefix}{key}"
      raise UnfitError(f"field {name!r} differs in shape from step to step; leave it out by --drop_fields={name}")


def _beside(episode: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
  """The episode's metadata, in one level; what is not known is NaN, or an empty text."""

  def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
      if isinstance(value, dict):
        yield from walk(value, f"{prefix}{key}_")
      else:
        yield f"{prefix}{key}", np.nan if value is None else value

  for key, tree in episode.items():
    if key != "steps":
      yield from walk(tree, "") if isinstance(tree, dict) else [(key, tree)]


def _place(steps: dict[str, Any], field: str) -> tuple[dict[str, Any], str]:
  """The dict that holds a field, and its key there."""
  *folders, leaf = field.split("/")
  for folder in folders:
    steps = steps[folder]
  return steps, leaf


def _cast(value: Any, dtype: np.dtype, field: str) -> np.ndarray:
  if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
    raise UnfitError(f"field {field!r} holds no numbers and cannot be cast to {dtype}")
  with np.errstate(all="ignore"):
    found = value.astype(dtype)
  # To float32 numbers may be rounded; to the others they must be what they were.
  if dtype.kind != "f" and not np.array_equal(found.astype(np.float64), value.astype(np.float64)):
    raise UnfitError(f"field {field!r} has values that {dtype} cannot hold")
  return found

"""The fields of a mapping, brought to the steps of one recording."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ilx.data.convert import actions, align, clocks
from ilx.data.convert.align import Grid
from ilx.data.convert.mapping import Field, Mapping
from ilx.data.convert.tables import Table
from ilx.types import Tree


class Steps:
  """A mapping's fields at the steps of one recording.

  Attributes:
    final: whether the last step's frame is what followed the last action: all actions lie between the frames.
  """

  def __init__(
    self,
    mapping: Mapping,
    tables: dict[str, Table],
    times: np.ndarray | None,
    total: int,
    chosen: np.ndarray,
  ):
    """Takes the clock's frames, ``total`` at ``times`` (None: without), of which ``chosen`` are the steps.

    Raises:
      ValueError: where a table has neither times nor a record for every frame, or times that are not the frames'.
    """
    self._mapping, self._tables = mapping, tables
    self._grids: dict[str, tuple[np.ndarray, Grid]] = {}
    by_number, by_time = align.grid(None, total, chosen), align.grid(times, total, chosen)
    between = []
    for name, table in tables.items():
      own_clock = name == mapping.clock.source and mapping.clock.fps is None
      if table.times is not None and not own_clock:
        clocks.check(name, table, by_time, times, mapping.clock.source, mapping.fields_of(name))
        self._grids[name] = table.times, by_time
        continue
      if not table.count:
        raise ValueError(f"{table.where} (events.{name}): has no records")
      if table.count not in (total, total - 1):
        raise ValueError(
          f"{table.where} (events.{name}): {table.count} records where {mapping.clock.source!r} has {total} frames; "
          "name a column of times in 'time', or record one for every frame"
        )
      if table.count == total - 1:
        between.append(name)
      self._grids[name] = np.arange(table.count, dtype=np.float64), by_number
    for name, field in mapping.observation.items():
      if field.source in between:
        raise ValueError(
          f"{tables[field.source].where} (observation.{name}): has no record for the last of {total} frames"
        )
    self.final = (
      all(field.source in between for _, field in mapping.action_fields()) and (total - 1) % mapping.clock.skip == 0
    )

  def silence(self, size: int) -> str:
    """A long stretch of the first ``size`` steps without any record of an action, in words, or "".

    Nothing is said where a table of the actions is aligned by number or not checked.
    """
    fields = [field for _, field in self._mapping.action_fields()]
    tables = {field.source: self._tables[field.source] for field in fields}
    if not all(table.checked and self._grids[name][0] is table.times for name, table in tables.items()):
      return ""
    at = np.concatenate([tables[f.source].times[tables[f.source].columns[f].rows] for f in fields])
    steps = self._grids[fields[0].source][1].times
    found = clocks.silence(at, float(steps[0]), float(steps[size - 1]))
    return found and f"{found} ({', '.join(f'events.{name}' for name in tables)})"

  def _at_steps(self, field: Field, key: str) -> np.ndarray:
    table = self._tables[field.source]
    try:
      return align.align(table.columns[field], *self._grids[field.source], field)
    except ValueError as error:
      raise ValueError(f"{table.where} ({key}): {error}") from None

  def stored(self, field: Field, key: str) -> np.ndarray:
    """In the type that is stored."""
    found = self._at_steps(field, key)
    if field.kind == "text":
      return found
    if field.kind == "category":
      return found.astype(np.int32)
    dtype = np.dtype(field.dtype or "float32")
    if dtype.kind == "f":
      return self._float32(found, field, key)
    if dtype.kind in "iu":
      limits = np.iinfo(dtype)
      bad = (found != np.round(found)) | (found < limits.min) | (found > limits.max)
      if bad.any():
        raise ValueError(f"{self._tables[field.source].where} ({key}): {found[bad].flat[0]} is no {dtype}")
    return found.astype(dtype)

  def action(self) -> Tree:
    """One vector, or integers; or a dict of parts."""
    action = self._mapping.action
    if not isinstance(action, dict):
      return actions.joined(self._each(action, "action"))
    return {name: actions.joined_part(self._each(fields, f"action.{name}"), fields) for name, fields in action.items()}

  def _each(self, fields: tuple[Field, ...], key: str) -> list[np.ndarray]:
    return [self.stored(field, f"{key}[{index}]") for index, field in enumerate(fields)]

  def reward(self) -> np.ndarray:
    """0 where none is mapped."""
    field = self._mapping.reward
    if field is None:
      return np.zeros(len(next(iter(self._grids.values()))[1].times), np.float32)
    found = self._at_steps(field, "reward")
    found = found.reshape(len(found), -1)
    if found.shape[1] != 1:
      raise ValueError(f"{self._tables[field.source].where} (reward): {found.shape[1]} values; a reward is one number")
    return self._float32(found[:, 0], field, "reward")

  def _float32(self, values: np.ndarray, field: Field, key: str) -> np.ndarray:
    with np.errstate(over="ignore"):
      found = values.astype(np.float32)
    if not np.isfinite(found).all():
      raise ValueError(f"{self._tables[field.source].where} ({key}): {values[~np.isfinite(found)][0]} is no float32")
    return found

  def flags(self, terminal: bool | Field) -> np.ndarray | bool:
    """Where the task ended."""
    if isinstance(terminal, bool):
      return terminal
    times, grid = self._grids[terminal.source]
    # What is written after the last frame is about it.
    found = align.align(self._tables[terminal.source].columns[terminal], times, grid._replace(end=np.inf), terminal)
    return found.reshape(len(found), -1).any(axis=1)

  def metadata(self) -> dict[str, Any]:
    """Of the whole recording."""
    found: dict[str, Any] = {}
    for name, field in self._mapping.episode.items():
      table = self._tables[field.source]
      values = table.columns[field].values
      if not len(values):
        if field.fill is None:
          raise ValueError(f"{table.where} (episode.{name}): no record has a value; set 'fill'")
        found[name] = field.fill
        continue
      take: dict[str, Callable[..., Any]] = {"first": lambda v: v[0], "last": lambda v: v[-1]}
      value = take[field.take](values) if field.take in take else getattr(np, field.take)(values, axis=0)
      if field.kind == "category":
        value = field.vocabulary[int(value)]
      elif field.kind != "text":
        value = np.asarray(value).astype(field.dtype or "float32")
        value = value.item() if not value.ndim else value
      found[name] = value
    if (success := self._mapping.success) is not None:
      found["success"] = align.ever(self._tables[success.source].columns[success])
    return found

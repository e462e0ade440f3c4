"""Records at times of their own, brought to the steps of an episode."""

from typing import NamedTuple

import numpy as np

from ilx.data.convert.mapping import Field
from ilx.data.convert.tables import Column

# Times this close are one time: clocks are written with rounding (Matroska's are in milliseconds).
_SLACK = 1e-3


class Grid(NamedTuple):
  """The steps of an episode.

  Attributes:
    times: float64 ``[S]``, when each step's frame is shown, rising.
    end: when the last step ends.
  """

  times: np.ndarray
  end: float

  @property
  def slack(self) -> float:
    """How far apart two times may be that are one."""
    lengths = np.diff(self.times, append=self.end)
    return min(_SLACK, 0.1 * float(lengths.min())) if len(lengths) else _SLACK


def period(times: np.ndarray) -> float:
  """How long a frame is shown, in seconds."""
  return float(np.median(np.diff(times))) if len(times) > 1 else 1.0


def grid(times: np.ndarray | None, total: int, chosen: np.ndarray) -> Grid:
  """The steps that are frames ``chosen`` of ``total``, by their times, or by their numbers where there are none."""
  if times is None:
    return Grid(chosen.astype(np.float64), float(total))
  return Grid(times[chosen], float(times[-1]) + period(times))


def align(column: Column, times: np.ndarray, grid: Grid, field: Field) -> np.ndarray:
  """The field at every step, ``[S, ...]``.

  Args:
    column: its values, at records.
    times: float64 ``[R]`` of all records, not falling, on the grid's clock.
    grid: the steps.
    field: says how.

  Raises:
    ValueError: where a step has no record to hold and there is nothing to fill in.
  """
  at = times[column.rows]
  if field.align == "hold":
    return _held(column.values, at, grid, field)
  if field.align == "sum":
    return _gathered(column.values, at, grid, np.add)
  pressed = _gathered(column.values, at, grid, np.maximum)
  return pressed if field.align == "any" else np.maximum(pressed, _held(column.values, at, grid, field))


def ever(column: Column) -> bool:
  """Whether a button was pressed in any record."""
  return bool(np.any(column.values))


def _held(values: np.ndarray, at: np.ndarray, grid: Grid, field: Field) -> np.ndarray:
  """The last value up to every step's frame."""
  found = np.searchsorted(at, grid.times + grid.slack, side="right") - 1
  early = found < 0
  if not early.any():
    return values[found]
  fill = 0.0 if field.fill is None and field.kind == "button" else field.fill
  if fill is None:
    if not len(at):
      none = "has no records with a value;"
      if field.where:
        none = "no record that its 'where' chooses has a value; spell it as the file does, or"
      raise ValueError(f"{none} set 'fill' to the value without one")
    raise ValueError(
      f"step {int(np.argmax(early))}, at {grid.times[np.argmax(early)]:.3f} s, is before the first record with a value "
      f"({at[0]:.3f} s); set 'fill' to the value until then"
    )
  if field.kind == "category":
    fill = field.vocabulary.index(str(fill) if isinstance(fill, str) else f"{fill:g}")
  padded = np.concatenate([values, np.full((1, *values.shape[1:]), fill, values.dtype)])
  return padded[found]


def _gathered(values: np.ndarray, at: np.ndarray, grid: Grid, how: np.ufunc) -> np.ndarray:
  """Values of a step, from its frame until the next one's, added or the largest; 0 where there are none."""
  step = np.searchsorted(grid.times - grid.slack, at, side="right") - 1
  inside = (step >= 0) & (at < grid.end - grid.slack)
  found = np.zeros((len(grid.times), *values.shape[1:]), values.dtype)
  how.at(found, step[inside], values[inside])
  return found

"""What a device program's sums say: the row to log, or that training diverged."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ilx.parallel import hosts
from ilx.training.nonfinite import SKIPPED, Found, Sums, find

# So many updates without one that was made are no accident.
_MOST_SKIPPED = 1000


class Metrics:
  """Rows of one run, whose seeds are ``numbers`` where it has many, else None."""

  def __init__(self, numbers: range | None):
    self._numbers = numbers
    self._in_vain = 0
    self.last: dict[str, Any] = {}

  def row(self, sums: Sums, length: int, step: int, diverged: Callable[[Found], str]) -> dict[str, Any]:
    """Means over the ``length`` updates up to ``step`` and over the seeds, and each seed's loss.

    Args:
      sums: of these updates.
      length: how many they are.
      step: the number of the last one.
      diverged: called before the error; returns where more is found.

    Raises:
      FloatingPointError: where a metric was not finite, or no update was made for long.
    """
    total, first = (_fetched(tree) for tree in sums)
    if found := find(first):
      which = f" of seed {self._numbers[found.place]}" if self._numbers else ""
      raise FloatingPointError(
        f"train/{found.names[0]}{which} is not finite in update {found.step}: training diverged{diverged(found)}"
      )
    skipped = total.pop(SKIPPED, np.zeros(()))
    with np.errstate(invalid="ignore"):  # of no update made there is no mean
      means = {name: value / (length - skipped) for name, value in total.items()}
    self._in_vain = self._in_vain + length if np.all(skipped == length) else 0
    if self._in_vain >= _MOST_SKIPPED:
      raise FloatingPointError(f"the last {self._in_vain} updates up to step {step} were skipped: training diverged")
    row: dict[str, Any] = {f"train/{name}": float(value.mean()) for name, value in means.items()}
    if SKIPPED in sums.metrics:
      row[f"train/{SKIPPED}"] = float(skipped.sum())
    if self._numbers and "loss" in means:
      losses = zip(self._numbers, means["loss"].tolist(), strict=True)
      row |= {f"train/loss/seed{number}": loss for number, loss in losses}
    self.last = {"step": step, **row}
    return row


def where_to_look(folder: str | pathlib.Path | None, save: Callable[[pathlib.Path], None]) -> str:
  """Has ``save`` write into ``folder``, and says so; the first process does."""
  if folder is None or jax.process_index():
    return ""
  try:
    save(pathlib.Path(folder))
  except Exception as error:  # the divergence is what must be told
    return f"; its batch could not be saved: {error}"
  return f"; its batch is in {pathlib.Path(folder) / 'diverged.json'}"


def _fetched(tree: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
  """On the host, ``[S]`` or ``[]``; float64 where it is not of integers."""
  tree = hosts.readable(tree)  # other hosts' seeds
  found = {name: np.asarray(value) for name, value in jax.device_get(tree).items()}
  return {name: x if x.dtype.kind == "i" else x.astype(np.float64) for name, x in found.items()}

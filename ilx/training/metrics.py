"""What a device program's sums say: the row to log, or that training diverged."""

import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ilx.parallel import hosts
from ilx.training.nonfinite import SKIPPED, STATE, Found, Sums, find

# So many updates without one that was made are no accident.
_MOST_SKIPPED = 1000


class Metrics:
  """Rows of one run, whose seeds are ``numbers`` where it has many, else None."""

  def __init__(self, numbers: range | None):
    self._numbers = numbers
    self._in_vain: Any = 0  # of every seed
    self.last: dict[str, Any] = {}

  def check(self, sums: Sums, diverged: Callable[[Found], str]) -> None:
    """Raises FloatingPointError where ``sums`` say that a metric, or the state, was not finite.

    ``diverged`` is called before; it returns where more is found.
    """
    if found := find(_fetched(sums.first)):
      which = self._of_seed(found.place)
      if found.names[0] == STATE:
        what = f"the state{which} is not finite after update {found.step}"
      else:
        what = f"train/{found.names[0]}{which} is not finite in update {found.step}"
      raise FloatingPointError(f"{what}: training diverged{diverged(found)}")

  def row(self, sums: Sums, length: int, step: int) -> dict[str, Any]:
    """Means over the ``length`` updates up to ``step`` and over the seeds, and each seed's loss.

    A seed of which all these updates were skipped has no mean, and no part in those over the seeds.

    Args:
      sums: of these updates.
      length: how many they are.
      step: the number of the last one.

    Raises:
      FloatingPointError: where no update, of any one seed, was made for long.
    """
    rest = _fetched(sums.rest)
    total = {name: value - rest[name] for name, value in _fetched(sums.metrics).items()}
    skipped = total.pop(SKIPPED, np.zeros(()))
    self._in_vain = np.where(skipped == length, self._in_vain + length, 0)
    if (most := int(np.max(self._in_vain))) >= _MOST_SKIPPED:
      which = self._of_seed(int(np.argmax(self._in_vain)))
      raise FloatingPointError(f"the last {most} updates{which} up to step {step} were skipped: training diverged")
    made = skipped < length
    with np.errstate(invalid="ignore"):
      means = {name: value / (length - skipped) for name, value in total.items()}
    row: dict[str, Any] = {
      f"train/{name}": float(value[made].mean()) if made.any() else math.nan for name, value in means.items()
    }
    if SKIPPED in sums.metrics:
      row[f"train/{SKIPPED}"] = float(skipped.sum())
    if self._numbers and "loss" in means:
      losses = zip(self._numbers, means["loss"].tolist(), strict=True)
      row |= {f"train/loss/seed{number}": loss for number, loss in losses}
    self.last = {"step": step, **row}
    return row

  def _of_seed(self, place: int) -> str:
    return f" of seed {self._numbers[place]}" if self._numbers else ""


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

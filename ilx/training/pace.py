"""How far a device program goes before the host looks up, however slow its updates are."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ilx.parallel import hosts

# Seconds from one look to the next; and an interval that ends so soon after a signal is finished, for its row.
_PERIOD, _GRACE = 2.0, 10.0


class Pace:
  """Divides intervals of updates into calls of some two seconds: progress is seen, and signals are heard, in between.

  What is learnt does not depend on it, to the bit: a call goes on with the state and the sums of the one before. Of
  several processes all make the same calls, those that the first finds right.
  """

  def __init__(self, told: Callable[[int], None] = lambda made: None, stopping: Callable[[], bool] = lambda: False):
    """At first a single update is made, as nothing is known.

    Args:
      told: takes the updates made of an interval, at every look but the one at its end.
      stopping: whether to stop in the middle of one; of several processes all ask at the same moments.
    """
    self._told, self._stopping = told, stopping
    self._length = 1
    self.begin()

  def begin(self) -> None:
    """Before the first call of an interval."""
    self._made = self._since = 0
    self._began = time.perf_counter()

  def length(self, left: int) -> int:
    """Updates of the next call, given how many the interval still has."""
    return left if left < 1.5 * self._length else self._length

  def look(self, sums: Any, made: int, left: int) -> bool:
    """After a call, of ``made`` updates: whether to stop here, with ``left`` updates of the interval not made."""
    self._made, self._since = self._made + made, self._since + made
    if not left or self._since < self._length:
      return False
    jax.block_until_ready(sums)
    now = time.perf_counter()
    found = self._since * _PERIOD / max(now - self._began, 1e-9)
    self._length = int(hosts.gather(np.int64(min(max(found, 1), 2**31)))[0])
    self._began, self._since = now, 0
    self._told(self._made)
    return left * _PERIOD > _GRACE * self._length and self._stopping()

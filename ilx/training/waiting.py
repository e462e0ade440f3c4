"""Waiting for data, without patience for ever."""

import dataclasses
import queue
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# How often is looked whether a signal came, and how long data may still come after one; seconds.
_LOOK, _GRACE = 0.5, 5.0


class Stopped(Exception):
  """A signal came in the middle of an interval, while data did not come, or where the interval's end was far.

  Attributes:
    state: with all updates that were made; None where none was.
    sums: of the metrics over those of its last interval.
  """

  def __init__(self, state: Any = None, sums: Any = None):
    super().__init__()
    self.state, self.sums = state, sums


@dataclasses.dataclass(frozen=True)
class Patience:
  """How long to wait.

  Attributes:
    source: what is waited for, in messages.
    warn_every: seconds from one warning to the next; 0: none.
    give_up_after: seconds until it is an error; 0: never.
    stopping: whether the process was told to end.
  """

  source: str = "the data"
  warn_every: float = 60.0
  give_up_after: float = 0.0
  stopping: Callable[[], bool] = lambda: False


def get(items: queue.Queue, patience: Patience) -> Any:
  """The next of ``items``.

  Raises:
    TimeoutError: when patience ends.
    Stopped: some seconds after a signal.
  """
  began, warned, told = time.monotonic(), 0.0, None
  while True:
    try:
      return items.get(timeout=_LOOK)
    except queue.Empty:
      now = time.monotonic()
    waited = now - began
    if 0 < patience.give_up_after <= waited:
      raise TimeoutError(f"no batch came for {waited:.0f} s from {patience.source}")
    if 0 < patience.warn_every <= waited - warned:
      warned = waited
      warnings.warn(f"no batch came for {waited:.0f} s from {patience.source}; waiting", stacklevel=2)
    if patience.stopping():
      told = now if told is None else told
      if now - told >= _GRACE:
        raise Stopped


def call(work: Callable[[], T], patience: Patience) -> T:
  """What ``work`` returns or raises, made in a thread that is left behind when patience ends; raises as ``get``."""
  results: queue.Queue = queue.Queue()

  def run() -> None:
    try:
      results.put((work(), None))
    except BaseException as error:
      results.put((None, error))

  threading.Thread(target=run, name="ilx-first-batch", daemon=True).start()
  result, error = get(results, patience)
  if error is not None:
    raise error
  return result

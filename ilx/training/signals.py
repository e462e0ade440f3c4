"""Leaving in good order on SIGINT and SIGTERM."""

import signal
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class StopSignals:
  """While entered, the first SIGINT or SIGTERM sets ``received``; a second one acts as it would have otherwise.

  Outside the main thread, where Python allows no handlers, it does nothing.
  """

  def __init__(self) -> None:
    self.received: signal.Signals | None = None
    self._previous: dict[int, object] = {}
    self._raising = False

  def __enter__(self) -> "StopSignals":
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def unless_signalled(self, work: Callable[[], T]) -> T | None:
    """What long work returns, or None where a signal came before or in the middle of it: then it is dropped."""
    if self.received:
      return None
    try:
      self._raising = True
      result = work()
      self._raising = False
      return result
    except KeyboardInterrupt:
      if not self.received:
        raise
      return None
    finally:
      self._raising = False

  def _handle(self, number: int, frame: object) -> None:
    del frame
    self.received = signal.Signals(number)
    self._restore()
    if self._raising:
      raise KeyboardInterrupt

  def _restore(self) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

  def __exit__(self, *exc: object) -> None:
    self._restore()

"""Leaving in good order on SIGINT and SIGTERM."""

import signal
import threading


class StopSignals:
  """While entered, the first SIGINT or SIGTERM sets ``received``; a second one acts as it would have otherwise.

  Outside the main thread, where Python allows no handlers, it does nothing.
  """

  def __init__(self) -> None:
    self.received: signal.Signals | None = None
    self._previous: dict[int, object] = {}

  def __enter__(self) -> "StopSignals":
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def _handle(self, number: int, frame: object) -> None:
    del frame
    self.received = signal.Signals(number)
    self._restore()

  def _restore(self) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}

  def __exit__(self, *exc: object) -> None:
    self._restore()

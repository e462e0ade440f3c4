"""Leaving in good order on SIGINT and SIGTERM."""

import os
import signal
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")

# Those that are entered in this process, the innermost last.
_entered: list["StopSignals"] = []


def _forget() -> None:
  """In a forked process, such as a worker of an evaluation."""
  while _entered:
    _entered.pop()._forked()


os.register_at_fork(after_in_child=_forget)


class StopSignals:
  """While entered, the first SIGINT or SIGTERM sets ``received``.

  After it another SIGINT acts as it would have otherwise, as somebody is impatient; another SIGTERM does nothing, since
  schedulers repeat it, and what kills is what they send when their grace is over.

  Outside the main thread, where Python allows no handlers, it does nothing. Of several processes of one run each finds
  out in ``agree``, which all call at the same moments, that one of them got a signal: they stop at the same update.
  """

  def __init__(self) -> None:
    self.received: signal.Signals | None = None
    self._own: signal.Signals | None = None
    self._previous: dict[int, object] = {}
    self._raising = False
    self._several = jax.process_count() > 1

  def __enter__(self) -> "StopSignals":
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._previous[number] = signal.signal(number, self._handle)
      _entered.append(self)
    return self

  def agree(self) -> bool:
    """Whether to stop, by a signal to any process."""
    if self._several and not self.received:
      number = int(multihost_utils.process_allgather(np.int32(self._own or 0)).max())
      self.received = signal.Signals(number) if number else None
    return self.received is not None

  def unless_signalled(self, work: Callable[[], T]) -> T | None:
    """What long work returns, or None where a signal came before or in the middle of it: then it is dropped.

    An error after the signal is as in `forgiving`. Of several processes a signal is heard only before: others wait for
    this one's part of the work.
    """
    if self.agree():
      return None

    def interruptible() -> T:
      self._raising = not self._several
      result = work()
      self._raising = False
      return result

    try:
      return self.forgiving(interruptible)
    except KeyboardInterrupt:
      if not self.received:
        raise
      return None
    finally:
      self._raising = False

  def forgiving(self, work: Callable[[], T]) -> T | None:
    """What work returns; an error after the signal, which its workers may have got too, is a warning, and None."""
    try:
      return work()
    except Exception as error:
      if not self.received:
        raise
      warnings.warn(f"dropped because of {self.received.name}: {error!r}", stacklevel=2)
      return None

  def _handle(self, number: int, frame: object) -> None:
    del frame
    self._own = signal.Signals(number)
    if not self._several:
      self.received = self._own
    signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if self._raising:
      raise KeyboardInterrupt

  def _forked(self) -> None:
    """Workers end when they are told to: by SIGTERM, but not by the first Ctrl-C, which a terminal sends to all."""
    self._raising = False
    signal.signal(signal.SIGTERM, self._previous[signal.SIGTERM])
    signal.signal(signal.SIGINT, lambda number, frame: signal.signal(number, self._previous[number]))

  def __exit__(self, *exc: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)
    self._previous = {}
    if self in _entered:
      _entered.remove(self)

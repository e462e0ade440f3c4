"""Results that several threads share: each is worked out once, and the least recently used ones are forgotten."""

import collections
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class Memo:
  """At most ``capacity`` results by key; the limit may be changed at any time.

  Whoever asks for a key first works it out in its own thread, so that no thread waits for one that has not begun;
  others who ask wait. What raises is not kept: all who wait see the error, and who asks later tries again.
  """

  def __init__(self, capacity: int):
    self.capacity = capacity
    self._lock = threading.Lock()
    self._found: collections.OrderedDict[Hashable, Future] = collections.OrderedDict()

  def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
    """The result of ``key``, by ``make()`` where there is none."""
    with self._lock:
      future = self._found.get(key)
      mine = future is None
      if mine:
        future = self._found[key] = Future()
      self._found.move_to_end(key)
      while len(self._found) > max(1, self.capacity):
        self._found.popitem(last=False)
    if mine:
      try:
        future.set_result(make())
      except BaseException as error:
        with self._lock:
          if self._found.get(key) is future:
            del self._found[key]
        future.set_exception(error)
    return future.result()

  def touch(self, key: Hashable) -> bool:
    """Whether ``key`` is there or being worked out; if so, it counts as just used."""
    with self._lock:
      if key not in self._found:
        return False
      self._found.move_to_end(key)
      return True

  def keep(self, wanted: Callable[[Any], bool]) -> list[Any]:
    """Forgets the keys that are not ``wanted``; returns those that are left."""
    with self._lock:
      for key in [key for key in self._found if not wanted(key)]:
        del self._found[key]
      return list(self._found)

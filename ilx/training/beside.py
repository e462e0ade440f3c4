"""An evaluation beside training: in a thread, with a copy of the params on the host's CPU."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ilx.data import sampling
from ilx.types import Tree

# (params, step) -> named numbers, or None.
Evaluate = Callable[[Tree, int], Mapping[str, Any] | None]

# Seconds.
_MOMENT = 5.0


class Beside:
  """At most one evaluation at a time, while the updates go on.

  It plays on the CPU, whatever trains: on an accelerator each of its small programs would wait behind a program of many
  updates.
  """

  def __init__(self, evaluate: Evaluate, write: Callable[[int, Mapping[str, Any]], None]):
    """``write``: called, by ``collect``, with the step and what the evaluation has found."""
    self._evaluate, self._write = evaluate, write
    self._thread: threading.Thread | None = None
    self._step, self._found, self._error = 0, None, None

  def begin(self, params: Tree, step: int) -> None:
    """Starts one, after the one before; the params are copied, the next update may take their memory."""
    self.collect(wait=True)
    cpu = sampling.host_device("evaluations beside training play")
    params = jax.device_put(jax.tree.map(jnp.copy, params), cpu)

    def work() -> None:
      try:
        with jax.default_device(cpu):
          self._found = self._evaluate(params, step)
      except BaseException as error:
        self._error = error

    self._step, self._found, self._error = step, None, None
    # A daemon: who leaves in a hurry, by a second Ctrl-C, does not wait for it.
    self._thread = threading.Thread(target=work, name=f"evaluation of update {step}", daemon=True)
    self._thread.start()

  def collect(self, *, wait: bool) -> None:
    """Writes what was found, if it is ready or one is to wait for it; raises what the evaluation raised."""
    if self._thread is None or (self._thread.is_alive() and not wait):
      return
    self._thread.join()
    self._thread = None
    if self._error is not None:
      raise self._error
    if self._found is not None:
      self._write(self._step, self._found)

  def abandon(self) -> None:
    """On the way out of an error: writes what is ready, and waits a moment for what is not, which is then left."""
    if self._thread is not None:
      self._thread.join(timeout=_MOMENT)
      if not self._thread.is_alive() and self._error is None:
        self.collect(wait=False)
      self._thread = None

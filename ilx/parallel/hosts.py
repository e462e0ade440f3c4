"""Several processes, mostly one on each host, as one run."""

import re
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ilx.types import Tree

T = TypeVar("T")

# Bytes that an error's message is cut to on its way to other processes.
_MESSAGE = 2000
_ADDRESS = re.compile(r"([^,\s]+:\d+),(\d+),(\d+)")


def initialize(how: str = "auto") -> None:
  """Makes this process one of several; before anything else of jax is used, in every one of them.

  Args:
    how: "auto": jax finds the others by what Slurm, Kubernetes, Open MPI or a TPU's metadata say (where none is found
      it says so by an error); or ``"COORDINATOR:PORT,PROCESSES,INDEX"``, such as ``"10.0.0.1:1234,2,0"``, of which the
      index differs between the processes; each has all devices that it sees.

  Raises:
    ValueError: where ``how`` is neither.
    RuntimeError: where the others are not found, or jax was used before.
  """
  if how == "auto":
    try:
      jax.distributed.initialize()
    except ValueError as error:
      raise RuntimeError(
        f"no cluster was found ({error}); name the processes as COORDINATOR:PORT,PROCESSES,INDEX"
      ) from error
    return
  found = _ADDRESS.fullmatch(how)
  if not found or not int(found[3]) < int(found[2]):
    raise ValueError(f"{how!r}: expected 'auto' or COORDINATOR:PORT,PROCESSES,INDEX such as 10.0.0.1:1234,2,0")
  # Else Slurm or Open MPI, where they started the processes, would be asked all the same, and give each one GPU.
  jax.distributed.initialize(found[1], int(found[2]), int(found[3]), cluster_detection_method="deactivate")


def is_first() -> bool:
  """Whether this is the process that writes what a run leaves behind; the only one, where there is one."""
  return jax.process_index() == 0


def together(work: Callable[[], T], kind: type[Exception] = RuntimeError) -> T:
  """What ``work`` returns, if it ends well in every process; else all raise, and none waits for the others for ever.

  Every process calls it at the same moment. Where ``work`` failed its own error is raised, elsewhere one with the words
  of the first that failed: of ``kind``, if that was, else RuntimeError.
  """
  if jax.process_count() == 1:
    return work()
  found = error = None
  try:
    found = work()
  except Exception as raised:
    error = raised
  words = b"" if error is None else f"{type(error).__name__}: {error}".encode(errors="backslashreplace")[:_MESSAGE]
  everyone = gather(np.frombuffer(words.ljust(_MESSAGE, b"\0"), np.uint8))
  if error is not None:
    raise error
  for process, told in enumerate(everyone):
    if text := told.tobytes().rstrip(b"\0").decode(errors="ignore"):
      alike = text.startswith(f"{kind.__name__}: ")
      raise (kind if alike else RuntimeError)(f"process {process} failed: {text}")
  return found


def gather(x: np.ndarray) -> np.ndarray:
  """The arrays of all processes, alike in shape and dtype, stacked: ``[processes, *x.shape]``, the same bits."""
  x = np.asarray(x)
  if jax.process_count() == 1:
    return x[None]
  # As bytes: jax would make float32 of float64.
  gathered = np.asarray(multihost_utils.process_allgather(np.frombuffer(x.tobytes(), np.uint8)))
  return np.frombuffer(gathered.tobytes(), x.dtype).reshape(jax.process_count(), *x.shape)


def readable(tree: Tree) -> Tree:
  """The tree with every array that lies partly on other hosts' devices gathered to this one's memory.

  Every process calls it at the same moment. What can be read already is passed on as it is.
  """

  def leaf(x: jax.Array) -> jax.Array | np.ndarray:
    if x.is_fully_addressable or x.is_fully_replicated:
      return x
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))

  return jax.tree.map(leaf, tree)

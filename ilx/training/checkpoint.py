"""Checkpoints of a training state, through orbax."""

import errno
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from ilx.types import Tree


class CheckpointError(RuntimeError):
  """A checkpoint could not be written or read; the message names the folder."""


class Checkpoints:
  """The newest ``keep`` states of one run, in ``directory/<step>``; a context manager.

  Orbax writes each checkpoint under a temporary name and renames it when complete, so a crash never leaves half a
  checkpoint under a step's name.
  """

  def __init__(self, directory: str | os.PathLike, keep: int = 3):
    from orbax.checkpoint import v1 as ocp

    self.directory = pathlib.Path(directory).absolute()
    self._checkpointer = ocp.training.Checkpointer(
      self.directory,
      # When to save is the trainer's decision.
      save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,
    )
    self._pending: Any = None
    self._pending_step = 0

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
    try:
      self.wait()
    finally:
      try:
        self._checkpointer.close()
      except Exception as error:  # the same failure again
        raise self._failed("write", self._pending_step, error) from error

  @property
  def latest_step(self) -> int | None:
    """Updates made by the newest complete checkpoint, or None."""
    latest = self._checkpointer.latest
    return None if latest is None else latest.step

  def save(self, step: int, state: Tree) -> None:
    """Starts writing ``state``; it may be donated as soon as this returns.

    Raises:
      CheckpointError: when this or the previous write failed, a full disk for example.
    """
    self.wait()
    # On a CPU orbax may hold views of the very buffers that the next update is about to overwrite.
    if any(device.platform == "cpu" for x in jax.tree.leaves(state) for device in x.devices()):
      state = jax.tree.map(jnp.copy, state)
    self._pending_step = step
    try:
      self._pending = self._checkpointer.save_async(step, state)
    except Exception as error:
      raise self._failed("write", step, error) from error

  def wait(self) -> None:
    """Returns once the write in progress is complete.

    Raises:
      CheckpointError: when it failed.
    """
    pending, self._pending = self._pending, None
    if pending is not None:
      try:
        pending.result()
      except Exception as error:
        raise self._failed("write", self._pending_step, error) from error

  def restore(self, step: int, like: Tree) -> Tree:
    """The state saved at ``step``.

    Args:
      step: one that was saved.
      like: a tree of arrays or ``jax.ShapeDtypeStruct`` with the shapes, dtypes and shardings wanted.

    Raises:
      CheckpointError: when it cannot be read or its arrays differ from ``like``.
    """
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    try:
      restored = self._checkpointer.load(step, abstract)
    except Exception as error:
      raise self._failed("read", step, error) from error
    return restored

  def _failed(self, verb: str, step: int, error: BaseException) -> CheckpointError:
    cause: BaseException | None = error
    while cause is not None:
      full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
      if full or "No space left" in str(cause) or "RESOURCE_EXHAUSTED" in str(cause):
        reason = "the disk is full; free some space and run the same command again"
        return CheckpointError(f"could not {verb} checkpoint {self.directory / str(step)}: {reason}")
      cause = cause.__cause__ or cause.__context__
    return CheckpointError(f"could not {verb} checkpoint {self.directory / str(step)}: {error}")

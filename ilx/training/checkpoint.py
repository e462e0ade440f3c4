"""Checkpoints of a training state: written through orbax while training goes on, checked before they are used."""

import errno
import os
import pathlib
import re
import shutil
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from ilx.parallel import hosts
from ilx.training import manifest
from ilx.training.differences import differences
from ilx.types import Tree

# A checkpoint that is being removed; orbax's own unfinished ones. Neither is worth anything.
_REMOVED, _UNFINISHED = ".removed", ".orbax-checkpoint-tmp"


class CheckpointError(RuntimeError):
  """A checkpoint could not be written or read; the message names the folder."""


class UnusableCheckpoint(CheckpointError):
  """A checkpoint is damaged, or of another state (``reason``); an older one may be good."""

  def __init__(self, folder: pathlib.Path, reason: str):
    super().__init__(f"could not read checkpoint {folder}: {reason}")
    self.reason = reason


class Checkpoints:
  """The states of one run, in ``directory/<step>``; a context manager.

  A checkpoint is written under a temporary name, takes its own when orbax is done, and counts from when its manifest
  (sizes and checksums of its files) is on the disk; only then do older ones go. All of that happens in the background.
  One whose files are not those of its manifest is passed over, and set aside under another name as soon as an older one
  was read: nothing that is damaged is ever removed. Where no checkpoint has a manifest, as in runs of old, orbax's own
  checks must do.

  With several processes all of them make the same calls; the first one writes, removes and decides what is good.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    keep: int = 3,
    keep_every: int = 0,
    reading: bool = False,
    seed: int | None = None,
  ):
    """Nothing is written or removed yet.

    Args:
      directory: made when it is needed; every process must see it.
      keep: how many of the newest checkpoints stay, at least 1.
      keep_every: those of steps that are multiples of it stay, too; 0: no others.
      reading: of a run that may be going on in another process: nothing is changed.
      seed: of the run, by which those of another are told; None: any.
    """
    if keep < 1 or keep_every < 0:
      raise ValueError(f"keep={keep} must be at least 1 and keep_every={keep_every} at least 0")
    self.directory = pathlib.Path(directory).absolute()
    self._keep, self._keep_every, self._reading, self._seed = keep, keep_every, reading, seed
    self._unusable: dict[int, str] = {}
    self._pool = ThreadPoolExecutor(1, thread_name_prefix="ilx-checkpoint")
    self._pending: Future | None = None
    self._pending_step = 0

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, exc_type: object, exc: object, traceback: object) -> None:
    try:
      self.wait()
    finally:
      self._pool.shutdown()

  def newest(self) -> int | None:
    """Updates made by the newest good checkpoint; None where there is no checkpoint.

    Raises:
      CheckpointError: where there are checkpoints, and none is good; they stay where they are.
    """

    def look() -> int | None:
      if jax.process_index():
        return None
      if not self._reading:
        self._tidy()
      return self._newest()

    found = hosts.together(look, CheckpointError)
    if jax.process_count() > 1:  # processes may read at different times: the first one's word counts
      found = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if found is None else found)))
      found = None if found < 0 else found
    if found is None and self._steps():
      reasons = "".join(f"\n  {self.directory / str(step)}: {why}" for step, why in sorted(self._unusable.items()))
      raise CheckpointError(
        f"no checkpoint in {self.directory} is good; none was changed. Choose another workdir, or move them away to "
        f"begin anew:{reasons}"
      )
    return found

  def _newest(self) -> int | None:
    steps = [step for step in reversed(self._steps()) if step not in self._unusable]
    complete = [step for step in steps if manifest.exists(self.directory / str(step))]
    for step in complete:
      wrong = manifest.check(self.directory / str(step))
      if wrong is None:
        for other in steps:
          if other > step and other not in self._unusable:
            self.reject(other, "it has no manifest, so its writing was cut short")
        return step
      self.reject(step, wrong)
    return next((step for step in steps if step not in complete), None)

  def reject(self, step: int, reason: str) -> None:
    """``newest`` passes over ``step`` from now on; it is set aside when another one was read."""
    self._unusable[step] = reason

  def restore(self, step: int, like: Tree) -> Tree:
    """The state saved at ``step``; checkpoints that were passed over are renamed, with a warning each.

    Args:
      step: one that was saved.
      like: a tree of arrays or ``jax.ShapeDtypeStruct`` with the shapes, dtypes and shardings wanted.

    Raises:
      UnusableCheckpoint: where its arrays are not those of ``like``, or it cannot be read and has no manifest.
      CheckpointError: where it cannot be read for any other reason.
      ValueError: where it was learnt with another seed.
    """
    from orbax.checkpoint import v1 as ocp

    folder = self.directory / str(step)
    if self._seed is not None and (seed := manifest.seed_of(folder)) not in (None, self._seed):
      raise ValueError(f"{folder} is of a run with seed={seed}; choose another workdir for seed={self._seed}")
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
    try:
      if wrong := differences(ocp.metadata(folder).metadata, abstract):
        raise UnusableCheckpoint(folder, wrong)
      state = ocp.load(folder, abstract)
    except UnusableCheckpoint:
      raise
    except Exception as error:
      if manifest.exists(folder):
        raise self._failed("read", step, error) from error
      raise UnusableCheckpoint(folder, str(error)) from error
    hosts.together(lambda: self._set_aside(step), CheckpointError)
    self._unusable = {}
    return state

  def _set_aside(self, step: int) -> None:
    """Those that were passed over; training goes on from ``step``."""
    if jax.process_index() or self._reading:
      return
    for other, reason in sorted(self._unusable.items()):
      aside = _set_aside(self.directory / str(other))
      warnings.warn(
        f"checkpoint {self.directory / str(other)} is not used: {reason}. It is kept as {aside.name}; training goes "
        f"on from step {step}",
        stacklevel=5,
      )

  def save(self, step: int, state: Tree) -> None:
    """Starts writing ``state``; it may be donated as soon as this returns.

    Raises:
      CheckpointError: when this or the previous write failed, a full disk for example.
    """
    from orbax.checkpoint import v1 as ocp

    hosts.together(lambda: self._begin(step), CheckpointError)
    # On a CPU orbax may hold views of the very buffers that the next update is about to overwrite.
    if any(device.platform == "cpu" for x in jax.tree.leaves(state) for device in x.devices()):
      state = jax.tree.map(jnp.copy, state)
    self._pending_step = step
    try:
      response = ocp.save_async(self.directory / str(step), state)
    except Exception as error:
      raise self._failed("write", step, error) from error
    self._pending = self._pool.submit(self._finish, step, response)

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

  def _finish(self, step: int, response: Any) -> None:
    """In a thread: once the files are there, the manifest; then checkpoints that are not to be kept go."""
    folder = self.directory / str(step)
    try:
      response.result()
      if jax.process_index() == 0:
        manifest.write(folder, self._seed)
    except BaseException:
      if jax.process_index() == 0:  # what is there of it is of no use, and the disk may be full
        if not manifest.exists(folder):
          shutil.rmtree(folder, ignore_errors=True)
        self._tidy()
      raise
    if jax.process_index() == 0:
      for other in self._steps()[: -self._keep]:
        if not self._keep_every or other % self._keep_every:
          _remove(self.directory / str(other))

  def _begin(self, step: int) -> None:
    """Before orbax does, whose threads keep a process for minutes when they can make no folder."""
    self.wait()
    if jax.process_index():
      return
    attempt = self.directory / f"{step}{_UNFINISHED}"
    try:
      attempt.mkdir(parents=True, exist_ok=True)
      attempt.rmdir()
    except OSError as error:
      raise self._failed("write", step, error) from error

  def _tidy(self) -> None:
    """Removes what a process that was killed, or failed, left unfinished."""
    for path in self.directory.glob("*"):
      if path.name.endswith(_REMOVED) or _UNFINISHED in path.name:
        shutil.rmtree(path, ignore_errors=True)

  def _steps(self) -> list[int]:
    """Of all checkpoints, rising."""
    return sorted(int(path.name) for path in self.directory.glob("*") if re.fullmatch("0|[1-9][0-9]*", path.name))

  def _failed(self, verb: str, step: int, error: BaseException) -> CheckpointError:
    cause: BaseException | None = error
    while cause is not None:
      full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
      if full or "No space left" in str(cause) or "RESOURCE_EXHAUSTED" in str(cause):
        reason = "the disk is full; free some space and run the same command again"
        return CheckpointError(f"could not {verb} checkpoint {self.directory / str(step)}: {reason}")
      cause = cause.__cause__ or cause.__context__
    return CheckpointError(f"could not {verb} checkpoint {self.directory / str(step)}: {error}")


def _set_aside(folder: pathlib.Path) -> pathlib.Path:
  """Renames to the first free of ``<step>.damaged``, ``<step>.damaged-2``, ..."""
  aside, number = folder.with_name(f"{folder.name}.damaged"), 1
  while aside.exists():
    number += 1
    aside = folder.with_name(f"{folder.name}.damaged-{number}")
  return folder.rename(aside)


def _remove(folder: pathlib.Path) -> None:
  """Under another name first: a kill in the middle leaves no half of a checkpoint."""
  shutil.rmtree(folder.rename(folder.with_name(folder.name + _REMOVED)))

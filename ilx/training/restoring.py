"""Reads what a run has learnt, whether or not it goes on."""

import os
import pathlib
from typing import Any

import jax
import numpy as np

from ilx.data.episodes import Episodes
from ilx.parallel import mesh as mesh_lib
from ilx.parallel import placement
from ilx.training import lowering, manifest, tiers
from ilx.training import seeds as seeds_lib
from ilx.training.checkpoint import CheckpointError, Checkpoints
from ilx.types import Agent

# A run that goes on may remove the checkpoint that is being read.
_TRIES = 5


def restore(
  workdir: str | os.PathLike,
  agent: Agent,
  data: Episodes | tiers.Streamed,
  *,
  step: int | None = None,
  seeds: int | None = None,
) -> Any:
  """The state that a run of ``ilx.train`` has saved, on one device; nothing in the run's folder is changed.

  Args:
    workdir: of the run, which may be going on.
    agent: that was trained, made as it was then.
    data: of the run; other data of the same fields and shapes will do.
    step: updates of the checkpoint that is wanted, one of those kept; None for the newest good one.
    seeds: of the run: None for one without an axis of seeds.

  Returns:
    The state, as ``ilx.train`` returned it or would have: ``state.params`` to play, ``state.step`` updates made.

  Raises:
    ValueError: where there is no such checkpoint.
    CheckpointError: where the checkpoint cannot be read, or is of another agent's state.
  """
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:1]).reshape(1, 1, 1), mesh_lib.AXES)
  many = None if seeds is None else seeds_lib.plan(seeds, mesh)
  shapes = lowering.state_shapes(agent, data, mesh=mesh, rules=placement.DEFAULT, seeds=many)
  return _restored(pathlib.Path(workdir).expanduser() / "checkpoints", step, shapes, _TRIES)


def _restored(folder: pathlib.Path, step: int | None, shapes: Any, tries: int) -> Any:
  with Checkpoints(folder, reading=True) as checkpoints:
    chosen = checkpoints.newest() if step is None else step  # which looks at the manifest
    own = folder / str(chosen)
    if step is not None and manifest.exists(own) and (wrong := manifest.check(own)):
      raise CheckpointError(f"{own} cannot be read: {wrong}; choose another step, or none for the newest good one")
    if chosen is None or (step is not None and not own.is_dir()):
      raise ValueError(f"{folder} has no checkpoint{'' if step is None else f' of step {step}'}")
    try:
      return checkpoints.restore(chosen, shapes)
    except CheckpointError:
      if step is not None or own.is_dir() or tries == 1:
        raise
  return _restored(folder, None, shapes, tries - 1)  # the run has gone on

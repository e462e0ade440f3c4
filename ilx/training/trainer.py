"""The training loop: a host loop over few, large device programs."""

import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ilx.data.episodes import Episodes
from ilx.parallel import mesh as mesh_lib
from ilx.training.checkpoint import Checkpoints
from ilx.training.logs import Log
from ilx.training.signals import StopSignals
from ilx.types import Agent, Tree

# (params, step) -> named numbers.
Evaluate = Callable[[Tree, int], Mapping[str, Any]]


class Interrupted(Exception):
  """SIGINT or SIGTERM came; what was learnt is saved. ``signal`` is the signal's number."""

  def __init__(self, message: str, number: int):
    super().__init__(message)
    self.signal = number


def train(
  agent: Agent,
  episodes: Episodes,
  *,
  steps: int,
  batch_size: int = 256,
  seed: int = 0,
  mesh: Mesh | None = None,
  workdir: str | os.PathLike | None = None,
  log_every: int = 1_000,
  checkpoint_every: int = 10_000,
  evaluate: Evaluate | None = None,
  evaluate_every: int = 0,
  logs: Callable[[int], Sequence[Log]] | None = None,
  on_progress: Callable[[int, Mapping[str, Any]], None] | None = None,
) -> Any:
  """Trains an agent from data held on the devices, and returns its final state.

  The update, the sampling and the loop over updates are one program, which runs from one log to the next. The batch of
  update ``i`` depends on ``seed`` and ``i`` alone, so a run that stops and resumes equals one that did not, bit for
  bit (on one machine and number of devices; a GPU's compiler may choose other kernels in another process), and the
  number of devices changes rounding only.

  Args:
    agent: what to train.
    episodes: the data; copied to every device.
    steps: updates to make in all, those of an earlier, interrupted call included.
    batch_size: items per update, over all devices together.
    seed: fixes the initial parameters and all sampling.
    mesh: default ``make_mesh()``, data-parallel over all devices.
    workdir: checkpoints go to ``workdir/checkpoints`` and the newest one is resumed from. None: no checkpoints.
    log_every: updates between logs.
    checkpoint_every: updates between checkpoints; one is also written at the end and on SIGINT or SIGTERM.
    evaluate: called with params and step; what it returns is logged under ``eval/``. The params are valid during the
      call, the next update takes their memory: copy what is to be kept.
    evaluate_every: updates between evaluations; one is also made at the end. 0: only at the end. An evaluation that is
      due at the step resumed from is made (again).
    logs: called once with the step resumed from, opens the logs to write.
    on_progress: called with the step and every row that is logged.

  Returns:
    The agent's state after ``steps`` updates.

  Raises:
    ValueError: for sizes that do not fit the mesh, or a checkpoint beyond ``steps``.
    FloatingPointError: when a metric stops being finite. Nothing is saved from then on.
    Interrupted: on SIGINT or SIGTERM, once the state is saved.
    CheckpointError: when a checkpoint cannot be written or read.
  """
  for name, value in (("steps", steps), ("log_every", log_every), ("checkpoint_every", checkpoint_every)):
    if value < 1:
      raise ValueError(f"{name}={value} must be at least 1")
  if evaluate_every < 0:
    raise ValueError(f"evaluate_every={evaluate_every} must be at least 0")
  if len(episodes.rows) == 0:
    raise ValueError("episodes: no step to learn from; every episode has a single step")
  mesh = mesh_lib.make_mesh() if mesh is None else mesh
  mesh_lib.check_batch_size(mesh, batch_size)
  everywhere = mesh_lib.replicated(mesh)
  init_key, sample_key = jax.random.split(jax.random.key(seed))
  episodes = jax.device_put(episodes, everywhere)
  init = jax.jit(lambda key, data: agent.init(key, agent.view.sample(key, data, batch_size)), out_shardings=everywhere)
  run = make_program(agent, batch_size, mesh)

  with StopSignals() as stop, _checkpoints(workdir) as checkpoints:
    state, start = _initial_state(init, init_key, episodes, checkpoints, steps)
    open_logs = list(logs(start)) if logs else []

    def write(step: int, row: Mapping[str, Any]) -> None:
      for log in open_logs:
        log.write(step, row)
      if on_progress:
        on_progress(step, row)

    def evaluate_if_due(step: int) -> None:
      if evaluate and (step == steps or (evaluate_every and step % evaluate_every == 0)):
        found = stop.unless_signalled(lambda: evaluate(state.params, step))
        if found is not None:
          write(step, {f"eval/{name}": value for name, value in found.items()})

    try:
      step = saved = start
      if start:
        evaluate_if_due(start)  # the process before this one may have been stopped in it
      while step < steps and not stop.received:
        length = min(_until_next(step, n) for n in (log_every, checkpoint_every, evaluate_every or steps))
        length = min(length, steps - step)
        began = time.perf_counter()
        state, sums = run(state, episodes, sample_key, length)
        row = {f"train/{name}": float(value) / length for name, value in jax.device_get(sums).items()}
        row["updates_per_second"] = length / (time.perf_counter() - began)
        step += length
        _check_finite(row, step)
        write(step, row)
        # After the row, which a resumed run does not write again; before the evaluation, which may fail or be killed.
        if checkpoints and (step % checkpoint_every == 0 or step == steps):
          checkpoints.save(step, state)
          saved = step
        evaluate_if_due(step)
      if stop.received and checkpoints and saved != step:
        checkpoints.save(step, state)
    finally:
      for log in open_logs:
        log.close()
  if stop.received:
    where = f"{step} of {steps} updates are saved in {workdir}" if checkpoints else "nothing was saved"
    raise Interrupted(f"stopped by {stop.received.name}; {where}", stop.received)
  return state


def make_program(agent: Agent, batch_size: int, mesh: Mesh) -> Callable[[Any, Episodes, jax.Array, int], Any]:
  """The device program: ``(state, episodes, key, length) -> (state, sums of the metrics)``.

  Makes ``length`` updates, each on a batch drawn with ``fold_in(key, state.step)``. The state is donated. ``length`` is
  an argument of the compiled program, not a constant in it: one compilation serves every length.
  """
  everywhere, divided = mesh_lib.replicated(mesh), mesh_lib.batch_sharding(mesh)

  def one_update(episodes: Episodes, key: jax.Array, state: Any) -> tuple[Any, dict[str, jax.Array]]:
    batch = agent.view.sample(jax.random.fold_in(key, state.step), episodes, batch_size)
    return agent.update(state, jax.lax.with_sharding_constraint(batch, divided))

  def program(state, episodes, key, length):
    shapes = jax.eval_shape(one_update, episodes, key, state)[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def body(_, carry):
      state, sums = carry
      state, metrics = one_update(episodes, key, state)
      return state, jax.tree.map(jnp.add, sums, metrics)

    return jax.lax.fori_loop(0, length, body, (state, zeros))

  return jax.jit(program, donate_argnums=0, out_shardings=everywhere)


def _until_next(step: int, every: int) -> int:
  return every - step % every


def _check_finite(row: Mapping[str, float], step: int) -> None:
  for name, value in row.items():
    if not math.isfinite(value):
      raise FloatingPointError(f"{name} is {value} within the updates up to step {step}: training diverged")


def _checkpoints(workdir: str | os.PathLike | None) -> Any:
  return nullcontext() if workdir is None else Checkpoints(pathlib.Path(workdir) / "checkpoints")


def _initial_state(init: Any, key: jax.Array, episodes: Episodes, checkpoints: Any, steps: int) -> tuple[Any, int]:
  latest = checkpoints.latest_step if checkpoints else None
  if latest is None:
    return init(key, episodes), 0
  if latest > steps:
    raise ValueError(f"{checkpoints.directory} is at step {latest}, beyond steps={steps}; ask for more steps")
  return checkpoints.restore(latest, init(key, episodes)), latest

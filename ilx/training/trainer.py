"""The training loop: a host loop over few, large device programs."""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ilx.data.episodes import Episodes
from ilx.parallel import mesh as mesh_lib
from ilx.training import seeds as seeds_lib
from ilx.training import tiers
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
  data: Episodes | tiers.Streamed,
  *,
  steps: int,
  batch_size: int = 256,
  seed: int = 0,
  seeds: int | None = None,
  mesh: Mesh | None = None,
  tier: tiers.Tier = "auto",
  workdir: str | os.PathLike | None = None,
  log_every: int = 1_000,
  checkpoint_every: int = 10_000,
  evaluate: Evaluate | None = None,
  evaluate_every: int = 0,
  logs: Callable[[int], Sequence[Log]] | None = None,
  on_progress: Callable[[int, Mapping[str, Any]], None] | None = None,
) -> Any:
  """Trains an agent, and returns its final state.

  With the data on the devices the update, the sampling and the loop over updates are one program, which runs from one
  log to the next; from the host, batches are made ahead by a thread while the devices compute. The batch of update
  ``i`` depends on ``seed`` and ``i`` alone, so a run that stops and resumes equals one that did not, bit for bit (on
  one machine and number of devices; a GPU's compiler may choose other kernels in another process), and the number of
  devices changes rounding only.

  With ``seeds=S`` the runs of ``seed``, ``seed + 1``, ... ``seed + S - 1`` are made in one program, each with its own
  initial parameters (the same bits as alone) and its own batches; what is learnt is what each alone would, to
  rounding. On a mesh of several devices the seeds are spread over them where their number is a multiple of the
  devices', with no communication; else each seed's batch is divided among all devices. Accelerators update the seeds
  of a device at once (``vmap``), CPUs one after the other, since their matmuls gain nothing from company. Episodes are
  shared; streamed data is read once for every seed, with a buffer for each. Logged are the means over the seeds and,
  as ``train/loss/seed3``, the loss of each.

  Args:
    agent: what to train.
    data: ``Episodes``, or a stream that makes its own batches.
    steps: updates to make in all, those of an earlier, interrupted call included.
    batch_size: items per update (of each seed), over all devices together.
    seed: fixes the initial parameters and all sampling.
    seeds: None for one run; S, also 1, for many, whose state has a leading axis: ``[S, ...]`` in every leaf but
      ``state.step``, which they share. ``ilx.training.one_seed(state, i)`` is the state of one.
    mesh: default ``make_mesh()``, data-parallel over all devices.
    tier: where episodes are: "device", a copy on every one; "host", in memory or memory-mapped, with the very same
      batches; "auto": on the devices if they take at most half of the free memory.
    workdir: checkpoints go to ``workdir/checkpoints`` and the newest one is resumed from. None: no checkpoints.
    log_every: updates between logs.
    checkpoint_every: updates between checkpoints; one is also written at the end and on SIGINT or SIGTERM.
    evaluate: called with params, of all seeds, and step; what it returns is logged under ``eval/``. The params are
      valid during the call, the next update takes their memory: copy what is to be kept.
    evaluate_every: updates between evaluations; one is also made at the end. 0: only at the end. An evaluation that is
      due at the step resumed from is made (again).
    logs: called once with the step resumed from, opens the logs to write.
    on_progress: called with the step and every row that is logged.

  Returns:
    The agent's state after ``steps`` updates.

  Raises:
    ValueError: for sizes that do not fit the mesh, or a checkpoint beyond ``steps``.
    FloatingPointError: when a metric (of any seed) stops being finite. Nothing is saved from then on.
    Interrupted: on SIGINT or SIGTERM, once the state is saved.
    CheckpointError: when a checkpoint cannot be written or read.
  """
  for name, value in (("steps", steps), ("log_every", log_every), ("checkpoint_every", checkpoint_every)):
    if value < 1:
      raise ValueError(f"{name}={value} must be at least 1")
  if evaluate_every < 0:
    raise ValueError(f"evaluate_every={evaluate_every} must be at least 0")
  mesh = mesh_lib.make_mesh() if mesh is None else mesh
  many = None if seeds is None else seeds_lib.plan(seeds, mesh)
  if not (many and many.spread):
    mesh_lib.check_batch_size(mesh, batch_size)
  elif batch_size < 1:
    raise ValueError(f"batch_size={batch_size} must be at least 1")
  numbers = range(seed, seed + seeds) if seeds else None

  with contextlib.ExitStack() as stack:
    stop, checkpoints = stack.enter_context(StopSignals()), stack.enter_context(_checkpoints(workdir))
    start = _updates_made(checkpoints, steps)
    every = (log_every, checkpoint_every, evaluate_every or steps)
    runner = stack.enter_context(
      tiers.open_runner(
        agent,
        data,
        batch_size=batch_size,
        seed=seed,
        mesh=mesh,
        tier=tier,
        seeds=many,
        start=start,
        lengths=_intervals(start, steps, *every),
      )
    )
    state = runner.init()
    if start:
      state = checkpoints.restore(start, state)
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
      for length in _intervals(start, steps, *every):
        if stop.received:
          break
        began = time.perf_counter()
        state, sums = runner.advance(state, length)
        means = {name: value / length for name, value in _fetched(sums).items()}
        step += length
        _check_finite(means, step, numbers)
        speed = {"updates_per_second": length / (time.perf_counter() - began)}
        write(step, speed | _row(means, numbers))
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


def _intervals(start: int, steps: int, *every: int) -> Iterator[int]:
  """Numbers of updates from one log, checkpoint or evaluation to the next."""
  while start < steps:
    length = min(steps - start, *(n - start % n for n in every))
    yield length
    start += length


def _fetched(sums: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
  """On the host: float64 ``[S]``, or ``[]``."""
  if not all(value.is_fully_addressable or value.is_fully_replicated for value in sums.values()):
    sums = multihost_utils.process_allgather(sums, tiled=True)  # other hosts' seeds
  return {name: np.asarray(value, np.float64) for name, value in jax.device_get(sums).items()}


def _row(means: Mapping[str, np.ndarray], numbers: range | None) -> dict[str, Any]:
  """What is logged: means over the seeds, and each seed's loss."""
  row: dict[str, Any] = {f"train/{name}": float(value.mean()) for name, value in means.items()}
  if numbers and "loss" in means:
    row |= {f"train/loss/seed{number}": loss for number, loss in zip(numbers, means["loss"].tolist(), strict=True)}
  return row


def _check_finite(means: Mapping[str, np.ndarray], step: int, numbers: range | None) -> None:
  for name, values in means.items():
    if not np.isfinite(values).all():
      first = int(np.argmin(np.isfinite(np.atleast_1d(values))))
      which = f" of seed {numbers[first]}" if numbers else ""
      raise FloatingPointError(
        f"train/{name}{which} is {np.atleast_1d(values)[first]} within the updates up to step {step}: training diverged"
      )


def _checkpoints(workdir: str | os.PathLike | None) -> Any:
  return contextlib.nullcontext() if workdir is None else Checkpoints(pathlib.Path(workdir) / "checkpoints")


def _updates_made(checkpoints: Any, steps: int) -> int:
  latest = (checkpoints.latest_step if checkpoints else None) or 0
  if latest > steps:
    raise ValueError(f"{checkpoints.directory} is at step {latest}, beyond steps={steps}; ask for more steps")
  return latest

"""The training loop: a host loop over few, large device programs."""

import contextlib
import functools
import operator
import os
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import Mesh

from ilx.data.episodes import Episodes
from ilx.parallel import hosts, placement, replicas
from ilx.parallel import mesh as mesh_lib
from ilx.training import nonfinite, programs, resume, tiers, waiting
from ilx.training.beside import Beside, Evaluate
from ilx.training.checkpoint import Checkpoints
from ilx.training.lock import locked
from ilx.training.logs import Log
from ilx.training.metrics import Metrics, where_to_look
from ilx.training.pace import Pace
from ilx.training.signals import StopSignals
from ilx.types import Agent

# jax's keys know a seed modulo 2^32.
_LAST_SEED = 2**32 - 1
# States count updates in int32; batches are numbered alike, and made a little ahead.
_MOST_STEPS = 2**31 - 1_000


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
  strategy: programs.Strategy = "jit",
  rules: placement.Rules | None = None,
  tier: tiers.Tier = "auto",
  workdir: str | os.PathLike | None = None,
  log_every: int = 1_000,
  checkpoint_every: int = 10_000,
  checkpoint_minutes: float = 10.0,
  keep: int = 3,
  keep_every: int = 0,
  on_nonfinite: Literal["stop", "skip"] = "stop",
  data_timeout: float = 60.0,
  data_deadline: float = 0.0,
  evaluate: Evaluate | None = None,
  evaluate_every: int = 0,
  evaluate_beside: bool = False,
  logs: Callable[[int], Sequence[Log]] | None = None,
  on_progress: Callable[[int, Mapping[str, Any]], None] | None = None,
  on_updates: Callable[[int], None] | None = None,
) -> Any:
  """Trains an agent, and returns its final state.

  With the data on the devices the update, the sampling and the loop over updates are one program, which runs from one
  log to the next, or for some two seconds; from the host, batches are made ahead by a thread while the devices compute.
  The batch of update ``i`` depends on ``seed`` and ``i`` alone, so a run that stops and resumes equals one that did
  not, bit for bit (on one machine and number of devices; a GPU's compiler may choose other kernels in another process),
  and the number of devices changes rounding only.

  With ``seeds=S`` the runs of ``seed``, ``seed + 1``, ... ``seed + S - 1`` are made in one program, each with its own
  initial parameters (the same bits as alone) and its own batches; what is learnt is what each alone would, to
  rounding. On a mesh of ``data`` alone the seeds are spread over the devices where their number is a multiple of
  theirs, with no communication; else each seed's batch is divided among all devices. Accelerators update the seeds
  of a device at once (``vmap``), CPUs one after the other, since their matmuls gain nothing from company. Episodes are
  shared; streamed data is read once for every seed, with a buffer for each. Logged are the means over the seeds and,
  as ``train/loss/seed3``, the loss of each.

  Args:
    agent: what to train.
    data: ``Episodes``, or a stream that makes its own batches.
    steps: updates to make in all, those of an earlier, interrupted call included.
    batch_size: items per update (of each seed), over all devices together.
    seed: fixes the initial parameters and all sampling; from 0 to 2^32 - 1, as jax's keys know no others.
    seeds: None for one run; S, also 1, for many, whose state has a leading axis: ``[S, ...]`` in every leaf but
      ``state.step``, which they share. ``ilx.training.one_seed(state, i)`` is the state of one.
    mesh: default ``make_mesh()``, data-parallel over all devices.
    strategy: how devices share an update. "jit": the compiler divides it (GSPMD), by where parameters and batch are.
      "pmap": every device has all parameters, updates on its part of the batch, and averages gradients with the
      others. What is learnt is the same to rounding; "jit" works for any mesh and any agent.
    rules: where the leaves of the state go, see ``ilx.parallel.shardings``; default ``ilx.parallel.DEFAULT``, which
      divides large ones over ``fsdp`` and transformers over ``tensor``. Not for seeds that are spread: a device has all
      of each.
    tier: where episodes are: "device", a copy on every one; "host", in memory or memory-mapped, with the very same
      batches; "auto": on the devices if they take at most half of the free memory. That is asked anew by a call that
      resumes, and tiers differ in rounding: name one where memory is scarce and bits count.
    workdir: checkpoints go to ``workdir/checkpoints`` and the newest good one is resumed from; what is damaged is named
      in a warning and set aside. No other process can train there meanwhile. None: no checkpoints.
    log_every: updates between logs, of which each is of the updates since the one before; a checkpoint or an evaluation
      is preceded by one, too.
    checkpoint_every: updates between checkpoints; one is also written at the end and on SIGINT or SIGTERM.
    checkpoint_minutes: after so long without a checkpoint one is written at the next log, too: a crash costs no more,
      however slow updates are. 0: none.
    keep: how many of the newest checkpoints stay.
    keep_every: checkpoints of steps that are multiples of it stay, too; 0: no others.
    on_nonfinite: "stop", an error, when a metric is not finite; "skip": an update that makes a number in the state or a
      metric not finite is left out and counted as ``train/skipped``, at the price of a look at the whole state.
    data_timeout: seconds without a batch from the host after which a warning names the source, repeatedly; 0: none.
    data_deadline: seconds after which that is an error; 0: never.
    evaluate: called with params, of all seeds, and step; what it returns, if anything, is logged under ``eval/``. The
      params are valid during the call, the next update takes their memory: copy what is to be kept.
    evaluate_every: updates between evaluations; one is also made at the end. 0: only at the end. An evaluation that is
      due at the step resumed from is made (again).
    evaluate_beside: training goes on during all evaluations but the last. They are made in a thread, on the host's
      CPU, and logged when they are done; the next evaluation, checkpoint or signal waits for them. What is learnt is
      the same; scores are the CPU's, which differ from an accelerator's in rounding. Not for several processes.
    logs: called once with the step resumed from, opens the logs to write.
    on_progress: called with the step and every row that is logged.
    on_updates: called with the step every two seconds or so where rows are further apart.

  Returns:
    The agent's state after ``steps`` updates.

  Raises:
    ValueError: for sizes or a seed that cannot be, a batch or a strategy that does not fit the mesh, a checkpoint
      beyond ``steps`` or of another seed, or ``evaluate_beside`` of several processes.
    FloatingPointError: when a metric (of any seed) is not finite, or numbers of the state no longer are; names the
      update. No checkpoint is made from then on; ``workdir/diverged.json`` and ``diverged.npz`` have the batch.
    Interrupted: on SIGINT or SIGTERM to any process, once the state is saved: after the row that is due within ten
      seconds, else at once; the next row is then of the rest of its updates.
    CheckpointError: when a checkpoint cannot be written, or there are checkpoints and none can be read.
    FolderInUseError: where another process trains in ``workdir``.
    TimeoutError: after ``data_deadline``.
  """
  steps, batch_size, seed = _whole("steps", steps), _whole("batch_size", batch_size), _whole("seed", seed)
  log_every, checkpoint_every = _whole("log_every", log_every), _whole("checkpoint_every", checkpoint_every)
  evaluate_every = _whole("evaluate_every", evaluate_every)
  keep, keep_every = _whole("keep", keep), _whole("keep_every", keep_every)
  seeds = int(seeds) if isinstance(seeds, np.integer) else seeds
  for name, value in (("steps", steps), ("log_every", log_every), ("checkpoint_every", checkpoint_every)):
    if value < 1:
      raise ValueError(f"{name}={value} must be at least 1")
  if steps > _MOST_STEPS:
    raise ValueError(f"steps={steps} must be at most {_MOST_STEPS}: updates are counted in int32")
  for name, value in (
    ("checkpoint_minutes", checkpoint_minutes),
    ("evaluate_every", evaluate_every),
    ("data_timeout", data_timeout),
    ("data_deadline", data_deadline),
  ):
    if not value >= 0:
      raise ValueError(f"{name}={value} must be at least 0")
  if on_nonfinite not in ("stop", "skip"):
    raise ValueError(f"on_nonfinite={on_nonfinite!r}: expected 'stop' or 'skip'")
  if on_nonfinite == "skip":
    agent = agent._replace(update=nonfinite.skipping(agent.update))
  several = jax.process_count() > 1
  if evaluate_beside and several:
    raise ValueError("evaluate_beside: several processes share the episodes of an evaluation, and wait for each other")
  mesh = mesh_lib.make_mesh() if mesh is None else mesh
  many = programs.fit(mesh, strategy, seeds, batch_size)
  tiers.check(tier, data)
  if not 0 <= seed <= _LAST_SEED - (seeds or 1) + 1:
    raise ValueError(f"seed={seed}: seeds are from 0 to {_LAST_SEED}, all of them where there are many")
  numbers = range(seed, seed + seeds) if seeds else None

  with contextlib.ExitStack() as stack:
    stop, checkpoints = stack.enter_context(StopSignals()), None
    if workdir is not None:
      stack.enter_context(locked(workdir))
      checkpoints = stack.enter_context(Checkpoints(pathlib.Path(workdir) / "checkpoints", keep, keep_every, seed=seed))
    every = (
      log_every,
      checkpoint_every if checkpoints else steps,
      evaluate_every if evaluate_every and evaluate else steps,
    )

    def open_runner(start: int) -> contextlib.AbstractContextManager[tiers.Runner]:
      return tiers.open_runner(
        agent,
        data,
        batch_size=batch_size,
        seed=seed,
        mesh=mesh,
        tier=tier,
        seeds=many,
        strategy=strategy,
        rules=placement.DEFAULT if rules is None else rules,
        start=start,
        lengths=resume.intervals(start, steps, *every),
        # Several processes would not be left at the same update.
        patience=waiting.Patience("", data_timeout, data_deadline, lambda: bool(stop.received) and not several),
        pace=Pace(lambda made: on_updates(step + made) if on_updates else None, stop.agree),
      )

    try:
      start, runner, state = resume.begin(stack, checkpoints, steps, open_runner)
    except waiting.Stopped:
      raise Interrupted(f"stopped by {stop.received.name} before the first update", stop.received) from None
    open_logs = hosts.together(lambda: list(logs(start)) if logs else [])
    metrics = Metrics(numbers)

    def write(step: int, row: Mapping[str, Any]) -> None:
      for log in open_logs:
        log.write(step, row)
      if on_progress:
        on_progress(step, row)

    def diverged(found: nonfinite.Found) -> str:
      return where_to_look(
        workdir,
        lambda folder: nonfinite.save(folder, found, agent, data, batch_size, seed + found.place, metrics.last),
      )

    def is_due(step: int) -> bool:
      return bool(evaluate and (step == steps or (evaluate_every and step % evaluate_every == 0)))

    def write_evaluation(step: int, found: Mapping[str, Any]) -> None:
      write(step, {f"eval/{name}": value for name, value in found.items()})

    beside = Beside(evaluate, write_evaluation)

    def evaluate_if_due(step: int) -> None:
      if evaluate_beside and is_due(step) and step < steps and not stop.received:
        beside.begin(state.params, step)
      elif is_due(step):
        collect()
        found = stop.unless_signalled(lambda: evaluate(hosts.readable(state.params), step))
        hosts.together(lambda: None if found is None else write_evaluation(step, found))

    def collect() -> None:
      stop.forgiving(lambda: beside.collect(wait=True))

    def save(step: int) -> None:
      nonlocal saved, saved_at
      collect()  # whoever resumes there has the evaluations before it
      checkpoints.save(step, state)
      saved, saved_at = step, time.perf_counter()

    def is_long_ago() -> bool:
      minutes = (time.perf_counter() - saved_at) / 60
      return bool(checkpoint_minutes and hosts.gather(np.bool_(minutes >= checkpoint_minutes))[0])

    try:
      step = saved = start
      saved_at = time.perf_counter()
      if start:
        evaluate_if_due(start)  # the process before this one may have been stopped in it
      for length in resume.intervals(start, steps, *every):
        if stop.agree():
          break
        began = time.perf_counter()
        try:
          state, sums = runner.advance(state, length)
        except waiting.Stopped as stopped:  # the rest of the interval is going to be its row
          state, step = stopped.state, int(stopped.state.step)
          metrics.check(stopped.sums, diverged)
          break
        if strategy == "pmap" and step == start and not (many and many.spread):
          replicas.check_equal(state)
        step += length
        metrics.check(sums, diverged)
        row = metrics.row(sums, length, step)
        row = {"updates_per_second": length / (time.perf_counter() - began)} | row
        hosts.together(functools.partial(write, step, row))
        # After the row, which a resumed run does not write again; before the evaluation, which may fail or be killed,
        # and which no signal ends where there are several processes.
        stop.forgiving(lambda: beside.collect(wait=False))
        is_planned = step % checkpoint_every == 0 or step == steps or (several and is_due(step))
        if checkpoints and (is_planned or is_long_ago()):
          save(step)
        evaluate_if_due(step)
      collect()
      if stop.received and checkpoints and saved != step:
        save(step)
    except BaseException as error:
      leave = [log.close for log in open_logs]
      for each in [beside.abandon, *leave] if isinstance(error, Exception) else leave:
        _quietly(each, error)
      raise
    with contextlib.ExitStack() as closing:
      for log in reversed(open_logs):
        closing.callback(log.close)
  if stop.received:
    where = f"{step} of {steps} updates are saved in {workdir}" if checkpoints else "nothing was saved"
    raise Interrupted(f"stopped by {stop.received.name}; {where}", stop.received)
  return state


def _quietly(work: Callable[[], None], because: BaseException) -> None:
  """What fails on the way out is a warning: the error that it is the way out of is what must be told."""
  try:
    work()
  except Exception as error:
    warnings.warn(f"after {because!r}: {error!r}", stacklevel=3)


def _whole(name: str, value: Any) -> int:
  """numpy's integers as Python's, which logs can write; a float would be found out hours later."""
  try:
    return operator.index(value)
  except TypeError:
    raise ValueError(f"{name}={value!r} must be an integer") from None

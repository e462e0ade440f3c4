"""Where a run goes on."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ilx.training.checkpoint import Checkpoints, UnusableCheckpoint
from ilx.training.tiers import Runner


def intervals(start: int, steps: int, *every: int) -> Iterator[int]:
  """Numbers of updates from one log, checkpoint or evaluation to the next."""
  while start < steps:
    length = min(steps - start, *(n - start % n for n in every))
    yield length
    start += length


def begin(
  stack: contextlib.ExitStack, checkpoints: Checkpoints | None, steps: int, open_runner: Callable[[int], Any]
) -> tuple[int, Runner, Any]:
  """The updates made, a runner that goes on there, and the state: of the newest checkpoint that is one of this run."""
  while True:
    start = (checkpoints.newest() if checkpoints else None) or 0
    if start > steps:
      raise ValueError(f"{checkpoints.directory} is at step {start}, beyond steps={steps}; ask for more steps")
    with contextlib.ExitStack() as attempt:
      runner = attempt.enter_context(open_runner(start))
      try:
        state = checkpoints.restore(start, runner.state) if start else runner.init()
      except UnusableCheckpoint as error:
        checkpoints.reject(start, error.reason)
        continue
      stack.push(attempt.pop_all())
      return start, runner, state

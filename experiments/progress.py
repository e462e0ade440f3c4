"""Progress of long work: a bar with an ETA on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.report import heldout, text

# Between two lines where there is no terminal.
_LINE_SECONDS = 15.0


class LoadingProgress:
  """Says what is read, and how far, where it takes longer than a moment; a context manager."""

  def __init__(self, console: Console | None = None):
    self._console = console or Console()
    self._status = self._console.status("")
    self._printed = time.monotonic()

  def __enter__(self) -> "LoadingProgress":
    return self

  def __exit__(self, *exc: object) -> None:
    self._status.stop()

  def __call__(self, what: str) -> Callable[[int, int], None]:
    """What takes the episodes and steps that are done so far."""

    def show(episodes: int, steps: int) -> None:
      line = f"{what}: {episodes:,} episodes, {steps:,} steps"
      if self._console.is_terminal:
        self._status.update(line)
        self._status.start()
      elif time.monotonic() - self._printed > _LINE_SECONDS:
        self._printed = time.monotonic()
        self._console.file.write(f"{line}\n")
        self._console.file.flush()

    return show


class TrainingProgress:
  """Shows updates, loss, speed and scores as they come, and evaluations under way; a context manager."""

  def __init__(self, steps: int, console: Console | None = None):
    self._console = console or Console()
    self._steps = steps
    self._bar = Progress(
      TextColumn("training"),
      BarColumn(),
      MofNCompleteColumn(),
      TimeElapsedColumn(),
      TextColumn("ETA"),
      TimeRemainingColumn(),
      TextColumn("{task.description}"),
      console=self._console,
      speed_estimate_period=60,
    )
    self._task = self._bar.add_task("", total=steps)
    self._text = ""
    self._score = self._speed = ""
    self._printed = time.monotonic()
    self._began, self._start = time.monotonic(), 0

  def __enter__(self) -> "TrainingProgress":
    if self._console.is_terminal:
      self._bar.start()
    return self

  def __exit__(self, *exc: object) -> None:
    self._bar.stop()

  def resume(self, step: int) -> None:
    """Says that earlier processes made the first ``step`` updates."""
    self._start, self._began = step, time.monotonic()
    self._bar.reset(self._task, total=self._steps, completed=step)

  def evaluation(self, fraction: float) -> None:
    """Takes what `ilx.evaluate` reports: the fraction played."""
    self._bar.update(self._task, description=f"evaluating {fraction:4.0%}  {self._text}")

  def update(self, step: int, row: Mapping[str, Any]) -> None:
    """Takes the rows that `ilx.train` logs: of updates and of evaluations."""
    scored = any(name.startswith("eval/") for name in row)
    if scored:
      self._score = _score(row)
    else:
      self._speed = f"loss {row['train/loss']:.4g}  {text.significant(row['updates_per_second'])} updates/s"
    self._text = f"{self._speed}  {self._score}"
    if self._console.is_terminal:
      if scored:
        self._bar.console.print(f"{step:>9,} updates: {self._score}", highlight=False)
      self._bar.update(self._task, completed=step, description=self._text)
    else:
      self._line(step, at_once=scored)

  def updates(self, step: int) -> None:
    """Takes how many updates are made, between two rows."""
    if self._console.is_terminal:
      self._bar.update(self._task, completed=step)
    else:
      self._line(step)

  def _line(self, step: int, at_once: bool = False) -> None:
    if not at_once and time.monotonic() - self._printed <= _LINE_SECONDS:
      return
    self._printed = time.monotonic()
    rate = (step - self._start) / max(self._printed - self._began, 1e-9)
    eta = f"ETA {(self._steps - step) / rate:.0f} s" if rate else ""
    self._console.file.write(f"{step:>9,}/{self._steps:,} updates  {self._text}  {eta}\n")
    self._console.file.flush()


def _score(row: Mapping[str, Any]) -> str:
  words = []
  if "eval/return_mean" in row:
    low, high = row["eval/return_ci95"]
    words.append(f"return {row['eval/return_mean']:,.1f} [{low:,.1f}, {high:,.1f}]")
  for path in heldout.paths(row):
    accuracy, error = (row.get(f"eval/heldout_{path}{key}") for key in ("accuracy", "mean_absolute_error"))
    if accuracy is not None:
      words.append(heldout.titled(path, f"held-out accuracy {accuracy:.1%}"))
    elif error is not None:
      words.append(heldout.titled(path, f"held-out error {error:.4g}"))
  return ", ".join(words)

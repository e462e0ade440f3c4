"""How far a sweep is: bars on a terminal, a line for every run that starts or ends elsewhere."""

import json
import pathlib
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from experiments.launch.check import Checked
from experiments.launch.processes import Ended, Process

# Logs are looked at so often.
_SECONDS = 1.0
# Bytes at the end of a log that are read first.
_TAIL = 4096


class SweepProgress:
  """Shows which runs are running, how far each is, and what ended how; a context manager."""

  def __init__(self, folder: pathlib.Path, runs: Sequence[Checked], console: Console | None = None):
    self._console = console or Console()
    self._folder, self._steps = folder, {one.run.name: one.config.steps for one in runs}
    self._bars = Progress(
      TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=self._console
    )
    self._all = self._bars.add_task("runs", total=len(runs))
    self._running: dict[str, TaskID] = {}
    self._ended, self._looked = 0, time.monotonic()

  def __enter__(self) -> "SweepProgress":
    if self._console.is_terminal:
      self._bars.start()
    return self

  def __exit__(self, *exc: object) -> None:
    if self._console.is_terminal:  # elsewhere it would print an empty line
      self._bars.stop()

  def started(self, process: Process) -> None:
    """Says so."""
    self._running[process.name] = self._bars.add_task(process.name, total=self._steps[process.name])
    if not self._console.is_terminal:
      self._write(f"{process.name}: started")

  def ended(self, entry: Ended) -> None:
    """Says how."""
    self._ended += 1
    self._bars.remove_task(self._running.pop(entry.process.name))
    self._bars.update(self._all, completed=self._ended)
    self._write(f"[{self._ended}/{len(self._steps)}] {entry.failure or f'{entry.process.name}: finished'}")

  def look(self) -> None:
    """Finds out how far the running ones are, now and then."""
    if self._console.is_terminal and time.monotonic() - self._looked > _SECONDS:
      self._looked = time.monotonic()
      for name, task in self._running.items():
        self._bars.update(task, completed=last_step(self._folder / name / "log.jsonl"))

  def _write(self, line: str) -> None:
    if self._console.is_terminal:
      self._console.print(line, markup=False, highlight=False, soft_wrap=True)
      return
    # Not console.print: it would fold lines at 80 columns.
    self._console.file.write(f"{line}\n")
    self._console.file.flush()


def last_step(log: pathlib.Path) -> int:
  """Updates made by a run when it last wrote its log; 0 where it did not yet."""
  try:
    with open(log, "rb") as file:
      size, tail = file.seek(0, 2), _TAIL
      while True:
        file.seek(max(0, size - tail))
        # What is behind the last newline is being written; what is before the first may be the end of a row.
        *lines, _ = file.read(min(size, tail)).split(b"\n")
        for line in reversed(lines if tail >= size else lines[1:]):
          if (step := _step(line)) is not None:
            return step
        if tail >= size:
          return 0
        tail *= 8  # rows of many seeds are long
  except FileNotFoundError:
    return 0


def _step(line: bytes) -> int | None:
  """None of what is no row."""
  try:
    return int(json.loads(line)["step"])
  except (ValueError, TypeError, KeyError):
    return None

"""How far runs are, and the results of those that are finished."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.report import facts
from experiments.report.run import Run, number, read_object

# More seeds than this in one run are taken for a mistake in its config.
_MOST = 100_000


def seeds(run: Run) -> list[Any]:
  """The seeds of a run, usually one; where the config does not tell, one that is None."""
  first, count = run.config.get("seed"), run.config.get("seeds", 1)
  if not isinstance(first, int) or not isinstance(count, int) or not 1 < count <= _MOST:
    return [first if isinstance(first, (int, str)) else None]
  return [first + place for place in range(count)]


def is_finished(run: Run) -> bool:
  """Whether there is a result after as many updates as the config asks for."""
  planned, made = number(run.config.get("steps")), number(run.result.get("steps"))
  return bool(run.result) and (planned is None or made is None or made >= planned)


def last_step(run: Run) -> int:
  """The last update that was logged, 0 where none was."""
  return max((series.steps[-1] for series in run.series.values() if series.steps), default=0)


def state(run: Run) -> str:
  """``finished``, or how far it is."""
  if is_finished(run):
    return "finished"
  step, planned = last_step(run), number(run.config.get("steps"))
  whole = f" of {planned:,.0f}" if planned is not None else ""
  if (found := diverged(run.folder, step)) is not None:
    return f"diverged at update {found:,}{whole}"
  return f"at update {step:,}{whole}" if run.series else "not begun"


def diverged(folder: pathlib.Path, step: int) -> int | None:
  """The update at which a run diverged whose last logged one is ``step``; one that went on behind has got over it."""
  found = number(read_object(folder / "diverged.json").get("step"))
  return int(found) if found is not None and found >= step else None


def parts(run: Run) -> list[Mapping[str, Any]]:
  """What the result says of every seed; empty of a run that is not finished."""
  return (facts.seeds(run.result) or [run.result]) if is_finished(run) else []


def seconds(run: Run) -> float | None:
  """The time it took, or has taken so far."""
  logged = run.series.get("seconds")
  known = [number(run.result.get("seconds")), *(map(number, logged.values) if logged else ())]
  return max((value for value in known if value is not None), default=None)

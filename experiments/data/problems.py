"""What is wrong with a dataset, entry by entry."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

ERROR, WARNING = "error", "warning"


class Problem(NamedTuple):
  """One thing that is wrong.

  Attributes:
    level: "error" (the data cannot be trusted or loaded) or "warning" (they can, but look at it).
    kind: what sort of thing, one word or two: "damaged record", "shape", "flag", "not finite"...
    message: a sentence.
    file: its name; None where the whole dataset is meant. The others as far as they apply.
    record: number of the record in the file.
    episode: number of the episode in its split.
    step: in the episode.
    field: as in the record.
    split: its name.
  """

  level: str
  kind: str
  message: str
  file: str | None = None
  record: int | None = None
  split: str | None = None
  episode: int | None = None
  step: int | None = None
  field: str | None = None

  def __str__(self) -> str:
    parts = [
      self.file,
      None if self.record is None else f"record {self.record}",
      None if self.episode is None else f"episode {self.episode} of {self.split}",
      None if self.step is None else f"step {self.step}",
      None if self.field is None else f"field {self.field!r}",
    ]
    return f"{self.level}: {', '.join(filter(None, parts))}{': ' if any(parts) else ''}{self.message}"


class Problems:
  """Collects problems: all are counted, of each kind of each field the first ``most`` are kept.

  Attributes:
    kept: in the order they came.
    counts: how many of each (level, kind, field).
  """

  def __init__(self, most: int = 20):
    self.kept: list[Problem] = []
    self.counts: Counter[tuple[str, str, str | None]] = Counter()
    self._most = most

  def add(self, level: str, kind: str, message: str, **where: Any) -> None:
    """Notes one; ``where`` are the other attributes of ``Problem``."""
    if isinstance(where.get("file"), Path):
      where["file"] = where["file"].name
    key = (level, kind, where.get("field"))
    self.counts[key] += 1
    if self.counts[key] <= self._most:
      self.kept.append(Problem(level, kind, message, **where))

  def total(self, level: str) -> int:
    """How many of a level, those that were not kept included."""
    return sum(count for (found, _, _), count in self.counts.items() if found == level)

  def left_out(self) -> list[tuple[str, str, str | None, int]]:
    """(level, kind, field, how many more) of what was counted only."""
    return [(*key, count - self._most) for key, count in self.counts.items() if count > self._most]

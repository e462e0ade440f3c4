"""What cleaning leaves out and changes."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Rules:
  """What to leave out and change.

  Attributes:
    drop_idle_start: drops the idle steps that an episode begins with, as far as they earned nothing; see
      ``activity.idle``.
    drop_idle_end: drops the idle steps that it ends with, as far as they earned nothing.
    idle_tolerance: see ``activity.idle``.
    idle_ignore: fields of the observation that may change in idle steps, relative to a step.
    drop_duplicates: leaves out episodes whose steps equal those of an earlier one that stays, in whatever split.
    skip_damaged: leaves out what cannot be read or stored; else that is an error.
    min_length: transitions that an episode must have, after its idle steps were dropped.
    min_return, max_return: undiscounted, after idle steps were dropped; None: no limit.
    success_key: the name in the episodes' metadata that must be true.
    where: a condition in SQL over the table of episodes, which they must meet.
    clip_actions: clips actions to the bounds that ``metadata.json`` gives.
    cast: (field, dtype) pairs.
    keep_fields, drop_fields: names of fields or folders of them, relative to a step, or "episode_metadata/...".
  """

  drop_idle_start: bool = False
  drop_idle_end: bool = False
  idle_tolerance: float = 0.0
  idle_ignore: tuple[str, ...] = ()
  drop_duplicates: bool = False
  skip_damaged: bool = False
  min_length: int = 1
  min_return: float | None = None
  max_return: float | None = None
  success_key: str | None = None
  where: str | None = None
  clip_actions: bool = False
  cast: tuple[tuple[str, str], ...] = ()
  keep_fields: tuple[str, ...] = ()
  drop_fields: tuple[str, ...] = ()

  def stated(self) -> dict[str, Any]:
    """Those that differ from doing nothing, JSON-able."""
    default = Rules()
    return {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if getattr(self, field.name) != getattr(default, field.name)
    }

"""Whether records and frames that are aligned by time belong together: two clocks mixed up give wrong actions."""

import numpy as np

from ilx.data.convert import align
from ilx.data.convert.align import Grid
from ilx.data.convert.mapping import Field
from ilx.data.convert.tables import Table

# Fewer records than these are events now and then, of which little can be said.
_FEW = 10
# A gap is one that is this many times as long as a record's usual time, and as many seconds.
_GAP_PERIODS, _GAP_SECONDS = 100, 10.0
# A stretch without records is told of that is as many seconds, and as much of the recording: menus and cut scenes take
# seconds, and where a player rested for less of a recording most of its actions are right.
_SILENT_SECONDS, _SILENT_SHARE = 10.0, 0.25


def check(name: str, table: Table, grid: Grid, times: np.ndarray | None, clock: str, fields: tuple[Field, ...]) -> None:
  """Refuses a table whose times are not those of the frames; ``mapping`` says by which rules.

  Args:
    name: the table's.
    table: with times.
    grid: the steps.
    times: float64 ``[F]``, when the clock's frames are; None where they have no times.
    clock: its name.
    fields: those made of the table.

  Raises:
    ValueError: names the file, the table, both spans and the setting that is likely wrong.
  """
  where = f"{table.where} (events.{name}"
  if times is None:
    raise ValueError(f"{where}.time): {clock!r} has no times to align with; set fps, or leave 'time' out")
  if not table.checked or not table.count:
    return
  begin, end, at = float(times[0]) - align.period(times), grid.end, table.times
  spans = f"records from {at[0]:.3f} to {at[-1]:.3f} s, {clock!r} from {times[0]:.3f} to {end:.3f} s"
  advice = f"set 'offset', 'unit' or 'relative'{_likely(at, end - begin)}, or 'check: false' if that is right"
  if problem := _problem(at, begin, end):
    raise ValueError(f"{where}): {spans}: {problem}; {advice}")
  held = any(field.align in ("hold", "press") for field in fields)
  if held and (gap := _gap(at, begin, end)) is not None:
    raise ValueError(
      f"{where}): no record from {at[gap]:.3f} to {at[gap + 1]:.3f} s, where they come every "
      f"{np.median(np.diff(at)):.3g} s: did the clock jump? Cut the recording, or set 'check: false' if that is right"
    )


def check_stream(where: str, shown: np.ndarray, grid: Grid, clock: str) -> None:
  """Refuses frames that are shown in less than half of the steps' time: in the rest they would stand still.

  Args:
    where: the file and the stream, for messages.
    shown: float64 ``[F]``, when the frames are.
    grid: the steps, on another clock than the frames.
    clock: its name.

  Raises:
    ValueError: names both spans and the settings that may be wrong.
  """
  begin, end = float(grid.times[0]), grid.end
  last = float(shown[-1]) + align.period(shown)
  if len(shown) >= _FEW and min(last, end) - max(shown[0], begin) < 0.5 * (end - begin):
    raise ValueError(
      f"{where}: frames from {shown[0]:.3f} to {last:.3f} s, {clock!r} from {begin:.3f} to {end:.3f} s: set 'offset' "
      f"or 'fps', or the 'unit' or 'relative' of {clock!r}{_likely(grid.times, last - float(shown[0]))}, or "
      "'check: false' if that is right"
    )


def silence(at: np.ndarray, begin: float, end: float) -> str:
  """The longest stretch from ``begin`` to ``end`` without any of the times ``at``, in words; "" where it is short."""
  at = np.sort(at)
  at = np.concatenate([[begin], at[(at > begin) & (at < end)], [end]])
  lengths = np.diff(at)
  longest, span = int(np.argmax(lengths)), end - begin
  length = float(lengths[longest])
  if length <= max(_SILENT_SECONDS, _SILENT_SHARE * span):
    return ""
  if len(lengths) == 1:
    return f"no record of an action in all of its {span:.1f} s"
  if longest == len(lengths) - 1:
    return f"no record of an action in the last {length:.1f} of {span:.1f} s"
  if not longest:
    return f"no record of an action in the first {length:.1f} of {span:.1f} s"
  return f"no record of an action from {at[longest] - begin:.1f} to {at[longest + 1] - begin:.1f} of {span:.1f} s"


def _problem(at: np.ndarray, begin: float, end: float) -> str:
  """What is wrong with the times of records, or ""."""
  count, inside = len(at), int(np.sum((at >= begin) & (at <= end)))
  if count == 1:
    # What was before the frames holds; hours before, it is another clock.
    return "they have nothing in common" if at[0] > end or at[0] < begin - 3600 else ""
  if not inside:
    return "they have nothing in common"
  if 2 * inside < count if count >= _FEW else 4 * inside <= count:
    return f"only {inside} of {count} records are within the frames' time"
  if count < _FEW:
    return ""
  covered = (min(at[-1], end) - max(at[0], begin)) / (end - begin)
  if covered < (0.5 if _regular(at) else 0.01):
    return f"they cover {100 * covered:.2g} % of the frames' time"
  return ""


def _likely(at: np.ndarray, span: float) -> str:
  """Whether both would be about as long in another unit."""
  ratio = float(at[-1] - at[0]) / span
  for scale in (10**3, 10**6, 10**9):
    if 0.5 < ratio / scale < 2:
      return f" (they would fit in a unit {scale} times smaller)"
    if 0.5 < ratio * scale < 2:
      return f" (they would fit in a unit {scale} times larger)"
  return ""


def _regular(at: np.ndarray) -> bool:
  """Whether records were taken all the time; else they are events, such as keys pressed."""
  lengths = np.diff(at)
  return len(at) >= _FEW and bool(np.quantile(lengths, 0.9) <= 2 * np.median(lengths))


def _gap(at: np.ndarray, begin: float, end: float) -> int | None:
  """The record before a gap within the frames' time, in a table recorded at regular times."""
  if not _regular(at):
    return None
  lengths = np.diff(at)
  usual = float(np.median(lengths))
  hidden = np.minimum(at[1:], end) - np.maximum(at[:-1], begin)
  long = (lengths > _GAP_PERIODS * usual) & (lengths > _GAP_SECONDS)
  long &= (hidden > _GAP_SECONDS) | (hidden > 0.05 * (end - begin))
  return int(np.argmax(long)) if long.any() else None

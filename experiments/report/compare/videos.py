"""An episode of every group, as it was recorded."""

from collections.abc import Sequence
from html import escape

from experiments.report import details, parts, text
from experiments.report.compare import progress, words
from experiments.report.compare.groups import Group
from experiments.report.run import Run, read

# All videos of a page together: browsers hold a page in memory.
MAX_BYTES = 96 * 2**20


def section(groups: Sequence[Group]) -> str:
  """One video of every group that has any; which are left out, and why, is said. Empty where nothing is played."""
  if all(group.env_id is None for group in groups):
    return ""
  left, films = MAX_BYTES, []
  for group in groups:
    with_video = [run for run in group.runs if run.video_bytes]
    if not with_video:
      continue
    chosen = with_video[0]
    films.append(_film(group, chosen, len(with_video) - 1, left))
    left -= chosen.video_bytes
  if not films:
    return parts.section("Episodes", words.note("None of these runs has recorded a video."))
  missing = [group.title for group in groups if not any(run.video_bytes for run in group.runs)]
  note = words.note(f"No video of {words.listed(missing)}.") if missing else ""
  return parts.section("Episodes", f'<div class="films">{"".join(films)}</div>{note}')


def _film(group: Group, run: Run, others: int, left: int) -> str:
  if run.video_bytes > left:
    content = words.note(
      f"The videos of this page came to {text.size(MAX_BYTES)} before this one, {text.size(run.video_bytes)}; open "
      f"{run.folder / 'episode.mp4'}."
    )
  else:
    whole = read(run.folder)
    content = details.too_big(whole) or details.player(whole)
  seeds = progress.seeds(run)
  about = [f"seed {seeds[0]}", str(run.folder)]
  if others:
    about.append(f"{words.counted(others, 'other video')} in the folders of the other seeds")
  caption = f'{words.name(group, group.task)}<span class="soft">{escape("; ".join(about))}</span>'
  return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"

"""Puts the comparison together and writes it."""

import os
import pathlib
from collections.abc import Iterable, Sequence

from experiments import outputs
from experiments.report import page
from experiments.report.compare import differences, find, groups, over_tasks, overview, tasks, videos
from experiments.report.compare.groups import Group
from experiments.report.run import read

_STYLE = pathlib.Path(__file__).with_name("style.css")


def write_comparison(
  paths: Iterable[str | os.PathLike], output: str | os.PathLike = "compare.html"
) -> tuple[pathlib.Path, list[Group]]:
  """Writes the comparison of the runs at ``paths``, run folders or folders of runs.

  Returns:
    Where it is, and the groups that it shows.

  Raises:
    FileNotFoundError: for a path that is no run and holds none, and runs without config.json; see ``find.runs``.
    ValueError: for files that are damaged, and an output that does not end in .html.
  """
  if pathlib.Path(output).suffix not in (".html", ".htm"):
    raise ValueError(f"--output={output}: must end in .html")
  output = outputs.check(output, "--output")
  runs = [read(folder, with_video=False) for folder in find.runs(paths)]
  found = groups.of(runs)
  outputs.write(output, render(found))
  return output, found


def render(found: Sequence[Group]) -> str:
  """The page, of at least one group."""
  body = "\n".join(
    [
      f"<header>{overview.header(found)}</header>",
      overview.table(found),
      tasks.section(found),
      over_tasks.section(found),
      differences.section(found),
      videos.section(found),
      overview.runs(found),
    ]
  )
  return page.document(overview.heading(found), body, _STYLE.read_text(encoding="utf-8"))

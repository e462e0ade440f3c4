"""Puts the sections together and writes the page."""

import base64
import hashlib
import os
import pathlib
from html import escape

from experiments import outputs
from experiments.report import curves, details, facts, sections, seeds
from experiments.report.run import Run, read

_STYLE = pathlib.Path(__file__).with_name("style.css")


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
  """Writes ``report.html`` into a run folder, replacing an earlier one, and returns its path.

  Of ``config.json``, ``log.jsonl``, ``result.json`` and ``episode.mp4`` any may be missing as long as one of the
  JSON files is there; the page says what is missing.

  Raises:
    FileNotFoundError: ``workdir`` is no run folder.
    ValueError: ``config.json`` or ``result.json`` is damaged.
  """
  run = read(pathlib.Path(workdir))
  path = run.folder / "report.html"
  outputs.write(path, render(run))
  return path


def render(run: Run) -> str:
  """The page."""
  broken = (
    f'<p class="note">{run.broken_lines} damaged line(s) of log.jsonl are left out of the curves.</p>'
    if run.broken_lines
    else ""
  )
  body = "\n".join(
    [
      f"<header>{sections.header(run)}{broken}</header>",
      sections.comparison(run),
      seeds.section(run),
      f'<div class="pair">{curves.learning_curve(run)}{curves.loss(run)}',
      f"{sections.returns(run)}{sections.lengths(run)}" if run.result else "",
      f"{details.video(run)}{details.result_table(run)}{details.reproduce(run)}</div>",
      details.collapsed(run),
    ]
  )
  return document(facts.heading(run.result, run.config), body)


def document(title: str, body: str, style: str = "") -> str:
  """A self-contained page: the reports' style sheet, ``style`` behind it, and nothing from elsewhere.

  Args:
    title: plain text.
    body: HTML without style attributes and scripts, which the page's policy refuses.
    style: more CSS.
  """
  style = _STYLE.read_text(encoding="utf-8") + style
  # The policy allows this one style sheet by its hash, pictures and video inside the page, and nothing else.
  digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
  policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; media-src data:"
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

"""The page about a dataset: one self-contained HTML file."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import outputs
from experiments.data.frames import Frame
from experiments.data.page import numbers, overview, pictures, words
from experiments.report import page

_STYLE = pathlib.Path(__file__).with_name("style.css")


def render(card: Mapping[str, Any], frames: Mapping[str, Sequence[Frame]]) -> str:
  """The page of a card, see ``experiments.data.card``, and the pictures that were picked."""
  body = "\n".join(
    [
      f"<header>{overview.header(card)}</header>",
      overview.findings(card),
      f'<div class="pair">{overview.returns(card)}{overview.lengths(card)}',
      f"{overview.against(card)}{overview.idle(card)}</div>",
      pictures.section(frames),
      numbers.sections(card),
      words.texts(card),
      words.episode_metadata(card),
      words.fields(card),
      words.metadata(card),
    ]
  )
  return page.document(f"{card['name']} {card['version']}", body, _STYLE.read_text(encoding="utf-8"))


def write(path: str | os.PathLike, card: Mapping[str, Any], frames: Mapping[str, Sequence[Frame]]) -> pathlib.Path:
  """Writes the page, whole or not at all."""
  path = pathlib.Path(path).expanduser()
  outputs.write(path, render(card, frames))
  return path

"""Sample frames: some episodes, each at some moments."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby

from experiments.data.frames import Frame
from experiments.data.page.overview import short


def section(frames: Mapping[str, Sequence[Frame]]) -> str:
  """A strip of pictures for each episode, field by field; nothing without pictures."""
  blocks = []
  for place, (name, found) in enumerate(item for item in frames.items() if item[1]):
    strips = "".join(
      _strip(name, list(group)) for _, group in groupby(found, lambda frame: (frame.split, frame.episode))
    )
    title = f"<code>{escape(short(name))}</code>"
    # The first field is seen at once, the others (more cameras) on demand.
    blocks.append(
      f"<h3>{title}</h3>{strips}" if not place else f"<details><summary>{title}</summary>{strips}</details>"
    )
  return f"<section><h2>Sample frames</h2>{''.join(blocks)}</section>" if blocks else ""


def _strip(name: str, frames: Sequence[Frame]) -> str:
  cells = "".join(_picture(name, frame) for frame in frames)
  head = f"{frames[0].split}, episode {frames[0].episode:,}"
  return (
    f'<figure class="strip"><figcaption>{escape(head)}</figcaption>'
    f'<div class="frames" tabindex="0" role="region" aria-label="{escape(f"{name}: {head}")}">{cells}</div></figure>'
  )


def _picture(name: str, frame: Frame) -> str:
  label = f"step {frame.step:,}"
  if frame.content is None:
    return f'<div><p class="note">damaged</p><span class="soft">{label}</span></div>'
  kind = "png" if frame.content.startswith(b"\x89PNG") else "jpeg"
  data = base64.b64encode(frame.content).decode()
  alt = escape(f"{short(name)} at {label}")
  return f'<div><img src="data:image/{kind};base64,{data}" alt="{alt}"><span class="soft">{label}</span></div>'

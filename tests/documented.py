"""What the documentation's pages consist of: blocks of code, commands, links, headings."""

import pathlib
import re
import shlex
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_FENCE = re.compile(r"^( *)(```+)([^\n]*)\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
# [text](target), a picture's too; the text may break over lines and hold code.
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)


class Block(NamedTuple):
  """One fenced block of code.

  Attributes:
    language: what follows the fence.
    code: between the fences.
    line: of its first line of code, in its page.
  """

  language: str
  code: str
  line: int


def blocks(text: str, language: str) -> list[Block]:
  """The fenced blocks of one language, in order."""
  found = []
  for match in _FENCE.finditer(text):
    if match[3].strip() == language:
      found.append(Block(language, match[4], text.count("\n", 0, match.start(4)) + 1))
  return found


def prose(text: str) -> str:
  """The text without blocks of code, those that are indented included, and without code in backticks."""
  text = _FENCE.sub("", text)
  text = re.sub(r"^(?: {4}|\t).*$", "", text, flags=re.MULTILINE)
  return re.sub(r"`[^`\n]*`", "code", text)


def links(text: str) -> list[str]:
  """The targets of all links."""
  return [first or second for first, second in _LINK.findall(prose(text))]


def anchors(text: str) -> set[str]:
  """The anchors of the headings, as GitHub and MyST make them: the second of a name ends in -1."""
  found: list[str] = []
  for heading in re.findall(r"^#+ +(.+?) *#*$", _FENCE.sub("", text), re.MULTILINE):
    slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
    same = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
    found.append(f"{slug}-{same}" if same else slug)
  return set(found)


def commands(text: str) -> list[list[str]]:
  """The words of every ``python -m experiments...``, without ``python -m``.

  They stand in blocks of shell, in indented blocks, and, those with flags, in backticks.
  """
  shell = "".join(block.code for language in ("shell", "bash") for block in blocks(text, language))
  for code in re.findall(r"`(python -m experiments[^`]* --[^`]*)`", _FENCE.sub("", text)):
    shell += f"{' '.join(code.split())}\n"
  shell += "\n".join(re.findall(r"^ {4}(\S.*|  .*)$", _FENCE.sub("", text), re.MULTILINE))
  lines = re.sub(r"\\\n\s*", " ", shell).splitlines()
  found = []
  for line in lines:
    for part in line.split(" && "):
      if part.strip().startswith("python -m experiments"):
        found.append(shlex.split(part, comments=True)[2:])
  return found

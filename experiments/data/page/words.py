"""Texts, episode metadata, the list of fields and the dataset's own metadata."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from experiments.data.page.overview import short
from experiments.report import text

_LONG = 160


def texts(card: Mapping[str, Any]) -> str:
  """The most frequent texts of every text field of the steps."""
  return "".join(
    f"<section><h2><code>{escape(short(name))}</code></h2><p class='soft'>{_distinct(found)} in "
    f"{card['read']['episodes']:,} episodes</p>{_frequent(found)}</section>"
    for name, found in card["texts"].items()
  )


def episode_metadata(card: Mapping[str, Any]) -> str:
  """A row for every field beside the steps."""
  rows = []
  for name, found in card["episode_metadata"].items():
    if "numbers" in found and not found["numbers"]:
      words = "no finite value"
    elif "numbers" in found:
      low, high, mean = (text.significant(found["numbers"][key]) for key in ("min", "max", "mean"))
      words = f"{low} to {high}, mean {mean}"
    else:
      first, count = found["most_frequent"][0] if found["most_frequent"] else ("", 0)
      words = f"{_distinct(found)}; most frequent ({count:,}): {_short(first)}"
    rows.append((name, words))
  return f"<section><h2>Episode metadata</h2>{_table(rows)}</section>" if rows else ""


def fields(card: Mapping[str, Any]) -> str:
  """Every field and its type."""
  rows = [(field["name"], field["type"]) for field in card["fields"]]
  return f"<section><h2>Fields</h2>{_table(rows)}</section>"


def metadata(card: Mapping[str, Any]) -> str:
  """What ``metadata.json`` says, closed until asked for."""
  if not card["metadata"]:
    return ""
  rows = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in card["metadata"].items()]
  return f"<section><details><summary>metadata.json</summary>{_table(rows)}</details></section>"


def _table(rows: Iterable[tuple[str, str]]) -> str:
  body = "".join(f'<tr><th scope="row">{escape(key)}</th><td>{escape(value)}</td></tr>' for key, value in rows)
  return f'<table class="facts names"><tbody>{body}</tbody></table>'


def _frequent(found: Mapping[str, Any]) -> str:
  rows = "".join(
    f'<tr><td>{escape(_short(value))}</td><td class="num">{count:,}</td></tr>'
    for value, count in found["most_frequent"]
  )
  return (
    '<table class="texts"><thead><tr><th scope="col">Most frequent</th><th scope="col" class="num">Episodes</th></tr>'
    f"</thead><tbody>{rows}</tbody></table>"
  )


def _distinct(found: Mapping[str, Any]) -> str:
  return f"{'at least ' if found['at_least'] else ''}{found['distinct']:,} different"


def _short(value: Any) -> str:
  words = str(value) if str(value).strip() else repr(value)
  return words if len(words) <= _LONG else f"{words[:_LONG]}…"

"""The top of the page: what the dataset is, what is suspicious, returns, lengths and idle steps."""

from collections.abc import Mapping
from html import escape
from typing import Any

from experiments.report import charts, text


def header(card: Mapping[str, Any]) -> str:
  """Title, subtitle and the tiles."""
  read, metadata = card["read"], card["metadata"]
  parts = [
    str(metadata.get("env_id") or ""),
    ", ".join(f"{name} {split['episodes']:,}" for name, split in card["splits"].items()) + " episodes",
    _files(card),
    text.size(card["bytes"]),
  ]
  out = [f"<h1>{escape(card['name'])} {escape(card['version'])}</h1>"]
  out.append(f'<p class="sub">{escape(" · ".join(filter(None, parts)))}</p>')
  if not read["whole"]:
    limit = f", the first {read['max_episodes']:,} episodes of each" if read["max_episodes"] else ""
    out.append(f'<p class="note">Only a part was looked at: {escape(", ".join(read["splits"]))}{limit}.</p>')
  returns, lengths, ends = card["returns"], card["lengths"], card["ends"]
  tiles = [("", "Episodes", f"{read['episodes']:,}", f"{read['transitions']:,} transitions")]
  if returns:
    places = text.decimals_for([returns["mean"], returns["min"], returns["max"]])
    spread = f"{text.fixed(returns['min'], places)} to {text.fixed(returns['max'], places)}"
    tiles.insert(0, ("main", "Mean return", text.fixed(returns["mean"], places), spread))
  if lengths:
    spread = f"{lengths['min']:,.0f} to {lengths['max']:,.0f} transitions"
    tiles.append(("", "Mean length", text.significant(round(lengths["mean"], 1)), spread))
  if read["episodes"]:
    share = 100 * ends["terminal"] / read["episodes"]
    tiles.append(("", "Ended by the task", f"{share:.0f} %", "the others by a time limit or a cut"))
  cells = "".join(
    f'<div class="{kind}"><dt>{title}</dt><dd class="big">{escape(value)}</dd>'
    f'<dd class="soft">{escape(detail)}</dd></div>'
    for kind, title, value, detail in tiles
  )
  return "".join(out) + f'<dl class="tiles four">{cells}</dl>'


def _files(card: Mapping[str, Any]) -> str:
  count = sum(split["shards"] for split in card["splits"].values())
  return f"{count:,} {card['file_format']} file{'s' if count != 1 else ''}"


def findings(card: Mapping[str, Any]) -> str:
  """What is suspicious, warnings first."""
  if not card["findings"]:
    return '<section><h2>Findings</h2><p class="note">Nothing suspicious was found.</p></section>'
  shown, rest = card["findings"][:12], card["findings"][12:]
  more = f"<details class='soft'><summary>{len(rest)} more</summary>{_list(rest)}</details>" if rest else ""
  return f"<section><h2>Findings</h2>{_list(shown)}{more}</section>"


def _list(entries: Any) -> str:
  items = "".join(
    f'<li class="is-{entry["level"]}"><b>{entry["level"]}</b><span>'
    + (f"<code>{escape(short(entry['field']))}</code> " if entry["field"] else "")
    + f"{escape(entry['message'])}</span></li>"
    for entry in entries
  )
  return f'<ul class="findings">{items}</ul>'


def returns(card: Mapping[str, Any]) -> str:
  """Histogram of the returns, with their quartiles."""
  return _distribution(card, "return", card["returns"], "Returns", "Return")


def lengths(card: Mapping[str, Any]) -> str:
  """Histogram of the lengths, with their quartiles."""
  return _distribution(card, "length", card["lengths"], "Lengths", "Transitions")


def _distribution(card: Mapping[str, Any], key: str, found: Mapping[str, float] | None, title: str, unit: str) -> str:
  if not found:
    return ""
  places = text.decimals_for([found["min"], found["max"], found["mean"]])
  words = (
    f"mean {text.fixed(found['mean'], places)}, std {text.fixed(found['std'], places)}, "
    f"quartiles {', '.join(text.fixed(found[q], places) for q in ('q25', 'median', 'q75'))}"
  )
  if found["min"] == found["max"]:
    same = f"The same in all episodes: {text.fixed(found['min'], places)}."
    return f'<section><h2>{title}</h2><p class="note">{same}</p></section>'
  histogram = card["histograms"][key]
  chart = charts.bars(histogram["edges"], histogram["counts"], [], f"Histogram of the {title.lower()}: {words}")
  return f"<section><h2>{title}</h2><figure>{chart}<figcaption>{unit}; {words}</figcaption></figure></section>"


def against(card: Mapping[str, Any]) -> str:
  """Return against length, one dot an episode; nothing where either never differs."""
  if len(card["points"]) < 2 or any(len(set(values)) < 2 for values in card["points"]):
    return ""
  xs, ys = card["points"]
  chart = charts.scatter(xs, ys, f"Return against length of {len(xs)} episodes")
  some = f" ({len(xs):,} of {card['read']['episodes']:,} episodes)" if len(xs) < card["read"]["episodes"] else ""
  return (
    f"<section><h2>Return against length</h2><figure>{chart}"
    f"<figcaption>Transitions; return upwards{some}</figcaption></figure></section>"
  )


def idle(card: Mapping[str, Any]) -> str:
  """Where in the episodes nothing happens, and how much repeats."""
  found, repeated = card["idle"], card["duplicates"]
  words = (
    f"Idle steps: {100 * found['share']:.2g} %. Steps that repeat an earlier one: {100 * repeated['steps']:.2g} %; "
    f"episodes: {100 * repeated['episodes']:.2g} %."
  )
  if card["same_action"]:
    words += f" One and the same action: at most {escape(same_action(card['same_action']))}."
  if not found["share"]:
    return f'<section><h2>Idle and repeated</h2><p class="note">{words}</p></section>'
  shares = [0.0 if share is None or share != share else 100 * share for share in found["timeline"]]
  edges = [100 * i / len(shares) for i in range(len(shares) + 1)]
  chart = charts.bars(edges, shares, [], "Share of idle steps over the course of an episode, in per cent")
  return (
    f"<section><h2>Idle and repeated</h2><figure>{chart}<figcaption>Per cent of the episode; idle steps upwards, in "
    f'per cent</figcaption></figure><p class="note">{words}</p></section>'
  )


def same_action(found: Mapping[str, Any]) -> str:
  """How long the longest stretch of one action is, and where."""
  where = f"episode {found['episode']:,} of {found['split']}"
  return f"{found['steps']:,} steps in a row, {100 * found['share']:.3g} % of {where}"


def short(name: str) -> str:
  """A field's name without the "steps/" that all have."""
  return name.removeprefix("steps/")

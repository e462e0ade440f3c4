"""The sections of the report: each a function from what the run folder holds to HTML."""

from html import escape
from typing import Any

from experiments.report import axes, charts, facts, heldout, parts, text
from experiments.report.compare import progress
from experiments.report.run import Run, number

NAMES = {"policy": "Policy", "expert": "Expert", "data": "Data", "random": "Random"}
INDEFINITE = {"policy": "the policy", "expert": "the expert", "data": "the data", "random": "a random policy"}


def header(run: Run) -> str:
  """Title, subtitle, verdict and the tiles with the score, the normalised score and the time."""
  result, steps = run.result, number(run.result.get("steps"))
  played = number(result.get("episodes"))
  parts = [
    str(result.get("env_id") or run.config.get("env_id") or "")
    if facts.plays(result, run.config)
    else "no environment",
    f"{text.fixed(played, 0)} evaluation episodes{' of every seed' if facts.seeds(result) else ''}" if played else "",
    f"{text.fixed(steps, 0)} updates" if steps else "",
    facts.seed_words(result, run.config),
  ]
  out = [f"<h1>{escape(facts.heading(result, run.config))}</h1>"]
  out.append(f'<p class="sub">{escape(" · ".join(filter(None, parts)))}</p>')
  if not result:
    step = progress.diverged(run.folder, progress.last_step(run))
    state = "it is still going, or it was stopped before its end"
    if step is not None:
      state = f"training diverged at update {step:,}; diverged.json in its folder says more"
    out.append(f'<p class="note">This run has no result yet: {state}.</p>')
    return "".join(out)
  out.append(f'<p class="lede">{escape(facts.verdict(result))}</p>')
  planned = number(run.config.get("steps"))
  if steps and planned and steps < planned:
    out.append(f'<p class="note">The run stopped at update {steps:,.0f} of {planned:,.0f}.</p>')
  return "".join(out) + _tiles(result)


def comparison(run: Run) -> str:
  """Policy, expert, data and random policy as dots on one axis, as a table; empty where nothing is played."""
  if not facts.plays(run.result, run.config):
    return ""
  rows = [r for r in facts.scores(run.result) if r.value is not None]
  missing = [INDEFINITE[r.kind] for r in facts.scores(run.result) if r.value is None]
  note = f'<p class="note">Not known for this run: the return of {_list(missing)}.</p>' if missing else ""
  if not rows or rows[0].kind != "policy" or len(rows) == 1:
    return f"<section>{note}</section>" if run.result else ""
  decimals = facts.decimals(run.result)
  axis = axes.linear([r.value for r in rows] + [x for r in rows for x in r.band or ()], count=4)
  marks = [t for t, _ in axis.ticks]
  body = []
  for row in rows:
    band = f"<small>{parts.band(row.band, decimals)}</small>" if row.band else ""
    normalized = f'<td class="num">{text.fixed(row.normalized, 1)}</td>' if row.normalized is not None else ""
    body.append(
      f'<tr class="{row.kind}"><th scope="row">{NAMES[row.kind]}</th>'
      f'<td class="rail-cell">{charts.track(axis, row.value, row.band, marks, row.kind)}</td>'
      f'<td class="num"><b>{text.fixed(row.value, decimals)}</b>{band}</td>{normalized}</tr>'
    )
  scored = '<th scope="col" class="num">Normalised</th>' if rows[0].normalized is not None else ""
  return (
    '<section><h2>Return beside the references</h2><table class="compare"><thead><tr><td></td><td></td>'
    f'<th scope="col" class="num">Mean return</th>{scored}</tr></thead>'
    f'<tbody>{"".join(body)}<tr class="axis" aria-hidden="true"><td></td>'
    f'<td class="rail-cell">{charts.ruler(axis)}</td></tr></tbody></table>{note}</section>'
  )


def returns(run: Run) -> str:
  """Histogram of the episodes' returns; empty where nothing is played."""
  if not facts.plays(run.result, run.config):
    return ""
  values = facts.values(run.result, "returns")
  if not values:
    return parts.section("Returns of the episodes", '<p class="note">The returns of the episodes are not recorded.</p>')
  of_seeds = facts.seeds(run.result) or [run.result]
  dropped = sum(len(part["returns"]) for part in of_seeds if isinstance(part.get("returns"), list)) - len(values)
  lost = f'<p class="note">{dropped} returns are not finite and are left out.</p>' if dropped else ""
  decimals = text.decimals_for(values)
  low, high = text.fixed(min(values), decimals), text.fixed(max(values), decimals)
  if low == high:
    same = f"All {len(values)} episodes returned {low}." if len(values) > 1 else f"One episode, which returned {low}."
    return parts.section("Returns of the episodes", f'<p class="note">{same}</p>{lost}{_same_length(run)}')
  references, edges = parts.references(run), charts.bins(values)
  legend = parts.legend([("bar-key", f"{len(values)} episodes")], references)
  far = [r for r in references if not charts.near(r.value, edges)]
  off = "".join(
    f" {NAMES[r.kind]} ({text.fixed(r.value, decimals)}) is off to the {'left' if r.value < edges[0] else 'right'}."
    for r in far
  )
  chart = charts.histogram(values, references, f"Histogram of {len(values)} returns from {low} to {high}")
  caption = f"<figcaption>Return; from {low} to {high}.{off}</figcaption>"
  return parts.section("Returns of the episodes", f"<figure>{chart}{caption}{legend}</figure>{lost}{_same_length(run)}")


def lengths(run: Run) -> str:
  """Histogram of the episodes' lengths; nothing if they are equal (``returns`` says so then)."""
  values = facts.values(run.result, "lengths")
  low, high = min(values, default=0), max(values, default=0)
  if low == high:
    return ""
  mean = sum(values) / len(values)
  chart = charts.histogram(
    values, [], f"Histogram of {len(values)} episode lengths from {low:,.0f} to {high:,.0f} steps"
  )
  legend = parts.legend([("bar-key", f"{len(values)} episodes")], [])
  caption = f"<figcaption>Steps; from {low:,.0f} to {high:,.0f}, mean {mean:,.1f}.</figcaption>"
  return parts.section("Lengths of the episodes", f"<figure>{chart}{caption}{legend}</figure>")


def _tiles(result: dict[str, Any]) -> str:
  policy = facts.scores(result)[0]
  tiles = []
  if policy.value is not None:
    decimals = facts.decimals(result)
    band = f"95 % interval {parts.band(policy.band, decimals)}" if policy.band else "95 % interval not recorded"
    tiles.append(("main", "Mean return", text.fixed(policy.value, decimals), band))
  if not facts.plays(result):
    main = "main"
    for title, value in heldout.measures(result)[:2]:
      tiles.append((main, title, value, "on held-out actions"))
      main = ""
  elif policy.normalized is not None:
    tiles.append(("", "Normalised score", text.fixed(policy.normalized, 1), "0 is random, 100 the expert"))
  else:
    tiles.append(("", "Normalised score", "n/a", "needs the expert's and the random return"))
  seconds, speed = number(result.get("seconds")), number(result.get("updates_per_second"))
  each = " of every seed" if facts.seeds(result) else ""
  pace = f"{text.significant(speed)} updates{each} a second" if speed is not None else "speed not recorded"
  tiles.append(("", "Time", text.duration(seconds) if seconds is not None else "n/a", pace))
  cells = "".join(
    f'<div class="{kind}"><dt>{title}</dt><dd class="big">{value}</dd><dd class="soft">{detail}</dd></div>'
    for kind, title, value, detail in (map(escape, tile) for tile in tiles)
  )
  return f'<dl class="tiles">{cells}</dl>'


def _same_length(run: Run) -> str:
  values = facts.values(run.result, "lengths")
  if not values:
    return '<p class="note">The lengths of the episodes are not recorded.</p>'
  if min(values) < max(values):
    return ""
  which = f"All {len(values)} episodes are" if len(values) > 1 else "The one episode is"
  return f'<p class="note">{which} {values[0]:,.0f} steps long.</p>'


def _list(words: list[str]) -> str:
  return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))

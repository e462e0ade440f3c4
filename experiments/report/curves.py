"""The report's curves over the updates: returns and the training metrics, of several seeds each one's and the mean."""

import math
from html import escape

from experiments.report import charts, facts, heldout, parts, text
from experiments.report.run import Run, Series, by_seed, of_all_seeds


def learning_curve(run: Run) -> str:
  """What evaluations found while training: returns, and likeness to held-out actions."""
  return (_returns_curve(run) if facts.plays(run.result, run.config) else "") + heldout.section(run)


def _returns_curve(run: Run) -> str:
  """Return of the evaluations over the updates, with their intervals and the reference lines."""
  means = run.series.get("eval/return_mean", Series([], []))
  kept = [(s, v) for s, v in zip(means.steps, means.values, strict=True) if isinstance(v, float) and math.isfinite(v)]
  if not kept:
    return parts.section("Return while training", '<p class="note">No evaluation was logged, so there is no curve.</p>')
  steps, values = [s for s, _ in kept], [v for _, v in kept]
  intervals = run.series.get("eval/return_ci95", Series([], []))
  by_step = {s: v for s, v in zip(intervals.steps, intervals.values, strict=True) if isinstance(v, tuple)}
  bands = [by_step.get(s) for s in steps]
  references = parts.references(run)
  decimals = text.decimals_for(values)
  titles = [
    f"update {s:,}: {text.fixed(v, decimals)}" + (f", 95 % interval {parts.band(b, decimals)}" if b else "")
    for s, v, b in zip(steps, values, bands, strict=True)
  ]
  label = f"Mean return {text.fixed(values[0], decimals)} at {steps[0]:,} updates"
  if len(steps) > 1:
    label += f", {text.fixed(values[-1], decimals)} at {steps[-1]:,}; best {text.fixed(max(values), decimals)}"
  each = _each(run, "eval/return_mean")
  chart = charts.lines(steps, values, bands, references, label, titles, each=each)
  note = '<p class="note">One evaluation only, so there is a point and no curve.</p>' if len(steps) == 1 else ""
  rows = "".join(
    f'<tr><td class="num">{s:,}</td><td class="num">{text.fixed(v, decimals)}</td>'
    f'<td class="num">{parts.band(b, decimals) if b else "not known"}</td></tr>'
    for s, v, b in zip(steps, values, bands, strict=True)
  )
  table = (
    '<details class="soft"><summary>The numbers</summary><table><thead><tr><th scope="col" class="num">Updates</th>'
    '<th scope="col" class="num">Mean return</th><th scope="col" class="num">95 % interval</th></tr></thead>'
    f"<tbody>{rows}</tbody></table></details>"
  )
  what = ("mean of the seeds" if each else "policy") + (", with 95 % interval" if any(bands) else "")
  legend = parts.legend([("curve", what), *([("thin", "every seed")] if each else [])], references)
  return parts.section(
    "Return while training", f"<figure>{chart}<figcaption>Updates</figcaption>{legend}</figure>{note}{table}"
  )


def loss(run: Run) -> str:
  """The training loss, and the other training metrics in a collapsed grid."""
  if "train/loss" not in run.series:
    return parts.section("Training loss", '<p class="note">No training loss was logged.</p>')
  others = "".join(
    f'<div><h3 class="soft">{escape(name)}</h3>{_metric(run, name, 120)}</div>'
    for name in sorted(run.series)
    if name.startswith("train/") and name != "train/loss" and of_all_seeds(name)
  )
  more = (
    f'<details class="soft"><summary>Other training metrics</summary><div class="grid">{others}</div></details>'
    if others
    else ""
  )
  main = _metric(run, "train/loss", 260)
  return parts.section("Training loss", f"{main}{more}")


def _metric(run: Run, name: str, height: int) -> str:
  series = run.series[name]
  values = _floats(series)
  finite = facts.finite(values)
  if not finite:
    return f'<p class="note">{escape(name)} was never finite.</p>'
  ends = f"{name} from {text.significant(finite[0])} to {text.significant(finite[-1])}"
  label, each = f"{ends} over {series.steps[-1]:,} updates", _each(run, name)
  chart = charts.lines(series.steps, values, [], [], label, height=height, each=each)
  caption = "Updates; thin lines: every seed" if each else "Updates"
  chart = f"<figure>{chart}<figcaption>{caption}</figcaption></figure>"
  bad = [s for s, v in zip(series.steps, values, strict=True) if not math.isfinite(v)]
  if bad:
    chart += f'<p class="note">Not finite at {len(bad)} of {len(values)} logged steps, first at update {bad[0]:,}.</p>'
  return chart


def _each(run: Run, name: str) -> list[tuple[list[int], list[float]]]:
  """Steps and values of every seed."""
  return [(series.steps, _floats(series)) for series in by_seed(run.series, name)]


def _floats(series: Series) -> list[float]:
  """NaN where the log holds something else than a number."""
  return [v if isinstance(v, float) else math.nan for v in series.values]

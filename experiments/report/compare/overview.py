"""The head of the comparison, and the table with a row for every group."""

import dataclasses
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from experiments import revision
from experiments.report import heldout, parts, text
from experiments.report.compare import progress, scores, words
from experiments.report.compare.groups import Group
from experiments.report.run import Run, number
from ilx.evaluation import environments

# Such an interval of five seeds, whose true mean it should hold in 95 % of the cases, does in about 84 %; of ten, 91 %.
FEW = 10
# Intervals of two equal agents are apart in half of the cases with one seed each (326 of the 649 pairs of seeds in
# ``experiments/results/runs``), in 17 % with two, in 10 % with three, in 2 % with five.
_ENOUGH = 5
_NAMED = 12


def heading(groups: Sequence[Group]) -> str:
  """``BC and IQL on hopper-medium``, in plain text."""
  agents = list(dict.fromkeys(group.agent for group in groups))
  tasks = list(dict.fromkeys(group.task for group in groups))
  who = words.listed(agents) if len(agents) <= 4 else f"{len(agents)} agents"
  return f"{who} on {words.listed(tasks) if len(tasks) <= 2 else f'{len(tasks)} tasks'}"


def header(groups: Sequence[Group]) -> str:
  """Title, what is compared, and what is not as it should be."""
  runs = [run for group in groups for run in group.runs]
  unfinished = [run for run in runs if not progress.is_finished(run)]
  counts = [
    words.counted(len({group.task for group in groups}), "task"),
    words.counted(len({group.method for group in groups}), "setting"),
    words.counted(len(runs), "run"),
    f"{len(unfinished)} of them not finished" if unfinished else "",
  ]
  out = [f"<h1>{escape(heading(groups))}</h1>", f'<p class="sub">{escape(" · ".join(filter(None, counts)))}</p>']
  out.append(_best(groups))
  silent = [run for run in scores.without_evaluation(runs)]
  if silent:
    out.append(words.note(f"No evaluation in the log (yet): {_folders(silent)}."))
  broken = [run for run in runs if run.broken_lines]
  if broken:
    count = sum(run.broken_lines for run in broken)
    out.append(words.note(f"{count} damaged line(s) of log.jsonl are left out: {_folders(broken)}."))
  return "".join(out)


def table(groups: Sequence[Group]) -> str:
  """A row for every group; columns of which nothing is known are left out."""
  columns = _columns(groups)
  rows = [
    words.row(words.name(group), [(cells[place], right) for _, right, cells in columns])
    for place, group in enumerate(groups)
  ]
  heads = [("Agent", False), *((head, right) for head, right, _ in columns)]
  how = (
    "Scores are of the last checkpoint of finished runs, never of the best on the way. In small type: 95 % intervals "
    "by a bootstrap over seeds and episodes; of one seed over its episodes alone. Episodes: of every seed."
  )
  few = [group for group in groups if 1 <= len(scores.parts(group)) < FEW]
  if few:
    how += f" With fewer than {FEW} seeds such intervals are too narrow."
  if any(head == "Normalised" for head, _, _ in columns):
    how += " Normalised: 0 is a random policy, 100 the expert."
  return parts.section("Scores", words.table(heads, rows, "Scores of all groups") + words.note(how))


def runs(groups: Sequence[Group]) -> str:
  """A row for every run, closed until asked for."""
  rows = []
  for group in groups:
    decimals = decimals_of(groups, group.task)
    for run in group.runs:
      alone = dataclasses.replace(group, runs=[run])
      seconds, commit = progress.seconds(run), revision.short(run.result.get("git_commit"))
      cells = [
        (escape(str(run.folder)), False),
        (escape(group.task), False),
        (escape(", ".join(str(seed) for seed in progress.seeds(run)[:_NAMED])), True),
        (escape(progress.state(run)), False),
        (words.score(scores.returns(alone), decimals), True),
        (_normalized(alone), True),
        (text.duration(seconds) if seconds is not None else words.NOTHING, True),
        (escape(commit) or words.NOTHING, False),
      ]
      rows.append(words.row(words.name(group), cells))
  names = ("Agent", "Folder", "Dataset", "Seed", "State", "Mean return", "Normalised", "Time", "Commit")
  heads = [(head, head in ("Seed", "Mean return", "Normalised", "Time")) for head in names]
  body = words.table(heads, rows, "All runs")
  return f"<section><details><summary>Every run ({len(rows)})</summary>{body}</details></section>"


def decimals_of(groups: Sequence[Group], task: str) -> int:
  """Decimals that the returns of a task are printed with."""
  every = [part for group in groups if group.task == task for part in scores.parts(group)]
  return text.decimals_for(value for part in every if (value := number(part.get("return_mean"))) is not None)


def environment(group: Group) -> str:
  """``Hopper-v5, EnvPool 1.2.5``; of runs with several versions all of them."""
  if group.env_id is None:
    return "no environment"
  package = environments.library(group.env_id)
  name = {"envpool": "EnvPool"}.get(package, package)
  versions = sorted({str(v) for run in group.runs if (v := _versions(run).get(package))})
  kwargs = [run.result.get("env_kwargs") or run.config.get("env_kwargs") for run in group.runs]
  known = sorted({str(value) for value in kwargs if value})
  told = f"{name} {' and '.join(versions)}" if versions else ""
  return ", ".join(filter(None, [group.env_id or "environment not known yet", *known, told]))


def _versions(run: Run) -> dict[str, Any]:
  versions = run.result.get("versions")
  return versions if isinstance(versions, dict) else {}


def _columns(groups: Sequence[Group]) -> list[tuple[str, bool, list[str]]]:
  """(heading, whether of numbers, a cell for every group)."""
  measured = [
    (heldout.titled(path, measure.title), True, lambda group, p=path, m=measure: _measure(group, p, m))
    for path in dict.fromkeys(path for group in groups for held in scores.held(group) for path in held)
    for measure in heldout.MEASURES
    if measure.key != "commonest_share"
  ]
  made: list[tuple[str, bool, Callable[[Group], str]]] = [
    ("Dataset, environment", False, _where),
    ("Seeds", True, _seeds),
    ("Episodes", True, lambda group: " or ".join(f"{n:,}" for n in scores.episodes(group)) or words.NOTHING),
    ("Mean return", True, lambda group: words.score(scores.returns(group), decimals_of(groups, group.task))),
    ("Normalised", True, _normalized),
    ("Success", True, lambda group: _share(scores.mean_of(group, "success_rate"))),
    ("Hours", True, _hours),
    ("Last update", True, lambda group: f"{max(map(progress.last_step, group.runs)):,}"),
    ("State", False, _state),
    *measured,
  ]
  found = [(head, right, [cell(group) for group in groups]) for head, right, cell in made]
  return [column for column in found if any(cell != words.NOTHING for cell in column[2])]


def _where(group: Group) -> str:
  return f"{escape(group.task)}<small>{escape(environment(group))}</small>"


def _measure(group: Group, path: str, measure: heldout.Measure) -> str:
  found = scores.heldout(group, path, measure.key)
  if found is None:
    return words.NOTHING
  ends = " to ".join(heldout.shown(edge, measure.share) for edge in found.band) if found.band else ""
  return heldout.shown(found.mean, measure.share) + (f"<small>{ends}</small>" if ends else "")


def _seeds(group: Group) -> str:
  done, all_of_them = len(scores.parts(group)), scores.seeds(group)
  return f"{done:,}" if done == all_of_them else f"{done:,} of {all_of_them:,}"


def _normalized(group: Group) -> str:
  found = scores.normalized(group)
  if not found:
    return words.NOTHING
  first = scores.parts(group)[0]
  low, high = number(first.get("random_return")), number(first.get("expert_return"))
  score = scores.returns(group)
  # The interval of the mean return, on the other scale.
  band = tuple(100 * (edge - low) / (high - low) for edge in score.band) if score and score.band else None
  return words.score(scores.Score(sum(found) / len(found), band and (min(band), max(band))), 1)


def _share(value: float | None) -> str:
  return words.NOTHING if value is None else f"{text.fixed(100 * value, 1)} %"


def _hours(group: Group) -> str:
  known = [seconds for run in group.runs if (seconds := progress.seconds(run)) is not None]
  return text.fixed(sum(known) / 3600, 2 if sum(known) < 36000 else 1) if known else words.NOTHING


def _state(group: Group) -> str:
  states = [progress.state(run) for run in group.runs]
  if all(state == "finished" for state in states):
    return "finished"
  # One line for each unfinished run, up to a number that is still read; all of them are in the table of runs.
  late = [f"{run.folder.name}: {state}" for run, state in zip(group.runs, states, strict=True) if state != "finished"]
  more = [f"and {len(late) - FEW} more"] if len(late) > FEW else []
  done = states.count("finished")
  first = f"{done} of {len(states)} runs finished" if len(states) > 1 else "not finished"
  return escape(first) + "".join(f"<small>{escape(line)}</small>" for line in [*late[:FEW], *more])


def _best(groups: Sequence[Group]) -> str:
  """The highest mean return, where there is one task, and whether that is beyond chance."""
  scored = [(found, group) for group in groups if (found := scores.returns(group))]
  if len({group.task for group in groups}) > 1 or len(scored) < 2:
    return ""
  (best, first), (next_best, second) = sorted(scored, key=lambda one: -one[0].mean)[:2]
  decimals = decimals_of(groups, first.task)
  sentence = (
    f"Highest mean return: {first.method}, {text.fixed(best.mean, decimals)}; then {second.method}, "
    f"{text.fixed(next_best.mean, decimals)}"
  )
  fewest = min(len(scores.parts(group)) for group in (first, second))
  if fewest < _ENOUGH:
    sentence += f". With {fewest} seed{'s' * (fewest > 1)} that may be chance: train at least {_ENOUGH} of each"
  elif best.band and next_best.band:
    apart = best.band[0] > next_best.band[1]
    sentence += f". Their 95 % intervals {'do not overlap' if apart else 'overlap'}"
  return f'<p class="lede">{escape(sentence)}.</p>'


def _folders(found: Sequence[Run]) -> str:
  names = [run.folder.name for run in found[:_NAMED]]
  more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
  return words.listed([*names, *more])

"""The page of results, from the archive alone."""

import collections
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import ilx
from experiments import markdown, revision
from experiments.report import text
from experiments.results import archive, suite
from experiments.results.suite import Task
from ilx.evaluation import aggregates

NONE = "\N{EN DASH}"

PAGE = """# Results

Written by one command from the runs in `runs/` (every episode's return, the config, the versions):

    {command}

Without `--page_only` it first runs what is missing, and goes on where it was interrupted.

Scores are normalised, 0 for uniformly random actions and 100 for the expert (built-in tasks: the mode of the policy
that made the expert data; recordings of others: see `suite.py`). Scored is the last checkpoint, never the best on the
way, by the policy's mode, 100 episodes for every seed. A number is the mean over seeds and episodes, in brackets its
95 % interval (bootstrap over seeds and episodes, `ilx.evaluation.summary`; of five seeds it is somewhat too narrow and
holds the true mean in about 84 % of cases). Hyper-parameters are the papers', the same for all tasks where the paper
does so (`experiments/configs`, `suite.fields`); nothing was tuned here. But updates are fewer than the papers' (of
agents with values a million; of `dt` 100,000, and 10,000 of these warm up), learning rates rise and fall within a run,
and `chunked_bc` has chunks of 8 and `bc`'s network where ACT has 100 and a transformer. `bc_tanh` is behaviour cloning
with the head of the policies that played the built-in data, `bc10` of the episodes with the highest returns that make
up 10 % of the transitions; `dt` is asked for the return of the best episode; `chunked_bc` plays averages of its chunks,
as the paper does, which come late where motion is fast (`docs/agents.md`). "Data" is the mean return of the data.

{aggregates}
## Normalised scores

{scores}

## Returns

{returns}

## On the way

Normalised score after a quarter, half, three quarters (10 episodes for every seed) and all updates (100 episodes): has
the curve flattened? What became of some that have not is told in `docs/agents.md`, "What the papers set".

{curves}

## Updates and minutes

Updates of every run, and minutes it took (the median of the seeds: machines are shared, and runs wait for each other),
evaluations included, on the machines below.

{costs}

## Made with

{provenance}
"""


class Cell(NamedTuple):
  """One agent on one task.

  Attributes:
    agent, task: which.
    entries: of the archive, one for each seed.
  """

  agent: str
  task: Task
  entries: list[dict[str, Any]]

  @property
  def returns(self) -> np.ndarray:
    """``[seeds, episodes]``."""
    return np.array([entry["returns"] for entry in self.entries])

  def normalized(self, returns: Any) -> np.ndarray:
    """``returns`` as scores."""
    first = self.entries[0]
    expert = first["expert_return"] if self.task.expert_return is None else self.task.expert_return
    return np.asarray(ilx.evaluation.normalized(np.asarray(returns), first["random_return"], expert))


def page(folder: pathlib.Path, command: str) -> str:
  """The Markdown page of all that the archive has."""
  cells = [
    Cell(agent, task, entries)
    for task in suite.TASKS.values()
    for agent in suite.AGENTS
    if (entries := archive.alike(archive.read(folder, agent, task.dataset)))
  ]
  if not cells:
    raise ValueError(f"{folder} has no finished run")
  agents = [agent for agent in suite.AGENTS if any(cell.agent == agent for cell in cells)]
  table = _Table(cells, agents)
  return PAGE.format(
    command=command,
    aggregates=_aggregates(cells, agents),
    scores=table.of(_score, data=lambda cell: f"{float(cell.normalized(cell.entries[0]['data_return'])):.1f}"),
    returns=table.of(_return, data=lambda cell: _plain(cell.entries[0]["data_return"])),
    curves=table.of(_curve),
    costs=table.of(_cost),
    provenance=_provenance(cells),
  )


class _Table:
  """Tasks in rows, agents in columns."""

  def __init__(self, cells: Sequence[Cell], agents: Sequence[str]):
    self._cells = {(cell.task.dataset, cell.agent): cell for cell in cells}
    self._agents = agents
    self._names = list(dict.fromkeys(cell.task.dataset for cell in cells))

  def of(self, show: Callable[[Cell], str], data: Callable[[Cell], str] | None = None) -> str:
    """The table whose entries ``show`` makes; ``data`` adds a column on the data."""
    rows = []
    for name in self._names:
      found = [self._cells.get((name, agent)) for agent in self._agents]
      about = [data(next(cell for cell in found if cell))] if data else []
      rows.append([f"`{name}`", *about, *(show(cell) if cell else NONE for cell in found)])
    return markdown.table(["dataset", *(["data"] if data else []), *self._agents], rows)


def _score(cell: Cell) -> str:
  summary = ilx.evaluation.summary(cell.normalized(cell.returns))
  low, high = summary["mean_ci95"]
  count = len(cell.entries)
  few = f" ({count} seed{'s' if count > 1 else ''})" if count < 5 else ""
  return f"**{summary['mean']:.1f}** [{low:.1f}, {high:.1f}]{few}"


def _return(cell: Cell) -> str:
  return _plain(float(cell.returns.mean()))


def _plain(value: float) -> str:
  return text.fixed(value, text.decimals_for([value]), "-")


def _curve(cell: Cell) -> str:
  curves = [entry["curve"] for entry in cell.entries]
  if len({len(curve) for curve in curves}) != 1:
    return NONE
  means = cell.normalized(np.mean([[value for _, value in curve] for curve in curves], axis=0))
  return ", ".join(f"{mean:.0f}" for mean in means)


def _cost(cell: Cell) -> str:
  minutes = np.median([entry["seconds"] for entry in cell.entries]) / 60
  steps = sorted({entry["steps"] for entry in cell.entries})
  return f"{' and '.join(f'{n:,}' for n in steps)}; {minutes:.1f} min"


def _aggregates(cells: Sequence[Cell], agents: Sequence[str]) -> str:
  """For every group of tasks: mean and IQM over the tasks that all its agents have, with as many seeds as most.

  An agent that has less than half as many tasks as another is left out, as it would leave the others with as few.
  """
  parts = []
  for group in dict.fromkeys(cell.task.group for cell in cells):
    mine = [cell for cell in cells if cell.task.group == group]
    counts = collections.Counter(len(cell.entries) for cell in mine)
    seeds = max(counts, key=lambda count: (counts[count], count))
    mine = [cell for cell in mine if len(cell.entries) >= seeds]
    tasks = {agent: {cell.task.dataset for cell in mine if cell.agent == agent} for agent in agents}
    least = max(2, max(map(len, tasks.values())) / 2)
    several = [agent for agent in agents if len(tasks[agent]) >= least]
    common = set.intersection(*(tasks[agent] for agent in several)) if several else set()
    if len(common) < 2 or seeds < 2:  # intervals are over seeds
      continue
    rows, scores = [], {}
    for agent in several:
      chosen = [cell for cell in mine if cell.agent == agent and cell.task.dataset in common]
      found = scores[agent] = [cell.normalized(cell.returns[:seeds].mean(axis=1)) for cell in chosen]
      gap = aggregates.optimality_gap(found)
      rows.append([agent, _with(aggregates.interquartile_mean(found)), _with(aggregates.mean(found)), _with(gap)])
    for row, agent in zip(rows, several, strict=True):
      first = several[0]
      better = aggregates.probability_of_improvement(scores[agent], scores[first])
      row.append(NONE if agent == first else _with(better, 2))
    names = ", ".join(name for name in suite.TASKS if name in common)
    parts.append(
      f"## Over the tasks: {group}\n\nOver the {len(common)} tasks that all these agents have with {seeds} seeds "
      f"({names}): interquartile mean (IQM) of all runs, mean over tasks, gap to 100 (optimality gap, less is better), "
      f"and the probability that a run is better than one of `{several[0]}` on the same task; 95 % intervals by a "
      "bootstrap of the seeds of every task (Agarwal et al. 2021, `ilx.evaluation.aggregates`).\n\n"
      + markdown.table(["agent", "IQM", "mean", "gap", f"better than {several[0]}"], rows)
      + "\n"
    )
  return "\n".join(parts)


def _with(found: aggregates.Estimate, decimals: int = 1) -> str:
  return f"**{found.value:.{decimals}f}** [{found.low:.{decimals}f}, {found.high:.{decimals}f}]"


def _provenance(cells: Sequence[Cell]) -> str:
  entries = [entry for cell in cells for entry in cell.entries]

  def several(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values}))

  names = dict.fromkeys(name for entry in entries for name in entry["versions"])
  code = [revision.split(entry["git_commit"]) for entry in entries]
  rows = [
    ["runs", f"{len(entries):,}, {sum(entry['seconds'] for entry in entries) / 3600:.1f} hours"],
    ["seeds", several(entry["seed"] for entry in entries)],
    ["environments", several(entry["env_id"] for entry in entries)],
    ["machines", several(f"{entry['cpu']}, {entry['cores']} core(s) a run" for entry in entries)],
    ["devices", several(device for entry in entries for device in entry["devices"])],
    ["dates", several(entry["date"] for entry in entries)],
    ["commits", several(commit[:12] or "unknown" for commit, _ in code)],
    ["with changes to files of the commit", f"{sum(changed for _, changed in code):,} runs"],
    *([name, several(entry["versions"].get(name) for entry in entries)] for name in names),
  ]
  return markdown.table(["", ""], rows)

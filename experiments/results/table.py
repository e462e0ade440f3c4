"""From run folders to a page of results."""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

import ilx
from experiments import markdown
from experiments.report import text
from experiments.results.recordings import Recording
from ilx.evaluation import environments
from ilx.training import logs

HEADS = (
  "dataset",
  "environment",
  "episodes",
  "transitions",
  "updates",
  "**return**",
  "95 % interval",
  "each seed",
  "demonstrations",
  "reference clone",
  "random",
  "normalised",
  "minutes",
)
# Columns of words; all others are of numbers.
_LEFT = ("", "dataset", "environment")


class Row(NamedTuple):
  """What is known of one recording and its clones.

  Attributes:
    recording: the recording.
    results: ``result.json`` of every seed.
    curves: of every seed the (update, mean return) of every evaluation.
    wheres: ``where.json`` of every seed.
    data_return: mean return of the recording, as published.
    within_limit: the same, of the first so many steps as the task's time limit allows; None where no episode is longer.
    comparable: whether the recording was made with the time limit that the clones are played with, or a longer one.
  """

  recording: Recording
  results: list[dict[str, Any]]
  curves: list[list[tuple[int, float]]]
  wheres: list[dict[str, Any]]
  data_return: float
  within_limit: float | None
  comparable: bool

  @property
  def returns(self) -> np.ndarray:
    """``[seeds, episodes]``."""
    return np.array([result["returns"] for result in self.results])

  @property
  def normalized(self) -> float | None:
    """Mean score with the demonstrations as 100; None where they were made with a shorter time limit."""
    if not self.comparable:
      return None
    expert = self.data_return if self.within_limit is None else self.within_limit
    random = np.mean([result["random_return"] for result in self.results])
    return float(ilx.evaluation.normalized(self.returns.mean(), random, expert))


def collect(recording: Recording, data: pathlib.Path, folders: Sequence[pathlib.Path]) -> Row:
  """Reads the dataset under ``data`` and the run folders of its seeds."""
  results = [json.loads((folder / "result.json").read_text()) for folder in folders]
  metadata = ilx.data.read_info(ilx.data.resolve(data / recording.name)).metadata
  limit = environments.time_limit(results[0]["env_id"], **results[0]["env_kwargs"])
  recorded = metadata["recording"]["max_episode_steps"]
  return Row(
    recording=recording,
    results=results,
    curves=[curve(logs.read_jsonl(folder / "log.jsonl")) for folder in folders],
    wheres=[json.loads((folder / "where.json").read_text()) for folder in folders],
    data_return=metadata["data_return"],
    within_limit=within_limit(ilx.data.load(data / recording.name), limit),
    comparable=None in (recorded, limit) or recorded >= limit,
  )


def curve(rows: Iterable[dict[str, Any]]) -> list[tuple[int, float]]:
  """(update, mean return) of the evaluations in a log."""
  return [(row["step"], row["eval/return_mean"]) for row in rows if "eval/return_mean" in row]


def within_limit(episodes: ilx.data.Episodes, limit: int | None) -> float | None:
  """Mean return of the first ``limit`` transitions of every episode; None where none is longer or nothing limits."""
  lengths = ilx.data.lengths(episodes)
  if limit is None or lengths.max() <= limit:
    return None
  starts = np.asarray(episodes.starts)[:-1]
  reward = np.asarray(episodes.reward, np.float64)
  return float(np.mean([reward[s : s + min(n, limit)].sum() for s, n in zip(starts, lengths, strict=True)]))


def page(rows: Sequence[Row], command: str, variables: dict[str, str], commands: Sequence[tuple[str, str]]) -> str:
  """The page, in Markdown.

  Args:
    rows: one per dataset.
    command: the one that makes the page.
    variables: environment variables that the commands under it need.
    commands: per row how its dataset is converted, and how its first seed is trained.
  """
  seeds, episodes = rows[0].returns.shape
  notes = [f"* `{row.recording.name}`: {row.recording.note}" for row in rows if row.recording.note]
  exports = "\n".join(f"export {name}={value}" for name, value in variables.items())
  return "\n".join(
    [
      "# Behaviour cloning of demonstrations by others",
      "",
      "All of this page is written by one command, which can be interrupted and repeated:",
      "",
      *_block(command),
      f"The policy is scored with the parameters of the last update (never the best on the way), by {episodes} "
      f"episodes of each of {seeds} seeds, its actions being its mode. The interval is a bootstrap over seeds and "
      'episodes (`ilx.evaluation.summary`). "Demonstrations" is the mean return of the recording as published, '
      '"reference clone" what a short behaviour-cloning run of those who collected the recordings reached (one or '
      'two seeds, 20 to 100 episodes), "random" uniform actions, 100 episodes. Normalised: 0 is random, 100 the '
      "demonstrations (their rewards within the task's time limit). Minutes are wall clock of one run, training and "
      "evaluations, mean over seeds.",
      "",
      *_table(HEADS, [_cells(row) for row in rows]),
      *(["", *notes] if notes else []),
      "",
      "## During training",
      "",
      "Mean return over seeds (20 episodes each; the last column is the table's). The learning rate falls to zero "
      "along a cosine, so the last quarter changes little by design.",
      "",
      *_table(("dataset", "a quarter", "half", "three quarters", "all updates"), [_progress(row) for row in rows]),
      "",
      "## Commands",
      "",
      f"`experiments.results.bc` runs these, each for the seeds 0 to {seeds - 1}:",
      "",
      *_block("\n".join([exports, *(line for pair in commands for line in pair)])),
      "## Versions",
      "",
      *_provenance(rows),
      "",
    ]
  )


def _cells(row: Row) -> tuple[str, ...]:
  returns, result = row.returns, row.results[0]
  summary = ilx.evaluation.summary(returns)
  decimals = text.decimals_for(returns.mean(axis=1))

  def number(value: float | None, unknown: str = "\N{EN DASH}") -> str:
    return unknown if value is None else text.fixed(value, decimals)

  reference = number(row.recording.reference)
  if row.recording.reference_std is not None:
    reference += f" ± {number(row.recording.reference_std)}"
  demonstrations = number(row.data_return)
  if row.within_limit is not None:
    demonstrations += f" ({number(row.within_limit)} within the time limit)"
  return (
    f"`{row.recording.name}`",
    result["env_id"],
    f"{result['data_episodes']:,}",
    f"{result['data_transitions']:,}",
    f"{result['steps']:,}",
    f"**{number(summary['mean'])}**",
    " to ".join(number(edge) for edge in summary["mean_ci95"]),
    ", ".join(number(mean) for mean in returns.mean(axis=1)),
    demonstrations,
    reference,
    number(np.mean([result["random_return"] for result in row.results])),
    "\N{EN DASH}" if row.normalized is None else text.fixed(row.normalized, 1),
    f"{np.mean([result['seconds'] for result in row.results]) / 60:.1f}",
  )


def _progress(row: Row) -> tuple[str, ...]:
  means = np.mean([[value for _, value in points] for points in row.curves], axis=0)
  decimals = text.decimals_for(means)
  return (f"`{row.recording.name}`", *(text.fixed(mean, decimals) for mean in means))


def _provenance(rows: Sequence[Row]) -> list[str]:
  results = [result for row in rows for result in row.results]
  wheres = [where for row in rows for where in row.wheres]

  def several(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))

  names = dict.fromkeys(name for result in results for name in result["versions"])
  return [
    *_table(
      ("", ""),
      [
        ("date", several(where["date"] for where in wheres)),
        ("commit", several(result["git_commit"] or "unknown" for result in results)),
        ("machine", several(f"{where['cpu']}, {where['cores']} core(s) used" for where in wheres)),
        ("devices", several(device for result in results for device in result["devices"])),
        *((name, several(str(result["versions"].get(name)) for result in results)) for name in names),
      ],
    )
  ]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
  return markdown.table(heads, rows, [i for i, head in enumerate(heads) if head not in _LEFT]).splitlines()


def _block(code: str) -> list[str]:
  return ["```sh", *code.splitlines(), "```", ""]

"""What the runs of a sweep came to."""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

import ilx
from experiments import run, scoring
from experiments.report import facts, heldout
from experiments.report.compare import fields, groups, progress
from experiments.report.run import number, numbers, read_object
from ilx.training import logs

_SEED, _SEEDS = "seed", "seeds"
T = TypeVar("T")
# Fields of rows that no config has, where they tell runs apart: in which environment, from which version of the data.
_APART = {"played in": facts.played_in, "learnt from": facts.learnt_from}


class Row(NamedTuple):
  """A run, or several that differ in the seed alone.

  Attributes:
    name: of the run; empty for several.
    fields: what it has that others have not: fields of the config (other flags with their dashes), and their values;
      where runs of one config were played in different environments, also "played in"; "learnt from" likewise where
      they learnt from different versions of a dataset.
    state: "finished", or how far it is, or which of its files cannot be read.
    result: ``result.json``, empty where it is not there (yet); of several what it says of returns and of held-out
      actions, means over their seeds, with intervals; ``runs`` is the number of these.
  """

  name: str
  fields: Mapping[str, Any]
  state: str
  result: Mapping[str, Any]


def read(folder: pathlib.Path, swept: Mapping[str, Mapping[str, Any]] | None = None) -> list[Row]:
  """The runs of a sweep, one row each; of one with a damaged file the state says so.

  Args:
    folder: the sweep's.
    swept: the names of the runs, and in which fields they differ; None: every folder in it that has a config, and the
      fields in which these differ.

  Raises:
    ValueError: for no runs at all.
  """
  if swept is None:
    swept = _differing(folder)
  return _told_apart([Row(name, fields, *_come_to(folder / name)) for name, fields in swept.items()])


def over_seeds(rows: Sequence[Row]) -> list[Row]:
  """For those that differ in the seed alone one row, with intervals over seeds (and episodes, where they played).

  A run of several seeds is several by itself. Runs without a result and those that scored nothing are left out, and
  runs played in different environments, or that learnt from different versions of a dataset, are apart; empty where no
  two seeds are left that go together.
  """
  alike: dict[str, list[Row]] = {}
  for row in _told_apart(rows):
    if _returns(row) or _held(row):
      alike.setdefault(_but_for_the_seed(row), []).append(row)
  found = [_together(group) for group in alike.values()]
  return [row for row in found if row.result["runs"] > 1]


def _told_apart(rows: Sequence[Row]) -> list[Row]:
  """With those of ``_APART`` among the fields in which rows that are the same but for the seed differ.

  A config seldom names them: the environment is the dataset's, of which there may be another version between two runs.
  """
  for field, of in _APART.items():
    rows = _with_field(rows, field, [of(row.result) for row in rows])
  return list(rows)


def _with_field(rows: Sequence[Row], field: str, values: Sequence[str | None]) -> Sequence[Row]:
  found: dict[str, set[str]] = {}
  for row, value in zip(rows, values, strict=True):
    if value is not None:
      found.setdefault(_but_for_the_seed(row), set()).add(value)
  if all(len(several) == 1 for several in found.values()):
    return rows
  return [
    row if value is None else row._replace(fields={**row.fields, field: value})
    for row, value in zip(rows, values, strict=True)
  ]


def _but_for_the_seed(row: Row) -> str:
  return json.dumps(_fields(row), sort_keys=True)


def _fields(row: Row) -> dict[str, Any]:
  return {name: value for name, value in row.fields.items() if name not in (_SEED, _SEEDS)}


def _seeds(row: Row) -> dict[str, Mapping[str, Any]]:
  """What the result says of every seed, by the seed."""
  several = facts.seeds(row.result)
  alone = row.fields.get(_SEED, row.result.get(_SEED))
  return {str(part.get(_SEED)): part for part in several} if several else {str(alone): row.result}


def _returns(row: Row) -> dict[str, list[float]]:
  """The returns of every seed of a run; empty where one has none."""
  found = {seed: numbers(part.get("returns")) for seed, part in _seeds(row).items()}
  return found if all(found.values()) else {}


def _held(row: Row) -> dict[str, Mapping[str, Any]]:
  """What is known of held-out actions by every seed of a run; empty where one knows nothing."""
  found = {seed: heldout.found(part) for seed, part in _seeds(row).items()}
  return found if all(heldout.over_seeds([about]) for about in found.values()) else {}


def _together(rows: Sequence[Row]) -> Row:
  rows = [row for row in rows if _returns(row)] or rows
  # A seed that several runs have is one.
  returns = _first_of_each(_returns(row) for row in rows)
  held = _first_of_each(_held(row) for row in rows) if all(map(_held, rows)) else {}
  result = {"runs": len(returns or held)} | (_of_returns(rows, list(returns.values())) if returns else {})
  result |= {"heldout": heldout.over_seeds(list(held.values())) or None, "seconds": _mean(rows, "seconds")}
  return Row("", _fields(rows[0]), "finished", logs.jsonable(result))


def _first_of_each(found: Iterable[Mapping[str, T]]) -> dict[str, T]:
  by_seed: dict[str, T] = {}
  for own in found:
    for seed, one in own.items():
      by_seed.setdefault(seed, one)
  return by_seed


def _of_returns(rows: Sequence[Row], each: Sequence[Sequence[float]]) -> dict[str, Any]:
  """What is said of ``each`` seed's returns."""
  if len({len(own) for own in each}) > 1:
    each = [float(np.mean(own)) for own in each]  # every seed counts alike, however many episodes it played
  summary = ilx.evaluation.summary(np.array(each))
  random, expert = (_mean(rows, f"{who}_return") for who in ("random", "expert"))
  return {
    "return_mean": summary["mean"],
    "return_ci95": summary["mean_ci95"],
    "normalized_score": scoring.normalized(summary["mean"], random, expert),
  }


def _mean(rows: Sequence[Row], name: str) -> float | None:
  """None where a run does not know it."""
  values = [number(row.result.get(name)) for row in rows]
  return None if None in values else float(np.mean(values))


def _differing(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  configs: dict[str, dict[str, Any]] = {}
  others: list[str] = []  # of which no config tells anything
  for path in sorted(folder.glob("*/config.json")):
    try:
      configs[path.parent.name] = run.flat(read_object(path))
    except (OSError, ValueError):
      others.append(path.parent.name)
  if not configs and not others:
    raise ValueError(f"{folder} holds no runs; --workdir must name the folder of a sweep")
  # A run that is older than a field did as the field's default does.
  configs = {name: fields.defaults(str(config.get("agent.name"))) | config for name, config in configs.items()}
  differ = [name for name in fields.differing([*configs.values()]) if name == _SEED or name not in groups.ASIDE]
  found = {name: {field: config.get(field) for field in differ} for name, config in configs.items()}
  # Those that ended before they had a config have a log alone.
  others += sorted(path.stem for path in folder.glob("*.log") if path.stem not in {*found, *others})
  return found | {name: {} for name in others}


def _come_to(folder: pathlib.Path) -> tuple[str, dict[str, Any]]:
  """How far a run is, and its result."""
  files: dict[str, dict[str, Any]] = {}
  for name in ("config.json", "result.json", "diverged.json"):
    try:
      files[name] = read_object(folder / name)
    except (OSError, ValueError):
      return f"cannot be read: {name}", {}
  config, result = files["config.json"], files["result.json"]
  if result and result.get("steps") == config.get("steps"):
    return "finished" if (folder / "report.html").exists() else "no report yet", result
  rows = logs.read_jsonl(folder / "log.jsonl") if (folder / "log.jsonl").is_file() else []
  if not rows or not config:
    ended = (folder.parent / f"{folder.name}.log").exists() and not (folder / "config.json").exists()
    return ("failed, or not begun" if ended else "not started"), {}
  step, planned = rows[-1]["step"], number(config.get("steps"))
  whole = f" of {planned:,.0f}" if planned is not None else ""
  if (diverged := progress.diverged(folder, step)) is not None:
    return f"diverged at update {diverged:,}{whole}", {}
  return f"{step:,}{whole} updates", {}

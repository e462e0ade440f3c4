"""What the runs of a sweep came to."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import ilx
from experiments import run, scoring
from experiments.report.compare import fields, groups, progress
from ilx.training import logs

_SEED = "seed"


class Row(NamedTuple):
  """A run, or several that differ in the seed alone.

  Attributes:
    name: of the run; empty for several.
    fields: what it has that others have not: fields of the config (other flags with their dashes), and their values.
    state: "finished", or how far it is.
    result: ``result.json``, empty where it is not finished; of several what it says of returns; ``runs`` are its seeds.
  """

  name: str
  fields: Mapping[str, Any]
  state: str
  result: Mapping[str, Any]


def read(folder: pathlib.Path, swept: Mapping[str, Mapping[str, Any]] | None = None) -> list[Row]:
  """The runs of a sweep, one row each.

  Args:
    folder: the sweep's.
    swept: the names of the runs, and in which fields they differ; None: every folder in it that has a config, and the
      fields in which these differ.

  Raises:
    ValueError: for files that are no JSON, or no runs at all.
  """
  if swept is None:
    swept = _differing(folder)
  return [Row(name, fields, *_come_to(folder / name)) for name, fields in swept.items()]


def over_seeds(rows: Sequence[Row]) -> list[Row]:
  """For those that differ in the seed alone one row, with intervals over seeds and episodes.

  Unfinished runs and those that played nothing are left out; empty where no two are left that go together.
  """
  groups: dict[str, list[Row]] = {}
  for row in rows:
    if row.result.get("return_mean") is not None and _SEED in row.fields:
      others = {name: value for name, value in row.fields.items() if name != _SEED}
      groups.setdefault(json.dumps(others, sort_keys=True), []).append(row)
  return [_together(group) for group in groups.values() if len(group) > 1]


def _together(rows: Sequence[Row]) -> Row:
  returns: dict[int, np.ndarray] = {}
  for row in rows:
    several = row.result.get("per_seed")
    seeds = [one["seed"] for one in several] if several else [row.fields[_SEED]]
    for seed, own in zip(seeds, scoring.returns_of(row.result), strict=True):
      returns.setdefault(seed, own)  # a seed that several runs have is one
  fields = {name: value for name, value in rows[0].fields.items() if name != _SEED}
  summary = ilx.evaluation.summary(np.stack([*returns.values()]))
  random, expert = (_mean(rows, f"{who}_return") for who in ("random", "expert"))
  result = {
    "runs": len(returns),
    "return_mean": summary["mean"],
    "return_ci95": summary["mean_ci95"],
    "normalized_score": scoring.normalized(summary["mean"], random, expert),
    "seconds": _mean(rows, "seconds"),
  }
  return Row("", fields, "finished", logs.jsonable(result))


def _mean(rows: Sequence[Row], name: str) -> float | None:
  """None where a run does not know it."""
  values = [row.result[name] for row in rows]
  return None if None in values else float(np.mean(values))


def _differing(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  configs = {path.parent.name: run.flat(_json(path)) for path in sorted(folder.glob("*/config.json"))}
  if not configs:
    raise ValueError(f"{folder} holds no runs; --workdir must name the folder of a sweep")
  # A run that is older than a field did as the field's default does.
  configs = {name: fields.defaults(config.get("agent.name")) | config for name, config in configs.items()}
  differ = [name for name in fields.differing([*configs.values()]) if name == _SEED or name not in groups.ASIDE]
  found = {name: {field: config.get(field) for field in differ} for name, config in configs.items()}
  # Those that ended before they had a config have a log alone.
  others = sorted(path.stem for path in folder.glob("*.log") if path.stem not in found)
  return found | {name: {} for name in others}


def _come_to(folder: pathlib.Path) -> tuple[str, dict[str, Any]]:
  """How far a run is, and its result."""
  config = _json(folder / "config.json") if (folder / "config.json").exists() else {}
  if (folder / "result.json").exists():
    result = _json(folder / "result.json")
    if result.get("steps") == config.get("steps"):
      return "finished", result
  rows = logs.read_jsonl(folder / "log.jsonl") if (folder / "log.jsonl").exists() else []
  if not rows or not config:
    ended = (folder.parent / f"{folder.name}.log").exists() and not (folder / "config.json").exists()
    return ("failed, or not begun" if ended else "not started"), {}
  if (step := progress.diverged(folder, rows[-1]["step"])) is not None:
    return f"diverged at update {step:,} of {config['steps']:,}", {}
  return f"{rows[-1]['step']:,} of {config['steps']:,} updates", {}


def _json(path: pathlib.Path) -> Any:
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path} cannot be read: {error}") from None

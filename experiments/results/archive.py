"""Finished runs, small enough to be kept with the code: returns of every episode, the curve, config, versions.

One JSON file for an agent on a dataset, ``<folder>/<agent>/<dataset>.json``: a list with an entry for every seed.
"""

import fcntl
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import run
from ilx.training import logs

# Fields of a config that do not change what a seed learns or scores.
_FREE = ("seed", "seeds", "checkpoint_every", "checkpoint_minutes", "log_every", "evaluation.video")


def path(folder: pathlib.Path, agent: str, dataset: str) -> pathlib.Path:
  """Of the file with the runs of an agent on a dataset."""
  return folder / agent / f"{dataset}.json"


def read(folder: pathlib.Path, agent: str, dataset: str) -> list[dict[str, Any]]:
  """Its entries by rising seed and number of updates; an empty list where there are none."""
  file = path(folder, agent, dataset)
  return json.loads(file.read_text()) if file.exists() else []


def add(folder: pathlib.Path, agent: str, dataset: str, entries: Sequence[Mapping[str, Any]]) -> None:
  """Adds entries, in place of those of the same seed and config. Others who add at the same time wait."""
  file = path(folder, agent, dataset)
  file.parent.mkdir(parents=True, exist_ok=True)
  lock = os.open(file.parent, os.O_RDONLY)
  try:
    fcntl.flock(lock, fcntl.LOCK_EX)
    kept = [old for old in read(folder, agent, dataset) if not any(_same(old, new) for new in entries)]
    logs.write_json(file, sorted([*kept, *entries], key=lambda entry: (entry["seed"], entry["steps"])))
  finally:
    os.close(lock)


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
  return old["seed"] == new["seed"] and agree(old["config"], new["config"])


def agree(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
  """Whether two configs are one. Of fields that only one has nothing is known: a new one leaves all as it was."""
  return all(theirs[name] == value for name, value in ours.items() if name in theirs)


def alike(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """Those entries that have one config: of several configs the one with the most seeds, then with the most updates."""
  groups: list[list[dict[str, Any]]] = []
  for entry in found:
    own = next((group for group in groups if agree(group[0]["config"], entry["config"])), None)
    if own is None:
      groups.append(own := [])
    own.append(entry)
  return max(groups, key=lambda group: (len(group), group[0]["steps"]), default=[])


def entries(folder: pathlib.Path) -> list[dict[str, Any]]:
  """The entries of a finished run folder, one for each of its seeds."""
  result, config, where = (json.loads((folder / f"{name}.json").read_text()) for name in ("result", "config", "where"))
  rows = logs.read_jsonl(folder / "log.jsonl")
  several = result.get("per_seed") or [result]
  found = []
  for one in several:
    of_seed = f"/seed{one['seed']}" if len(several) > 1 else ""
    name = f"eval/return_mean{of_seed}"
    found.append(
      {
        "seed": one["seed"],
        "env_id": result["env_id"],
        "returns": [round(x, 4) for x in one["returns"]],
        "curve": [[row["step"], round(row[name], 4)] for row in rows if name in row],
        "random_return": result["random_return"],
        "expert_return": result["expert_return"],
        "data_return": result["data_return"],
        "data_episodes": result["data_episodes"],
        "data_transitions": result["data_transitions"],
        "steps": result["steps"],
        "seconds": round(result["seconds"] / len(several), 1),
        "updates_per_second": round(result["updates_per_second"], 1),
        "config": comparable(config),
        "versions": result["versions"],
        "devices": result["devices"],
        "git_commit": result["git_commit"],
        **where,
      }
    )
  return found


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of a config, flat, that decide what a seed learns and scores."""
  flat = run.flat(logs.jsonable(config))
  return {name: value for name, value in sorted(flat.items()) if name not in _FREE}

"""The fields of runs' configs. Runs older than a field lack it: they count as having its default."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.configs import defaults as configs
from experiments.report import facts
from experiments.report.run import Run, flatten
from ilx.training import logs


def of(run: Run) -> dict[str, Any]:
  """The fields by dotted name, those that the run lacks with the defaults of its agent's config."""
  return defaults(facts.name(run.config.get("agent"))) | flatten(run.config)


def assumed(run: Run) -> list[str]:
  """The fields that the run lacks and that have a default."""
  recorded = flatten(run.config)
  return [name for name in of(run) if name not in recorded]


@functools.cache
def defaults(agent: str) -> Mapping[str, Any]:
  """The fields of an agent's config; empty where there is none of this name."""
  config = configs.of(agent)
  return {} if config is None else flatten(logs.jsonable(config.to_dict()))


def differing(found: Sequence[Mapping[str, Any]]) -> list[str]:
  """The fields of which not all have the same value; a field that is None says as little as one that is not there."""
  names = dict.fromkeys(name for config in found for name in config)
  return [name for name in names if len({json.dumps(config.get(name)) for config in found}) > 1]


def text(value: Any) -> str:
  """A field's value in words."""
  return value if isinstance(value, str) and value else json.dumps(value)

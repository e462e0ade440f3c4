"""What is told about a dataset: one JSON-able dict, from which the terminal and the page are made."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import naming
from experiments.data import fields, findings, reading
from experiments.data.measure import Words, summary
from experiments.data.survey import Field, Survey
from experiments.report import charts

# Dimensions of a field that have a histogram of their own, and points of return against length.
HISTOGRAMS, _POINTS = 64, 1000
_TOP = 10
# Whole numbers that differ by less have a bin each.
_SINGLE = 12


def card(survey: Survey, splits: list[str], max_episodes: int | None = None) -> dict[str, Any]:
  """The card of a surveyed dataset; its keys are those below."""
  info = survey.info
  shards = {name: split.files for name, split in info.splits.items()}
  size = sum(path.stat().st_size for files in shards.values() for path in files if path.is_file())
  table = survey.episodes.columns()
  finite = {name: _finite(table[name]) for name in ("return", "length") if name in table}
  numbers = {name: _numbers(field) | _named(name, field, info.metadata) for name, field in survey.fields.items()}
  found = {
    "name": info.name,
    "version": info.version,
    "directory": str(info.directory),
    "file_format": info.file_format,
    "bytes": size,
    "splits": {
      name: {
        "episodes": split.num_episodes,
        "shards": len(split.files),
        "bytes": sum(path.stat().st_size for path in reading.files(info, name)),
      }
      for name, split in info.splits.items()
    },
    "read": {
      "splits": survey.splits,
      "max_episodes": max_episodes,
      "episodes": survey.episodes.seen,
      "steps": survey.steps,
      "transitions": survey.moves,
      "whole": max_episodes is None and splits == list(info.splits),
    },
    "metadata": info.metadata,
    "fields": [
      {"name": name, "type": fields.describe(feature)}
      for name, feature in [*fields.of_steps(info).items(), *fields.of_episodes(info).items()]
    ],
    "returns": _with_moments(finite.get("return"), survey.returns),
    "lengths": _with_moments(finite.get("length"), survey.lengths),
    "ends": {
      "terminal": survey.terminals,
      "time_limit": survey.episodes.seen - survey.terminals,
      "flagged_last": survey.flags["steps/is_last"],
    },
    "histograms": {name: _histogram(values) for name, values in finite.items() if len(values)},
    "points": _points(table),
    "numbers": numbers,
    "texts": {name: _words(words) for name, words in survey.texts.items()},
    "episode_metadata": {
      name: _words(value) if isinstance(value, Words) else {"numbers": summary(_finite(value.columns()["values"]))}
      for name, value in survey.metadata.items()
    },
    "idle": {
      "share": survey.idle / survey.moves if survey.moves else 0.0,
      "tolerance": survey.tolerance,
      "timeline": np.divide(
        survey.timeline[0],
        survey.timeline[1],
        out=np.full(len(survey.timeline[0]), np.nan),
        where=survey.timeline[1] > 0,
      ).tolist(),
    },
    # None where there is no action, or no transition.
    "same_action": survey.same and survey.same._asdict() | {"share": survey.same.steps / survey.same.length},
    "duplicates": {
      "steps": survey.distinct_steps.repeated,
      "episodes": survey.distinct_episodes.repeated,
      "exact": survey.distinct_episodes.exact and survey.distinct_steps.exact,
      "shared": _shared(survey),
    },
    "pictures": {name: {"repeated": distinct.repeated} for name, distinct in survey.pictures.items()},
    "unreadable": {"count": survey.num_problems, "first": survey.problems},
  }
  found["findings"] = findings.findings(survey, found)
  return found


def _numbers(field: Field) -> dict[str, Any]:
  values = field.sample.columns().get("values", np.empty((0, len(field.moments.count))))
  if values.dtype == bool:
    values = values.astype(np.uint8)
  if field.pooled:
    values = values.reshape(-1, 1)
  moments = field.moments
  quantiles = {key: [] for key in ("q01", "q25", "median", "q75", "q99")}
  distinct, mode, at_low, at_high = [], [], [], []
  for dimension in range(values.shape[1]):
    column = _finite(values[:, dimension])
    found, counts = np.unique(column, return_counts=True)
    distinct.append(len(found))
    mode.append(_share(counts.max(initial=0), len(column)))
    at_low.append(_share((column == moments.low[dimension]).sum(), len(column)))
    at_high.append(_share((column == moments.high[dimension]).sum(), len(column)))
    levels = np.quantile(column, [0.01, 0.25, 0.5, 0.75, 0.99]) if len(column) else [np.nan] * 5
    for key, level in zip(quantiles, levels, strict=True):
      quantiles[key].append(float(level))
  return {
    "shape": list(field.shape),
    "pooled": field.pooled,
    "count": moments.count.tolist(),
    "not_finite": moments.lost.tolist(),
    "mean": moments.mean.tolist(),
    "std": moments.std.tolist(),
    "min": moments.low.tolist(),
    "max": moments.high.tolist(),
    **quantiles,
    "sampled": len(values),
    "distinct": distinct,
    "most_frequent_share": mode,
    "at_min": at_low,
    "at_max": at_high,
    "outside_bounds": field.outside.tolist(),
    "at_bounds": field.at_bounds.tolist(),
    "histograms": [_histogram(_finite(values[:, i])) for i in range(min(values.shape[1], HISTOGRAMS))],
  }


def _named(name: str, field: Field, metadata: Mapping[str, Any]) -> dict[str, Any]:
  """What ``action_names`` in the metadata call a field's dimensions, or the choices of one, with the share of each.

  Empty where there are none that fit, as of whatever is no action.
  """
  _, top, *path = name.split("/")
  names = naming.at(metadata.get(naming.FIELD), path) if top == "action" else None
  if names is None or field.pooled:
    return {}
  if len(names) == len(field.moments.count):
    return {"names": names}
  values = field.sample.columns().get("values", np.empty((0, 1)))
  if field.shape or values.dtype.kind not in "iub" or not len(values):
    return {}
  if not 0 <= values.min() <= values.max() < len(names):
    return {}
  share = np.bincount(values[:, 0].astype(np.int64), minlength=len(names)) / len(values)
  return {"choices": {"names": names, "share": share.tolist()}}


def _points(table: dict[str, np.ndarray]) -> list[list[float]]:
  """Lengths, and returns where there are rewards, of episodes whose return is a number."""
  columns = [table[name] for name in ("length", "return") if name in table]
  known = np.logical_and.reduce([np.isfinite(column) for column in columns])
  return [column[known][:_POINTS].tolist() for column in columns]


def _histogram(values: np.ndarray) -> dict[str, list[float]] | None:
  if not len(values):
    return None
  is_byte = values.dtype == np.uint8
  values = np.asarray(values, np.float64)
  low, high = float(values.min()), float(values.max())
  edges = np.array(charts.bins(values.tolist()))
  if high > low and (values == np.round(values)).all() and max(abs(low), abs(high)) < 2**52:
    edges = _whole_edges(low, high, edges[1] - edges[0], is_byte)
  # A value on the last edge but for rounding still belongs to the last bin.
  counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
  return {"edges": edges.tolist(), "counts": counts.tolist()}


def _whole_edges(low: float, high: float, width: float, is_byte: bool) -> np.ndarray:
  """Edges of bins about ``width`` wide that hold equally many integers each; of bytes, of which 256 is a multiple."""
  each = 1 if high - low < _SINGLE else max(1, round(width))
  if is_byte:
    each = 1 << (each - 1).bit_length()
  first = low // each * each
  count = int((high - first) // each) + 1
  return first - 0.5 + each * np.arange(count + 1)


def _with_moments(values: np.ndarray | None, moments: Any) -> dict[str, float] | None:
  """Quartiles from the sample; mean, std, min and max of all."""
  found = None if values is None else summary(values)
  if found is None:
    return None
  exact = {"mean": moments.mean, "std": moments.std, "min": moments.low, "max": moments.high}
  return found | {key: float(value[0]) for key, value in exact.items()}


def _words(words: Words) -> dict[str, Any]:
  return {
    "total": words.total,
    "distinct": words.distinct,
    "at_least": words.capped,
    "most_frequent": [[value, count] for value, count in words.most_common(_TOP)],
  }


def _shared(survey: Survey) -> list[dict[str, Any]]:
  """Pairs of splits that have episodes in common."""
  names = list(survey.split_hashes)
  pairs = [(b, a, survey.split_hashes[b].shared(survey.split_hashes[a])) for a, b in itertools.combinations(names, 2)]
  return [{"split": a, "other": b, "share": share} for a, b, share in pairs if share > 0]


def _finite(values: np.ndarray) -> np.ndarray:
  return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _share(count: int, total: int) -> float:
  return float(count) / total if total else 0.0

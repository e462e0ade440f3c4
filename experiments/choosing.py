"""What a config's words on data mean: which datasets, which of their fields, and which of their episodes."""

import difflib
import pathlib
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

import ilx
from experiments import naming, versions
from experiments.demos import datasets
from ilx.data import decode, rlds, sampling, splits, table
from ilx.data import selection as select
from ilx.data.index import Index
from ilx.data.rlds import Info, Selection
from ilx.data.spec import BOUNDS
from ilx.parallel import hosts


class Part(NamedTuple):
  """One dataset, as the config names it; ``share`` of the batches, None where sizes decide."""

  name: str
  info: Info
  share: float | None


def parts(
  config: ml_collections.ConfigDict, recorded: Mapping[str, versions.Version] | None = None, field: str = "dataset"
) -> list[Part]:
  """The datasets that the config names, built-in ones built on first use.

  Args:
    config: with the field ``field``.
    recorded: for a run that began before, the versions that it began with; the newest are taken of others.
    field: "dataset" or "heldout_dataset".

  Raises:
    FileNotFoundError, ValueError: naming the field and what is wrong with it.

  Warns:
    UserWarning: where a recorded version is not the newest, or its files are others now.
  """
  recorded = recorded or {}
  found = [
    Part(name, rlds.read_info(_folder(name, recorded.get(name), f"config.{field}")), share)
    for name, share in shares(config[field], f"config.{field}").items()
  ]
  if hosts.is_first():  # others may have a part of a dataset only
    for part in found:
      if part.name in recorded:
        _compare(part, recorded[part.name])
  return found


def heldout(
  config: ml_collections.ConfigDict, learnt: Sequence[Part], recorded: Mapping[str, versions.Version] | None = None
) -> list[Part]:
  """The datasets that held-out episodes are of: where the config names no others those learnt from; or none.

  Raises:
    FileNotFoundError, ValueError: naming what is wrong with ``config.heldout_dataset``.
  """
  if not config.heldout_dataset:
    return list(learnt) if config.heldout else []
  if not config.heldout:
    raise ValueError("config.heldout_dataset: say which of its episodes, such as --config.heldout=train")
  found = parts(config, recorded, "heldout_dataset")
  if any(part.share is not None for part in found):
    raise ValueError(f"config.heldout_dataset={config.heldout_dataset!r}: all of them count; leave the shares out")
  return found


def _compare(part: Part, recorded: versions.Version) -> None:
  """Warns of what a run that began before might not expect of its dataset."""
  newest = datasets.VERSION if part.name in datasets.NAMES else ilx.data.resolve(part.name).name
  if newest != part.info.directory.name:
    warnings.warn(
      f"{part.name}: version {recorded.version} is used, with which the run began; there is {newest}, too", stacklevel=3
    )
  if versions.of(part.info).fingerprint != recorded.fingerprint:
    warnings.warn(
      f"{part.info.directory} changed since the run began, under the same version: what it learnt until now was of "
      "other data, or of other metadata",
      stacklevel=3,
    )


def shares(dataset: str, field: str = "config.dataset") -> dict[str, float | None]:
  """``"a=0.7,b=0.3"`` as shares by dataset; None without ``=``. A folder that exists is one dataset, whatever its name.

  Raises:
    ValueError: where it is neither.
  """
  if not any(mark in dataset for mark in ",=") or pathlib.Path(dataset).expanduser().is_dir():
    return {dataset: None}
  found: dict[str, float | None] = {}
  for piece in dataset.split(","):
    name, given, share = piece.strip().rpartition("=") if "=" in piece else (piece.strip(), "", "")
    if not name or name in found:
      raise ValueError(f"{field}={dataset!r}: {'a dataset twice: ' + name if name else 'a name is missing'}")
    try:
      found[name] = float(share) if given else None
    except ValueError:
      raise ValueError(f"{field}={dataset!r}: the share {share!r} of {name!r} is no number") from None
  if len({share is None for share in found.values()}) > 1:
    raise ValueError(f"{field}={dataset!r}: give all datasets a share, such as {next(iter(found))}=1, or none")
  return found


def _folder(name: str, recorded: versions.Version | None, field: str) -> pathlib.Path:
  if name in datasets.NAMES and (recorded is None or recorded.version == datasets.VERSION):
    return datasets.build(name)
  try:
    return ilx.data.resolve(name, None if recorded is None else recorded.version)
  except FileNotFoundError as error:
    if recorded is not None:
      raise FileNotFoundError(
        f"{field}: {error}, and the run began with version {recorded.version} ({versions.NAME} in its folder "
        "says so); put that version back, or train anew in another folder"
      ) from None
    # Of the names here and the built-in ones; of other collections' ("hopper-medium-v2") without their version.
    near = difflib.get_close_matches(re.sub(r"-v\d+$", "", name), datasets.NAMES, n=3, cutoff=0.6)
    built_in = (
      f"; the built-in ones most like it: {', '.join(near)}" if near else f"; built-in: {', '.join(datasets.NAMES)}"
    )
    raise FileNotFoundError(f"{field}: {error}{built_in}") from None


def agreed(all_parts: Sequence[Part]) -> dict[str, Any]:
  """The entries of ``metadata.json`` that all datasets have alike."""
  first, *others = (part.info.metadata for part in all_parts)
  return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}


def selection(config: ml_collections.ConfigDict, info: Info) -> Selection:
  """Which fields are read. Names may leave "observation/" out; pictures stay encoded until they are drawn."""
  steps = getattr(info.features.get("steps"), "feature", {})
  inside = steps.get("observation") if isinstance(steps, dict) else None

  def named(name: str) -> str:
    top = name.split("/")[0]
    return f"observation/{name}" if top not in steps and isinstance(inside, dict) and top in inside else name

  names = [named(name.strip()) for name in config.observation.split(",") if name.strip()]
  return Selection(
    observation=None if not names else names[0] if len(names) == 1 else tuple(names),
    action=config.action or None,
    fill=fill(config.fill),
    lazy=True,
  )


def of_action(config: ml_collections.ConfigDict, metadata: Mapping[str, Any]) -> dict[str, Any]:
  """The metadata with bounds and names of that part of the action alone that the config chooses: "action/stick"."""
  found = dict(metadata)
  for field in (*BOUNDS, naming.FIELD):
    for part in config.action.split("/")[1:]:
      if isinstance(found.get(field), Mapping):
        whole = found.pop(field)
        found |= {field: whole[part]} if part in whole else {}
  if config.action.split("/")[0] not in ("", "action"):
    found.pop(naming.FIELD, None)  # they are of the field "action"
  return found


def left_out(info: Info, chosen: Selection) -> list[str]:
  """Fields that have no place in arrays where nobody chose: texts, and what else varies within the observation."""
  if chosen.observation is not None:
    return []
  used = select.plan(info.features, chosen, info.directory / "features.json").fields
  unused = [leaf for leaf in decode.leaves(info.features["steps"], "steps") if leaf.name not in used]
  told = [leaf.name for leaf in unused if leaf.feature.kind == "text" or leaf.name.startswith("steps/observation/")]
  return [name.removeprefix("steps/") for name in told]


def fill(text: str) -> tuple[tuple[str, float | bool], ...]:
  """``"reward=0,is_terminal=false"`` as pairs. Raises ValueError where it is nothing like it."""
  pairs = []
  for piece in filter(None, text.replace(" ", "").split(",")):
    name, _, value = piece.partition("=")
    try:
      pairs.append((name, value.lower() == "true" if value.lower() in ("true", "false") else float(value)))
    except ValueError:
      raise ValueError(f"config.fill={text!r}: write such as reward=0,is_terminal=false") from None
  return tuple(pairs)


def check_split(info: Info, text: str, field: str) -> None:
  """Raises ValueError, which names the field of the config, where ``text`` is no split of the dataset."""
  try:
    splits.parse(text, info.splits)
  except ValueError as error:
    raise ValueError(f"{field}: {info.directory}: {error}") from None


def weigh(config: ml_collections.ConfigDict, info: Info, found: Index) -> np.ndarray | None:
  """``[E]``, 1 for episodes that are learnt from and 0 for others; None where all are."""
  if not config.where and config.top_return == 1:
    return None
  chosen = keep(config.where, info, config.split, found.num_episodes, "config.split")
  weights = np.zeros(found.num_episodes)
  weights[chosen] = sampling.top_return(config.top_return)(found.length[chosen], found.episode_return[chosen])
  return weights


def keep(where: str, info: Info, split: str, num_episodes: int, field: str) -> np.ndarray:
  """bool ``[E]``: the episodes for which the condition ``where`` holds."""
  chosen = np.full(num_episodes, not where)
  if where:
    try:
      chosen[table.select(info, where, split)] = True
    except ValueError as error:
      raise ValueError(f"config.where={where!r}: {error}") from None
    if not chosen.any():
      raise ValueError(f"config.where={where!r} holds for none of the {num_episodes} episodes of {field}={split}")
  return chosen


def overlap(info: Info, split: str, weights: np.ndarray | None, heldout: str) -> np.ndarray:
  """bool ``[E]``: which episodes of ``heldout`` are in ``split``, with a weight above 0, too."""
  drawn: dict[str, set[int]] = {}
  before = 0
  for name, start, stop in splits.parse(split, info.splits):
    counts = np.ones(stop - start, bool) if weights is None else weights[before : before + stop - start] > 0
    drawn.setdefault(name, set()).update((start + np.flatnonzero(counts)).tolist())
    before += stop - start
  held = [(name, number) for name, start, stop in splits.parse(heldout, info.splits) for number in range(start, stop)]
  return np.array([number in drawn.get(name, ()) for name, number in held])

"""From a config's fields on data to what is learnt from and what is held out."""

import functools
import math
import pathlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

import ilx
from experiments import choosing, naming, versions
from ilx.data import cache, index, rlds, sampling, stream
from ilx.data.index import Index
from ilx.data.mixing import differences, layout
from ilx.data.rlds import Info, Selection
from ilx.parallel import placement
from ilx.training import memory

TIERS = ("auto", "device", "host", "mapped", "streamed")
# Episodes whose size tells that of all.
_PROBED = 16

# what is done -> called with the episodes and steps done so far
Progress = Callable[[str], Callable[[int, int], None]]


class Heldout(NamedTuple):
  """What is not learnt from.

  Attributes:
    episodes: some of which count.
    keep: bool ``[E]``, which.
    names: of the action's dimensions and choices, as far as these and what is learnt from agree on them.
  """

  episodes: ilx.data.Episodes
  keep: np.ndarray
  names: naming.Names


class Data(NamedTuple):
  """What is learnt from.

  Attributes:
    train: for `ilx.train`.
    tier: for `ilx.train`.
    spec: of all datasets together.
    heldout: None where the config names none.
    facts: for ``result.json``: counts, the return, the tier, the fields of the observation, those with no place in
      arrays, and the counts of every dataset of a mixture.
    names: of the action's dimensions and choices, as far as the datasets have them.
    versions: which versions of the datasets these are, of those held out too, by the names that the config has.
  """

  train: ilx.data.Episodes | stream.Stream
  tier: str
  spec: ilx.Spec
  heldout: Heldout | None
  facts: dict[str, Any]
  names: naming.Names
  versions: dict[str, versions.Version]


def load(
  config: ml_collections.ConfigDict,
  all_parts: Sequence[choosing.Part],
  held: Sequence[choosing.Part],
  *,
  num_actions: int | None = None,
  progress: Progress = lambda what: lambda episodes, steps: None,
) -> Data:
  """The data, in the tier that the config asks for.

  Args:
    config: with the fields of ``configs/bc.py``.
    all_parts: its datasets.
    held: those that held-out episodes are of; none where there are none.
    num_actions: the environment's, of which data may lack the last ones.
    progress: told what takes long.

  Raises:
    FileNotFoundError, ImportError, OSError, ValueError: naming the file, the record or the field of the config.
  """
  if config.tier not in TIERS:
    raise ValueError(f"config.tier={config.tier!r}: choose one of {', '.join(TIERS)}")
  if not 0 < config.top_return <= 1:
    raise ValueError(f"config.top_return={config.top_return}: expected above 0, at most 1")
  read = [(part, "split") for part in all_parts] + [(part, "heldout") for part in held]
  for part, field in read:
    choosing.check_split(part.info, config[field], f"config.{field}")
  tier = config.tier
  if tier == "auto":
    sizes = [size_in_memory(part.info, config[field], choosing.selection(config, part.info)) for part, field in read]
    tier = "auto" if sum(sizes) <= memory.free_memory() // 2 else "mapped"

  indices, weights, opened, specs, names = [], [], [], {}, {}
  for part in all_parts:
    indices.append(_index(config, part, config.split, progress))
    weights.append(choosing.weigh(config, part.info, indices[-1]))
    specs[part.name], names[part.name] = _spec(config, part, indices[-1], num_actions)
    opened.append(_open(config, part, config.split, tier, weights[-1], progress))
  spec = _joined(specs)
  names = naming.agreed(names, spec.action)
  train = _together(all_parts, opened, tier)
  if tier == "auto":
    tier = "device" if memory.fits(train) else "host"
  heldout = None
  if held:
    drawn = {part.info.directory: weight for part, weight in zip(all_parts, weights, strict=True)}
    others = [part for part in held if part.info.directory not in drawn]
    agreed = _alike(config, others, spec, names, num_actions, progress)
    heldout = Heldout(*_held(config, held, drawn, tier, progress), agreed)
  return Data(
    train=train,
    tier={"device": "device", "streamed": "auto"}.get(tier, "host"),
    spec=spec,
    heldout=heldout,
    facts=_facts(config, all_parts, indices, weights, tier)
    | {
      "observation": _observation(spec),
      "left_out": choosing.left_out(all_parts[0].info, choosing.selection(config, all_parts[0].info)),
    },
    names=names,
    versions={part.name: versions.of(part.info) for part in (*all_parts, *held)},
  )


def describe(data: Data) -> str:
  """What is learnt from, in a line or two."""
  facts = data.facts
  fields = ", ".join(f"{name} {what}" for name, what in facts["observation"].items())
  line = f"{facts['data_episodes']:,} episodes, {facts['data_transitions']:,} transitions ({facts['tier']}); {fields}"
  left_out = f"\nnot learnt from, as they are no arrays of numbers: {', '.join(facts['left_out'])}"
  return line + (left_out if facts["left_out"] else "")


def size_in_memory(info: Info, split: str, chosen: Selection) -> int:
  """Bytes that the split's columns take, pictures encoded; estimated from some of its episodes."""
  with rlds.open_split(info, split) as records:
    places = np.unique(np.linspace(0, len(records) - 1, _PROBED).astype(int))
    probed = rlds.assemble(info, chosen, (records[int(place)] for place in places), where=f"split {split!r}")
    return math.ceil(sum(leaf.nbytes for leaf in jax.tree.leaves(probed)) / len(places) * len(records))


def _index(config: ml_collections.ConfigDict, part: choosing.Part, split: str, progress: Progress) -> Index:
  say = progress(f"statistics of {part.info.name}")
  return index.read(part.info, split, choosing.selection(config, part.info), say)


def _spec(
  config: ml_collections.ConfigDict, part: choosing.Part, found: Index, num_actions: int | None
) -> tuple[ilx.Spec, naming.Names]:
  """Of one dataset, and what it calls the dimensions and choices of its action."""
  metadata = choosing.of_action(config, part.info.metadata)
  if num_actions is not None:
    metadata.setdefault("num_actions", num_actions)
  spec = ilx.data.spec(found, metadata, frame_stack=config.frame_stack)
  return spec, naming.of(spec.action, metadata.get(naming.FIELD))


def _open(
  config: ml_collections.ConfigDict,
  part: choosing.Part,
  split: str,
  tier: str,
  weights: np.ndarray | None,
  progress: Progress,
) -> ilx.data.Episodes | stream.Stream:
  info, chosen = part.info, choosing.selection(config, part.info)
  if tier == "streamed":
    return stream.open(info.directory, split, selection=chosen, weights=weights)
  if tier == "mapped":
    episodes = cache.open(info, split, chosen, progress(f"columns of {info.name}"))
  else:
    episodes = rlds.load(info.directory, split, selection=chosen)
  return episodes if weights is None else sampling.weighted(episodes, weights)


def _together(
  all_parts: Sequence[choosing.Part], opened: Sequence[Any], tier: str
) -> ilx.data.Episodes | stream.Stream:
  if len(opened) == 1:
    return opened[0]
  weights = None if all_parts[0].share is None else {part.name: part.share for part in all_parts}
  mix = stream.mixture if tier == "streamed" else ilx.data.mixture
  return mix({part.name: data for part, data in zip(all_parts, opened, strict=True)}, weights)


def _joined(specs: Mapping[str, ilx.Spec]) -> ilx.Spec:
  """One spec for all datasets: statistics of all their steps, and bounds that hold all their actions."""
  if found := differences({name: _layout(spec) for name, spec in specs.items()}):
    raise ValueError("config.dataset: the datasets differ:\n  " + "\n  ".join(found))
  statistics = functools.reduce(ilx.data.merge, (spec.statistics for spec in specs.values()))
  action = jax.tree.map(_hull, *(spec.action for spec in specs.values()))
  bounds, taken = {name: _by_part(spec.action, _bounds) for name, spec in specs.items()}, _by_part(action, _bounds)
  differing = [part for part in taken if len({own[part] for own in bounds.values()}) > 1]
  if differing:
    each = {part: ", ".join(f"{own[part]} in {name!r}" for name, own in bounds.items()) for part in differing}
    lines = [f"{part}: {told}; taken: {taken[part]}" for part, told in each.items()]
    warnings.warn("the datasets' actions have different bounds:\n  " + "\n  ".join(lines), stacklevel=3)
  return next(iter(specs.values()))._replace(action=action, statistics=statistics)


def _observation(spec: ilx.Spec) -> dict[str, str]:
  return layout({"observation": spec.observation})


def _hull(*actions: Any) -> Any:
  """The smallest bounds of (a part of) an action that hold all of these."""
  first = actions[0]
  if isinstance(first, ilx.Continuous):
    lows, highs = ([getattr(action, edge) for action in actions] for edge in ("low", "high"))
    return ilx.Continuous(np.min(lows, axis=0), np.max(highs, axis=0))
  most = np.max([action.num_actions for action in actions], axis=0)
  return type(first)(int(most) if isinstance(first, ilx.Discrete) else tuple(most.tolist()))


def _layout(spec: ilx.Spec) -> dict[str, str]:
  def kind(part: Any) -> str:
    if isinstance(part, ilx.Continuous):
      return f"continuous {list(part.low.shape)}"
    return "discrete" if isinstance(part, ilx.Discrete) else f"{part.size} choices"

  return _observation(spec) | _by_part(spec.action, kind)


def _bounds(part: Any) -> str:
  if isinstance(part, ilx.Continuous):
    return " to ".join(np.array2string(edge, max_line_width=sys.maxsize) for edge in (part.low, part.high))
  return f"{np.array(part.num_actions)} actions"


def _by_part(action: Any, say: Callable[[Any], str]) -> dict[str, str]:
  parts = jax.tree_util.tree_leaves_with_path({"action": action})
  return {placement.name_of(path): say(part) for path, part in parts}


def _alike(
  config: ml_collections.ConfigDict,
  others: Sequence[choosing.Part],
  spec: ilx.Spec,
  names: naming.Names,
  num_actions: int | None,
  progress: Progress,
) -> naming.Names:
  """Checks that held-out datasets which are not learnt from have the same fields; the names that all agree on."""
  named = {config.dataset: names}
  for part in others:
    own, named[part.name] = _spec(config, part, _index(config, part, config.heldout, progress), num_actions)
    if found := differences({config.dataset: _layout(spec), part.name: _layout(own)}):
      raise ValueError("config.heldout_dataset: the datasets differ:\n  " + "\n  ".join(found))
  return naming.agreed(named, spec.action, "config.heldout_dataset")


def _held(
  config: ml_collections.ConfigDict,
  held: Sequence[choosing.Part],
  drawn: Mapping[pathlib.Path, np.ndarray | None],
  tier: str,
  progress: Progress,
) -> tuple[ilx.data.Episodes, np.ndarray]:
  """The held-out episodes of all datasets, on the host, and which of them count; ``drawn``: what is learnt from."""
  split, opened, keeps, shared = config.heldout, {}, [], 0
  for part in held:
    episodes = _open(config, part, split, "mapped" if tier in ("mapped", "streamed") else "host", None, progress)
    opened[part.name] = episodes
    keeps.append(choosing.keep(config.where, part.info, split, episodes.num_episodes, "config.heldout"))
    if part.info.directory in drawn:
      learnt = choosing.overlap(part.info, config.split, drawn[part.info.directory], split)
      shared += np.count_nonzero(keeps[-1] & learnt)
  keep = np.concatenate(keeps)
  if shared:
    warnings.warn(
      f"{shared} of {np.count_nonzero(keep)} held-out episodes are among those learnt from "
      f"(config.split={config.split}, config.heldout={split}): their scores say nothing about new episodes",
      stacklevel=2,
    )
  return ilx.data.mixture(opened) if len(opened) > 1 else next(iter(opened.values())), keep


def _facts(
  config: ml_collections.ConfigDict,
  all_parts: Sequence[choosing.Part],
  indices: Sequence[Index],
  weights: Sequence[np.ndarray | None],
  tier: str,
) -> dict[str, Any]:
  made_up = any(name == "reward" for name, _ in choosing.fill(config.fill))
  used = [slice(None) if drawn is None else drawn > 0 for drawn in weights]
  lengths = [found.length[which] for found, which in zip(indices, used, strict=True)]
  returns = [found.episode_return[which] for found, which in zip(indices, used, strict=True)]

  def counts(length: np.ndarray, earned: np.ndarray) -> dict[str, Any]:
    found = {"data_return": earned.mean(), "data_return_min": earned.min(), "data_return_max": earned.max()}
    found = {name: None if made_up else float(value) for name, value in found.items()}
    return {"data_episodes": len(length), "data_transitions": int(length.sum()), **found}

  of_each = [
    {"dataset": part.name, "share": part.share, **counts(*pair)}
    for part, *pair in zip(all_parts, lengths, returns, strict=True)
  ]
  total = counts(np.concatenate(lengths), np.concatenate(returns))
  return total | {"tier": tier, "datasets": of_each if len(of_each) > 1 else None}

"""Several datasets as one, each with its share of the batches."""

import itertools
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from ilx.data import sampling
from ilx.data.episodes import Episodes
from ilx.data.indexing import rows_at
from ilx.types import Tree


class Chain:
  """Columns one after the other that are indexed as one ``[N, ...]``, without copying them together.

  Indexing with an integer, a slice or an array of integers gives numpy arrays; ``np.asarray`` gives all.

  Attributes:
    parts: the columns: arrays, memory maps or ``Images``, of one dtype and one shape but for their length.
    shape: of all together.
    dtype: theirs.
  """

  def __init__(self, parts: Sequence):
    self.parts = tuple(parts)
    self._offsets = np.cumsum([0, *(len(part) for part in self.parts)])
    self.shape = (int(self._offsets[-1]), *self.parts[0].shape[1:])
    self.dtype = self.parts[0].dtype
    self.ndim = len(self.shape)

  def __len__(self) -> int:
    return self.shape[0]

  @property
  def nbytes(self) -> int:
    """Bytes held."""
    return sum(part.nbytes for part in self.parts)

  def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
    rows = rows_at(index, len(self), ("chain", "rows"))
    part_of = np.searchsorted(self._offsets, rows, side="right") - 1
    found = np.empty((*rows.shape, *self.shape[1:]), self.dtype)
    for number in np.unique(part_of):
      here = part_of == number
      found[here] = self.parts[number][rows[here] - self._offsets[number]]
    return found

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    del copy  # always new memory
    found = np.concatenate([np.asarray(part) for part in self.parts])
    return found if dtype is None else found.astype(dtype)


def mixture(datasets: Mapping[str, Episodes], weights: Mapping[str, float] | None = None) -> Episodes:
  """Several datasets as one; columns are chained, not copied. (Of streams: ``stream.mixture``.)

  Args:
    datasets: by name; the names are for the weights and for errors.
    weights: each dataset's share of the items drawn, relative to the others', whatever the view. By default a dataset
      has as many shares as items. Weights within a dataset (``weighted``) say which of its items these are.

  Raises:
    TypeError: where ``datasets`` is no dict of ``Episodes``.
    ValueError: where the datasets do not fit together, with all their differences; where ``weights`` name
      other datasets, or a share is not above 0.
  """
  if not isinstance(datasets, Mapping):
    raise TypeError(f'mixture: expected a dict of datasets, such as {{"a": a, "b": b}}, got {type(datasets).__name__}')
  if not datasets:
    raise ValueError("mixture: no datasets")
  if other := [name for name, episodes in datasets.items() if not isinstance(episodes, Episodes)]:
    raise TypeError(f"mixture: {other[0]!r} is no Episodes; of streams make one with ilx.data.stream.mixture")
  if found := differences({name: layout(_columns(x), batch_axes=1) for name, x in datasets.items()}):
    raise ValueError("mixture: the datasets differ:\n  " + "\n  ".join(found))
  parts = list(datasets.values())
  offsets = np.cumsum([0, *(part.num_steps for part in parts)])
  if offsets[-1] > np.iinfo(np.int32).max:
    raise ValueError(f"mixture: {offsets[-1]} steps do not fit one index; stream them instead")
  columns = ("observation", "action", "reward", "discount", "is_terminal", "extras")
  chained = {name: jax.tree.map(lambda *x: Chain(x), *(getattr(part, name) for part in parts)) for name in columns}
  rows = np.concatenate([np.asarray(part.rows) + before for part, before in zip(parts, offsets, strict=False)])
  ends = [np.asarray(part.starts)[1:] + before for part, before in zip(parts, offsets, strict=False)]
  source = np.repeat(np.arange(len(parts)), [part.num_episodes for part in parts])
  share = None if weights is None else np.array(list(check_shares(datasets, weights).values()))
  joint = sampling.Weights(np.concatenate([_own_weights(part) for part in parts]), source, share)
  result = Episodes(starts=np.concatenate([[0], *ends]), rows=rows.astype(np.int32), weights=joint, **chained)
  return sampling.narrowed(result, np.ones(len(rows), bool))


def _own_weights(episodes: Episodes) -> np.ndarray:
  """A dataset's weights by episode, ``[E]``."""
  if episodes.weights is None:
    return np.ones(episodes.num_episodes)
  episode = sampling.episode_of(episodes, np.asarray(episodes.rows))
  return sampling.item_weights(np.bincount(episode, minlength=episodes.num_episodes), *episodes.weights)


def check_shares(datasets: Mapping[str, object], weights: Mapping[str, float]) -> dict[str, float]:
  """The weights by dataset. Raises ValueError where they name others or are not above 0."""
  if set(weights) != set(datasets):
    raise ValueError(f"mixture: weights for {sorted(weights)}, datasets {sorted(datasets)}; one weight for each")
  for name, weight in weights.items():
    if not (np.isfinite(weight) and weight > 0):
      raise ValueError(f"mixture: weight {weight} of {name!r}; expected a number above 0")
  return {name: float(weights[name]) for name in datasets}


def differences(layouts: Mapping[str, Mapping[str, str]]) -> list[str]:
  """One line for every field in which the datasets differ.

  Args:
    layouts: by dataset, a description of each field by name.
  """
  names = sorted(set(itertools.chain.from_iterable(layouts.values())))
  lines = []
  for name in names:
    found = {dataset: layout.get(name, "absent") for dataset, layout in layouts.items()}
    if len(set(found.values())) > 1:
      lines.append(f"{name}: " + ", ".join(f"{text} in {dataset!r}" for dataset, text in found.items()))
  return lines


def layout(tree: Tree, *, batch_axes: int = 0) -> dict[str, str]:
  """The dtype and shape of every leaf by name, without its first ``batch_axes`` axes; see ``differences``."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): f"{np.dtype(leaf.dtype)} {list(leaf.shape[batch_axes:])}"
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _columns(episodes: Episodes) -> dict[str, Tree]:
  return {"observation": episodes.observation, "action": episodes.action, "extras": episodes.extras}

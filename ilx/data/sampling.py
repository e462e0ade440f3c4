"""Drawing rows: uniformly, or with a weight for every episode; the same bits on the host as on a device."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ilx.types import Array

if TYPE_CHECKING:
  from ilx.data.episodes import Episodes

# From the episodes' lengths in transitions, int64 [E], and returns, float64 [E], to weights [E].
Weigh = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Weights(NamedTuple):
  """How often items are drawn, by the episode they are of; counts on the host alone.

  Attributes:
    weight: float64 ``[E]``, of each item of an episode, relative to the others of its dataset.
    source: int64 ``[E]``, the number of the dataset in a mixture.
    share: float64 ``[D]``, of the items drawn, each dataset's; None: as many as it has items of a weight above 0.
  """

  weight: np.ndarray
  source: np.ndarray
  share: np.ndarray | None = None


class Table(NamedTuple):
  """Drawing an episode in constant time (Walker's alias method, Vose 1991), then one of its rows uniformly.

  Attributes:
    threshold: float32 ``[G]``. Of G groups of rows one is drawn uniformly; with this probability it is kept...
    alias: int32 ``[G]``, ...and otherwise this one taken.
    first: int32 ``[G]``, where the group begins in ``Episodes.rows``.
    count: int32 ``[G]``, how many rows it has.
  """

  threshold: Array
  alias: Array
  first: Array
  count: Array


def positions(key: jax.Array, table: Table | None, num_rows: int | jax.Array, batch_size: int) -> jax.Array:
  """int32 ``[batch_size]`` places in ``Episodes.rows``, drawn with replacement; pure."""
  if table is None:
    return jax.random.randint(key, (batch_size,), 0, num_rows)
  group_key, keep_key, row_key = jax.random.split(key, 3)
  group = jax.random.randint(group_key, (batch_size,), 0, len(table.threshold))
  keep = jax.random.uniform(keep_key, (batch_size,)) < table.threshold[group]
  group = jnp.where(keep, group, table.alias[group])
  return table.first[group] + jax.random.randint(row_key, (batch_size,), 0, table.count[group])


def draw(key: jax.Array, episodes: "Episodes", batch_size: int) -> jax.Array:
  """int32 ``[batch_size]`` rows on which items begin; pure, for episodes on the device."""
  return episodes.rows[positions(key, episodes.table, len(episodes.rows), batch_size)]


@functools.partial(jax.jit, static_argnums=(4, 5))
def _many(key: jax.Array, table: Table | None, num_rows: Array, start: Array, count: int, batch_size: int) -> jax.Array:
  def one(i: jax.Array) -> jax.Array:
    return positions(jax.random.fold_in(key, i), table, num_rows, batch_size)

  numbers = start + jnp.arange(count)
  # Of other generators (rbg) the bits of a key depend on the keys beside it.
  return jax.vmap(one)(numbers) if jax.random.key_impl(key) == "threefry2x32" else jax.lax.map(one, numbers)


def positions_many(key: jax.Array, episodes: "Episodes", start: int, count: int, batch_size: int) -> jax.Array:
  """int32 ``[count, batch_size]`` places in ``rows`` for batches ``start`` to ``start + count - 1``, on the host.

  Batch ``i`` is ``positions`` with ``fold_in(key, i)``, to the bit. Returns before they are computed.
  """
  with jax.default_device(host_device("batches of data in host memory are drawn")):
    key = jax.random.wrap_key_data(np.asarray(jax.random.key_data(key)), impl=jax.random.key_impl(key))
    table = None if episodes.table is None else Table(*map(np.asarray, episodes.table))
    return _many(key, table, np.int32(len(episodes.rows)), np.int32(start), count, batch_size)


def host_device(what: str) -> jax.Device:
  """The host's CPU. Raises RuntimeError where jax was told to leave it out; ``what`` is done there."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError as error:
    chosen = jax.config.jax_platforms
    raise RuntimeError(
      f"{what} on the CPU, which JAX_PLATFORMS={chosen} leaves out; set JAX_PLATFORMS={chosen},cpu"
    ) from error


def weighted(episodes: "Episodes", weights: Weigh | np.ndarray) -> "Episodes":
  """Episodes of which items are drawn with probability proportional to their episode's weight.

  Args:
    episodes: numpy columns.
    weights: ``[E]``, at least 0; or what makes them of lengths and returns, such as ``top_return(0.1)``. Each
      transition of an episode has the episode's weight, so that equal weights draw as none do. What an earlier call
      gave the weight 0 is gone. Of a mixture with shares every dataset keeps its share (of a mixture of mixtures, the
      outermost ones do); of one without, episodes of different datasets are weighed against each other.

  Raises:
    ValueError: where weights are not ``[E]``, negative, not finite, or all zero.
  """
  from ilx.data.episodes import lengths, returns

  if callable(weights):
    weights = weights(lengths(episodes), returns(episodes))
  weights = check_weights(weights, episodes.num_episodes)
  before = episodes.weights
  if before is None or before.share is None:
    before = Weights(weights, np.zeros(len(weights), np.int64))
  return narrowed(episodes.replace(weights=before._replace(weight=weights)), np.ones(len(episodes.rows), bool))


def narrowed(episodes: "Episodes", keep: np.ndarray) -> "Episodes":
  """Episodes whose ``rows`` are those where ``keep`` (bool ``[M]``) is true and whose weight is above 0.

  Weights and shares are of the items that are left.

  Raises:
    ValueError: where none is left, or none of a dataset of a mixture with shares.
  """
  rows = np.asarray(episodes.rows)[keep]
  episode = episode_of(episodes, rows)
  if episodes.weights is not None:
    drawn = np.asarray(episodes.weights.weight)[episode] > 0
    rows, episode = rows[drawn], episode[drawn]
  if not len(rows):
    raise ValueError("episodes: no step is left to draw from; every episode is too short, or without weight")
  table = None
  if episodes.weights is not None:
    count = np.bincount(episode, minlength=episodes.num_episodes)
    table = make_table(episode, item_weights(count, *map(_numpy, episodes.weights)))
  return episodes.replace(rows=rows, table=table)


def _numpy(x: Array | None) -> np.ndarray | None:
  return None if x is None else np.asarray(x)


def item_weights(
  count: np.ndarray, weight: np.ndarray, source: np.ndarray, share: np.ndarray | None = None
) -> np.ndarray:
  """The weight of each item by episode, float64 ``[E]``, so that every dataset of a mixture has its share.

  Args:
    count: ``[E]``, items of every episode.
    weight: see ``Weights``, as the others.
    source: which dataset each episode is of.
    share: of every dataset.

  Raises:
    ValueError: where a dataset with a share has no item of a weight above 0.
  """
  weight = weight / weight.max()
  number = int(source.max()) + 1 if share is None else len(share)
  mass = np.bincount(source, weight * count, minlength=number)
  if share is None:
    share = np.bincount(source, count * (weight > 0), minlength=number)
  elif (mass == 0).any():
    which = int(np.argmin(mass))
    raise ValueError(
      f"mixture: no item is left of dataset {which + 1} of {number}; every episode is too short, or without weight"
    )
  return weight * (share / np.where(mass > 0, mass, 1))[source]


def check_weights(weights: np.ndarray, num_episodes: int) -> np.ndarray:
  """Weights as float64 ``[E]``. Raises ValueError where they are none."""
  weights = np.asarray(weights, np.float64)
  if weights.shape != (num_episodes,):
    raise ValueError(f"weights: shape {weights.shape}; expected one for each of {num_episodes} episodes")
  if not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
    raise ValueError("weights: must be finite, at least 0, and not all 0")
  return weights


def episode_of(episodes: "Episodes", rows: np.ndarray) -> np.ndarray:
  """The number of the episode that each row belongs to, int64."""
  return np.searchsorted(np.asarray(episodes.starts), rows, side="right") - 1


def make_table(episode: np.ndarray, weights: np.ndarray) -> Table | None:
  """The table for rows of these episodes (rising, ``[M]``); None where all weigh the same.

  Args:
    episode: the episode of each row.
    weights: ``[E]``, of each transition of an episode.
  """
  group, first, count = np.unique(episode, return_index=True, return_counts=True)
  weight = weights[group]
  if np.all(np.isclose(weight, weight[0], rtol=1e-12, atol=0)):
    return None
  mass = weight / weight.max() * count
  threshold, alias = _alias(mass / mass.sum())
  return Table(threshold, alias, first.astype(np.int32), count.astype(np.int32))


def _alias(probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Vose's method: every small group is filled up to 1 / G by a large one."""
  scaled = (probability * len(probability)).tolist()
  threshold, alias = np.ones(len(scaled), np.float32), np.arange(len(scaled), dtype=np.int32)
  small = [i for i, x in enumerate(scaled) if x < 1]
  large = [i for i, x in enumerate(scaled) if x >= 1]
  while small and large:
    low, high = small.pop(), large[-1]
    threshold[low], alias[low] = scaled[low], high
    scaled[high] -= 1 - scaled[low]
    if scaled[high] < 1:
      small.append(large.pop())
  return threshold, alias


def top_return(fraction: float) -> Weigh:
  """The best episodes that make up ``fraction`` of all transitions weigh 1, the others 0.

  Chen et al. 2021, section 4.2 ("%BC"): the top X % of time steps, ordered by the return of their episode. The
  episode on the border counts in, so that at least one is left.

  Raises:
    ValueError: where ``fraction`` is not in (0, 1].
  """
  if not 0 < fraction <= 1:
    raise ValueError(f"top_return: fraction is {fraction}; expected above 0, at most 1")

  def weigh(length: np.ndarray, episode_return: np.ndarray) -> np.ndarray:
    order = np.argsort(-episode_return, kind="stable")
    before = np.cumsum(length[order]) - length[order]
    weights = np.zeros(len(length))
    # 0.07 * 100 is more than 7, and one more episode would count in.
    weights[order] = before < fraction * length.sum() * (1 - 1e-12)
    return weights

  return weigh


def per_episode(length: np.ndarray, episode_return: np.ndarray) -> np.ndarray:
  """Weights 1 / length: where items begin at every step, an episode is drawn as often as any other, however long."""
  del episode_return
  return 1.0 / np.maximum(length, 1)

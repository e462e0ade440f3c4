"""Updates whose numbers are not finite: which was the first, and what it learnt from."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ilx.data import sampling
from ilx.data.episodes import Episodes
from ilx.parallel import placement, replicas
from ilx.training import feed, logs
from ilx.training import seeds as seeds_lib
from ilx.types import Agent, Tree, View

SKIPPED = "skipped"
# Beside the metrics in `Sums.first`.
STATE = "the state"


class Sums(NamedTuple):
  """What a device program gathers over its updates, by the metric's name.

  Attributes:
    metrics: their sums, float32 ``[]``, of many seeds ``[S]``.
    rest: by how much these are too large, so that a million updates are summed as precisely as a few (Kahan 1965).
    first: the number of the first update (from 1) in which it was not finite, int32 shaped alike; 0: none. Under
      ``STATE`` the update after which the state was found not to be.
  """

  metrics: dict[str, jax.Array]
  rest: dict[str, jax.Array]
  first: dict[str, jax.Array]


def scalars(agent: Agent) -> Agent:
  """The agent with metrics of float32: sums of other types would be others' means.

  Raises:
    ValueError: from ``update``, naming a metric that is no scalar.
  """

  def update(state: Any, batch: Tree) -> tuple[Any, dict[str, jax.Array]]:
    state, metrics = agent.update(state, batch)
    for name, value in metrics.items():
      if jnp.shape(value):
        raise ValueError(f"the agent's metric {name!r} has the shape {jnp.shape(value)}; expected a scalar")
    return state, {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}

  return agent._replace(update=update)


def zeros(metrics: Mapping[str, jax.ShapeDtypeStruct], shape: tuple[int, ...]) -> Sums:
  """Before the first update, given the shapes of the metrics; ``shape``: ``()``, of many seeds ``(S,)``."""
  return Sums(
    {name: jnp.zeros(x.shape, x.dtype) for name, x in metrics.items()},
    {name: jnp.zeros(x.shape, x.dtype) for name, x in metrics.items()},
    {name: jnp.zeros(x.shape, jnp.int32) for name, x in metrics.items()} | {STATE: jnp.zeros(shape, jnp.int32)},
  )


def add(sums: Sums, metrics: Mapping[str, jax.Array], step: jax.Array) -> Sums:
  """After an update, of which ``step`` is the number, from 1."""
  first = {name: _first(sums.first[name], ~jnp.isfinite(x), step) for name, x in metrics.items()}
  added = {name: x - sums.rest[name] for name, x in metrics.items()}
  total = {name: sums.metrics[name] + x for name, x in added.items()}
  rest = {name: (total[name] - sums.metrics[name]) - x for name, x in added.items()}
  return Sums(total, rest, sums.first | first)


def look(sums: Sums, before: jax.Array, after: jax.Array, step: jax.Array) -> Sums:
  """After ``step`` updates: metrics are of before an update, so they do not tell what the last one did to the state.

  ``before`` and ``after``: ``finite`` of the state before the updates and after them, of many seeds ``[S, leaves]``.
  A part that never was finite, a best loss of infinity for example, is none of ours.
  """
  bad = (before & ~after).any(-1)
  return sums._replace(first=sums.first | {STATE: _first(sums.first[STATE], bad, step)})


def finite(state: Any) -> jax.Array:
  """Of every leaf of floats, whether all its numbers are finite, bool ``[leaves]``."""
  leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  return jnp.array([jnp.isfinite(leaf).all() for leaf in leaves], bool)


def _first(first: jax.Array, bad: jax.Array, step: jax.Array) -> jax.Array:
  return jnp.where((first == 0) & bad, step, first)


def skipping(update: Callable[[Any, Tree], tuple[Any, dict[str, jax.Array]]]) -> Callable:
  """An update that leaves the state as it was, but for ``step``, where a metric is not finite, or a number of the state
  that was finite no longer is.

  Metrics are then 0, and ``skipped`` is 1, else 0. The next update sees the next batch.
  """

  def skip(state: Any, batch: Tree) -> tuple[Any, dict[str, jax.Array]]:
    new, metrics = update(state, batch)
    metrics = replicas.mean(metrics)  # so that all replicas agree
    good = [jnp.isfinite(x).all() for x in metrics.values()]
    for old_leaf, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
      if jnp.issubdtype(leaf.dtype, jnp.inexact):
        good.append((jnp.isfinite(leaf) | ~jnp.isfinite(old_leaf)).all())
    ok = jnp.stack(good).all()
    kept = jax.tree.map(lambda a, b: a if a is new.step else jnp.where(ok, a, b), new, state)
    metrics = {name: jnp.where(ok, x, jnp.zeros_like(x)) for name, x in metrics.items()}
    return kept, metrics | {SKIPPED: 1.0 - ok.astype(jnp.float32)}

  return skip


class Found(NamedTuple):
  """The first update that was not finite.

  Attributes:
    step: its number, from 1: it used batch ``step - 1``.
    names: of the metrics that were not finite in it, and ``STATE``, last, where that was found not to be after it.
    place: of many seeds, which; 0.
  """

  step: int
  names: list[str]
  place: int


def find(first: Mapping[str, np.ndarray]) -> Found | None:
  """What ``Sums.first``, fetched, says; of several seeds the one that was first."""
  flat = {name: np.atleast_1d(values) for name, values in first.items()}
  bad = {(int(step), place) for values in flat.values() for place, step in enumerate(values) if step}
  if not bad:
    return None
  step, place = min(bad)
  names = [name for name, values in flat.items() if values[place] == step]
  return Found(step, sorted(names, key=lambda name: name == STATE), place)


def save(
  folder: pathlib.Path, found: Found, agent: Agent, data: Any, batch_size: int, seed: int, last_row: Mapping[str, Any]
) -> None:
  """Writes what can be looked at: ``diverged.json``, and the batches in ``diverged.npz``.

  Of the update found and of the one before, whose gradients may have been the reason.

  Args:
    folder: the run's.
    found: the update.
    agent: whose view makes the batches.
    data: episodes or stream, as given to ``ilx.train``.
    batch_size: of the run.
    seed: of the run that diverged, of many.
    last_row: what was logged last, with its ``step``.
  """
  arrays: dict[str, np.ndarray] = {}
  facts: dict[str, Any] = {"step": found.step, "seed": seed, "not_finite": found.names, "last_row": dict(last_row)}
  if isinstance(data, Episodes):
    data = agent.view.prepare(data)
  for step in range(max(1, found.step - 1), found.step + 1):
    rows, batch = batch_of(agent.view, data, batch_size, seed, step - 1)
    for path, leaf in jax.tree.leaves_with_path(batch):
      arrays[f"{step}/{placement.name_of(path)}"] = np.asarray(leaf)
    facts[f"update_{step}"] = {"batch": step - 1}
    if rows is not None:
      episode = sampling.episode_of(data, rows)
      places = rows - np.asarray(data.starts)[episode]
      facts[f"update_{step}"] |= {"rows": rows, "episode": episode, "step_in_episode": places}
  facts["how"] = (
    f"numpy.load('diverged.npz') has the batches of updates {max(1, found.step - 1)} and {found.step}, as "
    f"'{found.step}/observation'. Metrics are of before an update: where nothing is wrong with its own batch, the "
    "gradients of the one before were not finite. Training again from the last checkpoint comes to the same update."
  )
  temporary = folder / "diverged.tmp.npz"
  np.savez(temporary, **arrays)
  temporary.rename(folder / "diverged.npz")
  logs.write_json(folder / "diverged.json", facts)


def batch_of(view: View, data: Any, batch_size: int, seed: int, number: int) -> tuple[np.ndarray | None, Tree]:
  """Batch ``number`` of a run, numpy, and the rows of prepared episodes that it is of; None of a stream."""
  if not isinstance(data, Episodes):
    return None, feed.first_batch(data.batches(view, batch_size, seed, start=number))
  key = jax.random.split(seeds_lib.key(seed))[1]
  rows = np.asarray(data.rows)[np.asarray(sampling.positions_many(key, data, number, 1, batch_size))[0]]
  return rows, view.take(data, rows)

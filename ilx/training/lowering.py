"""The program of a training run, ahead of time: what it would compile to, with nothing allocated on devices."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ilx.data.episodes import Episodes
from ilx.parallel import mesh as mesh_lib
from ilx.parallel import placement
from ilx.training import feed, memory, programs, states, tiers
from ilx.training import seeds as seeds_lib
from ilx.training.seeds import Seeds
from ilx.types import Agent, Tree


class Lowered(NamedTuple):
  """What training would run.

  Attributes:
    state: shapes and shardings of the state, ``jax.ShapeDtypeStruct``.
    program: makes any number of updates; ``program.compile().memory_analysis()`` says what a device needs for it.
  """

  state: Any
  program: jax.stages.Lowered


def lower(
  agent: Agent,
  data: Episodes | tiers.Streamed,
  *,
  batch_size: int,
  mesh: Mesh,
  rules: placement.Rules = placement.DEFAULT,
  tier: tiers.Tier = "auto",
  seeds: int | None = None,
  strategy: programs.Strategy = "jit",
) -> Lowered:
  """The program that ``ilx.train`` would run with these arguments; of streamed data one batch is read.

  Raises:
    ValueError: as ``ilx.train``, for what would not run.
  """
  many = programs.fit(mesh, strategy, seeds, batch_size)
  tiers.check(tier, data)
  if isinstance(data, Episodes):
    data = agent.view.prepare(data)
    if tier == "device" or (tier == "auto" and memory.fits(data)):
      return _resident(agent, data, batch_size, mesh, rules, many, strategy)
  batch = _batch_shapes(agent, data, batch_size)
  return lower_fed(agent, batch, mesh=mesh, rules=rules, seeds=many, strategy=strategy)


def state_shapes(
  agent: Agent, data: Episodes | tiers.Streamed, *, mesh: Mesh, rules: placement.Rules, seeds: Seeds | None
) -> Any:
  """Shapes and shardings of the state that training on ``data`` has; of streamed data one batch is read."""
  if isinstance(data, Episodes):
    data = agent.view.prepare(data)
  return states.place(agent, _batch_shapes(agent, data, 1), mesh, rules, seeds).state


def _batch_shapes(agent: Agent, data: Episodes | tiers.Streamed, batch_size: int) -> Tree:
  """Of prepared episodes, or of a stream."""
  if isinstance(data, Episodes):
    batch = agent.view.take(data, np.asarray(data.rows[:1]))
  else:
    batch = feed.first_batch(data.batches(agent.view, batch_size, 0))
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), batch)


def lower_fed(
  agent: Agent,
  batch: Tree,
  *,
  mesh: Mesh,
  rules: placement.Rules = placement.DEFAULT,
  seeds: Seeds | None = None,
  strategy: programs.Strategy = "jit",
) -> Lowered:
  """The program for batches from the host, given the shapes of one: it needs no data at all."""
  placed = states.place(agent, batch, mesh, rules, seeds)
  capacity = feed.capacity(batch, seeds.count if seeds else 1)
  sums, where = _sums(agent, mesh, placed.one, batch, seeds), feed.sharding(mesh, seeds)
  leading = (seeds.count,) if seeds else ()
  stack = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, capacity, *x.shape), x.dtype, sharding=where), batch)
  program = programs.make_fed_program(agent, mesh, seeds, strategy, states.shardings(placed.state))
  return Lowered(placed.state, program.lower(placed.state, sums, stack, 1))


def _resident(
  agent: Agent,
  episodes: Episodes,
  batch_size: int,
  mesh: Mesh,
  rules: placement.Rules,
  seeds: Seeds | None,
  strategy: programs.Strategy,
) -> Lowered:
  everywhere = mesh_lib.replicated(mesh)
  episodes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), episodes.replace(weights=None)
  )
  key = jax.eval_shape(lambda: seeds_lib.key(0))
  batch = jax.eval_shape(lambda key, data: agent.view.sample(key, data, batch_size), key, episodes)
  placed = states.place(agent, batch, mesh, rules, seeds)
  if seeds:
    key = jax.ShapeDtypeStruct((seeds.count,), key.dtype, sharding=NamedSharding(mesh, seeds_lib.partition(seeds)))
  program = programs.make_program(agent, batch_size, mesh, seeds, strategy, states.shardings(placed.state))
  sums = _sums(agent, mesh, placed.one, batch, seeds)
  return Lowered(placed.state, program.lower(placed.state, episodes, key, 1, sums))


def _sums(agent: Agent, mesh: Mesh, state: Any, batch: Tree, seeds: Seeds | None) -> Any:
  sums, where = programs.make_sums(agent, mesh, state, batch, seeds), NamedSharding(mesh, seeds_lib.partition(seeds))
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), jax.eval_shape(sums))

"""A state before it exists: its shapes, and where its leaves go."""

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from ilx.parallel import mesh as mesh_lib
from ilx.parallel import placement
from ilx.training import seeds as seeds_lib
from ilx.training.seeds import Seeds
from ilx.types import Agent, Tree


class Placed(NamedTuple):
  """Trees of ``jax.ShapeDtypeStruct`` with shardings.

  Attributes:
    one: the state of one seed, as it is initialised.
    state: what is trained: that state, or those of all seeds, stacked.
  """

  one: Any
  state: Any


def place(agent: Agent, batch: Tree, mesh: Mesh, rules: placement.Rules, seeds: Seeds | None = None) -> Placed:
  """Where the state of an agent goes; nothing is computed or allocated.

  Rules are for the states of seeds that all devices share. Where whole seeds are spread over the devices, each device
  has a seed's state as a whole.

  Args:
    agent: whose state.
    batch: shapes of a batch.
    mesh: where.
    rules: see ``ilx.parallel.shardings``.
    seeds: None for one, without an axis for it.
  """
  one = jax.eval_shape(agent.init, jax.eval_shape(lambda: seeds_lib.key(0)), batch)
  if seeds and seeds.spread:
    where = jax.tree.map(lambda _: mesh_lib.replicated(mesh), one)
  else:
    where = placement.shardings(one, mesh, rules)
  one = placement.place(one, where)
  return Placed(one, seeds_lib.stacked(one, seeds, mesh) if seeds else one)


def shardings(tree: Tree) -> Tree:
  """Of arrays, or of shapes that have them."""
  return jax.tree.map(lambda x: x.sharding, tree)

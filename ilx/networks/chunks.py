"""Predictions of several actions at once, and how they are played.

A chunk's distribution has leaves ``[T, B, ...]``, time first. Carries have fixed shapes, and start anew where an
episode begins.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks.compound import Discretised, Factored, MultiCategorical
from ilx.networks.distributions import Categorical, Distribution
from ilx.types import Tree


class ChunkPolicy(nn.Module):
  """A torso followed by T heads: standardised observations ``[..., O]`` to distributions with leaves ``[T, ...]``.

  Attributes:
    torso: features ``[..., F]`` to features.
    head: features to a distribution; its parameters are T times there.
    encoder: a tree of observations to features.
    length: T.
  """

  torso: nn.Module
  head: nn.Module
  encoder: nn.Module
  length: int

  def __call__(self, observation: Tree) -> Distribution:
    each = nn.vmap(
      lambda head, x: head(x),
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=None,
      axis_size=self.length,
    )
    return each(self.head, self.torso(self.encoder(observation)))


class Votes(NamedTuple):
  """What was predicted so far for this step and those to come.

  Attributes:
    total: weighted sums of predictions, leaves ``[B, T, ...]``, the step to come first.
    age: int32 ``[B]``, steps since the episode began, T - 1 at most.
  """

  total: Tree
  age: jax.Array


class Plan(NamedTuple):
  """The rest of a chunk that is being played.

  Attributes:
    actions: in the network's units, leaves ``[B, execute, ...]``.
    place: int32 ``[B]``, how many of them have been played.
  """

  actions: Tree
  place: jax.Array


def vote(carry: Votes, votes: Tree, is_first: jax.Array, ensemble: float) -> tuple[Tree, Votes]:
  """Adds new predictions, and averages all for the present step.

  Args:
    carry: earlier ones.
    votes: float32 leaves ``[T, B, ...]``, for this step and the T - 1 to come.
    is_first: bool ``[B]``, where earlier ones are forgotten.
    ensemble: the i-th prediction for a step, from 0 and the oldest, weighs ``exp(-ensemble * i)``.

  Returns:
    The averages ``[B, ...]``, and the carry of the next step.
  """
  length = jax.tree.leaves(votes)[0].shape[0]
  age = jnp.where(is_first, 0, carry.age)
  weights = jnp.exp(-ensemble * jnp.arange(length, dtype=jnp.float32))
  # How many predictions the k-th step from now has already.
  earlier = jnp.minimum(age[:, None], length - 1 - jnp.arange(length))

  def add(total: jax.Array, new: jax.Array) -> jax.Array:
    total = jnp.where(_like(is_first, total), 0.0, total)
    return total + _like(weights[earlier], total) * jnp.moveaxis(new, 0, 1)

  total = jax.tree.map(add, carry.total, votes)
  norm = jnp.cumsum(weights)[age]
  mean = jax.tree.map(lambda x: x[:, 0] / _like(norm, x[:, 0]), total)
  later = jax.tree.map(lambda x: jnp.concatenate([x[:, 1:], jnp.zeros_like(x[:, :1])], axis=1), total)
  return mean, Votes(later, jnp.minimum(age + 1, length - 1))


def follow(carry: Plan, actions: Tree, is_first: jax.Array) -> tuple[Tree, Plan]:
  """The next action of the plan; where it is played to its end, or an episode begins, that of a new one.

  Args:
    carry: the plan.
    actions: leaves ``[T, B, ...]``, the new ones.
    is_first: bool ``[B]``.

  Returns:
    Actions ``[B, ...]``, and the carry of the next step.
  """
  execute = jax.tree.leaves(carry.actions)[0].shape[1]
  new = is_first | (carry.place >= execute)
  place = jnp.where(new, 0, carry.place)
  plan = jax.tree.map(
    lambda old, x: jnp.where(_like(new, old), jnp.moveaxis(x[:execute], 0, 1), old), carry.actions, actions
  )
  action = jax.tree.map(lambda x: jnp.take_along_axis(x, _like(place, x), axis=1)[:, 0], plan)
  return action, Plan(plan, place + 1)


def played(dist: Distribution, key: jax.Array | None) -> Tree:
  """Modes, or samples, of a chunk's distribution with leaves ``[T, B, ...]``: the same."""
  if key is None:
    return dist.mode()
  length = jax.tree.leaves(dist)[0].shape[0]
  return jax.vmap(lambda d, k: d.sample(k))(dist, jax.random.split(key, length))


def votes(dist: Distribution, key: jax.Array | None) -> Tree:
  """What is averaged: probabilities of choices and bins, modes (or samples) of everything else."""
  if isinstance(dist, Factored):
    keys = [key] * len(dist.parts) if key is None else jax.random.split(key, len(dist.parts))
    return {name: votes(dist.parts[name], k) for name, k in zip(sorted(dist.parts), keys, strict=True)}
  if isinstance(dist, Categorical | MultiCategorical | Discretised):
    return jax.nn.softmax(dist.logits)
  return played(dist, key)


def decide(dist: Distribution, mean: Tree, key: jax.Array | None) -> Tree:
  """What follows from averaged votes; ``dist`` says of what kind they are."""
  if isinstance(dist, Factored):
    keys = [key] * len(dist.parts) if key is None else jax.random.split(key, len(dist.parts))
    return {name: decide(dist.parts[name], mean[name], k) for name, k in zip(sorted(dist.parts), keys, strict=True)}
  if isinstance(dist, Categorical | MultiCategorical | Discretised):
    dist = dist.replace(logits=jnp.log(mean))
    return dist.mode() if key is None else dist.sample(key)
  return mean


def _like(x: jax.Array, other: jax.Array) -> jax.Array:
  """With axes of one behind, to go with ``other``."""
  return x.reshape(x.shape + (1,) * (other.ndim - x.ndim))

"""Any agent, learning from randomly shifted pictures."""

from typing import Any

import jax

from ilx import ranges
from ilx.agents import checks
from ilx.networks import augmentation, encoders
from ilx.types import Agent, Spec, Tree

# Tells the key of the shifts from those that agents derive from theirs.
_SHIFTS = 0x5F1F7


def augmented(agent: Agent, spec: Spec, *, pixels: int = 4) -> Agent:
  """The agent, with the pictures of every batch shifted at random before an update.

  Shifts are drawn anew in every update, for ``observation`` and ``next_observation`` apart, as DrQ does (Kostrikov et
  al. 2020, with K = M = 1; see ``augmentation.random_shift``). Play and all else of the batch are as they were.

  Args:
    agent: whose state has a ``key`` and a ``step``, from which the shifts follow.
    spec: that the agent was made for; of stacked frames where the agent stacks them.
    pixels: the largest shift in each direction, at least 1; DrQ has 4 at 84 x 84.

  Raises:
    ValueError: for ``pixels`` below 1, and for observations without pictures or with ones whose axes are unclear.

  Example:
    >>> from ilx.agents import bc
    >>> from ilx.types import Discrete
    >>> import jax.numpy as jnp
    >>> spec = Spec(jax.ShapeDtypeStruct((84, 84, 3), jnp.uint8), Discrete(2))
    >>> agent = augmented(bc(spec, encoder="nature"), spec)
  """
  checks.check_spec(spec)
  ranges.at_least_1(pixels=pixels)
  # Raises where axes are unclear.
  found = encoders.make(spec.observation)
  if all(leaf.encoder is None for leaf in found.leaves):
    raise ValueError(
      "augmented: the observation has no pictures (uint8 with two axes of at least 16) to shift; use the agent as it is"
    )

  def update(state: Any, batch: Tree) -> tuple[Any, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.fold_in(state.key, _SHIFTS), state.step)
    fields = [name for name in ("observation", "next_observation") if getattr(batch, name, None) is not None]
    shifted = {
      name: augmentation.random_shift(k, getattr(batch, name), spec.observation, pixels)
      for name, k in zip(fields, jax.random.split(key, len(fields)), strict=True)
    }
    return agent.update(state, batch._replace(**shifted))

  return agent._replace(update=update)

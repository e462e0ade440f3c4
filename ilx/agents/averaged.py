"""Any agent, played with the average of the parameters that it learns."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ilx import ranges
from ilx.types import Agent, Tree


class State(NamedTuple):
  """All that learning changes.

  Attributes:
    params: the average, which is what is played.
    learner: the agent's own state, whose params go on being learnt.
  """

  params: Any
  learner: Any

  @property
  def step(self) -> jax.Array:
    """int32 ``[]``, updates made."""
    return self.learner.step

  @property
  def key(self) -> jax.Array:
    """Of the randomness in updates to come."""
    return self.learner.key


def averaged(agent: Agent, *, decay: float = 0.999) -> Agent:
  """The agent, with an exponential moving average (EMA) of its params in ``state.params``; learning is as it was.

  After update t the average is ``average + max(1 - decay, 1 / t) (params - average)``: of all updates alike as long as
  they are fewer than ``1 / (1 - decay)``; then of about the last so many. The initial parameters, which mean nothing,
  have no part in it, but for updates before the optimizer's first step (``optax.MultiSteps``, a policy's delay) and
  where ``ilx.train`` skips the first of all (``on_nonfinite="skip"``).

  Args:
    agent: whose state has ``params``, ``step`` and ``key``.
    decay: of the average; at least 0, below 1.

  Raises:
    ValueError: for a ``decay`` out of range.

  Example:
    >>> from ilx.agents import bc
    >>> from ilx.types import Discrete, Spec
    >>> agent = averaged(bc(Spec(jax.ShapeDtypeStruct((2,), jnp.float32), Discrete(2))), decay=0.99)
  """
  ranges.from_0_to_below_1(decay=decay)

  def init(key: jax.Array, batch: Tree) -> State:
    learner = agent.init(key, batch)
    return State(jax.tree.map(jnp.copy, learner.params), learner)

  def update(state: State, batch: Tree) -> tuple[State, dict[str, jax.Array]]:
    learner, metrics = agent.update(state.learner, batch)
    share = jnp.maximum(1.0 - decay, 1.0 / learner.step)

    def average(a: jax.Array, x: jax.Array) -> jax.Array:
      # In this form what does not change stays the same to the bit. Flags and counts have no average.
      return (a + share * (x - a)).astype(a.dtype) if jnp.issubdtype(a.dtype, jnp.inexact) else x

    return State(jax.tree.map(average, state.params, learner.params), learner), metrics

  return agent._replace(init=init, update=update)

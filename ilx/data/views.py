"""Transitions: the view of one-step and n-step methods."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ilx.data import sampling
from ilx.data.episodes import Episodes
from ilx.types import Array, Transition, Tree


def transitions(episodes: Episodes, rows: Array) -> Transition:
  """The transitions that start at ``rows`` (int ``[B]``, no episode's last row): leaves ``[B, ...]``.

  RLDS semantics: the bootstrap is cut where the next step ``is_terminal``; a time limit does not cut it.
  """
  after = rows + 1
  return Transition(
    observation=jax.tree.map(lambda x: x[rows], episodes.observation),
    action=jax.tree.map(lambda x: x[rows], episodes.action),
    reward=episodes.reward[rows],
    discount=episodes.discount[rows] * ~episodes.is_terminal[after],
    next_observation=jax.tree.map(lambda x: x[after], episodes.observation),
  )


@dataclasses.dataclass(frozen=True)
class Transitions:
  """Single transitions, or n steps of one episode summed up to one.

  With ``n_step`` n, the reward is that of the next ``m = min(n, steps left in the episode)`` steps, discounted,
  ``r_t + g d_t r_{t+1} + g^2 d_t d_{t+1} r_{t+2} + ...`` with the agent's discount g and the data's d; the next
  observation is that of step ``t + m``; and the transition's discount is ``g^{m-1} d_t ... d_{t+m-1}``, 0 where step
  ``t + m`` is terminal, so that an agent that multiplies it by g bootstraps with ``g^m``.

  Attributes:
    n_step: how many steps, at least 1.
    discount: g, the agent's; counts for ``n_step`` above 1 only.
    frame_stack: above 0, observations ``[B, frame_stack, O]``: the step's and the ones before it, newest last; the
      episode's first repeated where there are none. 0: observations as they are.
  """

  n_step: int = 1
  discount: float = 1.0
  frame_stack: int = 0

  def __post_init__(self):
    if self.n_step < 1 or not 0 <= self.discount <= 1 or self.frame_stack < 0:
      raise ValueError(f"{self}: n_step is at least 1, discount in [0, 1], frame_stack at least 0")

  def starts(self, length: int) -> np.ndarray:
    """Every step with an action."""
    return np.arange(length)

  def prepare(self, episodes: Episodes) -> Episodes:
    """Nothing needs to be prepared."""
    return episodes

  def take(self, episodes: Episodes, rows: Array) -> Transition:
    """The transitions that begin at ``rows``: leaves ``[B, ...]``."""
    if self.n_step == 1 and not self.frame_stack:
      return transitions(episodes, rows)
    xp = _namespace(rows)
    first, last = bounds(episodes, rows)
    steps = rows[:, None] + xp.arange(self.n_step)
    inside = steps < last[:, None]
    steps = xp.minimum(steps, last[:, None])
    # What one step leaves of the value behind it: g d, cumulated.
    kept = xp.where(inside, episodes.discount[steps], 1.0)
    power = self.discount ** xp.arange(self.n_step)
    before = xp.concatenate([xp.ones_like(kept[:, :1]), xp.cumprod(kept, axis=1)[:, :-1]], axis=1)
    reward = xp.sum(xp.where(inside, episodes.reward[steps] * before * power, 0.0), axis=1)
    after = xp.minimum(rows + self.n_step, last)
    discount = xp.prod(kept, axis=1) * self.discount ** (after - rows - 1) * ~episodes.is_terminal[after]
    return Transition(
      observation=observe(episodes, rows, first, self.frame_stack),
      action=jax.tree.map(lambda x: x[rows], episodes.action),
      reward=reward.astype(np.float32),
      discount=discount.astype(np.float32),
      next_observation=observe(episodes, after, first, self.frame_stack),
    )

  def sample(self, key: jax.Array, episodes: Episodes, batch_size: int) -> Transition:
    """``[batch_size, ...]``; pure, for episodes on the device."""
    return self.take(episodes, sampling.draw(key, episodes, batch_size))


def bounds(episodes: Episodes, rows: Array) -> tuple[Array, Array]:
  """The first and the last row of the episode of each of ``rows``, ``[B]``."""
  episode = _namespace(rows).searchsorted(episodes.starts, rows, side="right") - 1
  return episodes.starts[episode].astype(rows.dtype), (episodes.starts[episode + 1] - 1).astype(rows.dtype)


def observe(episodes: Episodes, rows: Array, first: Array, frame_stack: int) -> Tree:
  """Observations at ``rows`` (any shape S); with ``frame_stack`` k, leaves ``[S, k, O]`` of single frames.

  Args:
    episodes: the data.
    rows: of the newest frame.
    first: the first row of each one's episode, shaped like ``rows``.
    frame_stack: k, or 0 for leaves ``[S, O]``.
  """
  if frame_stack:
    xp = _namespace(rows)
    rows = xp.maximum(rows[..., None] + xp.arange(1 - frame_stack, 1), first[..., None])
  return jax.tree.map(lambda x: x[rows], episodes.observation)


def _namespace(rows: Array):
  return jnp if isinstance(rows, jax.Array) else np

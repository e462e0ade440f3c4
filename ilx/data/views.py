"""Transitions: the view of one-step and n-step methods."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ilx import ranges
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


_REWARD, _DISCOUNT, _IS_LAST = "n_step_reward", "n_step_discount", "is_last_step"


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
    next_action: also give ``Transition.next_action`` and ``next_is_last``, the data's at the next observation.
  """

  n_step: int = 1
  discount: float = 1.0
  frame_stack: int = 0
  next_action: bool = False

  def __post_init__(self):
    ranges.at_least_1(n_step=self.n_step)
    ranges.from_0_to_1(discount=self.discount)
    ranges.whole_at_least_0(frame_stack=self.frame_stack)

  def starts(self, length: int) -> np.ndarray:
    """Every step with an action."""
    return np.arange(length)

  def prepare(self, episodes: Episodes) -> Episodes:
    """Adds the columns of n-step rewards and discounts and of last steps, where they are needed."""
    if self.n_step == 1 and not self.next_action:
      return episodes
    extras = dict(episodes.extras)
    if self.n_step > 1:
      extras[_REWARD], extras[_DISCOUNT] = n_step_sums(episodes, self.n_step, self.discount)
    if self.next_action:
      extras[_IS_LAST] = np.zeros(episodes.num_steps, bool)
      extras[_IS_LAST][np.asarray(episodes.starts)[1:] - 1] = True
    return episodes.replace(extras=extras)

  def take(self, episodes: Episodes, rows: Array) -> Transition:
    """The transitions that begin at ``rows``: leaves ``[B, ...]``."""
    needed = ((_REWARD,) if self.n_step > 1 else ()) + ((_IS_LAST,) if self.next_action else ())
    if any(name not in episodes.extras for name in needed):
      raise ValueError("Transitions: the episodes are not prepared; pass them through view.prepare first")
    if self.n_step == 1 and not self.frame_stack:
      return self._with_next_action(transitions(episodes, rows), episodes, rows + 1)
    first, last = bounds(episodes, rows)
    after = _namespace(rows).minimum(rows + self.n_step, last)
    if self.n_step == 1:
      reward, discount = episodes.reward[rows], episodes.discount[rows] * ~episodes.is_terminal[after]
    else:
      reward, discount = episodes.extras[_REWARD][rows], episodes.extras[_DISCOUNT][rows]
    batch = Transition(
      observation=observe(episodes, rows, first, self.frame_stack),
      action=jax.tree.map(lambda x: x[rows], episodes.action),
      reward=reward,
      discount=discount,
      next_observation=observe(episodes, after, first, self.frame_stack),
    )
    return self._with_next_action(batch, episodes, after)

  def _with_next_action(self, batch: Transition, episodes: Episodes, after: Array) -> Transition:
    if not self.next_action:
      return batch
    is_last = episodes.extras[_IS_LAST][after]
    # The row of a last step has an action without meaning, which may be anything; the row before it has a real one.
    rows = after - is_last.astype(after.dtype)
    return batch._replace(next_action=jax.tree.map(lambda x: x[rows], episodes.action), next_is_last=is_last)

  def sample(self, key: jax.Array, episodes: Episodes, batch_size: int) -> Transition:
    """``[batch_size, ...]``; pure, for episodes on the device."""
    return self.take(episodes, sampling.draw(key, episodes, batch_size))


def n_step_sums(episodes: Episodes, n_step: int, discount: float) -> tuple[np.ndarray, np.ndarray]:
  """The rewards and discounts of n-step transitions that begin at each row; see ``Transitions``.

  Returns:
    float32 ``[N]`` each, summed up in float64; 0 on last rows, which begin none.
  """
  starts = np.asarray(episodes.starts)
  last = np.repeat(starts[1:] - 1, np.diff(starts))
  rows = np.arange(len(last))
  rewards, discounts = np.asarray(episodes.reward, np.float64), np.asarray(episodes.discount, np.float64)
  reward, kept = np.zeros(len(rows)), np.ones(len(rows))
  for step in range(n_step):
    at = rows + step
    inside = at < last
    at = np.minimum(at, last)
    reward += np.where(inside, kept * rewards[at], 0.0)
    kept = np.where(inside, kept * discounts[at] * discount, kept)
  after = np.minimum(rows + n_step, last)
  # The agent multiplies by its discount once itself.
  kept = np.where(np.asarray(episodes.is_terminal)[after] | (rows == last), 0.0, kept / (discount or 1.0))
  return reward.astype(np.float32), kept.astype(np.float32)


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

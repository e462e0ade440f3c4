"""Views: from episodes to training batches, on the device inside a jitted program or with numpy on the host."""

import dataclasses

import jax
import numpy as np

from ilx.data.episodes import Episodes
from ilx.types import Array, Transition


def transitions(episodes: Episodes, rows: Array) -> Transition:
  """The transitions that start at ``rows`` (int ``[B]``, no episode's last row): leaves ``[B, ...]``.

  RLDS semantics: the bootstrap is cut where the next step ``is_terminal``; a time limit does not cut it.
  """
  after = rows + 1
  return Transition(
    observation=jax.tree.map(lambda x: x[rows], episodes.observation),
    action=episodes.action[rows],
    reward=episodes.reward[rows],
    discount=episodes.discount[rows] * ~episodes.is_terminal[after],
    next_observation=jax.tree.map(lambda x: x[after], episodes.observation),
  )


@dataclasses.dataclass(frozen=True)
class Transitions:
  """Single transitions, drawn uniformly with replacement from ``episodes.rows``."""

  def sample(self, key: jax.Array, episodes: Episodes, batch_size: int) -> Transition:
    """``[batch_size, ...]``; pure, for episodes on the device."""
    drawn = jax.random.randint(key, (batch_size,), 0, episodes.rows.shape[0])
    return transitions(episodes, episodes.rows[drawn])

  def sample_host(self, rng: np.random.Generator, episodes: Episodes, batch_size: int) -> Transition:
    """``[batch_size, ...]`` numpy arrays, for episodes in host memory."""
    drawn = rng.integers(episodes.rows.shape[0], size=batch_size)
    return transitions(episodes, episodes.rows[drawn])

"""Views of stretches of episodes: windows for sequence models, chunks of actions."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from ilx import ranges
from ilx.data import sampling
from ilx.data.episodes import Episodes
from ilx.data.views import bounds, observe
from ilx.types import Array, Chunk, Tree, Window

_RETURNS_TO_GO = "returns_to_go"


@dataclasses.dataclass(frozen=True)
class Windows:
  """``length`` consecutive steps of one episode.

  Attributes:
    length: T, steps in a window.
    stride: between the first steps of two windows of one episode.
    padding: windows that reach beyond the episode's end are filled up with zeros, "right", where what is causal never
      sees them, as ilx's agents expect it, or "left" (the real steps come last, as in the code of Chen et al. 2021);
      None leaves such windows out.
    discount: of returns-to-go; 1 in Chen et al. 2021.
    frame_stack: see ``Transitions``.
  """

  length: int
  stride: int = 1
  padding: Literal["left", "right"] | None = "right"
  discount: float = 1.0
  frame_stack: int = 0

  def __post_init__(self):
    ranges.at_least_1(length=self.length, stride=self.stride)
    ranges.from_0_to_1(discount=self.discount)
    ranges.whole_at_least_0(frame_stack=self.frame_stack)
    if self.padding not in ("left", "right", None):
      raise ValueError(f"{self}: padding is 'left', 'right' or None")

  def starts(self, length: int) -> np.ndarray:
    """Every ``stride``-th step; without padding, as long as the window fits."""
    stop = length if self.padding else length - self.length + 1
    return np.arange(0, max(stop, 0), self.stride)

  def prepare(self, episodes: Episodes) -> Episodes:
    """Adds the column of returns-to-go.

    Raises:
      ValueError: where no episode is long enough for a window.
    """
    episodes = episodes.replace(extras={**episodes.extras, _RETURNS_TO_GO: returns_to_go(episodes, self.discount)})
    if self.stride == 1 and self.padding:
      return episodes
    rows = np.asarray(episodes.rows)
    first, last = bounds(episodes, rows)
    keep = (rows - first) % self.stride == 0
    if not self.padding:
      keep &= rows + self.length <= last
    return sampling.narrowed(episodes, keep)

  def take(self, episodes: Episodes, rows: Array) -> Window:
    """The windows that begin at ``rows``: leaves ``[B, T, ...]``."""
    if _RETURNS_TO_GO not in episodes.extras:
      raise ValueError("Windows: the episodes are not prepared; pass them through view.prepare first")
    first, last = bounds(episodes, rows)
    steps, mask = _stretch(rows, last, self.length, self.padding == "left")
    xp = jnp if isinstance(rows, jax.Array) else np
    starts = xp.broadcast_to(first[:, None], steps.shape)
    return Window(
      observation=_masked(observe(episodes, steps, starts, self.frame_stack), mask),
      action=_masked(jax.tree.map(lambda x: x[steps], episodes.action), mask),
      reward=_masked(episodes.reward[steps], mask),
      discount=_masked(episodes.discount[steps] * ~episodes.is_terminal[steps + 1], mask),
      returns_to_go=_masked(episodes.extras[_RETURNS_TO_GO][steps], mask),
      time_step=_masked((steps - starts).astype(np.int32), mask),
      mask=mask,
    )

  def sample(self, key: jax.Array, episodes: Episodes, batch_size: int) -> Window:
    """``[batch_size, T, ...]``; pure, for prepared episodes on the device."""
    return self.take(episodes, sampling.draw(key, episodes, batch_size))


@dataclasses.dataclass(frozen=True)
class Chunks:
  """An observation and the next ``length`` actions, for policies that act several steps ahead (Zhao et al. 2023, ACT).

  Attributes:
    length: T, actions in a chunk; fewer are left at an episode's end, where the rest is zero and masked.
    frame_stack: see ``Transitions``.
  """

  length: int
  frame_stack: int = 0

  def __post_init__(self):
    ranges.at_least_1(length=self.length)
    ranges.whole_at_least_0(frame_stack=self.frame_stack)

  def starts(self, length: int) -> np.ndarray:
    """Every step with an action."""
    return np.arange(length)

  def prepare(self, episodes: Episodes) -> Episodes:
    """Nothing needs to be prepared."""
    return episodes

  def take(self, episodes: Episodes, rows: Array) -> Chunk:
    """The chunks that begin at ``rows``."""
    first, last = bounds(episodes, rows)
    steps, mask = _stretch(rows, last, self.length, False)
    action = _masked(jax.tree.map(lambda x: x[steps], episodes.action), mask)
    return Chunk(observe(episodes, rows, first, self.frame_stack), action, mask)

  def sample(self, key: jax.Array, episodes: Episodes, batch_size: int) -> Chunk:
    """``[batch_size, ...]``; pure, for episodes on the device."""
    return self.take(episodes, sampling.draw(key, episodes, batch_size))


def returns_to_go(episodes: Episodes, discount: float = 1.0) -> np.ndarray:
  """float32 ``[N]``: the discounted sum of the rewards from each step to its episode's end; 0 on last steps.

  An episode that a time limit cut has what was recorded. Summed up in float64.
  """
  starts = np.asarray(episodes.starts)
  reward = np.array(episodes.reward, np.float64)
  reward[starts[1:] - 1] = 0.0
  # All episodes at once, from their ends: sorted by length, the ones still running are the first.
  lengths = np.diff(starts)
  order = np.argsort(-lengths, kind="stable")
  ends = starts[1:][order] - 1
  running = np.searchsorted(-lengths[order], -np.arange(lengths.max()), side="left")
  total = np.zeros(len(ends))
  for back in range(int(lengths.max())):
    rows = ends[: running[back]] - back
    total[: running[back]] = reward[rows] + discount * total[: running[back]]
    reward[rows] = total[: running[back]]
  return reward.astype(np.float32)


def _stretch(rows: Array, last: Array, length: int, left: bool) -> tuple[Array, Array]:
  """Rows ``[B, T]`` from ``rows`` on, and which of them are real; padded ones repeat a real one."""
  xp = jnp if isinstance(rows, jax.Array) else np
  steps = rows[:, None] + xp.arange(length, dtype=rows.dtype)
  if left:
    steps = steps - xp.maximum(rows + length - last, 0)[:, None]
  mask = (steps >= rows[:, None]) & (steps < last[:, None])
  return xp.clip(steps, rows[:, None], last[:, None] - 1), mask


def _masked(tree: Tree, mask: Array) -> Tree:
  def zero(x: Array) -> Array:
    xp = jnp if isinstance(mask, jax.Array) else np
    shaped = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return xp.where(shaped, x, xp.zeros((), x.dtype))

  return jax.tree.map(zero, tree)

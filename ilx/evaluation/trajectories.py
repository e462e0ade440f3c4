"""Collecting whole episodes from a rollout of many environment slots."""

import itertools
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from ilx.types import Tree


class Episode(NamedTuple):
  """One episode of T actions.

  Attributes:
    observation: ``[T + 1, O]``, the one after the last action included.
    action: as the environment got it, within the bounds: float32 ``[T, A]``, an integer ``[T]``, or dicts of parts.
    reward: float32 ``[T]``, what each action earned.
    is_terminal: true where the task ended, false at a time limit. EnvPool calls an episode that ends by itself
      on the very step of the time limit truncated.
  """

  observation: Tree
  action: Tree
  reward: np.ndarray
  is_terminal: bool


class Trajectories:
  """Cuts the batches of a rollout into episodes and hands them over in the order of their index.

  Keeps the batches that some slot's unfinished episode needs, and finished episodes until their turn comes: in
  memory are at most about two episodes of the longest kind per slot.
  """

  def __init__(self, num_envs: int, episodes: int, on_episode: Callable[[int, Episode], None]):
    self._on_episode = on_episode
    self._episodes = episodes
    self._steps: deque[list[Tree]] = deque()  # [observation, action, reward, observation after]
    self._base = 0  # time of the oldest batch kept
    self._start = np.zeros(num_envs, np.int64)
    self._done = np.arange(num_envs) >= episodes
    self._waiting: dict[int, Episode] = {}
    self._next = 0

  def before(self, observation: Tree, action: Tree) -> None:
    """Notes what all slots saw and did."""
    self._steps.append([observation, action])

  def after(self, observation: Tree, reward: np.ndarray, is_first: np.ndarray) -> None:
    """Notes what came of it; where ``is_first`` the action did not count and an episode starts."""
    self._steps[-1] += [reward, observation]
    now = self._base + len(self._steps)
    self._start[is_first] = now
    needed = np.min(self._start, initial=now, where=~self._done)
    while self._base < needed:
      self._steps.popleft()
      self._base += 1

  def end(self, slot: int, index: int, is_terminal: bool) -> None:
    """Notes that the slot's episode, number ``index``, ended with the latest step."""
    steps = list(itertools.islice(self._steps, int(self._start[slot]) - self._base, None))
    observations = [step[0] for step in steps] + [steps[-1][3]]
    self._waiting[int(index)] = Episode(
      observation=jax.tree.map(lambda *rows: np.stack([row[slot] for row in rows]), *observations),
      action=jax.tree.map(lambda *rows: np.stack([row[slot] for row in rows]), *(step[1] for step in steps)),
      reward=np.stack([step[2][slot] for step in steps]),
      is_terminal=is_terminal,
    )
    self._done[slot] = index + len(self._done) >= self._episodes
    while self._next in self._waiting:
      self._on_episode(self._next, self._waiting.pop(self._next))
      self._next += 1

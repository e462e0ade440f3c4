"""Collecting whole episodes from a rollout of many environment slots."""

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
    # Of every slot's episode so far: batches of observations and of actions, and the slot's row in them.
    self._acted: list[list[tuple[Tree, Tree, int]]] = [[] for _ in range(num_envs)]
    self._rewards: list[list[np.float32]] = [[] for _ in range(num_envs)]
    self._now: list[tuple[Tree, int]] = [((), 0)] * num_envs
    self._done = np.arange(num_envs) >= episodes
    self._waiting: dict[int, Episode] = {}
    self._next = 0

  def before(self, slots: np.ndarray, observation: Tree, action: Tree) -> None:
    """Notes what these slots saw and did, leaves ``[len(slots), ...]``."""
    for row, slot in enumerate(slots.tolist()):
      if not self._done[slot]:
        self._acted[slot].append((observation, action, row))

  def after(self, slots: np.ndarray, observation: Tree, reward: np.ndarray, is_first: np.ndarray) -> None:
    """Notes what came to these slots; where ``is_first`` the action before did not count and an episode starts."""
    for row, (slot, first) in enumerate(zip(slots.tolist(), is_first.tolist(), strict=True)):
      if first:
        self._acted[slot].clear()
        self._rewards[slot].clear()
      else:
        self._rewards[slot].append(reward[row])
      self._now[slot] = (observation, row)

  def end(self, slot: int, index: int, is_terminal: bool) -> None:
    """Notes that the slot's episode, number ``index``, ended with what came last."""
    acted, (last, last_row) = self._acted[slot], self._now[slot]
    rows = [row for _, _, row in acted]
    observations, actions = [observation for observation, _, _ in acted], [action for _, action, _ in acted]

    def column(batches: list[Tree], rows: list[int]) -> Tree:
      return jax.tree.map(lambda *x: np.stack([one[row] for one, row in zip(x, rows, strict=True)]), *batches)

    self._waiting[int(index)] = Episode(
      observation=column([*observations, last], [*rows, last_row]),
      action=column(actions, rows),
      reward=np.stack(self._rewards[slot]),
      is_terminal=is_terminal,
    )
    self._done[slot] = index + len(self._done) >= self._episodes
    while self._next in self._waiting:
      self._on_episode(self._next, self._waiting.pop(self._next))
      self._next += 1

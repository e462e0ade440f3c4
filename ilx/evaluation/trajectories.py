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
    # Slots and what they saw; then their actions, or their rewards where it is what a step has led to.
    self._events: deque[tuple[np.ndarray, Tree, Tree, np.ndarray | None]] = deque()
    self._base = 0  # number of the oldest event kept
    self._start = np.zeros(num_envs, np.int64)
    self._done = np.arange(num_envs) >= episodes
    self._waiting: dict[int, Episode] = {}
    self._next = 0

  def before(self, slots: np.ndarray, observation: Tree, action: Tree) -> None:
    """Notes what these slots saw and did, leaves ``[len(slots), ...]``."""
    self._events.append((slots, observation, action, None))

  def after(self, slots: np.ndarray, observation: Tree, reward: np.ndarray, is_first: np.ndarray) -> None:
    """Notes what came to these slots; where ``is_first`` the action before did not count and an episode starts."""
    self._events.append((slots, observation, None, reward))
    now = self._base + len(self._events)
    self._start[slots[is_first]] = now
    needed = np.min(self._start, initial=now, where=~self._done)
    while self._base < needed:
      self._events.popleft()
      self._base += 1

  def end(self, slot: int, index: int, is_terminal: bool) -> None:
    """Notes that the slot's episode, number ``index``, ended with what came to it last."""
    acted, rows, rewards, last = [], [], [], ((), 0)
    for slots, observation, action, reward in itertools.islice(self._events, self._start[slot] - self._base, None):
      if slot < len(slots) and slots[slot] == slot:  # as where all slots step together
        row = slot
      elif not len(found := np.flatnonzero(slots == slot)):
        continue
      else:
        row = found[0]
      if reward is None:
        acted.append((observation, action))
        rows.append(row)
      else:
        rewards.append(reward[row])
        last = observation, row

    def column(batches: list[Tree], rows: list[int]) -> Tree:
      return jax.tree.map(lambda *x: np.stack([batch[row] for batch, row in zip(x, rows, strict=True)]), *batches)

    self._waiting[int(index)] = Episode(
      observation=column([*(observation for observation, _ in acted), last[0]], [*rows, last[1]]),
      action=column([action for _, action in acted], rows),
      reward=np.stack(rewards),
      is_terminal=is_terminal,
    )
    self._done[slot] = index + len(self._done) >= self._episodes
    while self._next in self._waiting:
      self._on_episode(self._next, self._waiting.pop(self._next))
      self._next += 1

"""How closely a policy repeats actions that it has not learnt from: scores where no simulator can play it."""

import functools
import heapq
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ilx.data import views
from ilx.data.episodes import Episodes, lengths
from ilx.evaluation import rollout
from ilx.types import Agent, Array, Continuous, Discrete, Step, Tree

# Rows acted on at once, unless fewer episodes than this are there for a policy with memory.
_SLOTS = 256
# What goes to the device at once: so many steps of all slots, fewer where they take more than so many bytes.
_STEPS, _BYTES = 64, 32 << 20


class ContinuousFidelity(NamedTuple):
  """Distances of the policy's mode from held-out actions, in the environment's units.

  Attributes:
    episodes: held out.
    transitions: compared, M.
    mean_absolute_error: float64 ``[A]``.
    root_mean_squared_error: float64 ``[A]``.
    explained: float64 ``[A]``, R^2: the fraction of the actions' variance that the policy explains. 0 is as good as the
      mean action, below 0 worse; NaN where the action never varies.
    std: float64 ``[A]``, of the held-out actions.
    total_explained: the same fraction of the variance of all dimensions together.
  """

  episodes: int
  transitions: int
  mean_absolute_error: np.ndarray
  root_mean_squared_error: np.ndarray
  explained: np.ndarray
  std: np.ndarray
  total_explained: float

  @property
  def scores(self) -> dict[str, float | None]:
    """Means over the dimensions; None where nothing varies."""
    return {
      "mean_absolute_error": float(self.mean_absolute_error.mean()),
      "root_mean_squared_error": math.sqrt(float(np.mean(self.root_mean_squared_error**2))),
      "explained": None if math.isnan(self.total_explained) else self.total_explained,
    }


class DiscreteFidelity(NamedTuple):
  """How often the policy's mode is the held-out action.

  Attributes:
    episodes: held out.
    transitions: compared, M.
    count: int64 ``[A]``, how often each action was taken.
    recall: float64 ``[A]``, how often the policy chooses it where it was taken; NaN where it never was.
    accuracy: the share of all transitions where the policy's action is the one taken.
  """

  episodes: int
  transitions: int
  count: np.ndarray
  recall: np.ndarray
  accuracy: float

  @property
  def scores(self) -> dict[str, float | None]:
    """Accuracy, and the mean recall of the actions that were taken."""
    return {"accuracy": self.accuracy, "balanced_accuracy": float(np.nanmean(self.recall))}


Fidelity = ContinuousFidelity | DiscreteFidelity


def fidelity(
  agent: Agent | rollout.Policy,
  params: Tree,
  episodes: Episodes,
  *,
  action: Continuous | Discrete,
  clip: bool = True,
  frame_stack: int = 0,
  keep: np.ndarray | None = None,
  progress: Callable[[float], None] | None = None,
) -> Fidelity:
  """Compares the policy's mode with the action of every transition.

  The policy sees what it would have seen at play: observations in order, the reward of the step before, and
  ``is_first``; the actions taken are the data's. Policies without memory see many steps at once, others go through many
  episodes side by side.

  Args:
    agent: what acts; anything with ``act`` and ``carry``.
    params: of the policy.
    episodes: held out; numpy columns, memory maps or ``Images``. All their transitions count, whatever ``rows`` says.
    action: of the task.
    clip: whether recorded actions are moved onto the bounds first, as environments do.
    frame_stack: as in the agent's view.
    keep: bool ``[E]``, the episodes that count; all by default.
    progress: called with the fraction done.

  Raises:
    ValueError: where the episodes have no transition, or actions of another kind or shape than ``action``, and where
      the policy's actions are NaN.
  """
  taken = _actions(episodes, action, clip)
  keep = np.ones(episodes.num_episodes, bool) if keep is None else np.asarray(keep)
  rows, is_first = _schedule(episodes, keep, bool(jax.tree.leaves(agent.carry(1))))
  chosen = _play(agent, params, episodes, rows, is_first, frame_stack, progress)
  wanted, chosen = taken[rows[rows >= 0]], chosen[rows >= 0]
  if np.isnan(chosen).any():
    raise ValueError("fidelity: the policy produced NaN actions; look at its parameters")
  if isinstance(action, Discrete):
    return _discrete(wanted, chosen, action.num_actions, int(keep.sum()))
  return _continuous(wanted, chosen, int(keep.sum()))


def _actions(episodes: Episodes, action: Continuous | Discrete, clip: bool) -> np.ndarray:
  taken = np.asarray(episodes.action)
  expected = () if isinstance(action, Discrete) else (action.size,)
  if taken.shape[1:] != expected or (taken.dtype.kind in "iu") != isinstance(action, Discrete):
    raise ValueError(f"fidelity: held-out actions are {taken.dtype} {list(taken.shape[1:])}; the task's are {action}")
  return np.clip(taken, action.low, action.high) if clip and isinstance(action, Continuous) else taken


def _schedule(episodes: Episodes, keep: np.ndarray, memory: bool) -> tuple[np.ndarray, np.ndarray]:
  """Which row each slot acts on at each time, int64 ``[T, B]``, -1 where it has no more; and where episodes begin.

  With memory a slot goes through whole episodes, one after the other; the longest are dealt out first.
  """
  starts, length = np.asarray(episodes.starts)[:-1][keep], lengths(episodes)[keep]
  if not length.any():
    raise ValueError("fidelity: the held-out episodes have no transition")
  queues: list[list[np.ndarray]]
  if memory:
    size = min(_SLOTS, int(np.count_nonzero(length)))
    queues, loads = [[] for _ in range(size)], [(0, slot) for slot in range(size)]
    for episode in np.argsort(-length, kind="stable"):
      load, slot = heapq.heappop(loads)
      queues[slot].append(starts[episode] + np.arange(length[episode]))
      heapq.heappush(loads, (load + int(length[episode]), slot))
  else:
    every = np.concatenate([start + np.arange(n) for start, n in zip(starts, length, strict=True)])
    queues = [[part] for part in np.array_split(every, min(_SLOTS, len(every)))]
  columns = [np.concatenate(queue) for queue in queues]
  rows = np.full((max(map(len, columns)), len(columns)), -1)
  for slot, column in enumerate(columns):
    rows[: len(column), slot] = column
  return rows, np.isin(rows, starts)


def _play(
  agent: Agent | rollout.Policy,
  params: Tree,
  episodes: Episodes,
  rows: np.ndarray,
  is_first: np.ndarray,
  frame_stack: int,
  progress: Callable[[float], None] | None,
) -> np.ndarray:
  """The policy's actions ``[T, B, ...]`` at ``rows``; where those are -1, they mean nothing."""
  total, slots = rows.shape
  reward = np.asarray(episodes.reward, np.float32)
  first = views.bounds(episodes, np.maximum(rows, 0).reshape(-1))[0].reshape(rows.shape)
  leaves = jax.tree.leaves(episodes.observation)
  size = slots * max(1, frame_stack) * sum(math.prod(x.shape[1:]) * np.dtype(x.dtype).itemsize for x in leaves)
  at_once = max(1, min(_STEPS, total, _BYTES // size))
  act, params, carry = _compiled(agent.act), rollout.on_one_device(params), agent.carry(slots)
  chosen = []
  for start in range(0, total, at_once):
    # The last piece repeats its last step to be as long as the others: one compilation.
    times = np.minimum(np.arange(start, start + at_once), total - 1)
    here = np.maximum(rows[times], 0)
    steps = Step(
      views.observe(episodes, here, first[times], frame_stack),
      np.where(is_first[times], np.float32(0), reward[np.maximum(here - 1, 0)]),
      is_first[times],
    )
    actions, carry = act(params, carry, steps)
    chosen.append(np.asarray(actions)[: total - start])
    if progress is not None:
      progress(min(1.0, (start + at_once) / total))
  return np.concatenate(chosen)


@functools.lru_cache(maxsize=16)
def _compiled(act: Callable) -> Callable[[Tree, Tree, Step], tuple[Array, Tree]]:
  def scan(params: Tree, carry: Tree, steps: Step) -> tuple[Array, Tree]:
    def one(carry: Tree, step: Step) -> tuple[Tree, Any]:
      action, carry = act(params, carry, step, None)
      return carry, action

    carry, actions = jax.lax.scan(one, carry, steps)
    return actions, carry

  return jax.jit(scan)


def _continuous(wanted: np.ndarray, chosen: np.ndarray, num_episodes: int) -> ContinuousFidelity:
  wanted = wanted.astype(np.float64)
  error = chosen - wanted
  squared, variance = np.mean(error**2, axis=0), np.var(wanted, axis=0)
  varies = np.ptp(wanted, axis=0) > 0
  explained = np.where(varies, 1 - squared / np.where(varies, variance, 1), np.nan)
  total = 1 - float(squared.sum() / variance.sum()) if varies.any() else math.nan
  return ContinuousFidelity(
    episodes=num_episodes,
    transitions=len(wanted),
    mean_absolute_error=np.mean(np.abs(error), axis=0),
    root_mean_squared_error=np.sqrt(squared),
    explained=explained,
    std=np.sqrt(variance),
    total_explained=total,
  )


def _discrete(wanted: np.ndarray, chosen: np.ndarray, num_actions: int, num_episodes: int) -> DiscreteFidelity:
  if wanted.min() < 0 or wanted.max() >= num_actions:
    raise ValueError(
      f"fidelity: held-out actions go from {wanted.min()} to {wanted.max()}; the task has 0 to {num_actions - 1}"
    )
  right = wanted == chosen
  count = np.bincount(wanted, minlength=num_actions)
  hits = np.bincount(wanted[right], minlength=num_actions)
  recall = np.where(count > 0, hits / np.maximum(count, 1), np.nan)
  return DiscreteFidelity(num_episodes, len(wanted), count, recall, float(right.mean()))

"""How closely a policy repeats actions that it has not learnt from: scores where no simulator can play it."""

import functools
import heapq
import math
from collections.abc import Callable

import jax
import numpy as np

from ilx.data import views
from ilx.data.episodes import Episodes, lengths
from ilx.evaluation import acting
from ilx.evaluation.closeness import (
  ContinuousFidelity,
  DiscreteFidelity,
  FactoredFidelity,
  Fidelity,
  MultiDiscreteFidelity,
  compare,
)
from ilx.parallel import compiling
from ilx.types import Action, Agent, Array, Continuous, Discrete, MultiDiscrete, Step, Tree

__all__ = [
  "ContinuousFidelity",
  "DiscreteFidelity",
  "FactoredFidelity",
  "Fidelity",
  "MultiDiscreteFidelity",
  "fidelity",
]

# Rows acted on at once, unless fewer episodes than this are there for a policy with memory.
_SLOTS = 256
# What goes to the device at once: so many steps of all slots, fewer where they take more than so many bytes.
_STEPS, _BYTES = 64, 32 << 20


def fidelity(
  agent: Agent | acting.Policy,
  params: Tree,
  episodes: Episodes,
  *,
  action: Action,
  clip: bool = True,
  frame_stack: int = 0,
  keep: np.ndarray | None = None,
  progress: Callable[[float], None] | None = None,
) -> Fidelity:
  """Compares the policy's mode with the action of every transition; of an action of several parts, each part.

  Of agents with ``log_prob`` it also says how likely they find the actions.

  The policy sees what it would have seen at play: observations in order, the reward of the step before, and
  ``is_first``; an agent with ``log_prob`` remembers the data's actions as those it has taken (others, if they remember
  actions at all, their own). Policies without memory see many steps at once, others go through many episodes side by
  side.

  Args:
    agent: what acts; anything with ``act`` and ``carry``, and ``log_prob`` where it has one.
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
  chosen, log_prob = _play(agent, params, episodes, taken, rows, is_first, frame_stack, progress)
  wanted, there = jax.tree.map(lambda x: x[rows[rows >= 0]], taken), rows >= 0
  chosen, log_prob = jax.tree.map(lambda x: x[there], chosen), jax.tree.map(lambda x: x[there], log_prob)
  if any(np.isnan(x).any() for x in jax.tree.leaves(chosen)):
    raise ValueError("fidelity: the policy produced NaN actions; look at its parameters")
  return compare(action, wanted, chosen, log_prob, int(keep.sum()))


def _actions(episodes: Episodes, action: Action, clip: bool) -> Tree:
  if jax.tree.structure(episodes.action) != jax.tree.structure(action):
    ours, theirs = (
      ", ".join(jax.tree_util.keystr(path) or "one array" for path, _ in jax.tree_util.tree_leaves_with_path(tree))
      for tree in (episodes.action, action)
    )
    raise ValueError(f"fidelity: held-out actions have the parts {ours}; the task's have {theirs}")

  def of_part(part: Continuous | Discrete | MultiDiscrete, column: Array) -> np.ndarray:
    taken = np.asarray(column)
    expected = part.low.shape if isinstance(part, Continuous) else np.shape(part.num_actions)
    if taken.shape[1:] != expected or (taken.dtype.kind in "iub") == isinstance(part, Continuous):
      raise ValueError(f"fidelity: held-out actions are {taken.dtype} {list(taken.shape[1:])}; the task's are {part}")
    return np.clip(taken, part.low, part.high) if clip and isinstance(part, Continuous) else taken

  return jax.tree.map(of_part, action, episodes.action)


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
  agent: Agent | acting.Policy,
  params: Tree,
  episodes: Episodes,
  taken: Tree,
  rows: np.ndarray,
  is_first: np.ndarray,
  frame_stack: int,
  progress: Callable[[float], None] | None,
) -> tuple[Tree, Tree]:
  """The policy's actions ``[T, B, ...]`` at ``rows``, and how likely it finds those ``taken``, ``[T, B]`` or None.

  Where ``rows`` are -1, they mean nothing.
  """
  total, slots = rows.shape
  reward = np.asarray(episodes.reward, np.float32)
  first = views.bounds(episodes, np.maximum(rows, 0).reshape(-1))[0].reshape(rows.shape)
  leaves = jax.tree.leaves(episodes.observation)
  size = slots * max(1, frame_stack) * sum(math.prod(x.shape[1:]) * np.dtype(x.dtype).itemsize for x in leaves)
  at_once = max(1, min(_STEPS, total, _BYTES // size))
  act = _compiled(agent.act, getattr(agent, "log_prob", None))
  params, carry = acting.on_one_device(params), agent.carry(slots)
  found = []
  for start in range(0, total, at_once):
    # The last piece repeats its last step to be as long as the others: one compilation.
    times = np.minimum(np.arange(start, start + at_once), total - 1)
    here = np.maximum(rows[times], 0)
    steps = Step(
      views.observe(episodes, here, first[times], frame_stack),
      np.where(is_first[times], np.float32(0), reward[np.maximum(here - 1, 0)]),
      is_first[times],
    )
    chosen, carry = act(params, carry, steps, jax.tree.map(lambda x, here=here: x[here], taken))
    found.append(jax.tree.map(lambda x, left=total - start: np.asarray(x)[:left], chosen))
    if progress is not None:
      progress(min(1.0, (start + at_once) / total))
  return jax.tree.map(lambda *x: np.concatenate(x), *found)


@functools.lru_cache(maxsize=16)
def _compiled(act: Callable, log_prob: Callable | None) -> Callable[..., tuple[Tree, Tree]]:
  def scan(params: Tree, carry: Tree, steps: Step, taken: Tree) -> tuple[Tree, Tree]:
    def one(carry: Tree, given: tuple[Step, Tree]) -> tuple[Tree, tuple[Tree, Tree]]:
      step, action = given
      chosen, after = act(params, carry, step, None)
      if log_prob is None:
        return after, (chosen, None)
      likelihood, carry = log_prob(params, carry, step, action)
      return carry, (chosen, likelihood)

    carry, found = jax.lax.scan(one, carry, (steps, taken))
    return found, carry

  return jax.jit(scan, compiler_options=compiling.options())

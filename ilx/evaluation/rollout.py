"""Scores of policies, from whole episodes in vectorised environments."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ilx.evaluation import environments
from ilx.evaluation.acting import Policy
from ilx.evaluation.playing import Played, Share, play
from ilx.evaluation.trajectories import Episode
from ilx.parallel import hosts
from ilx.types import Agent, Tree

# Slots stepped together unless the caller chooses. On 2 cores HalfCheetah with a 2x256 policy gains up to about 50:
# 8 slots made 7,400 steps a second, 32 9,900, 50 12,800, 64 11,600, 100 14,000 (on a busy machine).
MAX_ENVS = 64


class Result(NamedTuple):
  """What a policy scored.

  Attributes:
    returns: float64 ``[episodes]``, undiscounted. Episode ``r`` of slot ``i`` is entry ``r * num_envs + i``.
    lengths: int64 ``[episodes]``, actions in each episode.
    seconds: wall clock of playing, compilation included.
    env_steps: actions taken, each counted once with ``action_repeat``, too; resets, and those of slots that had played
      their share, included.
    env_id: the task.
    env_version: EnvPool's version, or such as "gymnasium 1.4.0".
    successes: bool ``[episodes]``, whether the task was done at any step; None where the environment does not tell.
  """

  returns: np.ndarray
  lengths: np.ndarray
  seconds: float
  env_steps: int
  env_id: str
  env_version: str
  successes: np.ndarray | None = None


def evaluate(
  agent: Agent | Policy,
  params: Tree,
  env_id: str,
  *,
  episodes: int = 100,
  seed: int = 0,
  num_envs: int | None = None,
  batch_size: int | None = None,
  env_kwargs: dict[str, Any] | None = None,
  sample: bool = False,
  across_hosts: bool = False,
  on_episode: Callable[[int, Episode], None] | None = None,
  progress: Callable[[float], None] | None = None,
) -> Result:
  """Plays ``episodes`` whole episodes and returns their scores; the same arguments give the same bits (but see
  ``batch_size``).

  Every environment slot plays a fixed share of the episodes, so short episodes are not favoured (counting the first
  ``episodes`` that finish would favour them).

  Args:
    agent: only ``act`` and ``carry`` are used. ``act`` is compiled once per agent and batch size.
    params: what ``act`` takes, such as ``state.params``; placed on one local device.
    env_id: EnvPool's name of the task, or ``"gymnasium:..."`` with gymnasium's.
    episodes: how many.
    seed: any integer >= 0; of the environments (see ``environments.slot_seeds``) and of the sampled actions.
    num_envs: slots stepped together; by default as few as play the episodes in ``ceil(episodes / 64)`` rounds.
    batch_size: the policy acts for so many slots as soon as they are ready, while others are still stepping, for
      environments whose steps take unevenly long (EnvPool's asynchronous mode). By default it waits for all. The
      episodes are the same to rounding, which may depend on who acts together; sampled ones are others, since each slot
      draws noise of its own. Of every process its own, ``across_hosts``.
    env_kwargs: the task's own options, and ``action_repeat``, see ``environments.make``.
    sample: draw actions from the policy instead of taking its mode.
    across_hosts: every process of a run (see ``ilx.parallel.hosts``) plays its share of the slots, and all return what
      all have played; each must make this call. The number of processes changes no episode, unless actions are sampled.
    on_episode: called with ``(index, episode)`` in the order of ``index``, see ``play``; not ``across_hosts``.
    progress: called a few times a second with the fraction played, at most 1.

  Raises:
    ValueError: for an unknown ``env_id``, for a ``batch_size`` that it cannot have, or where the policy's actions have
      a wrong shape, are out of range or NaN.
  """
  if episodes < 1:
    raise ValueError(f"episodes must be >= 1, got {episodes}")
  if num_envs is not None and num_envs < 1:
    raise ValueError(f"num_envs must be >= 1, got {num_envs}")
  if on_episode and across_hosts:
    raise ValueError("on_episode sees whole evaluations: leave out across_hosts")
  if num_envs is None:
    rounds = -(-episodes // MAX_ENVS)
    num_envs = -(-episodes // rounds)
  num_envs = min(num_envs, episodes)
  host, count = (jax.process_index(), jax.process_count()) if across_hosts else (0, 1)
  first, end = host * num_envs // count, (host + 1) * num_envs // count
  start = time.perf_counter()
  played = Played(np.zeros(episodes), np.zeros(episodes, np.int64), None, 0)
  if first < end:
    env = environments.make(env_id, end - first, seed, first, batch_size, **(env_kwargs or {}))
    key = jax.random.key(seed, impl="threefry2x32") if sample else None
    if key is not None and host:
      key = jax.random.fold_in(key, host)
    share = Share(first, num_envs)
    played = play(agent, params, env, episodes=episodes, key=key, share=share, on_episode=on_episode, progress=progress)
  if across_hosts and count > 1:
    played = _gathered(played)
  seconds = time.perf_counter() - start
  version = environments.version(env_id)
  return Result(played.returns, played.lengths, seconds, played.env_steps, env_id, version, played.successes)


def _gathered(played: Played) -> Played:
  """What all hosts have played; of episodes that others played each has zeros."""
  told = hosts.gather(np.array(played.successes is not None)).any()
  successes = played.successes if played.successes is not None else np.zeros(len(played.returns), bool)
  return Played(
    hosts.gather(played.returns).sum(axis=0),
    hosts.gather(played.lengths).sum(axis=0),
    hosts.gather(successes).any(axis=0) if told else None,
    int(hosts.gather(np.array(played.env_steps)).sum()),
  )

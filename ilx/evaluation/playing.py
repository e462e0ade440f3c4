"""The loop in which policies play: under `ilx.evaluate`, videos and recording."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ilx.evaluation import acting, environments
from ilx.evaluation.acting import Policy
from ilx.evaluation.repeated import SUCCESS
from ilx.evaluation.trajectories import Episode, Trajectories
from ilx.types import Agent, Step, Tree

# Between two reports of progress.
_REPORT_SECONDS = 0.2


class Played(NamedTuple):
  """What the loop gathers; see `ilx.evaluation.Result`."""

  returns: np.ndarray
  lengths: np.ndarray
  successes: np.ndarray | None
  env_steps: int


class Share(NamedTuple):
  """The slots ``first``, ``first + 1``, ... of ``total``, others of which are played elsewhere."""

  first: int
  total: int


def play(
  policy: Agent | Policy,
  params: Tree,
  env: Any,
  *,
  episodes: int,
  key: jax.Array | None = None,
  share: Share | None = None,
  on_episode: Callable[[int, Episode], None] | None = None,
  progress: Callable[[float], None] | None = None,
) -> Played:
  """Plays ``episodes`` whole episodes.

  Slot ``i`` of ``n`` plays the episodes ``i``, ``i + n``, ``i + 2n``, ... below ``episodes``; then it goes on
  stepping, and nothing it does counts, until all slots are done.

  Args:
    policy: ``act`` and ``carry``.
    params: what ``act`` takes.
    env: fresh from ``environments.make``; it is reset here, once. Where its ``batch_size`` is less than its slots, the
      policy acts for those that are ready.
    episodes: how many to play.
    key: None for the mode of the policy, a key for samples.
    share: which slots those of ``env`` are; by default all there are.
    on_episode: called with ``(index, episode)`` in the order of ``index``, 0 to ``episodes - 1``; not for a share.
    progress: called a few times a second with the fraction played, at most 1.

  Returns:
    What was played. Of a share, entries of other slots' episodes are 0.

  Raises:
    ValueError: where the policy's actions have a wrong shape, are out of range or NaN.
  """
  num_envs = env.num_envs
  asynchronous = env.config.get("batch_size", num_envs) < num_envs
  everyone = np.arange(num_envs)
  spec = environments.spec_of(env.spec)
  make_actor = acting.apart if asynchronous else acting.together
  actor = make_actor(policy, acting.on_one_device(params), num_envs, key)

  returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
  done, successes = np.zeros(num_envs, bool), None
  # The episode that each slot plays; at or beyond `episodes` its share is played.
  first, total = share or (0, num_envs)
  index = first + np.arange(num_envs)
  report = _reporter(progress, index, total, episodes, env.config["max_episode_steps"])
  earned, length = np.zeros(num_envs), np.zeros(num_envs, np.int64)
  trajectories = Trajectories(num_envs, episodes, on_episode) if on_episode else None

  # Where an episode has ended (at first, where none has begun) what comes next is the first observation of another.
  ended, env_steps = np.ones(num_envs, bool), 0
  received = _reset(env, asynchronous)
  while True:
    observation, reward, terminated, truncated, info = received
    slots = info["env_id"] if asynchronous else everyone
    at = slots if asynchronous else slice(None)  # the same, faster
    observation, is_first = environments.observe(observation), ended[at].copy()
    if trajectories:
      trajectories.after(slots, observation, reward, is_first)
    earned[at] = np.where(is_first, 0.0, earned[at] + reward)
    length[at] = np.where(is_first, 0, length[at] + 1)
    done[at] &= ~is_first  # whether or not this step tells anything: gymnasium's resets may not
    told = next((info[name] for name in SUCCESS if name in info), None)
    if told is not None:
      successes = np.zeros(episodes, bool) if successes is None else successes
      done[at] |= ~is_first & (np.asarray(told) > 0)
    ended[at] = terminated | truncated
    for row in np.flatnonzero(ended[at] & (index[at] < episodes)):
      slot = slots[row]
      returns[index[slot]], lengths[index[slot]] = earned[slot], length[slot]
      if successes is not None:
        successes[index[slot]] = done[slot]
      if trajectories:
        trajectories.end(slot, index[slot], bool(terminated[row]))
      index[slot] += total
    report(index, np.where(ended, 0, length))
    if not np.any(index < episodes):
      return Played(returns, lengths, successes, env_steps)
    action = acting.checked(actor(slots, Step(observation, reward, is_first)), spec.action, len(slots))
    if trajectories:
      trajectories.before(slots, observation, action)
    if asynchronous:
      env.send(action, slots)
      received = env.recv()
    else:
      received = env.step(action)
    env_steps += len(slots)


def _reset(env: Any, asynchronous: bool) -> tuple[Tree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
  """First observations, as a step would give them; of slots that step apart, those of the first that are ready."""
  if asynchronous:
    env.async_reset()
    return env.recv()
  observation, info = env.reset()
  nowhere = np.zeros(env.num_envs, bool)
  return observation, np.zeros(env.num_envs, np.float32), nowhere, nowhere, info


def _reporter(
  progress: Callable[[float], None] | None, first: np.ndarray, total: int, episodes: int, time_limit: int
) -> Callable:
  """Calls ``progress`` now and then; an unfinished episode counts for the part of its time limit that has passed.

  ``first``: the episode that each slot begins with, of ``total`` slots. ``time_limit``: 0 where there is none.
  """
  last = time.perf_counter()
  begins = first.copy()
  share = np.sum(-((begins - episodes) // total))

  def report(index: np.ndarray, length: np.ndarray) -> None:
    nonlocal last
    if progress is None or (time.perf_counter() - last < _REPORT_SECONDS and np.any(index < episodes)):
      return
    last = time.perf_counter()
    finished = np.sum((index - begins) // total)
    underway = np.sum(length[index < episodes]) / time_limit if time_limit else 0.0
    progress(min(1.0, float((finished + underway) / share)))

  return report

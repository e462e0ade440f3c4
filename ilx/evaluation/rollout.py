"""Playing policies in vectorised environments."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ilx.evaluation import environments
from ilx.evaluation.trajectories import Episode, Trajectories
from ilx.parallel import hosts
from ilx.types import Agent, Array, Continuous, Discrete, MultiDiscrete, Spec, Step, Tree

# Slots stepped together unless the caller chooses. On 2 cores HalfCheetah with a 2x256 policy gains up to about 50:
# 8 slots made 7,400 steps a second, 32 9,900, 50 12,800, 64 11,600, 100 14,000 (on a busy machine).
MAX_ENVS = 64
# What environments call success in what they tell beside the reward; the first that there is.
_SUCCESS = ("success", "is_success", "solved")
# Between two reports of progress.
_REPORT_SECONDS = 0.2


class Policy(NamedTuple):
  """The two functions of an ``Agent`` that play needs; wherever a policy is asked for, an agent will do."""

  act: Callable[[Tree, Tree, Step, jax.Array | None], tuple[jax.Array, Tree]]
  carry: Callable[[int], Tree]


class Result(NamedTuple):
  """What a policy scored.

  Attributes:
    returns: float64 ``[episodes]``, undiscounted. Episode ``r`` of slot ``i`` is entry ``r * num_envs + i``.
    lengths: int64 ``[episodes]``, actions in each episode.
    seconds: wall clock of playing, compilation included.
    env_steps: environment steps made, those of slots that had played their share included.
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


class Played(NamedTuple):
  """What the loop gathers; see `Result`."""

  returns: np.ndarray
  lengths: np.ndarray
  successes: np.ndarray | None
  env_steps: int


class Share(NamedTuple):
  """The slots ``first``, ``first + 1``, ... of ``total``, others of which are played elsewhere."""

  first: int
  total: int


def evaluate(
  agent: Agent | Policy,
  params: Tree,
  env_id: str,
  *,
  episodes: int = 100,
  seed: int = 0,
  num_envs: int | None = None,
  env_kwargs: dict[str, Any] | None = None,
  sample: bool = False,
  across_hosts: bool = False,
  on_episode: Callable[[int, Episode], None] | None = None,
  progress: Callable[[float], None] | None = None,
) -> Result:
  """Plays ``episodes`` whole episodes and returns their scores; the same arguments give the same bits.

  Every environment slot plays a fixed share of the episodes, so short episodes are not favoured (counting the first
  ``episodes`` that finish would favour them).

  Args:
    agent: only ``act`` and ``carry`` are used. ``act`` is compiled once per agent and batch size.
    params: what ``act`` takes, such as ``state.params``; placed on one local device.
    env_id: EnvPool's name of the task, or ``"gymnasium:..."`` with gymnasium's.
    episodes: how many.
    seed: any integer >= 0; of the environments (see ``environments.slot_seeds``) and of the sampled actions.
    num_envs: slots stepped together; by default as few as play the episodes in ``ceil(episodes / 64)`` rounds.
    env_kwargs: the task's own options.
    sample: draw actions from the policy instead of taking its mode.
    across_hosts: every process of a run (see ``ilx.parallel.hosts``) plays its share of the slots, and all return what
      all have played; each must make this call. The number of processes changes no episode, unless actions are sampled.
    on_episode: called with ``(index, episode)`` in the order of ``index``, see ``play``; not ``across_hosts``.
    progress: called a few times a second with the fraction played, at most 1.

  Raises:
    ValueError: for an unknown ``env_id``, or where the policy's actions have a wrong shape, are out of range or NaN.
  """
  if episodes < 1:
    raise ValueError(f"episodes must be >= 1, got {episodes}")
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
    env = environments.make(env_id, end - first, seed, first, **(env_kwargs or {}))
    key = jax.random.key(seed) if sample else None
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
  """The loop under ``evaluate`` and under recording.

  Slot ``i`` of ``n`` plays the episodes ``i``, ``i + n``, ``i + 2n``, ... below ``episodes``; then it goes on
  stepping, and nothing it does counts, until all slots are done.

  Args:
    policy: ``act`` and ``carry``.
    params: what ``act`` takes.
    env: fresh from ``environments.make``; it is reset here, once.
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
  spec = environments.spec_of(env.spec)
  act = _compiled(policy.act, key is not None)
  params, carry = on_one_device(params), policy.carry(num_envs)

  returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
  done, successes = np.zeros(num_envs, bool), None
  # The episode that each slot plays; at or beyond `episodes` its share is played.
  first, total = share or (0, num_envs)
  index = first + np.arange(num_envs)
  report = _reporter(progress, index, total, episodes, env.config["max_episode_steps"])
  earned, length = np.zeros(num_envs), np.zeros(num_envs, np.int64)
  trajectories = Trajectories(num_envs, episodes, on_episode) if on_episode else None

  observation = environments.observe(env.reset()[0])
  reward, is_first, steps = np.zeros(num_envs, np.float32), np.ones(num_envs, bool), 0
  # The step after an episode's end takes no action: it returns the next episode's first observation.
  ended = np.zeros(num_envs, bool)
  while np.any(index < episodes):
    action, carry = act(params, carry, Step(observation, reward, is_first), key, steps)
    action = jax.tree.map(lambda part, x: _checked(np.asarray(x), part, num_envs), spec.action, action)
    if trajectories:
      trajectories.before(observation, action)
    observation, reward, terminated, truncated, info = env.step(action)
    observation, is_first, steps = environments.observe(observation), ended, steps + 1
    if trajectories:
      trajectories.after(observation, reward, is_first)
    earned, length = np.where(is_first, 0.0, earned + reward), np.where(is_first, 0, length + 1)
    told = next((info[name] for name in _SUCCESS if name in info), None)
    if told is not None:
      successes = np.zeros(episodes, bool) if successes is None else successes
      done = ~is_first & (done | (np.asarray(told) > 0))
    ended = terminated | truncated
    for slot in np.flatnonzero(ended & (index < episodes)):
      returns[index[slot]], lengths[index[slot]] = earned[slot], length[slot]
      if successes is not None:
        successes[index[slot]] = done[slot]
      if trajectories:
        trajectories.end(slot, index[slot], bool(terminated[slot]))
      index[slot] += total
    report(index, np.where(ended, 0, length))
  return Played(returns, lengths, successes, steps * num_envs)


def random_policy(spec: Spec) -> Policy:
  """Actions drawn uniformly, within the bounds or over the choices; has no mode, so play it with ``sample=True``."""

  def act(params: Tree, carry: Tree, step: Step, key: jax.Array | None) -> tuple[Tree, Tree]:
    del params
    if key is None:
      raise ValueError("The random policy has no mode: play it with sample=True")
    (batch_size,) = step.reward.shape
    parts, treedef = jax.tree.flatten(spec.action)
    keys = [key] if len(parts) == 1 else jax.random.split(key, len(parts))
    drawn = [_uniform(key, part, batch_size) for key, part in zip(keys, parts, strict=True)]
    return jax.tree.unflatten(treedef, drawn), carry

  return Policy(act=act, carry=lambda batch_size: ())


def _uniform(key: jax.Array, part: Continuous | Discrete | MultiDiscrete, batch_size: int) -> jax.Array:
  if isinstance(part, Continuous):
    low, high = jnp.asarray(part.low), jnp.asarray(part.high)
    return jax.random.uniform(key, (batch_size, *low.shape), minval=low, maxval=high)
  return jax.random.randint(key, (batch_size, *np.shape(part.num_actions)), 0, jnp.asarray(part.num_actions))


@functools.lru_cache(maxsize=64)
def _compiled(act: Callable, sample: bool) -> Callable:
  def policy(params, carry, step, key, time_step):
    return act(params, carry, step, jax.random.fold_in(key, time_step) if sample else None)

  return jax.jit(policy)


def on_one_device(params: Tree) -> Tree:
  """Acting is a small program in a host loop: it must not wait for the collectives of a mesh."""
  device = jax.local_devices()[0]

  def place(x: Array) -> Array:
    if isinstance(x, jax.Array) and len(x.sharding.device_set) > 1:
      if x.is_fully_replicated:
        x = x.addressable_data(0)
      elif x.is_fully_addressable:
        x = np.asarray(x)
      else:
        raise ValueError(f"params: an array {x.shape} is sharded over several hosts; replicate it before evaluation")
    return jax.device_put(x, device)

  return jax.tree.map(place, params)


def _checked(action: np.ndarray, spec: Continuous | Discrete | MultiDiscrete, num_envs: int) -> np.ndarray:
  """The actions as environments may have them: EnvPool clamps nothing and does not check choices.

  MuJoCo clamps actions in the physics but not in the control cost, so they are clipped here.
  """
  size = spec.low.shape if isinstance(spec, Continuous) else np.shape(spec.num_actions)
  expected = (num_envs, *size)
  if action.shape != expected:
    raise ValueError(f"The policy's actions have shape {action.shape}; the environment takes {expected}")
  if isinstance(spec, Continuous):
    if np.isnan(action).any():
      slot = int(np.argmax(np.isnan(action).reshape(num_envs, -1).any(axis=1)))
      raise ValueError(f"The policy produced NaN actions (slot {slot}: {action[slot]}); look at its parameters")
    return np.clip(action.astype(np.float32, copy=False), spec.low, spec.high)
  if not np.issubdtype(action.dtype, np.integer):
    raise ValueError(f"The policy's actions are {action.dtype}; the environment takes integers")
  illegal = (action < 0) | (action >= np.asarray(spec.num_actions))
  if illegal.any():
    most = np.broadcast_to(spec.num_actions, action.shape)[illegal][0] - 1
    raise ValueError(f"The policy chose action {action[illegal][0]}; the environment has 0 to {most}")
  return action


def _reporter(
  progress: Callable[[float], None] | None, first: np.ndarray, total: int, episodes: int, time_limit: int
) -> Callable:
  """Calls ``progress`` now and then; an unfinished episode counts for the part of its time limit that has passed.

  ``first``: the episode that each slot begins with, of ``total`` slots.
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
    underway = np.sum(length[index < episodes]) / time_limit
    progress(min(1.0, float((finished + underway) / share)))

  return report

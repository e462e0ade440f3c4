"""Every action taken several times: fewer, longer steps, as policies that decide less often than the world moves."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ilx.types import Tree

# What environments call success in what they tell beside the reward; the first that there is.
SUCCESS = ("success", "is_success", "solved")
# The option of environments that says how often each action is taken.
ACTION_REPEAT = "action_repeat"


class Repeated:
  """An EnvPool object that takes every action ``times`` times, or until the episode ends.

  Rewards are summed, the last observation is seen, and a success at any of the steps is one.

  Attributes:
    num_envs: as of the environment.
    spec: likewise.
    config: likewise, ``max_episode_steps`` in actions.
  """

  def __init__(self, env: Any, times: int):
    self._env, self._times = env, times
    self.num_envs, self.spec = env.num_envs, env.spec
    limit = -(-env.config["max_episode_steps"] // times)
    self.config = {**env.config, "max_episode_steps": limit}
    self._ended = np.zeros(self.num_envs, bool)

  def reset(self) -> tuple[Tree, dict[str, Any]]:
    """The first observations ``[num_envs, O]``."""
    return self._env.reset()

  def step(self, action: Tree) -> tuple[Tree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """As of EnvPool; where an episode had ended, the step returns the next one's first observation."""
    received = self._env.step(action)
    observation, reward, terminated, truncated, success = jax.tree.map(np.array, (*received[:4], _success(received[4])))
    begins = self._ended  # a step that resets takes no action: there is nothing to repeat
    for _ in range(self._times - 1):
      slots = np.flatnonzero(~(begins | terminated | truncated))
      if not len(slots):
        break
      seen, earned, died, stopped, info = self._env.step(jax.tree.map(lambda x, s=slots: x[s], action), slots)
      for whole, part in zip(jax.tree.leaves(observation), jax.tree.leaves(seen), strict=True):
        whole[slots] = part
      reward[slots] += earned
      terminated[slots], truncated[slots] = died, stopped
      for name, told in _success(info).items():
        success[name][slots] = np.maximum(success[name][slots], told)
    self._ended = terminated | truncated
    return observation, reward, terminated, truncated, success


def split(env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
  """How often actions are repeated, and the other options.

  Raises:
    ValueError: where it is no whole number of at least 1.
  """
  rest = dict(env_kwargs)
  times = rest.pop(ACTION_REPEAT, 1)
  if not isinstance(times, int) or isinstance(times, bool) or times < 1:
    raise ValueError(f"{env_id}: {ACTION_REPEAT} is {times!r}; expected a whole number of at least 1")
  return times, rest


def _success(info: Mapping[str, Any]) -> dict[str, Any]:
  return {name: info[name] for name in SUCCESS if name in info}

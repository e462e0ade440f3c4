"""Plays a policy in EnvPool and keeps every episode whole, reproducibly."""

import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments.demos.policy import Act
from ilx.types import Continuous, Discrete


class Played(NamedTuple):
  """One episode of T actions.

  Attributes:
    observation: float32 ``[T + 1, O]``.
    action: float32 ``[T, A]`` or int32 ``[T]``.
    reward: float32 ``[T]``.
    terminal: the task ended; false where the time limit did.
  """

  observation: np.ndarray
  action: np.ndarray
  reward: np.ndarray
  terminal: bool

  @property
  def total(self) -> float:
    """Undiscounted return."""
    return float(np.sum(self.reward, dtype=np.float64))


def make(env_id: str, *, num_envs: int, seed: int):
  """EnvPool's environments, with gymnasium's API."""
  import envpool

  with warnings.catch_warnings():  # gymnasium remarks on the spaces' precision
    warnings.simplefilter("ignore")
    env = envpool.make(env_id, env_type="gymnasium", num_envs=num_envs, seed=seed)
    env.observation_space, env.action_space  # noqa: B018 (made on first use)
  return env


def action_spec(env_id: str) -> Continuous | Discrete:
  """What the environment takes."""
  space = make(env_id, num_envs=1, seed=0).action_space
  return Discrete(int(space.n)) if hasattr(space, "n") else Continuous(space.low, space.high)


def play(
  policy: Act, env_id: str, *, seed: int, num_envs: int, episodes_per_env: int = 1, sample: bool
) -> list[Played]:
  """Every environment plays its own ``episodes_per_env`` episodes, so short ones are not favoured.

  Returns:
    ``num_envs * episodes_per_env`` episodes, the first environment's first.
  """
  played: list[list[Played]] = [[] for _ in range(num_envs)]
  for index, episode in _episodes(policy, env_id, seed, num_envs, sample):
    if len(played[index]) < episodes_per_env:
      played[index].append(episode)
    if all(len(episodes) == episodes_per_env for episodes in played):
      break
  return [episode for episodes in played for episode in episodes]


def _episodes(policy: Act, env_id: str, seed: int, num_envs: int, sample: bool) -> Iterator[tuple[int, Played]]:
  """``(environment, episode)`` as they end, for ever."""
  env = make(env_id, num_envs=num_envs, seed=seed)
  rng = np.random.default_rng(seed) if sample else None
  observation = env.reset()[0].astype(np.float32)
  rows: list[tuple] = [([row], [], []) for row in observation]
  resets = np.zeros(num_envs, bool)
  while True:
    action = policy(observation, rng)
    as_env = action.astype(np.float64) if action.dtype.kind == "f" else action
    observation, reward, terminated, truncated, _ = env.step(as_env)
    observation = observation.astype(np.float32)
    for i in range(num_envs):
      if resets[i]:  # the step after an episode's end ignores the action and returns the first observation
        rows[i] = ([observation[i]], [], [])
        continue
      for column, value in zip(rows[i], (observation[i], action[i], reward[i]), strict=True):
        column.append(value)
    resets = terminated | truncated
    for i in np.flatnonzero(resets):
      columns = [np.stack(column) for column in rows[i]]
      yield int(i), Played(*columns, bool(terminated[i]))

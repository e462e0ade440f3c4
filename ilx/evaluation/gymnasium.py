"""Environments that EnvPool lacks: gymnasium's, in its vector API, with what `playing.play` needs of an EnvPool object.

They are Python, stepped one after the other: a hundred times slower than EnvPool's. Their names have the prefix
"gymnasium:", as in ``"gymnasium:FetchReach-v4"``.
"""

import functools
import numbers
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ilx.evaluation import repeated
from ilx.types import Action, Continuous, Discrete, MultiDiscrete, Spec, Tree

PREFIX = "gymnasium:"


class Pool:
  """Environments stepped together; an episode's end is followed by a step that resets, as in EnvPool.

  Attributes:
    num_envs: how many.
    spec: what an agent must know about the task.
    config: ``max_episode_steps``, in actions.
  """

  def __init__(self, env_id: str, seeds: np.ndarray, env_kwargs: Mapping[str, Any]):
    """Makes an environment for every seed, int64 ``[num_envs]``; raises what ``spec`` raises."""
    found = _registered(env_id, env_kwargs)
    vector = _gymnasium().vector
    make = functools.partial(_make, env_id, env_kwargs)
    self._envs = vector.SyncVectorEnv([make] * len(seeds), autoreset_mode=vector.AutoresetMode.NEXT_STEP)
    self._seeds = [int(seed) for seed in seeds]
    self.num_envs = len(seeds)
    self.spec = _spec(env_id, self._envs.single_observation_space, self._envs.single_action_space)
    times, _ = repeated.split(env_id, env_kwargs)
    self.config = {"max_episode_steps": -(-_limit(found, env_kwargs) // times)}

  def reset(self) -> tuple[Tree, dict[str, Any]]:
    """The first observations ``[num_envs, O]``."""
    observation, info = self._envs.reset(seed=self._seeds)
    return _plain(observation), info

  def step(self, action: Tree) -> tuple[Tree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """Observations, rewards (float32), terminations, truncations and what else the environments tell."""
    observation, reward, terminated, truncated, info = self._envs.step(action)
    return _plain(observation), reward.astype(np.float32), terminated, truncated, info


def is_one(env_id: str) -> bool:
  """Whether ``env_id`` asks for gymnasium."""
  return env_id.startswith(PREFIX)


def spec(env_id: str, env_kwargs: Mapping[str, Any]) -> Spec:
  """What an agent must know about the task.

  Raises:
    ImportError: where gymnasium is not installed.
    ValueError: for a task that is unknown, has no time limit or one that is no positive integer, or spaces that are of
      no fixed size.
  """
  _registered(env_id, env_kwargs)
  env = _make(env_id, env_kwargs)
  try:
    return _spec(env_id, env.observation_space, env.action_space)
  finally:
    env.close()


def time_limit(env_id: str, env_kwargs: Mapping[str, Any]) -> int:
  """The most environment steps of an episode; raises what ``spec`` raises."""
  return _limit(_registered(env_id, env_kwargs), env_kwargs)


def version() -> str:
  """As it is told beside scores."""
  return f"gymnasium {_gymnasium().__version__}"


def _gymnasium() -> types.ModuleType:
  try:
    import gymnasium
    import gymnasium.vector
  except ImportError as error:
    raise ImportError(f'gymnasium cannot be imported ({error}); run: pip install "ilx[gym]"') from error
  return gymnasium


def _registered(env_id: str, env_kwargs: Mapping[str, Any]) -> Any:
  """What gymnasium knows about the task; it must end, or an evaluation would not."""
  name = env_id.removeprefix(PREFIX)
  if ":" in name:  # gymnasium would import the module before the colon, and names may come from a dataset
    raise ValueError(f"{env_id!r} names a module; import it, which registers its tasks, and leave it out")
  try:
    found = _gymnasium().spec(name)
  except _gymnasium().error.Error as error:
    raise ValueError(f"Unknown environment id {env_id!r}: {error}") from error
  limit = _limit(found, env_kwargs)
  if limit is None:
    raise ValueError(f"{env_id} has no time limit; set one: env_kwargs={{'max_episode_steps': 1000}}")
  if isinstance(limit, bool) or not isinstance(limit, numbers.Integral):
    raise ValueError(f"{env_id}: max_episode_steps={limit!r} must be a whole number")
  if limit < 1:  # to gymnasium -1 is none
    raise ValueError(f"{env_id}: max_episode_steps={limit} must be at least 1")
  return found


def _limit(found: Any, env_kwargs: Mapping[str, Any]) -> int | None:
  return env_kwargs.get("max_episode_steps", found.max_episode_steps)


def _make(env_id: str, env_kwargs: Mapping[str, Any]) -> Any:
  times, options = repeated.split(env_id, env_kwargs)
  try:
    env = _gymnasium().make(env_id.removeprefix(PREFIX), **options)
  except (TypeError, _gymnasium().error.Error) as error:
    raise ValueError(f"{env_id} could not be made with {options}: {error}") from error
  return _repeating(env, times) if times > 1 else env


def _repeating(env: Any, times: int) -> Any:
  """The environment, taking every action so often; as `repeated.Repeated`, which needs steps of some slots alone."""

  class Repeating(_gymnasium().Wrapper):
    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
      total, told = np.float32(0), {}
      for _ in range(times):
        observation, reward, terminated, truncated, info = self.env.step(action)
        total += np.float32(reward)
        told |= {name: max(told.get(name, 0), info[name]) for name in repeated.SUCCESS if name in info}
        if terminated or truncated:
          break
      return observation, total, terminated, truncated, info | told

  return Repeating(env)


def _spec(env_id: str, observation: Any, action: Any) -> Spec:
  return Spec(_observation(env_id, observation), _action(env_id, action))


def _observation(env_id: str, space: Any) -> Tree:
  spaces = _gymnasium().spaces
  if isinstance(space, spaces.Dict):
    return {str(name): _observation(env_id, child) for name, child in space.items()}
  if isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
    return jax.ShapeDtypeStruct(space.shape, np.float32 if space.dtype == np.float64 else space.dtype)
  raise ValueError(f"{env_id}: observations of {type(space).__name__} are of no fixed shape, or have no names")


def _action(env_id: str, space: Any) -> Action:
  spaces = _gymnasium().spaces
  if isinstance(space, spaces.Dict):
    return {str(name): _action(env_id, child) for name, child in space.items()}
  if isinstance(space, spaces.Box) and space.dtype.kind == "f" and len(space.shape) <= 1 and space.is_bounded():
    return Continuous(space.low, space.high)
  if isinstance(space, spaces.Discrete) and space.start == 0:
    return Discrete(int(space.n))
  if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1 and not np.any(space.start):
    return MultiDiscrete(tuple(space.nvec.tolist()))
  raise ValueError(
    f"{env_id}: actions are {space}; ilx plays bounded float vectors, integers that start at 0, vectors of these, and "
    "dicts of all of them"
  )


def _plain(observation: Tree) -> Tree:
  """Dicts for gymnasium's mappings, in whatever order."""
  if isinstance(observation, Mapping):
    return {str(name): _plain(child) for name, child in observation.items()}
  return np.asarray(observation)

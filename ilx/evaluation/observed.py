"""Parts of an environment's observation: for policies learnt from data that lack the others, or arrange them otherwise.

What is seen is written as a tree, the option "observation" of environments::

  "image"                                  that part alone, without its name
  ["position", "velocity"]                 these, flattened and joined into one vector
  {"camera": "image", "state": ["a", "b"]} a dict of such, under names of one's own

Parts of parts have names as in "target/position".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ilx.types import Spec, Tree

# The option of environments that says what is seen of their observations.
OBSERVATION = "observation"


class Observed:
  """An EnvPool object, or one of gymnasium's, of whose observations only ``wanted`` is seen.

  Attributes:
    num_envs: as of the environment.
    spec: what an agent must know, of what is seen.
    config: as of the environment.
  """

  def __init__(self, env: Any, wanted: Tree, spec: Spec):
    self._env, self._wanted = env, wanted
    self.num_envs, self.spec, self.config = env.num_envs, spec, env.config

  def reset(self) -> tuple[Tree, dict[str, Any]]:
    """The first observations ``[num_envs, O]``."""
    observation, info = self._env.reset()
    return select(observation, self._wanted), info

  def step(self, action: Tree) -> tuple[Tree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """As of the environment."""
    return self._seen(self._env.step(action))

  def async_reset(self) -> None:
    """As of the environment."""
    self._env.async_reset()

  def send(self, action: Tree, slots: np.ndarray) -> None:
    """As of the environment."""
    self._env.send(action, slots)

  def recv(self) -> tuple[Tree, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
    """As of the environment."""
    return self._seen(self._env.recv())

  def _seen(self, received: Sequence[Any]) -> tuple[Any, ...]:
    return (select(received[0], self._wanted), *received[1:])


def split(env_id: str, env_kwargs: Mapping[str, Any]) -> tuple[Tree | None, dict[str, Any]]:
  """What is to be seen of observations, None for all there is, and the other options.

  Raises:
    ValueError: where it is no tree of names.
  """
  seen, rest = apart(env_kwargs)
  wanted = seen.get(OBSERVATION)
  if wanted is not None and not _names_parts(wanted):
    raise ValueError(
      f"{env_id}: {OBSERVATION} is {wanted!r}; expected the name of a part, a list of names, a dict of these, or null "
      "for all there is"
    )
  return wanted, rest


def apart(env_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Options about what is seen of a task, and those that make the task."""
  seen, task = {}, {}
  for name, value in env_kwargs.items():
    (seen if name == OBSERVATION else task)[name] = value
  return seen, task


def instead(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
  """Options ``given`` in place of those ``recorded``; what is seen, and what makes the task, are replaced apart.

  So a part can be named without repeating a time limit, and the other way round. No options at all, ``{}``, are the
  task's own; what is seen stays, unless it is given as None.
  """
  (seen, task), (seen_before, task_before) = apart(given), apart(recorded)
  seen = {name: value for name, value in (seen or seen_before).items() if value is not None}
  return (task_before if given and not task else task) | seen


def select(observation: Tree, wanted: Tree) -> Tree:
  """What is wanted of observations ``[B, O]``, in the form told above.

  Raises:
    ValueError: for a part that there is not, or one that has parts where a vector is joined of several.
  """
  if isinstance(wanted, Mapping):
    return {name: select(observation, part) for name, part in wanted.items()}
  if isinstance(wanted, str):
    return _part(observation, wanted)
  parts = {name: _part(observation, name) for name in wanted}
  for name, part in parts.items():
    if isinstance(part, Mapping):
      raise ValueError(f"observations: {name!r} has the parts {', '.join(map(str, part))}; name those to be joined")
  return np.concatenate([parts[name].reshape(len(parts[name]), -1) for name in wanted], axis=1)


def names(observation: Tree) -> list[str]:
  """Of all parts that are arrays, as they are written in the option; none where the whole is one array."""
  paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(observation)[0]]
  return [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths if path]


def _names_parts(wanted: Any) -> bool:
  if isinstance(wanted, Mapping):
    return bool(wanted) and all(isinstance(name, str) and _names_parts(part) for name, part in wanted.items())
  if isinstance(wanted, list | tuple):
    return bool(wanted) and all(isinstance(name, str) and name for name in wanted)
  return isinstance(wanted, str) and bool(wanted)


def _part(observation: Tree, name: str) -> Tree:
  found = _find(observation, name)
  if found is None:
    there = ", ".join(names(observation))
    raise ValueError(
      f"observations have no part {name!r}; " + (f"there are {there}" if there else "they are one array")
    )
  return found


def _find(observation: Tree, name: str) -> Tree | None:
  """The part of that name; gymnasium's names may themselves have a "/"."""
  if not isinstance(observation, Mapping):
    return None
  if name in observation:
    return observation[name]
  cuts = [i for i, letter in enumerate(name) if letter == "/" and name[:i] in observation]
  return next((part for i in cuts if (part := _find(observation[name[:i]], name[i + 1 :])) is not None), None)

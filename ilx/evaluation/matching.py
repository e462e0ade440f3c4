"""Whether what was learnt from a dataset can be played in an environment."""

import json
from collections.abc import Mapping

import jax
import numpy as np

from ilx.evaluation import observed
from ilx.types import Continuous, Discrete, Spec, Tree


def check_spec(dataset_spec: Spec, env_spec: Spec, env_id: str = "the environment") -> None:
  """Checks that what was learnt from a dataset can be played in an environment.

  Shapes must agree exactly; of dtypes only the kind counts (float, integer, bool), and action bounds may differ.

  Raises:
    ValueError: with all that differs.
  """
  ours, theirs = _describe(dataset_spec), _describe(env_spec)
  differences = [
    f"{name} is {ours.get(name, 'absent')} in the dataset but {theirs.get(name, 'absent')} in {env_id}"
    for name in dict.fromkeys([*ours, *theirs])
    if ours.get(name) != theirs.get(name)
  ]
  if differences:
    raise ValueError(
      f"The dataset does not fit {env_id}: {'; '.join(differences)}. Choose the environment that the data came from."
      f"{_parts_hint(dataset_spec, env_spec)}"
    )


def stacked(dataset_spec: Spec, env_spec: Spec) -> int | None:
  """How many frames the environment shows at once where the dataset has one; None where that is not what differs."""
  first = jax.tree.leaves(env_spec.observation)[0]
  if not first.shape:
    return None
  stacks = jax.tree.map(lambda x: jax.ShapeDtypeStruct((first.shape[0], *x.shape), x.dtype), dataset_spec.observation)
  return first.shape[0] if _observations(stacks) == _observations(env_spec.observation) else None


def _parts_hint(dataset_spec: Spec, env_spec: Spec) -> str:
  """How to play with parts of an observation, where it has some and the dataset others."""
  ours, theirs = _observations(dataset_spec.observation), _observations(env_spec.observation)
  parts = dict(zip(observed.names(env_spec.observation), jax.tree.leaves(env_spec.observation), strict=False))
  if not parts or ours.keys() == theirs.keys():
    return ""
  option, leaf = observed.OBSERVATION, dataset_spec.observation
  if isinstance(leaf, Mapping):
    if ours.items() <= theirs.items():
      same = _tree_of_names(leaf, [])
      return f" It is a part of what that shows: name it in env_kwargs, {json.dumps({option: same})}."
    return f" Parts that the dataset has under names of its own are played with {{{option!r}: {{OWN: THEIRS, ...}}}}."
  alike = [name for name, part in parts.items() if _array(part) == _array(leaf)]
  if len(alike) == 1:
    return f" It is a part of what that shows: name it in env_kwargs, {json.dumps({option: alike[0]})}."
  return (
    f" If it is joined of parts ({', '.join(parts)}), list them in env_kwargs in the dataset's order, which cannot be "
    f'checked: {{"{option}": [...]}}.'
  )


def _tree_of_names(observation: Tree, path: list[str]) -> Tree:
  if isinstance(observation, Mapping):
    return {name: _tree_of_names(part, [*path, name]) for name, part in observation.items()}
  return "/".join(path)


def _observations(of: Tree) -> dict[str, str]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(of)
  return {f"observation{jax.tree_util.keystr(path)}": _array(leaf) for path, leaf in leaves}


def _describe(of: Spec) -> dict[str, str]:
  described = _observations(of.observation)
  for path, part in jax.tree_util.tree_flatten_with_path(of.action)[0]:
    name = "/".join(["action", *filter(None, [jax.tree_util.keystr(path, simple=True, separator="/")])])
    if isinstance(part, Continuous):
      described[name] = f"continuous of size {part.size}" if part.low.ndim else "one continuous number"
    elif isinstance(part, Discrete):
      described[name] = f"discrete with {part.num_actions} choices"
    else:
      described[name] = f"{part.size} choices with {part.num_actions}"
  return described


def _array(leaf: jax.ShapeDtypeStruct) -> str:
  kinds = {"f": "float", "u": "integer", "i": "integer", "b": "bool"}
  return f"{kinds.get(np.dtype(leaf.dtype).kind, str(leaf.dtype))} of shape {tuple(leaf.shape)}"

"""Whether what was learnt from a dataset can be played in an environment."""

import json

import jax
import numpy as np

from ilx.evaluation import observed
from ilx.types import Continuous, Discrete, Spec


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
      f"{_parts_hint(ours, env_spec)}"
    )


def stacked(dataset_spec: Spec, env_spec: Spec) -> int | None:
  """How many frames the environment shows at once where the dataset has one; None where that is not what differs."""
  ours, theirs = jax.tree.leaves(dataset_spec.observation), jax.tree.leaves(env_spec.observation)
  if len(ours) == len(theirs) == 1 and len(theirs[0].shape) > 1 and theirs[0].shape[1:] == ours[0].shape:
    return theirs[0].shape[0]
  return None


def _parts_hint(ours: dict[str, str], env_spec: Spec) -> str:
  """How to play with parts of an observation, where names differ and there are parts; ``ours``: as of `_describe`."""
  theirs, names = _describe(env_spec), observed.names(env_spec.observation)
  if not names or _observations(ours) == _observations(theirs):
    return ""
  parts = zip(names, jax.tree.leaves(env_spec.observation), strict=True)
  alike = [name for name, part in parts if ours.get("observation") == _array(part)]
  option = json.dumps({observed.OBSERVATION: alike[0] if len(alike) == 1 else names})
  return f" To play with some of its parts, or joined in an order of your own, name them in env_kwargs: {option}."


def _observations(described: dict[str, str]) -> set[str]:
  return {name for name in described if name.startswith("observation")}


def _describe(of: Spec) -> dict[str, str]:
  described = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(of.observation)[0]:
    described[f"observation{jax.tree_util.keystr(path)}"] = _array(leaf)
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

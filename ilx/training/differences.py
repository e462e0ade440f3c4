"""Whether a checkpoint is one of the state that a run has."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ilx.types import Tree


def differences(saved: Tree, wanted: Tree) -> str | None:
  """How the arrays of a checkpoint (their metadata) differ from those wanted; None where they do not."""
  # A random key is on disk what it is made of.
  wanted = jax.tree.map(
    lambda x: jax.eval_shape(jax.random.key_data, x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, wanted
  )
  there, here = ({path: (tuple(x.shape), np.dtype(x.dtype)) for path, x in _leaves(tree)} for tree in (saved, wanted))
  if missing := sorted(here.keys() - there.keys()):
    return f"it lacks {missing[0]}, which this run's state has"
  if added := sorted(there.keys() - here.keys()):
    return f"it has {added[0]}, which this run's state lacks"
  for path, (shape, dtype) in here.items():
    if there[path] != (shape, dtype):
      was = f"{there[path][1]}{list(there[path][0])}"
      return f"{path} is {was} there where this run's is {dtype}{list(shape)}"
  return None


def _leaves(tree: Tree) -> list[tuple[str, Any]]:
  """With their paths, such as ``params/network/0``: the names that a file has for fields, keys and places alike."""
  return [(jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in jax.tree.leaves_with_path(tree)]

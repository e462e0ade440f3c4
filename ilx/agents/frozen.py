"""Optimizers that leave some parameters as they are."""

import re
from typing import Any

import jax
import optax

from ilx.parallel import placement


def frozen(optimizer: optax.GradientTransformation, pattern: str) -> optax.GradientTransformation:
  """The optimizer, which does not change the parameters whose paths match ``pattern``, and keeps no moments of them.

  Args:
    optimizer: of all others.
    pattern: regular expression, searched for in paths such as ``params/torso/Dense_0/kernel``; ``^params/encoder`` is
      what begins so, in each network: of several critics the paths begin at ``params/``, too. One that matches nothing
      freezes nothing, without an error: an optimizer may be of a network that has no such part.

  Raises:
    ValueError: where the pattern is no regular expression.

  Example:
    >>> import jax.numpy as jnp
    >>> optimizer = frozen(optax.sgd(1.0), "^encoder/")
    >>> params = {"encoder": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> jax.tree.map(lambda x: x.tolist(), updates)
    {'encoder': {'kernel': [0.0, 0.0]}, 'head': {'kernel': [-1.0, -1.0]}}
  """
  try:
    found = re.compile(pattern)
  except re.error as error:
    raise ValueError(f"freeze: {pattern!r} is no regular expression: {error}") from error

  def labels(params: Any) -> Any:
    def label(path: Any, _: Any) -> str:
      name = placement.name_of(path)
      return "frozen" if found.search(name[max(0, name.find("params/")) :]) else "learnt"

    return jax.tree_util.tree_map_with_path(label, params)

  return optax.partition({"learnt": optimizer, "frozen": optax.set_to_zero()}, labels)

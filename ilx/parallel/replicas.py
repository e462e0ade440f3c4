"""Updates on replicas: devices that have all parameters, and a part of the batch each.

Wherever an update looks at more than one item of the batch, an agent says so by these functions. They change nothing
unless the update is made on replicas (`across`): under ``jit`` there is one batch, which the compiler divides.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ilx.parallel import placement
from ilx.types import Tree

_AXIS: contextvars.ContextVar[str | None] = contextvars.ContextVar("replicas", default=None)


@contextlib.contextmanager
def across(axis: str) -> Iterator[None]:
  """What is traced within is for one replica; the mesh axis ``axis`` numbers them."""
  token = _AXIS.set(axis)
  try:
    yield
  finally:
    _AXIS.reset(token)


def many() -> bool:
  """Whether what is traced is for one of several replicas."""
  return _AXIS.get() is not None


def mean(tree: Tree) -> Tree:
  """The mean over all replicas: of gradients, and of what is averaged over the batch or counted in it."""
  axis = _AXIS.get()
  return tree if axis is None else jax.lax.pmean(tree, axis)


def draw(sample: Callable[[jax.Array, tuple[int, ...]], jax.Array], key: jax.Array, shape: Sequence[int]) -> jax.Array:
  """``sample(key, shape)`` of noise for every item of the batch, the leading axis: other noise on every replica.

  It is the noise that the items would get in a batch that is not divided.
  """
  axis, shape = _AXIS.get(), tuple(shape)
  if axis is None:
    return sample(key, shape)
  return part(sample(key, (shape[0] * jax.lax.axis_size(axis), *shape[1:])))


def part(x: jax.Array) -> jax.Array:
  """This replica's part of an array whose leading axis is that of the whole batch."""
  axis = _AXIS.get()
  if axis is None:
    return x
  size = x.shape[0] // jax.lax.axis_size(axis)
  return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis) * size, size)


def check_equal(state: Any) -> None:
  """Raises ValueError, naming the first leaf, where the replicas on this host's devices have come to differ.

  An agent that does not average its gradients by `mean` learns something else on each.
  """
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    first, *others = (np.asarray(shard.data) for shard in leaf.addressable_shards)
    if not all(np.array_equal(first, other, equal_nan=True) for other in others):
      raise ValueError(
        f"strategy='pmap': {placement.name_of(path)} of the state differs between "
        "devices; the agent must average its gradients by ilx.parallel.replicas.mean. Choose strategy='jit', which "
        "needs nothing of the agent"
      )

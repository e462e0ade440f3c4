"""Observation trees to features: the first layers of every network."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.types import Tree

# How pictures become features.
PICTURES = ("flat",)


class Encoder(nn.Module):
  """Joins the leaves of an observation tree to one feature axis.

  Attributes:
    shapes: of every leaf, in the order of ``jax.tree.leaves``, without batch axes.
    pictures: which leaves are pictures.
    picture: how these are encoded, one of ``PICTURES``.
  """

  shapes: tuple[tuple[int, ...], ...]
  pictures: tuple[bool, ...]
  picture: str = "flat"

  @nn.compact
  def __call__(self, observation: Tree) -> jax.Array:
    """Scaled leaves ``[..., *shape]`` with any batch axes to ``[..., F]``."""
    parts = []
    for x, shape in zip(jax.tree.leaves(observation), self.shapes, strict=True):
      parts.append(x.reshape(*x.shape[: x.ndim - len(shape)], -1))
    return jnp.concatenate(parts, axis=-1)


def make(observation: Tree, picture: str = "flat") -> Encoder:
  """The encoder of an observation spec, a tree of ``jax.ShapeDtypeStruct``.

  Raises:
    ValueError: for an unknown encoder of pictures.
  """
  if picture not in PICTURES:
    raise ValueError(f"encoder is {picture!r}; choose one of {', '.join(PICTURES)}")
  leaves = jax.tree.leaves(observation)
  return Encoder(tuple(tuple(x.shape) for x in leaves), tuple(map(is_picture, leaves)), picture)


def is_picture(leaf: jax.ShapeDtypeStruct) -> bool:
  """Whether a leaf is a picture or a stack of them: uint8 with at least two axes of 16 or more."""
  return leaf.dtype == jnp.uint8 and sum(size >= 16 for size in leaf.shape) >= 2

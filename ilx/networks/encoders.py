"""Observation trees to features: the first layers of every network."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks import impala, nature, vit
from ilx.types import Array, Tree

# How pictures become features.
PICTURES = ("auto", "flat", "nature", "impala", "vit")

_ENCODERS = {"nature": nature.Nature, "impala": impala.Impala, "vit": vit.ViT}

# The pixels that height and width of a picture have at least.
_SIDE = 16


class Leaf(NamedTuple):
  """One leaf of an observation.

  Attributes:
    name: its path, such as "image" or "camera_left"; "picture" where the observation is one array.
    shape: without batch axes.
    encoder: makes the module of a picture; None where the leaf is flattened.
  """

  name: str
  shape: tuple[int, ...]
  encoder: Callable[..., nn.Module] | None = None


class Encoder(nn.Module):
  """Joins the leaves of an observation tree to one feature axis, in the order of ``jax.tree.leaves``.

  Attributes:
    leaves: what is done to each. Pictures have parameters of their own, under the leaf's name.
    remat: whether pictures of windows are encoded one step after the other, and again by the backward pass, which then
      keeps what lies between pictures and features of one step alone. Encoders that are no flax modules are left as
      they are.
  """

  leaves: tuple[Leaf, ...]
  remat: bool = False

  @nn.compact
  def __call__(self, observation: Tree) -> jax.Array:
    """Scaled leaves ``[..., *shape]`` with any batch axes to ``[..., F]``."""
    parts = []
    for x, leaf in zip(jax.tree.leaves(observation), self.leaves, strict=True):
      if leaf.encoder is None:
        parts.append(x.reshape(*x.shape[: x.ndim - len(leaf.shape)], -1))
      else:
        encoder, pictures = leaf.encoder(name=leaf.name), channels_last(x, leaf.shape)
        by_step = self.remat and pictures.ndim > 4 and isinstance(encoder, nn.Module)
        parts.append(_step_by_step(encoder, pictures) if by_step else encoder(pictures))
    return jnp.concatenate(parts, axis=-1)


def _step_by_step(encoder: nn.Module, pictures: jax.Array) -> jax.Array:
  """Pictures ``[B, T, ..., H, W, C]`` to features ``[B, T, ..., F]``; see ``Encoder.remat``."""

  def step(encoder: nn.Module, carry: None, x: jax.Array) -> tuple[None, jax.Array]:
    return carry, encoder(x)

  again = nn.remat(step, prevent_cse=False)  # within a loop there is nothing to prevent
  scan = nn.scan(
    again,
    variable_broadcast=nn.DenyList("intermediates"),
    variable_axes={"intermediates": 0},
    split_rngs={"params": False, nn.DenyList("params"): True},
    in_axes=1,
    out_axes=1,
  )
  return scan(encoder, None, pictures)[1]


def make(
  observation: Tree,
  picture: str | Callable[..., nn.Module] = "auto",
  options: Mapping[str, Any] | None = None,
  *,
  dtype: Any = jnp.float32,
  remat: bool = False,
) -> Encoder:
  """The encoder of an observation spec, a tree of ``jax.ShapeDtypeStruct``.

  Args:
    observation: the spec, of one step.
    picture: how pictures become features: one of ``PICTURES``, or a class of modules ``[..., H, W, C] -> [..., F]``
      such as ``functools.partial(impala.Impala, width=2)``. Other leaves are flattened. "auto": "nature" for pictures
      of at least 36 x 36, "impala" for smaller ones.
    options: arguments of what encodes pictures, such as ``{"width": 2}`` of ``impala.Impala``.
    dtype: in which encoders of ``PICTURES`` compute, where the options do not say.
    remat: see ``Encoder``.

  Raises:
    ValueError: for an unknown encoder or option, one for pictures where there are none, pictures that it cannot encode,
      naming the leaf, and two of one name.
  """
  options = dict(options or {})
  if isinstance(picture, str) and picture not in PICTURES:
    raise ValueError(f"encoder is {picture!r}; choose one of {', '.join(PICTURES)}")
  if not isinstance(picture, str) and not callable(picture):
    raise ValueError(
      f"encoder is a {type(picture).__name__}; choose one of {', '.join(PICTURES)}, or a class of modules"
    )
  if isinstance(picture, nn.Module):
    raise ValueError(f"encoder is a module, {type(picture).__name__}; give its class, or a functools.partial of it")

  def describe(path: Any, leaf: jax.ShapeDtypeStruct) -> Leaf:
    shape = tuple(leaf.shape)
    name = jax.tree_util.keystr(path, simple=True, separator="_") or "picture"
    if picture == "flat" or not is_picture(leaf):
      return Leaf(name, shape)
    axis = height_axis(shape, name)
    return Leaf(name, shape, _constructor(picture, options, dtype, min(shape[axis : axis + 2]), name))

  leaves = tuple(describe(*found) for found in jax.tree_util.tree_leaves_with_path(observation))
  names = [leaf.name for leaf in leaves if leaf.encoder]
  if not names and picture not in ("auto", "flat"):
    raise ValueError(
      f"encoder={picture!r}: the observation has no pictures, which are uint8 of at least {_SIDE} x {_SIDE} pixels; "
      "store them as such, or choose 'flat'"
    )
  if twice := sorted({name for name in names if names.count(name) > 1}):
    raise ValueError(f"two pictures of the observation would be encoded as {twice[0]!r}; rename one of them")
  if options and not names:
    raise ValueError(f"encoder_options={options}: no pictures of the observation are encoded; leave them out")
  return Encoder(leaves, remat)


def _constructor(
  picture: str | Callable[..., nn.Module], options: Mapping[str, Any], dtype: Any, side: int, name: str
) -> Callable[..., nn.Module]:
  if callable(picture):
    return functools.partial(picture, **options) if options else picture
  if picture == "auto":
    picture = "nature" if side >= nature.SMALLEST else "impala"
  if picture == "nature" and side < nature.SMALLEST:
    raise ValueError(
      f"encoder 'nature' needs pictures of at least {nature.SMALLEST} x {nature.SMALLEST}, a side of the observation "
      f"{name!r} has {side} pixels; choose 'impala', 'vit' or 'flat'"
    )
  encoder = _ENCODERS[picture]
  known = sorted(field.name for field in dataclasses.fields(encoder) if field.name not in ("parent", "name"))
  for option in options:
    if option not in known:
      raise ValueError(
        f"encoder_options: {picture!r}, which encodes the observation {name!r}, has no {option!r}; it has "
        f"{', '.join(known)}"
      )
  given = {"dtype": dtype, **options}
  try:
    encoder(**given, parent=None)
  except (TypeError, ValueError) as error:
    raise ValueError(f"encoder_options of {picture!r}, which encodes the observation {name!r}: {error}") from None
  return functools.partial(encoder, **given)


def is_picture(leaf: jax.ShapeDtypeStruct) -> bool:
  """Whether a leaf is a picture or a stack of them: uint8 with at least two axes of 16 or more."""
  return leaf.dtype == jnp.uint8 and has_sides(leaf.shape)


def has_sides(shape: tuple[int, ...]) -> bool:
  """Whether a shape may be that of pictures: it has at least two axes of 16 or more."""
  return sum(size >= _SIDE for size in shape) >= 2


def height_axis(shape: tuple[int, ...], name: str = "picture") -> int:
  """Which axis of a picture or of a stack of pictures is the height; the one after it is the width.

  These two are the last axes (``[H, W]``, ``[C, H, W]``, ``[k, H, W]``, ``[k, C, H, W]``) or the two before the last
  (``[H, W, C]``, ``[k, H, W, C]``), each of at least 16 pixels. Where both readings are possible, the axis that is not
  among them is the smaller one of the two: ``[16, 84, 84]`` are 16 frames, ``[84, 84, 16]`` is a picture of 16
  channels.

  Args:
    shape: without batch axes.
    name: of the leaf, for the error.

  Raises:
    ValueError: where neither reading is possible, or both are and the two axes have one size.
  """
  rank = len(shape)
  last, before = rank - 2, rank - 3
  possible = [axis for axis in (last, before) if axis >= 0 and min(shape[axis : axis + 2]) >= _SIDE]
  if len(possible) == 2 and shape[before] != shape[-1]:
    return last if shape[before] < shape[-1] else before
  if len(possible) != 1:
    why = "neither pair is" if not possible else "both pairs may be"
    raise ValueError(
      f"the observation {name!r} is a uint8 array {list(shape)}: its height and width must be the last two axes or the "
      f"two before the last, of at least {_SIDE} pixels each, and {why}; move its axes, leave the field out, or set "
      "encoder='flat'"
    )
  return possible[0]


def channels_last(x: Array, shape: tuple[int, ...]) -> jax.Array:
  """Pictures ``[..., *shape]`` with any batch axes as ``[..., H, W, C]``; the channels of a stack lie side by side."""
  batch, axis = x.ndim - len(shape), x.ndim - len(shape) + height_axis(shape)
  x = jnp.moveaxis(x, (axis, axis + 1), (batch, batch + 1))
  return x.reshape(*x.shape[: batch + 2], -1)

"""Random shifts of pictures."""

import jax
import jax.numpy as jnp

from ilx.networks import encoders
from ilx.parallel import replicas
from ilx.types import Tree


def random_shift(key: jax.Array, observation: Tree, shapes: Tree, pixels: int = 4) -> Tree:
  """Moves every picture of a batch by up to ``pixels`` in each direction, its edge repeated where there is nothing.

  That is a random crop, of the picture's own size, of the picture padded by ``pixels``: Kostrikov et al. 2020, "Image
  Augmentation Is All You Need" (DrQ), section 3.1, with 4 pixels at 84 x 84. All ``(2 pixels + 1)^2`` shifts are
  equally likely. Every item of the batch has a shift of its own, and so has every leaf. The frames of a stack are
  shifted alike, and so are the steps of a window: what moves between two frames would be lost in the noise otherwise.

  Args:
    key: of the shifts.
    observation: leaves ``[B, ..., *shape]``; batch axes after the first belong to the item. Pictures keep their dtype.
    shapes: the same tree of ``jax.ShapeDtypeStruct``, of one step.
    pixels: the largest shift.

  Returns:
    The same tree with pictures (``encoders.is_picture``) shifted and all else untouched.
  """
  leaves, structure = jax.tree.flatten(observation)
  specs = structure.flatten_up_to(shapes)
  keys = jax.random.split(key, len(leaves))

  def one(key: jax.Array, x: jax.Array, spec: jax.ShapeDtypeStruct) -> jax.Array:
    if not encoders.is_picture(spec):
      return x
    by = replicas.draw(lambda k, shape: jax.random.randint(k, shape, -pixels, pixels + 1), key, (x.shape[0], 2))
    return shift(x, by, encoders.height_axis(tuple(spec.shape)) - len(spec.shape))

  return structure.unflatten(map(one, keys, leaves, specs))


def shift(pictures: jax.Array, by: jax.Array, axis: int) -> jax.Array:
  """Pixel (h, w) of what is returned is pixel (h + dh, w + dw), or the nearest one inside.

  Rows are gathered, then columns, without a padded copy: on a CPU as fast as the conversion of the pictures to float32
  (as slices of a padded copy up to three times slower, as products with one-hot matrices fifty times).

  Args:
    pictures: ``[B, ...]``.
    by: int ``[B, 2]``, (dh, dw) of every item.
    axis: the height's, counted from the end; the width's is the next one.
  """

  def moved(x: jax.Array, by: jax.Array, axis: int) -> jax.Array:
    size = x.shape[axis]
    return jnp.take(x, jnp.clip(jnp.arange(size) + by, 0, size - 1), axis, mode="clip")

  return jax.vmap(lambda x, by: moved(moved(x, by[0], axis), by[1], axis + 1))(pictures, by)

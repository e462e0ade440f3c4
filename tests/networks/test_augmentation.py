import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.networks import augmentation

SPEC = {
  "image": jax.ShapeDtypeStruct((16, 18, 3), jnp.uint8),
  "stack": jax.ShapeDtypeStruct((2, 17, 16), jnp.uint8),
  "state": jax.ShapeDtypeStruct((4,), jnp.float32),
  "map": jax.ShapeDtypeStruct((7, 7, 3), jnp.uint8),
}


@functools.cache
def _observation(*batch):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: jnp.asarray(rng.integers(0, 256, (*batch, *x.shape)), x.dtype), SPEC)


@functools.partial(jax.jit, static_argnames="pixels")
def _shifted(key, observation, pixels=4):
  return augmentation.random_shift(key, observation, SPEC, pixels)


def _crop(picture, dh, dw, pixels):
  """Of ``[H, W, C]``, as DrQ has it: padded with its edge, then cropped."""
  height, width = picture.shape[:2]
  padded = np.pad(picture, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="edge")
  return padded[pixels + dh : pixels + dh + height, pixels + dw : pixels + dw + width]


def _found(before, after, pixels):
  """All shifts (dh, dw) of ``[H, W, C]`` that explain ``after``."""
  steps = range(-pixels, pixels + 1)
  return [(dh, dw) for dh in steps for dw in steps if np.array_equal(_crop(before, dh, dw, pixels), after)]


@pytest.mark.parametrize("axis", [-3, -2])
def test_shift_is_a_crop_of_the_padded_picture(axis):
  rng = np.random.default_rng(0)
  pictures = rng.integers(0, 256, (5, 2, 16, 18, 3)).astype(np.uint8)
  by = np.array([[0, 0], [4, -4], [-1, 2], [3, 0], [-4, -4]])
  moved = pictures if axis == -3 else np.moveaxis(pictures, -1, -3)
  found = np.asarray(jax.jit(augmentation.shift, static_argnums=2)(moved, by, axis))
  assert found.dtype == np.uint8
  found = found if axis == -3 else np.moveaxis(found, -3, -1)
  for i, frames in enumerate(pictures):
    for j, frame in enumerate(frames):
      np.testing.assert_array_equal(found[i, j], _crop(frame, *by[i], pixels=4))


def test_only_pictures_are_shifted():
  before = _observation(8)
  after = _shifted(jax.random.key(0), before)
  for name in ("state", "map"):
    np.testing.assert_array_equal(after[name], before[name])
  for name in ("image", "stack"):
    assert after[name].dtype == jnp.uint8 and after[name].shape == before[name].shape
    assert np.any(after[name] != before[name])


def test_every_item_and_leaf_has_a_shift_of_its_own_and_frames_have_one():
  before = _observation(24)
  after = _shifted(jax.random.key(0), before, 2)
  of_image = [_found(*map(np.asarray, pair), pixels=2) for pair in zip(before["image"], after["image"], strict=True)]
  frames = [np.moveaxis(np.asarray(tree["stack"]), 1, -1) for tree in (before, after)]
  of_stack = [_found(*pair, pixels=2) for pair in zip(*frames, strict=True)]
  assert all(len(found) == 1 for found in of_image + of_stack)
  assert len({found[0] for found in of_image}) > 8
  assert of_image != of_stack


def test_a_window_has_one_shift():
  before = _observation(6, 3)
  after = _shifted(jax.random.key(1), before, 2)
  shifts = []
  for b in range(6):
    found = [_found(np.asarray(before["image"][b, t]), np.asarray(after["image"][b, t]), 2) for t in range(3)]
    assert found[0] == found[1] == found[2] and len(found[0]) == 1
    shifts.append(found[0][0])
  assert len(set(shifts)) > 1


def test_all_shifts_are_equally_likely():
  pixels, items = 2, 5000
  spec = jax.ShapeDtypeStruct((16, 16), jnp.uint8)
  # Numbers that say where they were.
  picture = jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint8).reshape(16, 16), (items, 16, 16))
  shifted = augmentation.random_shift(jax.random.key(0), picture, spec, pixels)
  counts = np.unique(np.asarray(shifted[:, 8, 8]), return_counts=True)
  expected = [(8 + dh) * 16 + 8 + dw for dh in range(-2, 3) for dw in range(-2, 3)]
  assert counts[0].tolist() == expected
  assert np.sum((counts[1] - items / 25) ** 2 / (items / 25)) < 51.2  # chi-squared of 24 degrees, p = 0.001


def test_the_key_decides():
  before = _observation(8)
  first, again, other = (_shifted(jax.random.key(i), before) for i in (3, 3, 4))
  np.testing.assert_array_equal(first["image"], again["image"])
  assert np.any(first["image"] != other["image"])

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.networks import encoders


def test_leaves_are_joined_and_batch_axes_kept():
  spec = {"a": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((), jnp.float32)}
  encoder = encoders.make(spec)
  values = {"a": jnp.arange(24.0).reshape(4, 2, 3), "b": jnp.full((4,), 9.0)}
  found = encoder.apply({}, values)
  assert found.shape == (4, 7)
  np.testing.assert_array_equal(found[0], [0, 1, 2, 3, 4, 5, 9])
  assert encoder.apply({}, jax.tree.map(lambda x: x[0], values)).shape == (7,)


def test_an_unknown_encoder_is_refused():
  with pytest.raises(ValueError, match="choose one of flat"):
    encoders.make(jax.ShapeDtypeStruct((3,), jnp.float32), "cnn")


@pytest.mark.parametrize(
  ("shape", "dtype", "expected"),
  [
    ((4, 84, 84), jnp.uint8, True),
    ((7, 7, 3), jnp.uint8, False),
    ((84, 84), jnp.float32, False),
    ((64,), jnp.uint8, False),
  ],
)
def test_what_is_a_picture(shape, dtype, expected):
  assert encoders.is_picture(jax.ShapeDtypeStruct(shape, dtype)) == expected

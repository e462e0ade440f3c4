import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from ilx.networks import encoders, impala, vit

SMALL = functools.partial(impala.Impala, channels=(3,), blocks=1, features=5)


def _picture(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.uint8)


def _random(*shape):
  return jnp.asarray(np.random.default_rng(0).uniform(size=shape), jnp.float32)


def test_leaves_are_joined_and_batch_axes_kept():
  spec = {"a": jax.ShapeDtypeStruct((2, 3), jnp.float32), "b": jax.ShapeDtypeStruct((), jnp.float32)}
  encoder = encoders.make(spec)
  values = {"a": jnp.arange(24.0).reshape(4, 2, 3), "b": jnp.full((4,), 9.0)}
  found = encoder.apply({}, values)
  assert found.shape == (4, 7)
  np.testing.assert_array_equal(found[0], [0, 1, 2, 3, 4, 5, 9])
  assert encoder.apply({}, jax.tree.map(lambda x: x[0], values)).shape == (7,)


def test_an_unknown_encoder_is_refused():
  with pytest.raises(ValueError, match="choose one of auto, flat, nature, impala, vit"):
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


@pytest.mark.parametrize(
  ("shape", "expected"),
  [
    ((84, 84), 0),
    ((84, 84, 3), 0),
    ((84, 84, 12), 0),
    ((84, 84, 16), 0),
    ((3, 84, 84), 1),
    ((16, 84, 84), 1),
    ((210, 160, 3), 0),
    ((4, 84, 84, 3), 1),
    ((20, 64, 48, 3), 1),
    ((4, 3, 84, 84), 2),
    ((32, 64, 64, 3), 1),
    ((2, 4, 64, 64, 3), 2),
  ],
)
def test_which_axis_is_the_height(shape, expected):
  assert encoders.height_axis(shape) == expected


@pytest.mark.parametrize(
  ("shape", "why"),
  [((16, 3, 16), "neither pair is"), ((84, 84, 4, 3), "neither pair is"), ((64, 64, 64), "both pairs may be")],
)
def test_axes_that_are_unclear_are_refused(shape, why):
  for encoder in ("auto", "nature", "impala", "vit"):
    with pytest.raises(ValueError, match=rf"observation 'cameras_left' is a uint8 array .*{why}"):
      encoders.make({"cameras": {"left": _picture(*shape)}}, encoder)
  encoders.make({"cameras": {"left": _picture(*shape)}}, "flat")


@pytest.mark.parametrize(
  ("shape", "dtype"), [((84, 84, 3), jnp.float32), ((12, 12, 3), jnp.uint8), ((5,), jnp.float32)]
)
def test_an_encoder_for_nothing_is_refused(shape, dtype):
  leaf = jax.ShapeDtypeStruct(shape, dtype)
  for picture in ("nature", "impala", "vit"):
    with pytest.raises(ValueError, match=f"encoder='{picture}': the observation has no pictures, which are uint8"):
      encoders.make({"a": leaf}, picture)
  for picture in ("auto", "flat"):
    encoders.make({"a": leaf}, picture)
  encoders.make({"a": leaf, "b": jax.ShapeDtypeStruct((48, 48, 3), jnp.uint8)}, "nature")


def test_any_layout_of_the_same_picture_has_the_same_features():
  stack = _random(2, 3, 16, 20, 4)  # batch, frames, height, width, channels
  side_by_side = jnp.concatenate([stack[:, i] for i in range(3)], axis=-1)
  layouts = {
    (3, 16, 20, 4): stack,
    (3, 4, 16, 20): stack.transpose(0, 1, 4, 2, 3),
    (16, 20, 12): side_by_side,
    (12, 16, 20): side_by_side.transpose(0, 3, 1, 2),
  }
  features, variables = [], None
  for shape, x in layouts.items():
    assert x.shape[1:] == shape
    encoder = encoders.make(_picture(*shape), SMALL)
    variables = encoder.init(jax.random.key(0), x) if variables is None else variables
    features.append(encoder.apply(variables, x))
  assert np.ptp(features[0]) > 0.01
  for other in features[1:]:
    np.testing.assert_array_equal(other, features[0])
  # A grey picture without a channel axis is one of one channel.
  grey = encoders.make(_picture(16, 20), SMALL)
  variables = grey.init(jax.random.key(0), stack[:, 0, ..., 0])
  one_channel = encoders.make(_picture(16, 20, 1), SMALL).apply(variables, stack[:, 0, ..., :1])
  np.testing.assert_array_equal(grey.apply(variables, stack[:, 0, ..., 0]), one_channel)


@pytest.mark.parametrize("encoder", ["nature", "impala", functools.partial(vit.ViT, width=16, layers=1)])
def test_batch_axes_are_kept(encoder):
  spec = {"image": _picture(2, 36, 36), "state": jax.ShapeDtypeStruct((3,), jnp.float32)}
  observation = {"image": _random(2, 3, 2, 36, 36), "state": _random(2, 3, 3)}
  encoder = encoders.make(spec, encoder)
  variables = jax.jit(encoder.init)(jax.random.key(0), observation)
  apply = jax.jit(encoder.apply)
  found = apply(variables, observation)
  assert found.shape[:2] == (2, 3)
  for at in ((0,), (1, 2)):
    part = apply(variables, jax.tree.map(lambda x, at=at: x[at], observation))
    np.testing.assert_allclose(part, found[at], rtol=1e-4, atol=1e-5)


def test_every_picture_has_parameters_of_its_own_and_vectors_are_joined():
  spec = {"state": jax.ShapeDtypeStruct((2,), jnp.float32), "left": _picture(16, 16, 3), "right": _picture(3, 16, 16)}
  observation = {"state": _random(4, 2), "left": _random(4, 16, 16, 3), "right": _random(4, 3, 16, 16)}
  encoder = encoders.make(spec, SMALL)
  variables = encoder.init(jax.random.key(0), observation)
  assert set(variables["params"]) == {"left", "right"}
  found = encoder.apply(variables, observation)
  assert found.shape == (4, 5 + 5 + 2)
  np.testing.assert_array_equal(found[:, 10:], observation["state"])
  for i, (name, axes) in enumerate({"left": (0, 1, 2, 3), "right": (0, 2, 3, 1)}.items()):
    alone = SMALL().apply({"params": variables["params"][name]}, observation[name].transpose(axes))
    np.testing.assert_array_equal(found[:, 5 * i : 5 * i + 5], alone)
  assert np.any(variables["params"]["left"]["dense"]["kernel"] != variables["params"]["right"]["dense"]["kernel"])


def test_the_default_depends_on_the_size():
  spec = {"large": _picture(36, 36, 3), "small": _picture(35, 36), "state": _picture(7, 7, 3)}
  shapes = jax.eval_shape(
    encoders.make(spec).init, jax.random.key(0), jax.tree.map(lambda x: jnp.zeros(x.shape), spec)
  )["params"]
  assert set(shapes) == {"large", "small"}
  assert shapes["large"]["dense"]["kernel"].shape == (64, 512)
  assert shapes["small"]["dense"]["kernel"].shape == (5 * 5 * 32, 256)


def test_two_pictures_of_one_name_are_refused():
  spec = {"left_hand": _picture(64, 64, 3), "left": {"hand": _picture(64, 64, 3)}}
  with pytest.raises(ValueError, match="two pictures of the observation would be encoded as 'left_hand'"):
    encoders.make(spec)
  encoders.make(spec, "flat")


def test_a_picture_too_small_for_an_encoder_is_named():
  with pytest.raises(ValueError, match="'nature' needs pictures of at least 36 x 36, a side of the observation 'grip'"):
    encoders.make({"grip": _picture(64, 35, 3), "head": _picture(64, 64, 3)}, "nature")
  for encoder in ("impala", "vit", "auto"):
    made = encoders.make({"grip": _picture(16, 16, 3)}, encoder)
    jax.eval_shape(made.init, jax.random.key(0), {"grip": jnp.zeros((16, 16, 3))})


PICTURE = {"left": _picture(36, 36, 3), "state": jax.ShapeDtypeStruct((2,), jnp.float32)}


@pytest.mark.parametrize("picture", ["nature", "impala", "vit"])
def test_encoders_compute_in_their_dtype_and_have_parameters_of_float32(picture):
  observation = {"left": _random(2, 36, 36, 3), "state": _random(2, 2)}
  exact = encoders.make(PICTURE, picture)
  variables = jax.jit(exact.init)(jax.random.key(0), observation)
  half = encoders.make(PICTURE, picture, dtype="bfloat16")
  assert jax.tree.map(jnp.shape, jax.jit(half.init)(jax.random.key(0), observation)) == jax.tree.map(
    jnp.shape, variables
  )

  def dtypes(encoder):
    """Of the matmuls and convolutions, there and back."""
    value = jax.grad(lambda variables: encoder.apply(variables, observation).sum())
    products = set()

    def walk(jaxpr):
      for equation in jaxpr.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
          products.update(x.aval.dtype.name for x in equation.invars)
        for inner in core.jaxprs_in_params(equation.params):
          walk(inner)

    walk(jax.make_jaxpr(value)(variables).jaxpr)
    return products

  assert dtypes(exact) == {"float32"}
  assert dtypes(half) - {"float32"} == {"bfloat16"}
  # Softmax is float32, and with it what its gradient is multiplied with.
  assert picture == "vit" or dtypes(half) == {"bfloat16"}
  found, expected = half.apply(variables, observation), exact.apply(variables, observation)
  assert found.dtype == jnp.float32  # as the vector beside them
  np.testing.assert_allclose(found, expected, atol=0.1)
  assert np.abs(found - expected).max() > 0
  assert {x.dtype for x in jax.tree.leaves(jax.eval_shape(half.init, jax.random.key(0), observation))} == {
    jnp.dtype("float32")
  }


@pytest.mark.parametrize("picture", ["nature", "impala", functools.partial(vit.ViT, width=16, layers=2)])
def test_windows_encoded_step_by_step_are_the_same_in_less_memory(picture):
  observation = {"left": _random(3, 8, 36, 36, 3), "state": _random(3, 8, 2)}
  found = {}
  for remat in (False, True):
    encoder = encoders.make(PICTURE, picture, remat=remat)
    variables = jax.jit(encoder.init)(jax.random.key(0), observation)

    def loss(variables, encoder=encoder):
      y = encoder.apply(variables, observation)
      return jnp.sum(jnp.square(y) * jnp.arange(y.size).reshape(y.shape) / y.size), y

    program = jax.jit(jax.grad(loss, has_aux=True)).lower(variables).compile()
    found[remat] = variables, *program(variables), program.memory_analysis().temp_size_in_bytes
  jax.tree.map(np.testing.assert_array_equal, found[False][0], found[True][0])
  for i, tolerance in ((1, 1e-2), (2, 1e-5)):
    jax.tree.map(
      lambda a, b, tolerance=tolerance: np.testing.assert_allclose(a, b, rtol=1e-3, atol=tolerance),
      found[False][i],
      found[True][i],
    )
  assert found[True][3] < (0.9 if picture == "nature" else 0.35) * found[False][3]


def test_options_are_of_the_encoder():
  observation = jax.tree.map(lambda x: jnp.zeros(x.shape), PICTURE)

  def shapes(picture, **options):
    made = encoders.make(PICTURE, picture, options)
    return jax.eval_shape(made.init, jax.random.key(0), observation)["params"]["left"]

  assert shapes("impala", width=2, features=7)["dense"]["kernel"].shape == (5 * 5 * 64, 7)
  assert shapes("auto", features=9)["dense"]["kernel"].shape[1] == 9
  assert shapes("vit", patch=12, layers=1)["transformer"]["positions"].shape == (9, 128)
  assert shapes(impala.Impala, features=3)["dense"]["kernel"].shape[1] == 3


@pytest.mark.parametrize(
  ("picture", "options", "message"),
  [
    ("nature", {"width": 2}, "encoder_options: 'nature', which encodes the observation 'left', has no 'width'; it has"),
    ("impala", {"name": "x"}, "'impala', which encodes the observation 'left', has no 'name'; it has blocks, channels"),
    ("impala", {"features": 0}, "encoder_options of 'impala', .* observation 'left': features=0 must be at least 1"),
    ("impala", {"channels": 3}, "encoder_options of 'impala', .* 'left': 'int' object is not iterable"),
    ("vit", {"heads": 3}, "encoder_options of 'vit', .* heads=3 do not divide width=128"),
    ("vit", {"remat": "all"}, "remat='all'; choose None, 'full', 'dots'"),
    ("impala", {"channels": (8, 0)}, r"channels\[1\]=0 must be at least 1"),
    ("impala", {"blocks": 1.5}, "blocks=1.5 must be at least 0, a whole number"),
    ("vit", {"patch": -1}, "patch=-1 must be at least 1"),
    ("auto", {"dtype": "bf16"}, "dtype='bf16'; choose one of float32, bfloat16"),
    ("flat", {"width": 2}, "no pictures of the observation are encoded"),
    ({"left": "vit"}, {}, "encoder is a dict; choose one of auto"),
  ],
)
def test_options_that_do_not_fit_are_refused(picture, options, message):
  with pytest.raises(ValueError, match=message):
    encoders.make(PICTURE, picture, options)


class _Dropping(nn.Module):
  """Of one's own; with dropout where there is a key for it, and something to look at."""

  @nn.compact
  def __call__(self, x):
    self.sow("intermediates", "seen", x.mean())
    return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(jnp.ones((*x.shape[:-3], 64)))


@pytest.mark.parametrize("remat", [False, True])
def test_encoders_of_ones_own_are_what_they_are_step_by_step(remat):
  observation = {"left": _random(2, 3, 36, 36, 3), "state": _random(2, 3, 2)}
  own = encoders.make(PICTURE, _Dropping, remat=remat)
  found, seen = own.apply({}, observation, rngs={"dropout": jax.random.key(0)}, mutable="intermediates")
  dropped = np.asarray(found[..., :64] == 0)
  assert 0.4 < dropped.mean() < 0.6
  assert (dropped[:, 0] != dropped[:, 1]).any() and (dropped[0] != dropped[1]).any()
  assert jnp.shape(seen["intermediates"]["left"]["seen"][0]) == ((3,) if remat else ())
  plain = encoders.make(PICTURE, lambda name: lambda x: x.mean(axis=(-3, -2)), remat=remat)
  np.testing.assert_allclose(plain.apply({}, observation)[..., :3], observation["left"].mean(axis=(2, 3)), rtol=1e-5)

import functools
import math

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.networks import transformer as transformer_lib
from ilx.networks.transformer import Transformer

LAYERS, HEADS, WIDTH, B, L = 2, 2, 8, 5, 7

# Rows with no padding, padding on the left, on the right, in between, and nothing else.
MASK = np.ones((B, L), bool)
MASK[1, :3] = MASK[2, 5:] = MASK[3, [0, 2, 3]] = MASK[4] = False


def _transformer(**kwargs):
  return Transformer(layers=LAYERS, heads=HEADS, width=WIDTH, hidden=12, max_length=L, **kwargs)


def _tokens(seed=0, shape=(B, L, WIDTH)):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.cache
def _variables(positions="rotary"):
  """Parameters far enough from their initial values for all of them to matter."""
  shapes = jax.eval_shape(_transformer(positions=positions).init, jax.random.key(0), _tokens())
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape) * 0.5, x.dtype), shapes)


@functools.cache
def _apply(positions="rotary"):
  return jax.jit(_transformer(positions=positions).apply)


@functools.cache
def _extend():
  transformer = _transformer()
  return jax.jit(lambda x, cache, valid: transformer.apply(_variables(), x, cache, valid, method="extend"))


def _reference(variables, x, positions):
  """The output at the last of the real tokens ``x [t, D]``: float64, one layer and one head after the other."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
  x, t, size = np.asarray(x, np.float64), len(x), WIDTH // HEADS

  def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

  def turn(x):
    if positions != "rotary":
      return x
    turned = np.zeros_like(x)
    for place in range(t):
      for i in range(size // 2):
        angle = place * 10_000.0 ** (-2 * i / size)
        a, b = x[place, i], x[place, i + size // 2]
        turned[place, i] = a * math.cos(angle) - b * math.sin(angle)
        turned[place, i + size // 2] = a * math.sin(angle) + b * math.cos(angle)
    return turned

  if positions == "learnt":
    x = x + p["positions"][:t]
  for i in range(LAYERS):
    layer = jax.tree.map(lambda a, i=i: a[i], p["layers"])
    h, kernel, bias = (
      norm(x, layer["attention_norm"]),
      layer["attention"]["qkv"]["kernel"],
      layer["attention"]["qkv"]["bias"],
    )
    for head in range(HEADS):
      q, k, v = (h @ kernel[:, head, j] + bias[head, j] for j in range(3))
      logits = turn(q) @ turn(k).T / math.sqrt(size)
      logits[np.triu_indices(t, 1)] = -np.inf
      weights = np.exp(logits - logits.max(-1, keepdims=True))
      x = x + weights / weights.sum(-1, keepdims=True) @ v @ layer["attention"]["out"]["kernel"][head]
    x = x + layer["attention"]["out"]["bias"]
    h = norm(x, layer["mlp_norm"]) @ layer["mlp"]["up"]["kernel"] + layer["mlp"]["up"]["bias"]
    h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    x = x + h @ layer["mlp"]["down"]["kernel"] + layer["mlp"]["down"]["bias"]
  return norm(x, p["norm"])[-1]


@pytest.mark.parametrize("positions", ["rotary", "learnt", None])
def test_agrees_with_numpy_on_what_came_before_without_padding(positions):
  """The reference sees neither padding nor what comes later, so this is also causality and padding invariance."""
  x = _tokens()
  y = np.asarray(_apply(positions)(_variables(positions), x, MASK))
  assert np.all(np.isfinite(y))
  for row in range(B):
    for t in np.flatnonzero(MASK[row]):
      real = np.flatnonzero(MASK[row, : t + 1])
      expected = _reference(_variables(positions), x[row, real], positions)
      np.testing.assert_allclose(y[row, t], expected, rtol=2e-4, atol=2e-5)


def test_what_comes_later_changes_no_bit():
  x = _tokens()
  before = _apply()(_variables(), x, MASK)
  for t in (1, 4, 6):
    changed = np.concatenate([x[:, :t], 10 * _tokens(seed=2)[:, t:]], axis=1)
    after = _apply()(_variables(), changed, MASK)
    np.testing.assert_array_equal(after[:, :t][MASK[:, :t]], before[:, :t][MASK[:, :t]])
    assert not np.allclose(after[0, t], before[0, t])


def test_padding_on_the_right_needs_no_mask():
  x = _tokens()
  masked, plain = _apply()(_variables(), x, MASK), _apply()(_variables(), x)
  for row in (0, 2):
    np.testing.assert_allclose(masked[row][MASK[row]], plain[row][MASK[row]], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unrolled", [0, 4])
@pytest.mark.parametrize("read", [slice(1, None, 3), slice(-1, None)])
def test_reading_some_tokens_is_reading_all_and_dropping_others(read, unrolled, monkeypatch):
  monkeypatch.setattr(transformer_lib, "_UNROLLED", unrolled)
  x, valid = _tokens(), np.ones((B, L), bool)
  transformer = _transformer()
  some = jax.jit(lambda x: transformer.apply(_variables(), x, MASK, read=read))(x)
  np.testing.assert_allclose(some, _apply()(_variables(), x, MASK)[:, read], rtol=1e-5, atol=1e-6)
  extend = jax.jit(lambda cache: transformer.apply(_variables(), x, cache, valid, read, method="extend"))
  y, cache = extend(transformer.make_cache(B, L))
  expected, whole = _extend()(x, transformer.make_cache(B, L), valid)
  np.testing.assert_allclose(y, expected[:, read], rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(cache, whole, rtol=1e-5, atol=1e-6)


def test_tokens_that_are_not_read_cost_no_last_layer():
  def flops(read):
    transformer = _transformer()
    return jax.jit(lambda x: transformer.apply(_variables(), x, read=read)).lower(_tokens()).cost_analysis()["flops"]

  # Of a layer, the output's projection and the MLP: a multiply-add for each of their weights; and attention's two.
  # What is no matmul (softmax, activations, norms) is a third of the size of these.
  matmuls = 2 * B * (L - 1) * (WIDTH * WIDTH + 2 * WIDTH * 12 + 2 * L * WIDTH)
  assert flops(slice(None)) - flops(slice(-1, None)) > 1.25 * matmuls


def test_rows_of_padding_have_finite_gradients():
  gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.square(_transformer().apply(_variables(), x, MASK)))))(_tokens())
  assert np.all(np.isfinite(gradient))


def test_cache_one_token_at_a_time_is_the_whole_sequence():
  x = _tokens()
  expected = _apply()(_variables(), x)
  cache = _transformer().make_cache(B, L)
  for t in range(L):
    y, cache = _extend()(x[:, t : t + 1], cache, np.ones((B, 1), bool))
    np.testing.assert_allclose(y[:, 0], expected[:, t], rtol=2e-4, atol=2e-5)
  assert cache.count.tolist() == [L] * B


def test_cache_of_rows_that_grow_apart():
  """Three tokens at a time of which some are invalid; rows are emptied now and then, and what they had is forgotten."""
  rng = np.random.default_rng(3)
  cache = _transformer().make_cache(B, L)
  fed = [[] for _ in range(B)]
  for step in range(12):
    x, valid = _tokens(seed=10 + step, shape=(B, 3, WIDTH)), rng.random((B, 3)) < 0.6
    emptied = np.array([len(row) + 3 > L for row in fed])
    if step == 5:  # of a row that then begins anew
      emptied[1] = True
      cache = _extend()(np.full((B, 1, WIDTH), np.nan), cache, np.arange(B)[:, None] == 1)[1]
    cache = cache._replace(count=jnp.where(emptied, 0, cache.count))
    y, cache = _extend()(x, cache, valid)
    for row in range(B):
      fed[row] = [] if emptied[row] else fed[row]
      for i in np.flatnonzero(valid[row]):
        fed[row].append(x[row, i])
        np.testing.assert_allclose(
          y[row, i], _reference(_variables(), np.array(fed[row]), "rotary"), rtol=2e-4, atol=2e-5
        )
    assert cache.count.tolist() == [len(row) for row in fed]


def _gradients(**kwargs):
  transformer = _transformer(**kwargs)

  def loss(variables):
    return jnp.mean(jnp.square(transformer.apply(variables, _tokens(), MASK).astype(jnp.float32)) * np.arange(WIDTH))

  return jax.jit(jax.value_and_grad(loss))(_variables())


@pytest.fixture(scope="module")
def plain_gradients():
  return _gradients()


@pytest.mark.parametrize(("remat", "unrolled"), [("full", 0), ("dots", 4)])
def test_computing_again_changes_nothing(remat, unrolled, plain_gradients, monkeypatch):
  """Nor does a loop over the layers, which few of them are not given."""
  monkeypatch.setattr(transformer_lib, "_UNROLLED", unrolled)
  for a, b in zip(jax.tree.leaves(_gradients(remat=remat)), jax.tree.leaves(plain_gradients), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_computing_again_saves_memory_however_few_layers_there_are():
  def needed(remat):
    transformer = Transformer(layers=4, heads=2, width=32, remat=remat)
    x = jax.ShapeDtypeStruct((16, 32, 32), jnp.float32)
    variables = jax.eval_shape(transformer.init, jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda variables, x: jnp.sum(jnp.square(transformer.apply(variables, x)))))
    return gradient.lower(variables, x).compile().memory_analysis().temp_size_in_bytes

  assert needed("full") < needed("dots") < 0.7 * needed(None)


def test_bfloat16_is_close_with_float32_parameters_and_gradients(plain_gradients):
  assert jax.eval_shape(_transformer(dtype=jnp.bfloat16).apply, _variables(), _tokens()).dtype == jnp.bfloat16
  shapes = jax.eval_shape(_transformer(dtype=jnp.bfloat16).init, jax.random.key(0), _tokens())
  value, gradient = _gradients(dtype=jnp.bfloat16)
  assert {x.dtype for x in jax.tree.leaves((shapes, gradient))} == {jnp.dtype(jnp.float32)}
  np.testing.assert_allclose(value, plain_gradients[0], rtol=0.02)
  ours, theirs = (np.concatenate([x.ravel() for x in jax.tree.leaves(g)]) for g in (gradient, plain_gradients[1]))
  assert 1e-4 < np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 0.05
  assert _transformer(dtype=jnp.bfloat16).make_cache(1, 2).layers[0].key.dtype == jnp.bfloat16


@pytest.mark.parametrize("rates", [{"dropout": 0.5}, {"attention_dropout": 0.5}])
def test_dropout_only_where_asked_for(rates):
  transformer, x = _transformer(**rates), _tokens()
  train = jax.jit(lambda key: transformer.apply(_variables(), x, MASK, False, rngs={"dropout": key}))
  a, b = train(jax.random.key(0)), train(jax.random.key(1))
  assert np.all(np.isfinite(a)) and not np.allclose(a, b)
  np.testing.assert_array_equal(a, train(jax.random.key(0)))
  np.testing.assert_array_equal(jax.jit(transformer.apply)(_variables(), x, MASK), _apply()(_variables(), x, MASK))
  with pytest.raises(flax.errors.InvalidRngError):
    jax.eval_shape(lambda: transformer.apply(_variables(), x, MASK, False))


def test_parameter_names_and_first_values():
  transformer = Transformer(layers=3, heads=4, width=64)
  variables = jax.jit(transformer.init)(jax.random.key(0), jnp.zeros((1, 2, 64)))
  flat = {k: v for k, v in flax.traverse_util.flatten_dict(variables["params"], sep="/").items() if "kernel" in k}
  shapes = {name: x.shape for name, x in flat.items()}
  assert shapes == {
    "layers/attention/qkv/kernel": (3, 64, 4, 3, 16),
    "layers/attention/out/kernel": (3, 4, 16, 64),
    "layers/mlp/up/kernel": (3, 64, 256),
    "layers/mlp/down/kernel": (3, 256, 64),
  }
  for name, x in flat.items():
    std = 0.02 / math.sqrt(6) if name.split("/")[2] in ("out", "down") else 0.02
    np.testing.assert_allclose(np.std(x, axis=tuple(range(1, x.ndim))), std, rtol=0.05)  # each layer has its own
    assert not np.array_equal(x[0], x[1])


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"heads": 3}, "heads=3 do not divide width=8"),
    ({"layers": 0}, "layers=0 must be at least 1"),
    ({"positions": "absolute"}, "choose 'rotary', 'learnt' or None"),
    ({"heads": 8}, "even size of heads"),
    ({"positions": "learnt", "max_length": 6}, "7 tokens are more than max_length=6"),
    ({"remat": "some"}, "choose None, 'full', 'dots'"),
    ({"dtype": "bf16"}, "dtype='bf16'; choose one of float32, bfloat16"),
    ({"dtype": np.int8}, "int8'>; choose one of float32, bfloat16"),
    ({"attention": "flash"}, "choose one of auto, xla, cudnn"),
    ({"width": 12}, "tokens have size 8; the transformer's width is 12"),
  ],
)
def test_what_does_not_fit_is_refused(kwargs, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      Transformer(**({"layers": 1, "heads": 2, "width": WIDTH} | kwargs)).init, jax.random.key(0), _tokens()
    )


def test_of_a_transformer_that_is_not_causal_every_token_sees_all_that_are_real():
  """With attention's weights computed by ``jax.nn`` and here, which dropout asks for."""
  for dropout in (0.0, 1e-7):
    transformer = _transformer(causal=False, attention_dropout=dropout)

    def features(x, transformer=transformer):
      keys = {"dropout": jax.random.key(0)}
      return transformer.apply(_variables(), x, MASK, deterministic=False, rngs=keys)

    seen = np.abs(jax.jit(jax.jacobian(lambda x: features(x).sum(-1)))(jnp.asarray(_tokens()))).max(-1)
    for row in range(B):
      assert (seen[row, :, row][MASK[row]][:, MASK[row]] > 0).all()
      assert (seen[row, :, row][MASK[row]][:, ~MASK[row]] == 0).all()


def test_what_is_not_causal_has_no_cache():
  transformer = _transformer(causal=False)
  cache = transformer.make_cache(B, L)
  with pytest.raises(ValueError, match="extend: the transformer is not causal"):
    transformer.apply(_variables(), _tokens()[:, :1], cache, np.ones((B, 1), bool), method="extend")


def test_variables_may_be_arrays_of_numpy():
  variables = jax.tree.map(np.asarray, _variables("learnt"))
  transformer = _transformer(positions="learnt")
  found = jax.jit(lambda x: transformer.apply(variables, x, MASK))(_tokens())
  np.testing.assert_allclose(found, transformer.apply(_variables("learnt"), _tokens(), MASK), rtol=1e-4, atol=1e-5)


def test_a_cache_longer_than_learnt_positions_is_refused():
  transformer = _transformer(positions="learnt")
  cache = transformer.make_cache(B, L + 1)
  with pytest.raises(ValueError, match="8 tokens are more than max_length=7"):
    transformer.apply(_variables("learnt"), _tokens()[:, :1], cache, np.ones((B, 1), bool), method="extend")


def _constant(layers, **biases):
  """A transformer whose attention and MLPs add the given numbers, whatever they see: ``(x, deterministic) -> y``."""
  transformer = Transformer(layers=layers, heads=1, width=64, dropout=0.5)
  params = jax.tree.map(jnp.zeros_like, transformer.init(jax.random.key(0), jnp.zeros((2, 3, 64)))["params"])
  params["norm"]["scale"] = jnp.ones(64)
  params["layers"]["attention"]["out"]["bias"] = jnp.full((layers, 64), biases["attention"])
  params["layers"]["mlp"]["down"]["bias"] = jnp.full((layers, 64), biases["mlp"])
  rngs = {"dropout": jax.random.key(0)}
  return lambda x, deterministic: np.asarray(transformer.apply({"params": params}, x, None, deterministic, rngs=rngs))


@pytest.mark.parametrize(("layers", "mlp"), [(1, 1.0), (2, 0.0)])
def test_what_is_dropped_differs_between_parts_and_layers(layers, mlp):
  y = _constant(layers, attention=1.0, mlp=mlp)(jnp.zeros((2, 3, 64)), False)
  for token in y.reshape(-1, 64):  # none, one or both of two were kept
    assert len(np.unique(token.round(3))) == 3


def test_dropout_spares_the_residual_stream():
  x, apply = jax.random.normal(jax.random.key(1), (2, 3, 64)), _constant(2, attention=0.0, mlp=0.0)
  np.testing.assert_allclose(apply(x, False), apply(x, True), rtol=1e-5, atol=1e-6)


def test_the_mlps_width_may_be_chosen():
  variables = Transformer(layers=1, heads=1, width=8, hidden=12).init(jax.random.key(0), jnp.zeros((1, 2, 8)))
  assert variables["params"]["layers"]["mlp"]["up"]["kernel"].shape == (1, 8, 12)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.networks import attention, vit


def _norm(x, layer):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * layer["scale"]


def _gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _block(x, params, heads):
  attention, mlp = params["attention"], params["mlp"]
  q, k, v = np.moveaxis(
    np.einsum("ld,dhne->lnhe", _norm(x, params["attention_norm"]), attention["qkv"]["kernel"]), 1, 0
  )
  out = np.copy(x)
  for head in range(heads):
    scores = q[:, head] @ k[:, head].T / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    out += (weights / weights.sum(-1, keepdims=True)) @ v[:, head] @ attention["out"]["kernel"][head]
  return out + _gelu(_norm(out, params["mlp_norm"]) @ mlp["up"]["kernel"]) @ mlp["down"]["kernel"]


def test_forward_agrees_with_the_definition():
  picture = np.random.default_rng(0).uniform(size=(9, 6, 3))
  network = vit.ViT(patch=3, width=8, layers=2, heads=2)
  variables = jax.jit(network.init)(jax.random.key(0), jnp.asarray(picture, jnp.float32))
  params = jax.tree.map(lambda x: np.asarray(x, np.float64) + 0.01, variables["params"])
  patches = picture.reshape(3, 3, 2, 3, 3).swapaxes(1, 2).reshape(6, 27)
  x = patches @ params["patches"]["kernel"].reshape(27, 8) + params["patches"]["bias"]
  x = x + params["transformer"]["positions"]
  for i in range(2):
    x = _block(x, jax.tree.map(lambda a, i=i: a[i], params["transformer"]["layers"]), heads=2)
  expected = _norm(x, params["transformer"]["norm"]).mean(0)
  found = network.apply({"params": jax.tree.map(jnp.float32, params)}, picture.astype(np.float32))
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_shapes():
  shapes = jax.eval_shape(vit.ViT().init, jax.random.key(0), jnp.zeros((84, 84, 4)))["params"]
  assert shapes["transformer"]["positions"].shape == (11 * 11, 128)  # 84 pixels padded to 88
  layer = 12 * 128 * 128 + 2 * 128  # the usual count of a pre-norm layer, 12 D^2 + 13 D, without biases
  assert sum(x.size for x in jax.tree.leaves(shapes["transformer"]["layers"])) == 4 * layer


def test_every_patch_counts_and_their_order_does():
  network = vit.ViT(patch=4, width=8, layers=1, heads=2)
  picture = jax.random.uniform(jax.random.key(0), (16, 16, 1))
  variables = jax.jit(network.init)(jax.random.key(1), picture)
  gradient = jax.jit(jax.grad(lambda x: network.apply(variables, x)[0]))(picture)
  assert np.all(np.abs(gradient).max(axis=2) > 0)
  flipped = jnp.concatenate([picture[8:], picture[:8]])
  assert np.abs(network.apply(variables, picture) - network.apply(variables, flipped)).max() > 1e-4


def test_attention_is_one_that_every_device_has(monkeypatch):
  """What is traced where there is a GPU may be played on the CPU beside it, or exported."""
  monkeypatch.setattr(attention, "_has_flash_attention", lambda backend: True)
  network = vit.ViT(patch=4, width=16, layers=1, heads=2, dtype="bfloat16")
  picture = jnp.ones((16, 16, 1))
  network.apply(jax.jit(network.init)(jax.random.key(0), picture), picture)


def test_heads_must_divide_the_width():
  with pytest.raises(ValueError, match="heads=3 do not divide width=8"):
    vit.ViT(width=8, heads=3).init(jax.random.key(0), jnp.zeros((16, 16, 1)))

"""Attention by itself; as the transformer uses it, it is tested with the transformer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.networks import attention
from ilx.parallel import replicas

B, L, HEADS, SIZE = 5, 8, 2, 16

# Rows with no padding, padding on the left, on the right, in between, and nothing else.
MASK = np.ones((B, L), bool)
MASK[1, :3] = MASK[2, 5:] = MASK[3, [0, 2, 3]] = MASK[4] = False


def _qkv(dtype=np.float32):
  rng = np.random.default_rng(0)
  return tuple(jnp.asarray(rng.normal(size=(B, L, HEADS, SIZE)), dtype) for _ in range(3))


@pytest.mark.parametrize("read", [slice(None), slice(1, None, 3)])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_with_dropout_is_attention(causal, read):
  """At a rate too small for any weight to be dropped."""
  mask, real = MASK[:, None, None, :], MASK[:, read]
  expected = attention.attend(*_qkv(), mask, causal=causal)[:, read]
  for rate in (0.0, 1e-7):
    y = attention.attend(*_qkv(), mask, rate, jax.random.key(0), causal=causal, read=read)
    np.testing.assert_allclose(y[real], expected[real], rtol=1e-4, atol=1e-6)


def test_cudnn_where_it_can(monkeypatch):
  """What is taken is up to the device, the dtype and the shapes."""

  class Device:
    compute_capability = "9.0"

  class Backend:
    platform_version = "PJRT C API\ncuda 12090"
    local_devices = staticmethod(lambda: [Device])

  half = jnp.zeros((2, 5, 3, 16), jnp.bfloat16)
  assert not attention._cudnn_can(half)  # the CPU of the tests
  monkeypatch.setattr(jax.extend.backend, "get_backend", lambda: Backend)
  assert attention._cudnn_can(half)
  assert not attention._cudnn_can(half.astype(jnp.float32))
  assert not attention._cudnn_can(half[..., :4])
  Device.compute_capability = "7.5"  # before Ampere
  assert not attention._cudnn_can(half)


@pytest.mark.parametrize("seeds", [None, 3])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("read", [slice(None), slice(1, None, 3)])
def test_cudnn_takes_what_it_is_given(cudnn, read, causal, seeds):
  """As far as it can be told without a GPU: the program for one, with gradients and many seeds at once."""

  def loss(qkv):
    found = attention.attend(*qkv, causal=causal, read=read, implementation="cudnn")
    return jnp.sum(found.astype(jnp.float32) ** 2)

  qkv, function = _qkv(jnp.bfloat16), jax.grad(loss)
  if seeds is not None:
    qkv, function = jax.tree.map(lambda x: jnp.broadcast_to(x, (seeds, *x.shape)), qkv), jax.vmap(function)
  lowered = jax.jit(function).trace(qkv).lower(lowering_platforms=("cuda",))
  assert lowered.as_text().count("custom_call @__cudnn$fmha") == 2  # forward and backward


def test_replicas_are_not_for_cudnn(cudnn):
  """Whose primitive would see two meshes: the replicas', and that of what is given to them."""
  with replicas.across("replicas"):
    found = str(jax.make_jaxpr(lambda *qkv: attention.attend(*qkv))(*_qkv(jnp.bfloat16)))
  assert "dot_product_attention_fwd" not in found


def test_masks_are_not_for_cudnn(cudnn):
  qkv, mask = _qkv(jnp.bfloat16), MASK[:, None, None, :]
  without, masked = (str(jax.make_jaxpr(attention.attend)(*qkv, *given)) for given in ((), (mask,)))
  assert "dot_product_attention_fwd" in without and "dot_product_attention_fwd" not in masked
  with pytest.raises(ValueError, match='attention="cudnn" takes no mask: pad on the right'):
    attention.attend(*qkv, mask, implementation="cudnn")


def test_dropout_is_of_the_weights():
  """Values are one-hot, so that outputs are the weights: each is 0 or what it is without dropout, scaled."""
  rng = np.random.default_rng(0)
  query, key = (jnp.asarray(rng.normal(size=(3, 8, 2, 8)), jnp.float32) for _ in range(2))
  value = jnp.broadcast_to(jnp.eye(8)[:, None], (3, 8, 2, 8))
  plain, dropped = (
    np.asarray(attention.attend(query, key, value, None, rate, jax.random.key(0))) for rate in (0.0, 0.25)
  )
  np.testing.assert_allclose(dropped, np.where(dropped == 0, 0, plain / 0.75), rtol=1e-4)
  assert abs(np.mean(dropped[plain > 0] == 0) - 0.25) < 0.1

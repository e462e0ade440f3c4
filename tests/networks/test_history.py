import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.networks import context, encoders
from ilx.networks import heads as heads_lib
from ilx.networks.history import HistoryPolicy
from ilx.networks.transformer import Transformer
from ilx.types import Continuous

B, T = 3, 5


def _network(actions=True, *, layers=1, heads=1, dropout=0.0):
  return HistoryPolicy(
    Transformer(layers=layers, heads=heads, width=8),
    heads_lib.make(Continuous(-np.ones(2), np.ones(2))),
    encoders.make(jax.ShapeDtypeStruct((3,), jnp.float32)),
    actions,
    dropout,
  )


@pytest.mark.parametrize("actions", [True, False])
def test_play_is_the_window(actions):
  """Step by step, with the action before as a token of its own, the network sees what it sees in a window."""
  rng = np.random.default_rng(0)
  network = _network(actions, layers=2, heads=2)
  observation, action = rng.normal(size=(B, T, 3)), rng.normal(size=(B, T, 2))
  shapes = jax.eval_shape(network.init, jax.random.key(0), observation, action)
  variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.5, x.dtype), shapes)
  expected = jax.jit(network.apply)(variables, observation, action).mode()

  @jax.jit
  def play(observation, before, is_first, memory):
    token = network.apply(variables, before, method="embed") if actions else None
    return network.apply(variables, observation, token, is_first, memory, T, method="play")

  memory = context.make(network.transformer, B, steps=T, tokens_per_step=2 if actions else 1)
  for t in range(T):
    # The action before the first is no part of the episode.
    dist, memory = play(observation[:, t], action[:, t - 1], np.full(B, t == 0), memory)
    np.testing.assert_allclose(dist.mode(), expected[:, t], rtol=1e-3, atol=1e-4)
  assert not np.allclose(expected[:, 0], expected[:, 1], atol=1e-2)


def test_tokens_are_dropped_beside_what_the_transformer_drops():
  rng = np.random.default_rng(0)
  network = _network(dropout=0.5)
  inputs = rng.normal(size=(B, T, 3)), rng.normal(size=(B, T, 2))
  variables = network.init(jax.random.key(0), *inputs)

  def play(seed, deterministic):
    rngs = {"dropout": jax.random.key(seed)}
    return np.asarray(network.apply(variables, *inputs, deterministic=deterministic, rngs=rngs).mode())

  assert np.all(play(0, True) == play(1, True)) and np.any(play(0, False) != play(1, False))


def test_an_action_is_seen_by_later_steps_alone():
  rng = np.random.default_rng(0)
  network = _network()
  observation, action = rng.normal(size=(B, T, 3)), rng.normal(size=(B, T, 2))
  shapes = jax.eval_shape(network.init, jax.random.key(0), observation, action)
  variables = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.5, x.dtype), shapes)
  apply = jax.jit(network.apply)
  before = apply(variables, observation, action).mode()
  action[:, 2] += 1.0
  after = apply(variables, observation, action).mode()
  np.testing.assert_array_equal(after[:, :3], before[:, :3])
  assert not np.allclose(after[:, 3:], before[:, 3:])

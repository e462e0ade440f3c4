import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilx import testing
from ilx.agents import bc
from ilx.agents.bc_transformer import bc_transformer, masked_mean
from ilx.types import Discrete, Spec, Step, Window

SMALL = {"length": 4, "layers": 1, "heads": 2, "width": 16}


class TestPicturesAndActions(testing.AgentConformance):
  spec = Spec(
    {"image": jax.ShapeDtypeStruct((16, 16, 3), jnp.uint8), "state": jax.ShapeDtypeStruct((2,), jnp.float32)},
    testing.continuous_spec().action,
  )

  def make(self):
    return bc_transformer(self.spec, head="tanh_gaussian", actions=True, dropout=0.0, encoder="flat", **SMALL)


class TestDiscrete(testing.AgentConformance):
  spec = testing.discrete_spec()

  def make(self):
    return bc_transformer(self.spec, dropout=0.0, positions="learnt", **SMALL)


def _windows(rng, size=64, length=6):
  """Only the first observation says which action is right, in all of the episode."""
  action = rng.integers(2, size=size)
  observation = rng.normal(size=(size, length, 3)).astype(np.float32)
  observation[:, :, 0] = 0.0
  observation[:, 0, 0] = 2.0 * action - 1.0
  zeros, mask = np.zeros((size, length), np.float32), np.ones((size, length), bool)
  action = np.repeat(action[:, None], length, axis=1).astype(np.int32)
  return Window(observation, action, zeros, zeros, zeros, np.zeros((size, length), np.int32), mask)


def _played(agent, params, windows):
  """The share of right actions at the steps after the first; two episodes of each slot, one after the other."""
  two = jax.tree.map(lambda x: np.concatenate([x, x[::-1]], axis=1).swapaxes(0, 1), windows)
  is_first = np.zeros(two.mask.shape, bool)
  is_first[[0, windows.mask.shape[1]]] = True

  def one(carry, xs):
    observation, first = xs
    action, carry = agent.act(params, carry, Step(observation, jnp.zeros(first.shape), first), None)
    return carry, action

  carry = agent.carry(windows.mask.shape[0])
  _, action = jax.jit(lambda carry, xs: jax.lax.scan(one, carry, xs))(carry, (two.observation, is_first))
  return np.mean(np.asarray(action == two.action)[~is_first.any(1)])


def test_remembers_what_bc_cannot():
  rng = np.random.default_rng(0)
  spec, batch = Spec(jax.ShapeDtypeStruct((3,), jnp.float32), Discrete(2)), _windows(rng)
  agent = bc_transformer(spec, **SMALL | {"length": 6}, dropout=0.0, optimizer=optax.adam(3e-3))
  state = agent.init(jax.random.key(0), batch)
  batches = jax.tree.map(lambda *x: np.stack(x), *[_windows(rng) for _ in range(100)])
  state, metrics = jax.jit(lambda s, b: jax.lax.scan(agent.update, s, b))(state, batches)
  assert metrics["loss"][-1] < 0.1
  held_out = _windows(rng)
  assert _played(agent, state.params, held_out) > 0.97
  # One that never learnt has chance's share, and one that does not look back can have no more.
  forgetful = bc(spec, hidden=(16,))
  params = forgetful.init(jax.random.key(0), jax.tree.map(lambda x: x[:, 0], batch)).params
  assert _played(forgetful, params, held_out) < 0.7


def _case(spec, **kwargs):
  agent = bc_transformer(spec, **SMALL | {"dropout": 0.0} | kwargs)
  episodes = testing.fake_episodes(spec, length=9)
  batch = agent.view.take(agent.view.prepare(episodes), np.arange(9))
  return agent, batch, jax.jit(agent.init)(jax.random.key(0), batch)


def test_padding_does_not_count():
  """Windows that reach beyond the end are filled up on the right; what stands there changes no gradient."""
  agent, batch, state = _case(testing.continuous_spec(), actions=True)
  assert not batch.mask.all() and batch.mask[:, 0].all()
  update = jax.jit(agent.update)
  expected = update(state, batch)
  junk = batch._replace(
    observation=np.where(batch.mask[..., None], batch.observation, 7.0).astype(np.float32),
    action=np.where(batch.mask[..., None], batch.action, 0.7).astype(np.float32),
  )
  for a, b in zip(jax.tree.leaves(update(state, junk)[1]), jax.tree.leaves(expected[1]), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout"])
def test_every_update_drops_others(rate):
  rates = {"dropout": 0.0, "attention_dropout": 0.0, rate: 0.5}
  agent, batch, state = _case(testing.continuous_spec(), **rates, optimizer=optax.sgd(0.0))
  update = jax.jit(agent.update)
  after, first = update(state, batch)
  assert update(state, batch)[1]["loss"] == first["loss"]
  assert update(after, batch)[1]["loss"] != first["loss"]


def test_loss_is_the_mean_over_real_steps():
  x, mask = np.array([[1.0, 2.0, 100.0], [4.0, 200.0, 300.0]]), np.array([[1, 1, 0], [1, 0, 0]], bool)
  np.testing.assert_allclose(masked_mean(x, mask), 7.0 / 3.0)


def test_fresh_loss_of_choices_is_that_of_a_uniform_guess():
  agent, batch, state = _case(testing.discrete_spec())
  np.testing.assert_allclose(jax.jit(agent.update)(state, batch)[1]["loss"], np.log(4), atol=0.6)


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"dropout": 1.0}, "dropout=1.0 must be from 0 to below 1"),
    ({"attention_dropout": -0.1}, "attention_dropout=-0.1 must be"),
    ({"head": "categorical"}, "does not fit"),
    ({"length": 0}, "length"),
    ({"heads": 3, "width": 16}, "heads=3 do not divide width=16"),
    ({"positions": "absolute"}, "choose 'rotary'"),
  ],
)
def test_what_does_not_fit_is_refused(kwargs, message):
  with pytest.raises(ValueError, match=message):
    bc_transformer(testing.continuous_spec(), **kwargs)

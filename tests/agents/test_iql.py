import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilx import testing
from ilx.agents import iql
from ilx.data.views import transitions
from ilx.types import Continuous, Spec, Step

losses = importlib.import_module("ilx.agents.iql")


class TestContinuous(testing.AgentConformance):
  spec = testing.continuous_spec()

  def make(self):
    return iql(self.spec, hidden=(16, 16))


class TestDiscrete(testing.AgentConformance):
  spec = testing.discrete_spec()

  def make(self):
    return iql(self.spec, hidden=(16,), layer_norm=True, n_step=3)


class TestParts(testing.AgentConformance):
  spec = testing.factored_spec()

  def make(self):
    return iql(self.spec, hidden=(16,))


class TestPictures(testing.AgentConformance):
  spec = Spec(
    {"image": jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.uint8), "state": jax.ShapeDtypeStruct((2, 2), jnp.float32)},
    Continuous(-np.ones(2), np.ones(2)),
  )
  noisy = True

  def make(self):
    return iql(self.spec, hidden=(16,), dropout=0.5, frame_stack=2)


def test_value_loss_by_hand():
  # Differences 1 and -2: 0.7 * 1 and 0.3 * 4.
  loss, gradient = jax.value_and_grad(losses.value_loss, argnums=1)(jnp.array([3.0, 1.0]), jnp.array([2.0, 3.0]), 0.7)
  np.testing.assert_allclose(loss, (0.7 + 1.2) / 2, rtol=1e-6)
  np.testing.assert_allclose(gradient, [-0.7, 0.6], rtol=1e-6)


def test_critic_loss_by_hand():
  q, reward, discount = jnp.array([[1.0, 2.0], [0.0, -1.0]]), jnp.array([1.0, 2.0]), jnp.array([0.5, 0.0])
  loss, gradient = jax.value_and_grad(losses.critic_loss)(q, jnp.array([4.0, 9.0]), reward, discount)
  # Targets 1 + 0.5 * 4 and 2, for both critics.
  np.testing.assert_allclose(loss, (4 + 0 + 9 + 9) / 2, rtol=1e-6)
  np.testing.assert_allclose(gradient, [[-2, 0], [-3, -3]], rtol=1e-6)


def test_policy_loss_by_hand():
  weight = losses.advantage_weight(jnp.array([0.5, -1.0, 7.0]), 2.0, 100.0)
  np.testing.assert_allclose(weight, [np.e, np.exp(-2), 100], rtol=1e-6)
  loss, gradient = jax.value_and_grad(losses.policy_loss)(jnp.array([-1.0, -2.0, 0.5]), weight)
  np.testing.assert_allclose(loss, (np.e + 2 * np.exp(-2) - 50) / 3, rtol=1e-6)
  np.testing.assert_allclose(gradient, -np.asarray(weight) / 3, rtol=1e-6)


def test_gradients_stop_where_the_paper_stops_them():
  x, y = jnp.array([3.0, 1.0]), jnp.array([2.0, 3.0])
  into = {
    "Q of the value loss": jax.grad(losses.value_loss)(x, y, 0.7),
    "V of the critic loss": jax.grad(losses.critic_loss, argnums=1)(jnp.stack([x, y]), y, x, x),
    "the weight of the policy loss": jax.grad(losses.policy_loss, argnums=1)(x, y),
  }
  for name, gradient in into.items():
    np.testing.assert_array_equal(gradient, [0, 0], err_msg=name)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"expectile": 1.0}, "expectile=1.0 must be between 0 and 1"),
    ({"temperature": -1.0}, "temperature=-1.0 must be at least 0"),
    ({"tau": 0.0}, "tau=0.0 must be above 0"),
    ({"max_weight": 0.0}, "max_weight=0.0 must be above 0"),
    ({"dropout": 1.0}, "dropout=1.0 must be"),
    ({"n_step": 3, "reward_shift": -1.0}, "reward_shift=-1.0 with n_step=3"),
    ({"head": "categorical"}, "does not fit"),
    ({"head": "gaussian_mixture"}, "head='gaussian_mixture'; choose one of gaussian, tanh_gaussian, deterministic"),
    ({"reward_scale": float("nan")}, "reward_scale=nan must be a finite number"),
  ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
  with pytest.raises(ValueError, match=message):
    iql(testing.continuous_spec(), **arguments)


def test_layer_norm_is_of_the_values_alone():
  spec = testing.continuous_spec()
  batch = transitions(testing.fake_episodes(spec), np.arange(8))
  for layer_norm in (False, True):
    state = jax.eval_shape(iql(spec, hidden=(8,), layer_norm=layer_norm).init, jax.random.key(0), batch)
    names = {tree: "LayerNorm_0" in str(jax.tree.structure(getattr(state, tree))) for tree in ("value", "critic")}
    assert names == {"value": layer_norm, "critic": layer_norm}
    assert "LayerNorm_0" not in str(jax.tree.structure(state.params.network))


def test_several_steps_are_discounted_by_each():
  """Targets are r + gamma r' + gamma^2 r'' + gamma^3 V."""
  spec = testing.continuous_spec()
  agent = iql(spec, n_step=3, discount=0.5, hidden=(8,))
  episodes = testing.fake_episodes(spec)
  row = int(episodes.rows[0])
  batch = agent.view.take(agent.view.prepare(episodes), np.array([row]))
  np.testing.assert_allclose(batch.reward[0], np.asarray(episodes.reward)[row : row + 3] @ [1, 0.5, 0.25], rtol=1e-6)
  assert float(batch.discount[0]) == 0.25  # times gamma, in the loss
  np.testing.assert_array_equal(batch.next_observation[0], np.asarray(episodes.observation)[row + 3])


def test_dropout_is_of_training_alone():
  spec = testing.continuous_spec()
  agent = iql(spec, hidden=(16,), dropout=0.5, optimizer=optax.sgd(0.0))
  batch = jax.tree.map(jnp.asarray, transitions(testing.fake_episodes(spec), np.arange(8)))
  state = agent.init(jax.random.key(0), batch)
  first, metrics = agent.update(state, batch)
  _, again = agent.update(first, batch)
  assert metrics["policy_loss"] != again["policy_loss"] and metrics["value_loss"] == again["value_loss"]
  step = Step(batch.observation, batch.reward, jnp.zeros(8, bool))
  plain = iql(spec, hidden=(16,)).act(state.params, (), step, None)[0]
  np.testing.assert_array_equal(agent.act(state.params, (), step, None)[0], plain)


def test_the_policy_has_an_optimizer_of_its_own():
  spec = testing.continuous_spec()
  batch = jax.tree.map(jnp.asarray, transitions(testing.fake_episodes(spec), np.arange(8)))
  agent = iql(spec, hidden=(8,), optimizer=optax.adam(1e-2), policy_optimizer=optax.sgd(0.0))
  state = agent.init(jax.random.key(0), batch)
  after, _ = jax.jit(agent.update)(state, batch)
  jax.tree.map(np.testing.assert_array_equal, after.params.network, state.params.network)
  for name in ("value", "critic"):
    pairs = zip(jax.tree.leaves(getattr(after, name)), jax.tree.leaves(getattr(state, name)), strict=True)
    assert all(np.any(a != b) for a, b in pairs)

"""Hyper-parameters that are traced: sweeps in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ilx
from ilx import testing

SPEC = testing.continuous_spec()


def adam(make, **fixed):
  """As ``make``, with the learning rate for a hyper-parameter."""
  return lambda spec, learning_rate: make(spec, optimizer=optax.adam(learning_rate), **fixed)


@pytest.mark.parametrize(
  ("make", "name", "values"),
  [
    (ilx.agents.iql, "expectile", (0.6, 0.9)),
    (ilx.agents.iql, "temperature", (0.5, 10.0)),
    (ilx.agents.iql, "discount", (0.5, 0.99)),
    (ilx.agents.iql, "tau", (0.005, 0.5)),
    (ilx.agents.iql, "max_weight", (1e-12, 100.0)),
    (ilx.agents.iql, "reward_scale", (1.0, 10.0)),
    (ilx.agents.iql, "reward_shift", (0.0, -1.0)),
    (ilx.agents.td3_bc, "alpha", (0.1, 2.5)),
    (ilx.agents.td3_bc, "policy_noise", (0.0, 0.5)),
    (ilx.agents.td3_bc, "noise_clip", (0.1, 0.5)),
    (ilx.agents.td3_bc, "discount", (0.5, 0.99)),
    (ilx.agents.td3_bc, "tau", (0.005, 0.5)),
    (ilx.agents.rebrac, "actor_bc_coef", (0.01, 1.0)),
    (ilx.agents.rebrac, "critic_bc_coef", (0.0, 1.0)),
    (ilx.agents.rebrac, "policy_noise", (0.0, 0.5)),
    (ilx.agents.rebrac, "reward_scale", (1.0, 100.0)),
    (ilx.agents.rebrac, "discount", (0.5, 0.99)),
    (ilx.agents.rebrac, "tau", (0.005, 0.5)),
    (adam(ilx.agents.iql, hidden=(16,)), "learning_rate", (1e-3, 1e-2)),
    (adam(ilx.agents.bc, hidden=(16,)), "learning_rate", (1e-3, 1e-2)),
  ],
)
def test_vmapped_is_as_each_alone(make, name, values):
  episodes = testing.fake_episodes(SPEC)
  hidden = {} if name == "learning_rate" else {"hidden": (16,)}
  view = make(SPEC, **{name: values[0]}, **hidden).view
  data = jax.device_put(view.prepare(episodes))

  def init(value):
    agent = make(SPEC, **{name: value}, **hidden)
    return agent.init(jax.random.key(0), agent.view.sample(jax.random.key(0), data, 8))

  def update(value, state, batch):
    return make(SPEC, **{name: value}, **hidden).update(state, batch)[0]

  def learn(init, update, value):
    state, update = init(value), jax.jit(update)
    for step in range(4):
      state = update(value, state, view.sample(jax.random.key(step), data, 8))
    return state._replace(params=state.params.network, key=())

  several = learn(jax.vmap(init), jax.vmap(update, (0, 0, None)), jnp.array(values))
  for place, value in enumerate(values):
    alone = learn(init, lambda _, state, batch, value=value: update(value, state, batch), value)
    jax.tree.map(lambda one, x, place=place: np.testing.assert_allclose(x[place], one, 1e-3, 1e-5), alone, several)
  assert any(np.any(x[0] != x[1]) for x in jax.tree.leaves(several))  # it matters


def test_weights_of_a_chunks_predictions():
  """At play, with `ensemble` for a hyper-parameter."""
  rng = np.random.default_rng(0)
  episodes = testing.fake_episodes(SPEC)

  def make(value):
    return ilx.agents.chunked_bc(SPEC, length=3, hidden=(8,), ensemble=value)

  batch = make(0.1).view.take(episodes, np.arange(4))
  params = make(0.1).init(jax.random.key(0), jax.tree.map(jnp.asarray, batch)).params
  observations = rng.normal(size=(3, 2, *SPEC.observation.shape)).astype(np.float32)

  def play(value):
    agent = make(value)
    carry = agent.carry(2)
    for now, observation in enumerate(observations):
      step = ilx.Step(jnp.asarray(observation), jnp.zeros(2), jnp.full(2, now == 0))
      action, carry = agent.act(params, carry, step, None)
    return action

  several = jax.vmap(play)(jnp.array([0.01, 2.0]))
  for found, value in zip(several, (0.01, 2.0), strict=True):
    np.testing.assert_allclose(found, play(value), rtol=1e-5, atol=1e-6)
  assert np.any(several[0] != several[1])


def test_rewards_are_not_shifted_by_what_is_not_known():
  with pytest.raises(ValueError, match="with n_step=3: sums of rewards cannot be shifted"):
    jax.eval_shape(lambda shift: ilx.agents.iql(SPEC, reward_shift=shift, n_step=3) and shift, jnp.ones(()))


def test_rewards_are_not_summed_by_a_discount_that_is_not_known():
  with pytest.raises(ValueError, match="discount is traced and n_step=3"):
    jax.vmap(lambda discount: (ilx.agents.iql(testing.continuous_spec(), discount=discount, n_step=3), discount)[1])(
      jnp.array([0.5, 0.99])
    )

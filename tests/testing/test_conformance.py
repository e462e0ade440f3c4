"""The conformance suite itself: it passes an agent with memory, and fails agents that break a promise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from ilx import testing
from ilx.data.views import Transitions
from ilx.types import Agent, Step, Transition

SPEC = testing.continuous_spec(observation_size=3, action_size=2)


class State(NamedTuple):
  params: dict
  step: jax.Array
  key: jax.Array


def _agent(**parts):
  """Fits actions linearly; acts on the running mean of the episode's observations. ``parts`` replace its functions."""

  def init(key, batch):
    del batch
    key, weights_key = jax.random.split(key)
    return State({"w": jax.random.normal(weights_key, (3, 2))}, jnp.zeros((), jnp.int32), key)

  def loss(params, batch):
    return jnp.mean(jnp.square(batch.observation @ params["w"] - batch.action))

  def update(state, batch: Transition):
    value, gradient = jax.value_and_grad(loss)(state.params, batch)
    params = jax.tree.map(lambda w, g: w - 1e-2 * g, state.params, gradient)
    return State(params, state.step + 1, state.key), {"loss": value}

  def act(params, carry, step: Step, key):
    del key
    total, count = jax.tree.map(
      lambda x: jnp.where(step.is_first.reshape(-1, *[1] * (x.ndim - 1)), 0.0, x), (carry[0], carry[1])
    )
    total, count = total + step.observation, count + 1.0
    action = (total / count[:, None]) @ params["w"]
    return jnp.clip(action, SPEC.action.low, SPEC.action.high), (total, count)

  def carry(batch_size):
    return jnp.zeros((batch_size, 3)), jnp.zeros(batch_size)

  functions = {"init": init, "update": update, "act": act, "carry": carry}
  built = functions | {name: make(functions[name]) for name, make in parts.items()}
  return Agent(**built, view=Transitions())


class TestAgentThatSaturatesFarFrom0(testing.AgentConformance):
  """Its observations are scaled without a limit, so those of a dimension that does not vary must be its mean."""

  spec = testing.continuous_spec()

  def make(self):
    mean, std = jnp.float32(self.spec.statistics.mean), jnp.float32(self.spec.statistics.std + 1e-3)
    low, high = self.spec.action.low, self.spec.action.high

    def policy(params, observation):
      return low + 0.5 * (high - low) * (1 + jnp.tanh((observation - mean) / std @ params["w"]))

    def init(key, batch):
      del batch
      key, own = jax.random.split(key)
      return State({"w": 0.3 * jax.random.normal(own, (5, 3))}, jnp.zeros((), jnp.int32), key)

    def update(state, batch):
      def loss(params):
        return jnp.mean(jnp.square(policy(params, batch.observation) - batch.action))

      value, gradient = jax.value_and_grad(loss)(state.params)
      params = jax.tree.map(lambda w, g: w - 1e-2 * g, state.params, gradient)
      return State(params, state.step + 1, state.key), {"loss": value}

    def act(params, carry, step, key):
      del key
      return jnp.clip(policy(params, step.observation), low, high), carry

    return Agent(init, update, act, lambda batch_size: (), Transitions())


class TestAgentWithMemory(testing.AgentConformance):
  spec = SPEC

  def make(self):
    return _agent()


def _impure(update):
  calls = []

  def broken(state, batch):
    calls.append(0)
    state, metrics = update(state, batch)
    return state._replace(params=jax.tree.map(lambda x: x + len(calls), state.params)), metrics

  return broken


def _shares_buffers(init):
  def broken(key, batch):
    state = init(key, batch)
    return state._replace(params=state.params | {"target": state.params["w"]})

  return broken


def _gives_its_key_away(init):
  return lambda key, batch: init(key, batch)._replace(key=key)


def _lends_what_it_holds(init):
  weights = jnp.ones((3, 2))
  return lambda key, batch: init(key, batch)._replace(params={"w": weights})


def _forgets_to_count(update):
  def broken(state, batch):
    after, metrics = update(state, batch)
    return after._replace(step=state.step), metrics

  return broken


def _learns_nothing(update):
  def broken(state, batch):
    after, metrics = update(state, batch)
    return after._replace(params=state.params), metrics

  return broken


def _depends_on_order(update):
  return lambda state, batch: update(state, jax.tree.map(lambda x: x[:4], batch))


def _ignores_the_key(init):
  return lambda key, batch: init(jax.random.key(0), batch)


def _never_resets(act):
  return lambda params, carry, step, key: act(params, carry, step._replace(is_first=jnp.zeros_like(step.is_first)), key)


def _leaves_the_bounds(act):
  def broken(params, carry, step, key):
    action, carry = act(params, carry, step, key)
    return action + 100.0, carry

  return broken


def _looks_at_neighbours(act):
  def broken(params, carry, step, key):
    return act(params, carry, step._replace(observation=step.observation - step.observation.mean(0)), key)

  return broken


@pytest.mark.parametrize(
  ("parts", "test"),
  [
    ({"update": _impure}, "test_update_is_a_pure_function"),
    ({"update": _forgets_to_count}, "test_state_is_arrays_with_params_and_step"),
    ({"update": _learns_nothing}, "test_update_keeps_the_states_structure_and_learns_something"),
    ({"update": _depends_on_order}, "test_order_within_the_batch_does_not_matter"),
    ({"init": _ignores_the_key}, "test_vmap_over_seeds_agrees_with_single_seeds"),
    ({"init": _shares_buffers}, "test_state_can_be_donated"),
    ({"init": _gives_its_key_away}, "test_state_can_be_donated"),
    ({"init": _lends_what_it_holds}, "test_state_can_be_donated"),
    ({"act": _never_resets}, "test_carry_resets_where_is_first"),
    ({"act": _leaves_the_bounds}, "test_act_gives_legal_actions"),
    ({"act": _looks_at_neighbours}, "test_act_treats_environments_independently"),
  ],
)
def test_a_broken_promise_is_found(parts, test):
  class Suite(testing.AgentConformance):
    spec = SPEC

    def make(self):
      return _agent(**parts)

  with pytest.raises(AssertionError):
    getattr(Suite(), test)()


def test_what_may_have_kept_parameters_as_they_were_is_said():
  class Suite(testing.AgentConformance):
    spec = SPEC

    def make(self):
      return _agent(update=_learns_nothing)

  with pytest.raises(AssertionError, match=r"no parameter changed: the gradient or the learning rate .* is 0"):
    Suite().test_update_keeps_the_states_structure_and_learns_something()

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx import testing
from ilx.agents.augmented import augmented
from ilx.agents.bc import bc
from ilx.types import Agent, Continuous, Discrete, Spec, Step, Transition

PICTURE = jax.ShapeDtypeStruct((2, 16, 16), jnp.uint8)


class TestAugmented(testing.AgentConformance):
  spec = Spec({"image": PICTURE, "state": jax.ShapeDtypeStruct((2,), jnp.float32)}, Continuous(-np.ones(2), np.ones(2)))
  noisy = True

  def make(self):
    return augmented(bc(self.spec, hidden=(8,), encoder="flat"), self.spec, pixels=2)


class State(NamedTuple):
  """Of an agent that remembers the batch it was given."""

  step: jax.Array
  key: jax.Array
  batch: Transition


def _agent(spec, **kwargs):
  def update(state, batch):
    return State(state.step + 1, state.key, batch), {}

  return augmented(Agent(init=None, update=update, act=None, carry=None, view=None), spec, **kwargs)


def _batch(size=16):
  rng = np.random.default_rng(0)
  pictures = jnp.asarray(rng.integers(0, 256, (size, 2, 16, 16)), jnp.uint8)
  columns = [jnp.asarray(rng.normal(size=size), jnp.float32) for _ in range(3)]
  return Transition(pictures, *columns, pictures)


def _seen(agent, batch, step=0, seed=0):
  state = State(jnp.int32(step), jax.random.key(seed), batch)
  return agent.update(state, batch)[0].batch


def test_observations_are_shifted_apart_and_all_else_is_untouched():
  batch = _batch()
  seen = _seen(_agent(Spec(PICTURE, Discrete(2))), batch)
  for name in ("action", "reward", "discount"):
    np.testing.assert_array_equal(getattr(seen, name), getattr(batch, name))
  assert np.any(seen.observation != batch.observation)
  assert np.any(seen.next_observation != batch.next_observation)
  # The same picture, shifted by other amounts for most items.
  differ = np.any(np.asarray(seen.observation != seen.next_observation), axis=(1, 2, 3))
  assert differ.mean() > 0.5


def test_shifts_follow_from_key_and_step():
  agent, batch = _agent(Spec(PICTURE, Discrete(2))), _batch()
  first = _seen(agent, batch)
  np.testing.assert_array_equal(first.observation, _seen(agent, batch).observation)
  for other in ({"step": 1}, {"seed": 1}):
    assert np.any(first.observation != _seen(agent, batch, **other).observation)


def test_the_rest_of_the_agent_is_its_own():
  spec = Spec(PICTURE, Discrete(2))
  agent = bc(spec, hidden=(4,), encoder="flat")
  shifted = augmented(agent, spec)
  assert shifted._replace(update=agent.update) == agent
  # The shifts do not change the key that the agent goes on with.
  batch = _batch(4)._replace(action=jnp.zeros(4, jnp.int32))
  state = agent.init(jax.random.key(0), batch)
  after = [jax.random.key_data(x.update(state, batch)[0].key) for x in (agent, shifted)]
  np.testing.assert_array_equal(*after)


def test_what_cannot_be_shifted_is_refused():
  with pytest.raises(ValueError, match="pixels=0 must be at least 1"):
    _agent(Spec(PICTURE, Discrete(2)), pixels=0)
  with pytest.raises(ValueError, match="no pictures"):
    _agent(Spec(jax.ShapeDtypeStruct((7, 7, 3), jnp.uint8), Discrete(2)))
  with pytest.raises(ValueError, match=r"'picture' is a uint8 array .16, 3, 16."):
    _agent(Spec(jax.ShapeDtypeStruct((16, 3, 16), jnp.uint8), Discrete(2)))


def test_it_helps_where_the_data_have_objects_in_one_place_only():
  """Whether a bright bar stands or lies, learnt from bars in one place and asked of bars moved by two pixels."""
  spec = Spec(jax.ShapeDtypeStruct((16, 16), jnp.uint8), Discrete(2))
  rng = np.random.default_rng(0)

  def bars(row, column):
    pictures = rng.integers(0, 64, (64, 16, 16)).astype(np.uint8)
    pictures[:32, row, 4:12] = 255
    pictures[32:, 4:12, column] = 255
    return jnp.asarray(pictures)

  action = jnp.repeat(jnp.arange(2, dtype=jnp.int32), 32)
  zeros = jnp.zeros(64)

  def accuracy(agent):
    batch = Transition(bars(8, 8), action, zeros, zeros, bars(8, 8))
    state = agent.init(jax.random.key(0), batch)
    state, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: agent.update(s, batch), s, length=100))(state)
    moved = [bars(8 + d, 8 + e) for d, e in ((2, 2), (-2, 2), (2, -2), (-2, -2))]
    acts = [agent.act(state.params, (), Step(x, zeros, zeros > 1), None)[0] for x in moved]
    return float(np.mean([np.mean(a == action) for a in acts]))

  plain = bc(spec, hidden=(32,), encoder="flat")
  assert accuracy(augmented(plain, spec, pixels=3)) > accuracy(plain) + 0.1

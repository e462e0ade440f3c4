import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ilx import testing
from ilx.agents import bc, chunked_bc
from ilx.agents.chunked_bc import chunk_loss
from ilx.data.episodes import from_columns
from ilx.networks.distributions import Categorical, Deterministic
from ilx.types import Chunk, Continuous, Discrete, Spec, Step


class TestEnsemble(testing.AgentConformance):
  spec = testing.continuous_spec()
  # Adam divides by the roots of tiny gradients, of which rounding is then a part.
  tolerance = 1e-4

  def make(self):
    return chunked_bc(self.spec, length=4, hidden=(16,))


class TestDiscreteEnsemble(testing.AgentConformance):
  spec = Spec(
    {"image": jax.ShapeDtypeStruct((4, 4, 3), jnp.uint8), "state": jax.ShapeDtypeStruct((2,), jnp.float32)}, Discrete(4)
  )

  def make(self):
    return chunked_bc(self.spec, length=4, hidden=(16,))


class TestPartsInOpenLoop(testing.AgentConformance):
  spec = testing.factored_spec()
  tolerance = 1e-4

  def make(self):
    return chunked_bc(self.spec, length=4, execute=3, head="gaussian", hidden=(16,))


def test_loss_by_hand_counts_real_actions_alone():
  # Two chunks of three actions, of the second of which one is real; time comes first in distributions.
  location = jnp.array([[[0.5], [0.0]], [[0.1], [9.0]], [[0.0], [9.0]]])
  action = jnp.array([[[0.0], [0.3], [-0.4]], [[1.0], [0.0], [0.0]]])
  mask = jnp.array([[True, True, True], [True, False, False]])
  squares = 0.5**2 + 0.2**2 + 0.4**2 + 1.0**2
  np.testing.assert_allclose(chunk_loss(Deterministic(location), action, mask), 0.5 * squares / 4, rtol=1e-6)


def test_padding_has_no_gradient():
  def loss(logits):
    return chunk_loss(Categorical(logits), jnp.array([[1, 0]]), jnp.array([[True, False]]))

  gradient = jax.grad(loss)(jnp.zeros((2, 1, 3)))
  np.testing.assert_allclose(gradient[0, 0], [1 / 3, -2 / 3, 1 / 3], rtol=1e-5)
  np.testing.assert_array_equal(gradient[1, 0], np.zeros(3))


def test_a_chunk_of_one_is_behaviour_cloning():
  spec = testing.continuous_spec()
  episodes = testing.fake_episodes(spec)
  found = []
  for agent in (bc(spec, hidden=(8,)), chunked_bc(spec, length=1, hidden=(8,))):
    batch = jax.tree.map(jnp.asarray, agent.view.take(episodes, np.arange(16)))
    state = agent.init(jax.random.key(0), batch)
    ones = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), state.params.network)
    state, metrics = agent.update(state._replace(params=state.params._replace(network=ones)), batch)
    step = Step(batch.observation, jnp.zeros(16), jnp.ones(16, bool))
    found.append((metrics["loss"], agent.act(state.params, agent.carry(16), step, None)[0]))
  np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
  np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4)


def _waves(num_episodes=8, length=12):
  """Episodes in which the action follows from the time alone, of which the observation is the sine and cosine."""
  t = np.arange(length + 1)
  phase = 2 * np.pi * t / length
  observation = np.tile(np.stack([np.sin(phase), np.cos(phase)], 1), (num_episodes, 1)).astype(np.float32)
  return from_columns(
    observation=observation,
    action=np.tile(0.8 * np.sin(3 * phase), num_episodes).astype(np.float32)[:, None],
    reward=np.zeros(len(observation), np.float32),
    discount=np.ones(len(observation), np.float32),
    is_terminal=np.zeros(len(observation), bool),
    starts=np.arange(num_episodes + 1) * (length + 1),
  )


@pytest.mark.parametrize("execute", [0, 4])
def test_plays_what_it_has_learnt(execute):
  episodes = _waves()
  spec = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), Continuous(-np.ones(1), np.ones(1)))
  agent = chunked_bc(spec, length=4, execute=execute, hidden=(64,), optimizer=optax.adam(1e-2))
  batch = jax.tree.map(jnp.asarray, agent.view.take(episodes, episodes.rows))
  assert isinstance(batch, Chunk) and not batch.mask.all()
  state = agent.init(jax.random.key(0), batch)
  state, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: agent.update(s, batch), s, length=400))(state)
  carry, act = agent.carry(1), jax.jit(agent.act)
  for t in range(12):
    # In an open loop only the first of every four observations counts.
    seen = episodes.observation[t : t + 1] if not execute or t % execute == 0 else np.zeros((1, 2), np.float32)
    action, carry = act(state.params, carry, Step(seen, np.zeros(1, np.float32), np.array([t == 0])), None)
    np.testing.assert_allclose(action[0], episodes.action[t], atol=0.1)


def test_choices_are_drawn_where_a_key_is_given():
  spec = testing.discrete_spec()
  agent = chunked_bc(spec, length=3, hidden=(8,))
  data = agent.view.prepare(testing.fake_episodes(spec))
  state = agent.init(jax.random.key(0), agent.view.take(data, data.rows[:4]))
  slots = 200
  step = Step(jnp.ones((slots, *spec.observation.shape)), jnp.zeros(slots), jnp.ones(slots, bool))
  for key in (None, jax.random.key(1)):
    action, _ = agent.act(state.params, agent.carry(slots), step, key)
    assert (len(np.unique(action)) > 1) == (key is not None)


@pytest.mark.parametrize("ensemble", [-15.0, 20.0, float("nan"), float("inf")])
def test_weights_beyond_float32_are_refused(ensemble):
  with pytest.raises(ValueError, match=r"choose one nearer to 0, or execute=1|must be a finite number"):
    chunked_bc(testing.continuous_spec(), length=8, ensemble=ensemble)


@pytest.mark.parametrize(("length", "execute"), [(0, 0), (2.5, 0), (4, 5), (4, -1), (4, 1.5)])
def test_lengths_that_do_not_fit_are_refused(length, execute):
  with pytest.raises(
    ValueError, match=r"length=(0|2.5) must be|execute=(-1|1.5) must be|execute=5 is more than a chunk has, length=4"
  ):
    chunked_bc(testing.continuous_spec(), length=length, execute=execute)


@pytest.mark.parametrize("execute", [0, 2])
def test_densities_are_sampled_where_a_key_is_given(execute):
  spec = testing.continuous_spec()
  agent = chunked_bc(spec, length=3, execute=execute, head="gaussian", hidden=(8,))
  data = agent.view.prepare(testing.fake_episodes(spec))
  params = agent.init(jax.random.key(0), agent.view.take(data, data.rows[:4])).params
  step = Step(jnp.ones((50, 5)), jnp.zeros(50), jnp.ones(50, bool))
  for key in (None, jax.random.key(1)):
    action, _ = agent.act(params, agent.carry(50), step, key)
    assert (len(np.unique(action, axis=0)) > 1) == (key is not None)

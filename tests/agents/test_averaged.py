import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ilx
from ilx import testing


class TestAveraged(testing.AgentConformance):
  spec = testing.continuous_spec()

  def make(self):
    return ilx.agents.averaged(ilx.agents.bc(self.spec, hidden=(8,)), decay=0.5)


def test_params_are_the_average_and_learning_is_as_without():
  """By hand, with a decay of 0.6: of one, two, then the latest with a weight of 0.4."""
  spec = testing.continuous_spec()
  agent = ilx.agents.bc(spec, hidden=(4,), optimizer=optax.sgd(0.1))
  both = ilx.agents.averaged(agent, decay=0.6)
  data = jax.tree.map(jnp.asarray, testing.fake_episodes(spec))
  batches = [agent.view.sample(jax.random.key(i), data, 8) for i in range(4)]
  alone, state = agent.init(jax.random.key(0), batches[0]), both.init(jax.random.key(0), batches[0])
  kernels, averages = [], []
  for batch in batches:
    alone, _ = agent.update(alone, batch)
    state, _ = both.update(state, batch)
    kernels.append(np.asarray(jax.tree.leaves(alone.params.network)[-1], np.float64))
    averages.append(np.asarray(jax.tree.leaves(state.params.network)[-1]))
  assert state.step == 4 and jax.random.key_data(state.key).tolist() == jax.random.key_data(alone.key).tolist()
  first, second, third, fourth = kernels
  expected = [first, (first + second) / 2]
  expected.append(0.6 * expected[1] + 0.4 * third)
  expected.append(0.6 * expected[2] + 0.4 * fourth)
  assert not np.allclose(first, fourth, atol=1e-4)
  np.testing.assert_allclose(averages, expected, atol=1e-6)
  np.testing.assert_array_equal(jax.tree.leaves(state.learner.params.network)[-1], fourth.astype(np.float32))
  assert jax.tree.all(jax.tree.map(jnp.array_equal, state.params.observation, alone.params.observation))


def test_updates_that_are_not_finite_can_be_skipped():
  """What looks at a state's ``step`` finds it in the learner's."""
  spec = testing.continuous_spec()
  data = testing.fake_episodes(spec)
  data = data.replace(action=data.action.copy())
  data.action[3] = np.nan
  rows = []
  agent = ilx.agents.averaged(ilx.agents.bc(spec, hidden=(4,)), decay=0.9)
  kwargs = {"steps": 8, "batch_size": 16, "log_every": 8, "on_nonfinite": "skip"}
  state = ilx.train(agent, data, on_progress=lambda _, row: rows.append(row), **kwargs)
  assert state.step == 8 and 0 < rows[0]["train/skipped"] < 8
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decay_out_of_range_is_refused(decay):
  with pytest.raises(ValueError, match=f"decay={decay}"):
    ilx.agents.averaged(ilx.agents.bc(testing.continuous_spec()), decay=decay)

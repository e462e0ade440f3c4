import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.networks import critics, mlp


def test_an_ensemble_is_its_critics_side_by_side():
  critic = critics.Critic(mlp.MLP((8,)))
  both = critics.Ensemble(critic, 2)
  observation, action = jnp.ones((5, 3)), jnp.arange(10.0).reshape(5, 2)
  variables = both.init(jax.random.key(0), observation, action)
  values = both.apply(variables, observation, action)
  assert values.shape == (2, 5)
  for i in range(2):
    one = critic.apply(variables[i], observation, action)
    np.testing.assert_allclose(values[i], one, rtol=1e-6)
  assert np.all(values[0] != values[1])


def test_a_critic_of_choices_has_a_value_for_each():
  critic = critics.Critic(mlp.MLP((8,)), num_actions=4)
  variables = critic.init(jax.random.key(0), jnp.ones(3))
  assert critic.apply(variables, jnp.ones((5, 3))).shape == (5, 4)


def test_many_critics_are_one_tree_computed_at_once():
  critic = critics.Critic(mlp.MLP((8,)))
  many = critics.Ensemble(critic, 3)
  observation, action = jnp.ones((5, 3)), jnp.arange(10.0).reshape(5, 2)
  variables = many.init(jax.random.key(0), observation, action)
  assert {x.shape[0] for x in jax.tree.leaves(variables)} == {3}
  values = many.apply(variables, observation, action)
  assert values.shape == (3, 5)
  for i, key in enumerate(jax.random.split(jax.random.key(0), 3)):
    one = critic.apply(critic.init(key, observation, action), observation, action)
    np.testing.assert_allclose(values[i], one, rtol=1e-5)
  first = critic.apply(many.first(variables), observation, action)
  np.testing.assert_allclose(first, values[0], rtol=1e-5)
  with pytest.raises(ValueError, match="num_critics=0"):
    critics.Ensemble(critic, 0)

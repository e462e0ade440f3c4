import jax
import jax.numpy as jnp
import numpy as np

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

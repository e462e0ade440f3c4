import jax.numpy as jnp
import numpy as np

from ilx import testing
from ilx.networks import actions, scaling


def test_features_of_every_kind_by_hand():
  spec = testing.factored_spec().action
  action = {
    "weapon": jnp.array([2]),
    "hand": {"buttons": jnp.array([[1, 0, 3]]), "trigger": jnp.array([7.5])},
    "stick": jnp.array([[0.5, -2.0]]),
  }
  unit = scaling.to_unit(scaling.action_scale(spec), action)
  found = actions.features(spec, unit)
  buttons, trigger, stick, weapon = [0, 1, 1, 0, 0, 0, 0, 1, 0], [0.5], [0.5, -1.0], [0, 0, 1]
  np.testing.assert_allclose(found, [[*buttons, *trigger, *stick, *weapon]])
  assert found.dtype == jnp.float32

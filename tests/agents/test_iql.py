import doctest
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from ilx import testing
from ilx.agents import iql
from ilx.types import Continuous, Spec

iql_module = importlib.import_module("ilx.agents.iql")


class TestContinuous(testing.AgentConformance):
  spec = testing.continuous_spec()

  def make(self):
    return iql(self.spec, hidden=(16, 16))


class TestDiscrete(testing.AgentConformance):
  spec = testing.discrete_spec()

  def make(self):
    return iql(self.spec, hidden=(16,), layer_norm=True, n_step=3)


class TestPictures(testing.AgentConformance):
  spec = Spec(
    {"image": jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.uint8), "state": jax.ShapeDtypeStruct((2, 2), jnp.float32)},
    Continuous(-np.ones(2), np.ones(2)),
  )
  noisy = True

  def make(self):
    return iql(self.spec, hidden=(16,), dropout=0.5, frame_stack=2)


def test_docstring_example():
  assert doctest.testmod(iql_module).failed == 0

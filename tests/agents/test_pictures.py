"""Agents that look at pictures, with every encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx import testing
from ilx.agents import policies
from ilx.agents.augmented import augmented
from ilx.agents.bc import bc
from ilx.networks import impala, nature, vit
from ilx.parallel import mesh
from ilx.training import programs
from ilx.types import Continuous, Discrete, Spec

ENCODERS = {
  "nature": functools.partial(nature.Nature, features=4),
  "impala": functools.partial(impala.Impala, channels=(2,), blocks=1, features=4),
  "vit": functools.partial(vit.ViT, patch=8, width=4, layers=1, heads=2),
}


class TestPictures(testing.AgentConformance):
  """Three pictures at once, each with an encoder of another kind, and a vector."""

  spec = Spec(
    {
      "nature": jax.ShapeDtypeStruct((36, 36), jnp.uint8),
      "impala": jax.ShapeDtypeStruct((16, 17, 3), jnp.uint8),
      "vit": jax.ShapeDtypeStruct((2, 16, 16), jnp.uint8),
      "state": jax.ShapeDtypeStruct((3,), jnp.float32),
    },
    Continuous(-np.ones(2), np.ones(2)),
  )

  def make(self):
    return bc(self.spec, hidden=(8,), encoder=lambda name: ENCODERS[name](name=name))


def test_the_data_stay_uint8_on_the_device():
  """Pictures become floats a batch at a time, within the program that draws, shifts and learns from them."""
  side, batch_size, frames = 36, 4, 2
  spec = Spec(jax.ShapeDtypeStruct((frames, side, side), jnp.uint8), Discrete(3))
  encoder = functools.partial(nature.Nature, features=4)
  agent = augmented(bc(spec, hidden=(), encoder=encoder, frame_stack=frames), spec)
  single = spec._replace(observation=jax.ShapeDtypeStruct((side, side), jnp.uint8))
  data = jax.tree.map(jnp.asarray, agent.view.prepare(testing.fake_episodes(single, num_episodes=64)))
  batch = agent.view.sample(jax.random.key(0), data, batch_size)
  assert data.observation.dtype == batch.observation.dtype == jnp.uint8
  one_device = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), mesh.AXES)
  state = jax.eval_shape(agent.init, jax.random.key(0), batch)
  program = programs.make_program(agent, batch_size, one_device)
  temporary = program.lower(state, data, jax.random.key(1), 1).compile().memory_analysis().temp_size_in_bytes
  # All of a step's numbers and gradients take less than one more copy of the data; as floats these would take four.
  assert 0 < temporary < data.observation.nbytes


@pytest.mark.parametrize("picture", ["auto", "nature"])
def test_pictures_that_are_not_uint8_are_told_to_be_flattened(picture):
  seen = {
    "left": jax.ShapeDtypeStruct((84, 84, 3), jnp.uint8),
    "right": jax.ShapeDtypeStruct((84, 84, 3), jnp.float32),
    "depth": jax.ShapeDtypeStruct((84, 84), jnp.float32),
  }
  with pytest.warns(UserWarning, match=r"observation 'right' is float32 \[84, 84, 3\]: pictures are uint8") as found:
    leaves = policies.make_encoder(Spec(seen, Discrete(2)), picture).leaves
  assert len(found) == 1 and [leaf.name for leaf in leaves if leaf.encoder] == ["left"]


def test_what_is_to_be_flattened_is_no_surprise(recwarn):
  policies.make_encoder(Spec(jax.ShapeDtypeStruct((84, 84, 3), jnp.float32), Discrete(2)), "flat")
  assert not recwarn

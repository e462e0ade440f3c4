"""Agents that look at pictures, with every encoder."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from ilx import testing
from ilx.agents import policies
from ilx.agents.augmented import augmented
from ilx.agents.bc import bc
from ilx.agents.bc_transformer import bc_transformer
from ilx.agents.dt import dt
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


_IMPALA = {"channels": (3, 4), "blocks": 1, "features": 6}


class TestPicturesOfWindowsEncodedAgain(testing.AgentConformance):
  spec = Spec(
    {"image": jax.ShapeDtypeStruct((16, 16, 3), jnp.uint8), "state": jax.ShapeDtypeStruct((2,), jnp.float32)},
    Continuous(-np.ones(2), np.ones(2)),
  )

  def make(self):
    return _small(bc_transformer, self.spec, remat="full", dropout=0.0)


def _small(make, spec, length=8, **options):
  return make(spec, encoder="impala", encoder_options=_IMPALA, length=length, layers=1, heads=2, width=16, **options)


def _update(agent, spec):
  """An update, and what it is given."""
  episodes = agent.view.prepare(testing.fake_episodes(spec))
  batch = agent.view.take(episodes, episodes.rows[:8])
  return agent.update, jax.eval_shape(agent.init, jax.random.key(0), batch), batch


@pytest.mark.parametrize("make", [bc_transformer, functools.partial(dt, target_return=1.0)])
def test_pictures_of_windows_are_computed_as_the_transformer_is(make):
  spec = TestPicturesOfWindowsEncodedAgain.spec

  def convolutions(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == "conv_general_dilated":
        yield equation.outvars[0].aval.dtype.name
      for inner in core.jaxprs_in_params(equation.params):
        yield from convolutions(inner)

  def dtypes(**options):
    update, *given = _update(_small(make, spec, **options), spec)
    return set(convolutions(jax.make_jaxpr(update)(*given).jaxpr))

  assert dtypes() == {"float32"}
  assert dtypes(dtype=jnp.bfloat16) == {"bfloat16"}

  def needed(**options):  # by few tokens, so that pictures are most of it
    update, *given = _update(_small(make, spec, length=4, **options), spec)
    return jax.jit(update).lower(*given).compile().memory_analysis().temp_size_in_bytes

  assert needed(remat="full") < 0.5 * needed()


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

"""What the tests of all converters do with a source."""

import pickle

import jax
import numpy as np

import ilx.data
from ilx import agents
from ilx.data.convert.write import write


def convert(source, folder, **options):
  """Writes a source and reads it again, ``(episodes, info)``; first checks that it can be read in any order."""
  last = len(source) - 1
  copy = pickle.loads(pickle.dumps(source))
  for index in (last, 0):
    assert_equal(copy[index], source[index])
  path = write(source, folder, **options)
  info = ilx.data.read_info(path)
  return ilx.data.load(path, next(iter(info.splits))), info


def assert_equal(a, b):
  """The same values in the same places, bit for bit."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def learns(episodes, metadata=None, updates=30):
  """Whether cloning the episodes lowers the loss."""
  agent = agents.bc(ilx.data.spec(episodes, metadata), hidden=(32, 32))
  batch = agent.view.sample(jax.random.key(0), jax.device_put(episodes), 64)
  state, update, losses = jax.jit(agent.init)(jax.random.key(1), batch), jax.jit(agent.update), []
  for _ in range(updates):
    state, metrics = update(state, batch)
    losses.append(float(metrics["loss"]))
  return np.isfinite(losses).all() and losses[-1] < losses[0]


def steps_of(episodes, index):
  """Rows of one episode, the last step included."""
  return slice(int(episodes.starts[index]), int(episodes.starts[index + 1]))

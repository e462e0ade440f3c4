"""The loops of the device programs; what they compute is tested with the trainer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from ilx import testing
from ilx.parallel import make_mesh
from ilx.training import programs

LONGEST = 3 * programs._GROUP


def _order(platform, length):
  """Which updates a loop makes, in its order."""

  def body(i, carry):
    made, count = carry
    return made.at[count].set(i), count + 1

  carry = jnp.full(LONGEST, -1), jnp.zeros((), jnp.int32)
  return jax.jit(lambda n, carry: programs.make_loop(platform)(n, body, carry))(jnp.int32(length), carry)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("length", [0, 1, programs._GROUP - 1, programs._GROUP, programs._GROUP + 1, LONGEST])
def test_every_update_is_made_once_and_in_order(platform, length):
  made, count = _order(platform, length)
  assert count == length
  np.testing.assert_array_equal(made[:length], np.arange(length))


def test_a_loop_that_waits_for_the_host_says_how_often_it_runs():
  def loops(platform):
    body = jax.jit(lambda n, x: programs.make_loop(platform)(n, lambda i, x: x + i, x))
    return str(body.trace(jnp.int32(40), jnp.int32(0)).jaxpr)

  # What is a scan within jax has a length that is known.
  assert f"length={programs._GROUP}" in loops("gpu")
  assert "length=" not in loops("cpu")


@pytest.mark.parametrize("seeds", [None, 2])
def test_groups_of_updates_are_the_same_updates(monkeypatch, seeds):
  """Bit for bit, wherever a call ends: what is stopped goes on as if it had not been."""
  loop = programs.make_loop
  monkeypatch.setattr(programs, "make_loop", lambda platform: loop("gpu"))
  spec = testing.continuous_spec()
  agent, episodes, mesh = ilx.agents.bc(spec, hidden=(8,)), testing.fake_episodes(spec), make_mesh()
  many = programs.fit(mesh, "jit", seeds, 8)
  data = jax.device_put(jax.tree.map(np.asarray, agent.view.prepare(episodes)))
  batch = agent.view.sample(jax.random.key(0), data, 8)

  def begin():
    one = jax.jit(agent.init)(jax.random.key(0), batch)
    if seeds is None:
      return one, jax.random.key(1)
    return programs.seeds_lib.stack([one] * seeds, many, mesh), jax.random.split(jax.random.key(1), seeds)

  program = programs.make_program(agent, 8, mesh, many)
  found = []
  for lengths in ((37,), (5, 32), (16, 16, 5)):
    state, keys = begin()
    for length in lengths:
      state, _ = program(state, data, keys, length)
    found.append(jax.tree.map(np.asarray, state.params))
  jax.tree.map(np.testing.assert_array_equal, found[0], found[1])
  jax.tree.map(np.testing.assert_array_equal, found[0], found[2])

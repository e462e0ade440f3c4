"""Transitions: what the bootstrap sees, by hand, on the host and inside a jitted program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.data.episodes import from_columns
from ilx.data.host import batches as host_batches
from ilx.data.views import Transitions, transitions


def _episodes():
  """Episode 0: three transitions, terminal. Episode 1: two, a time limit. Last rows hold values that must not show."""
  return from_columns(
    observation={"state": np.arange(7, dtype=np.float32)[:, None] * 10},
    action=np.arange(7, dtype=np.float32)[:, None],
    reward=np.array([1, 2, 3, 99, 10, 20, 99], np.float32),
    discount=np.array([1, 0.5, 1, 77, 1, 1, 77], np.float32),
    is_terminal=np.array([0, 0, 0, 1, 0, 0, 0], bool),
    starts=[0, 4, 7],
  )


def test_every_transition_by_hand():
  batch = transitions(_episodes(), np.array([0, 1, 2, 4, 5]))
  np.testing.assert_array_equal(batch.observation["state"][:, 0], [0, 10, 20, 40, 50])
  np.testing.assert_array_equal(batch.next_observation["state"][:, 0], [10, 20, 30, 50, 60])
  np.testing.assert_array_equal(batch.action[:, 0], [0, 1, 2, 4, 5])
  np.testing.assert_array_equal(batch.reward, [1, 2, 3, 10, 20])


def test_a_terminal_step_cuts_the_bootstrap_and_a_time_limit_does_not():
  discount = transitions(_episodes(), np.array([0, 1, 2, 4, 5])).discount
  # The dataset's own 0.5 stays; row 2 leads to the terminal step; row 5 to the time limit.
  np.testing.assert_array_equal(discount, [1, 0.5, 0, 1, 1])
  assert discount.dtype == np.float32


def _sample(where: str, batch_size: int):
  episodes = _episodes()
  if where == "host":
    return next(host_batches(Transitions(), episodes, batch_size, jax.random.key(0)))
  sample = jax.jit(Transitions().sample, static_argnums=2)
  return sample(jax.random.key(0), jax.tree.map(jnp.asarray, episodes), batch_size)


@pytest.mark.parametrize("where", ["host", "device"])
def test_all_transitions_are_drawn_alike_and_last_rows_never(where):
  batch = _sample(where, 5000)
  rows, counts = np.unique(np.asarray(batch.action)[:, 0], return_counts=True)
  np.testing.assert_array_equal(rows, [0, 1, 2, 4, 5])
  assert np.all(np.abs(counts - 1000) < 150)  # five standard deviations
  assert not np.any(np.asarray(batch.reward) == 99)
  np.testing.assert_array_equal(np.asarray(batch.discount)[np.asarray(batch.action)[:, 0] == 2], 0)


@pytest.mark.parametrize("where", ["host", "device"])
def test_shapes_and_types(where):
  batch = _sample(where, 6)
  assert batch.observation["state"].shape == batch.next_observation["state"].shape == batch.action.shape == (6, 1)
  assert batch.reward.shape == batch.discount.shape == (6,)
  assert {leaf.dtype for leaf in jax.tree.leaves(batch)} == {np.dtype(np.float32)}
  assert isinstance(batch.reward, np.ndarray if where == "host" else jax.Array)


def test_rows_narrow_what_is_drawn():
  narrowed = _episodes().replace(rows=np.array([4, 5], np.int32))
  batch = next(host_batches(Transitions(), narrowed, 50, jax.random.key(0)))
  assert set(batch.reward) == {10, 20}


def test_the_same_key_gives_the_same_batch_inside_a_scan():
  episodes = jax.tree.map(jnp.asarray, _episodes())
  keys = jax.random.split(jax.random.key(1), 3)

  def step(carry, key):
    return carry, Transitions().sample(key, episodes, 4).reward

  _, scanned = jax.jit(lambda: jax.lax.scan(step, 0, keys))()
  for key, rewards in zip(keys, scanned, strict=True):
    np.testing.assert_array_equal(Transitions().sample(key, episodes, 4).reward, rewards)

"""Weights: what is drawn how often, and the same bits on the host as on a device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.data import sampling
from ilx.data.episodes import from_columns
from ilx.data.host import batches
from ilx.data.views import Transitions
from ilx.data.windows import Chunks, Windows


def _episodes(lengths=(1, 4, 10, 25), returns=(5, 1, 9, 3)):
  """Actions are the rows' numbers."""
  steps = np.array(lengths) + 1
  starts = np.concatenate([[0], np.cumsum(steps)])
  rows = np.arange(starts[-1], dtype=np.float32)
  reward = np.zeros(len(rows), np.float32)
  reward[starts[:-1]] = returns
  return from_columns(
    observation=rows[:, None],
    action=rows[:, None],
    reward=reward,
    discount=np.ones_like(rows),
    is_terminal=np.zeros(len(rows), bool),
    starts=starts,
  )


def _counts(episodes, number=200_000):
  rows = np.asarray(episodes.rows)[sampling.positions_many(jax.random.key(0), episodes, 0, 8, number // 8)]
  return np.bincount(rows.reshape(-1), minlength=episodes.num_steps)


@pytest.mark.parametrize("weights", [(1, 2, 3, 4), (10, 0, 1e-3, 0.1), (0, 0, 0, 1), (1, 1, 1, 1), (0, 1, 0, 1)])
def test_every_transition_is_drawn_as_often_as_its_episode_weighs(weights):
  episodes = _episodes()
  weighted = sampling.weighted(episodes, np.array(weights))
  mass = np.array(weights, float)[sampling.episode_of(episodes, np.arange(episodes.num_steps))]
  mass[np.array(episodes.starts[1:]) - 1] = 0
  expected = 200_000 * mass / mass.sum()
  assert np.all(np.abs(_counts(weighted) - expected) <= 5 * np.sqrt(expected) + 1e-9)


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_a_batch_depends_on_its_number_alone_whatever_the_generator(kind):
  key = jax.random.key(7, impl=kind)
  from_zero, from_ten = (batches(Transitions(), _episodes(), 8, key, start=start) for start in (0, 10))
  for _ in range(10):
    next(from_zero)
  np.testing.assert_array_equal(next(from_zero).action, next(from_ten).action)


def test_without_a_cpu_one_is_told_how_to_have_it(monkeypatch):
  def none(backend):
    raise RuntimeError(f"Unknown backend {backend}")

  monkeypatch.setattr(jax, "local_devices", none)
  with pytest.raises(
    RuntimeError, match=r"batches of data in host memory are drawn on the CPU.*set JAX_PLATFORMS=.*,cpu"
  ):
    sampling.positions_many(jax.random.key(0), _episodes(), 0, 1, 4)


@pytest.mark.parametrize("weights", [None, (1, 2, 3, 4), (0, 1, 0, 1)])
@pytest.mark.parametrize(
  "view", [Transitions(), Transitions(3, 0.99), Transitions(frame_stack=2), Windows(3), Chunks(2)]
)
def test_host_and_device_make_the_same_batches_to_the_bit(view, weights):
  episodes = _episodes() if weights is None else sampling.weighted(_episodes(), np.array(weights))
  episodes, key = view.prepare(episodes), jax.random.key(7)
  on_device = jax.tree.map(jnp.asarray, episodes)
  made = batches(view, episodes, 32, key, start=62)
  sample = jax.jit(view.sample, static_argnums=2)
  for i in range(62, 67):  # across a block of draws
    jax.tree.map(
      np.testing.assert_array_equal, next(made), sample(jax.random.fold_in(key, i), on_device, 32)
    )  # fmt: skip


def test_hosts_divide_a_batch():
  episodes, key = _episodes(), jax.random.key(1)
  whole = next(batches(Transitions(), episodes, 12, key, start=5)).action
  for count in (1, 2, 4):
    parts = [next(batches(Transitions(), episodes, 12, key, start=5, host=(h, count))).action for h in range(count)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
  with pytest.raises(ValueError, match="batch_size=12 and host 0 of 5"):
    next(batches(Transitions(), episodes, 12, key, host=(0, 5)))


def test_the_best_tenth_of_all_transitions():
  length, total = np.array([10, 20, 5, 65]), np.array([3.0, 9.0, 5.0, 1.0])
  assert sampling.top_return(0.1)(length, total).tolist() == [0, 1, 0, 0]
  assert sampling.top_return(0.2)(length, total).tolist() == [0, 1, 0, 0]  # the border falls between two episodes
  assert sampling.top_return(0.21)(length, total).tolist() == [0, 1, 1, 0]
  assert sampling.top_return(0.26)(length, total).tolist() == [1, 1, 1, 0]
  assert sampling.top_return(1)(length, total).tolist() == [1, 1, 1, 1]
  # 0.07 * 100 and 0.55 * 100 are rounded up.
  assert sampling.top_return(0.07)(np.array([7, 93]), np.array([1.0, 0.0])).tolist() == [1, 0]
  assert sampling.top_return(0.55)(np.full(20, 5), -np.arange(20.0)).sum() == 11
  with pytest.raises(ValueError, match="fraction is 0"):
    sampling.top_return(0)


def test_top_return_narrows_rows_and_needs_no_table():
  best = sampling.weighted(_episodes(), sampling.top_return(0.1))
  assert best.rows.tolist() == list(range(7, 17)) and best.table is None


def test_per_episode_draws_all_episodes_alike():
  counts = _counts(sampling.weighted(_episodes(), sampling.per_episode))
  starts = np.asarray(_episodes().starts)
  assert np.all(np.abs(np.add.reduceat(counts, starts[:-1]) - 50_000) < 1000)


def test_views_that_narrow_keep_the_weights():
  prepared = Windows(3, padding=None).prepare(sampling.weighted(_episodes(), np.array([1.0, 2, 0, 4])))
  counts = _counts(prepared)
  assert np.flatnonzero(counts).tolist() == prepared.rows.tolist()
  assert abs(counts[2:4].mean() * 2 / counts[18:41].mean() - 1) < 0.05


@pytest.mark.parametrize("weights", [(1, 2), (1, -1, 1, 1), (0, 0, 0, 0), (1, np.nan, 1, 1)])
def test_bad_weights_are_refused(weights):
  with pytest.raises(ValueError, match="weights"):
    sampling.weighted(_episodes(), np.array(weights))


def test_tiny_and_huge_weights_keep_their_proportions():
  counts = _counts(sampling.weighted(_episodes(), np.array([0, 1e-50, 3e-50, 0])))
  assert abs(counts[7:17].mean() / counts[2:6].mean() - 3) < 0.15
  counts = _counts(sampling.weighted(_episodes(), np.array([0, 1e308, 1.5e308, 0])))
  assert abs(counts[7:17].mean() / counts[2:6].mean() - 1.5) < 0.1


def test_weights_again_replace_weights():
  again = sampling.weighted(sampling.weighted(_episodes(), np.array([5.0, 1, 1, 1])), np.array([1.0, 1, 1, 1]))
  assert again.table is None


def test_the_alias_table_is_exact():
  """Summed over groups, what is kept and what is passed on is the probability."""
  probability = np.random.default_rng(0).dirichlet(np.full(1000, 0.1))
  threshold, alias = sampling._alias(probability)
  found = threshold.astype(float).copy()
  np.add.at(found, alias, 1 - threshold.astype(float))
  np.testing.assert_allclose(found / 1000, probability, atol=1e-9)

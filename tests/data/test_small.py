"""Shuffled epochs of few items: each once, as weighted, the same for ever, wherever one looks."""

import collections

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ilx.data import small
from ilx.data.small import Shuffle

SIZES = st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any)


@settings(max_examples=100, deadline=None)
@given(items=SIZES, seed=st.integers(-(2**40), 2**40), first=st.integers(0, 10**6))
def test_every_epoch_has_every_item_once(items, seed, first):
  shuffle = Shuffle(np.array(items), seed=seed)
  number = sum(items)
  assert shuffle.num_items == number and shuffle.episodes.tolist() == [e for e, n in enumerate(items) if n]
  found = shuffle.places(np.arange(first * number, (first + 3) * number)).reshape(3, number)
  np.testing.assert_array_equal(np.sort(found, axis=1), [np.arange(number)] * 3)


@settings(max_examples=50, deadline=None)
@given(items=SIZES, weighted=st.booleans(), times=st.lists(st.integers(0, 10**5), min_size=1, max_size=50))
def test_what_was_asked_before_makes_no_difference(items, weighted, times):
  options = {"seed": 3, "weights": np.arange(1, len(items) + 1) if weighted else None}
  shuffle = Shuffle(np.array(items), **options)
  one_by_one = [int(shuffle.places(np.array([time]))[0]) for time in times]
  assert Shuffle(np.array(items), **options).places(np.array(times)).tolist() == one_by_one


def test_every_item_is_as_likely_at_any_place():
  for place in (0, 9, 10, 37):
    found = collections.Counter(
      int(Shuffle(np.array([1, 4, 2, 3]), seed=s).places(np.array([place]))[0]) for s in range(4000)
    )
    assert len(found) == 10 and scipy.stats.chisquare(list(found.values())).pvalue > 1e-4


def test_weights_are_shares_of_the_items_at_any_place(monkeypatch):
  items, weights = np.array([1, 2, 5, 3, 0]), np.array([8.0, 1.0, 0.0, 3.0, 9.0])
  expected = np.repeat([8.0, 1.0, 3.0], [1, 2, 3]) * 6 / 19
  many = np.stack([Shuffle(items, seed=s, weights=weights).places(np.arange(30)) for s in range(4000)])
  assert set(many.ravel()) == set(range(6))
  for place in (0, 7, 29):
    found = np.bincount(many[:, place], minlength=6)
    assert scipy.stats.chisquare(found, expected / 6 * 4000).pvalue > 1e-4
  for epoch in many.reshape(-1, 6):
    copies = np.bincount(epoch, minlength=6)
    assert np.all((copies >= np.floor(expected)) & (copies <= np.ceil(expected)))


@pytest.mark.parametrize("weights", [[1e-12, 1.0, 1.0], [1.0, 1e12, 3.0]])
def test_weights_of_any_size_fill_every_epoch(weights):
  found = Shuffle(np.array([3, 2, 1]), seed=0, weights=np.array(weights)).places(np.arange(6000))
  assert found.min() >= 0 and found.max() <= 5


def test_rounding_costs_no_item(monkeypatch):
  class Zeros:
    random_sample = staticmethod(np.zeros)

  monkeypatch.setattr(small, "draws", lambda *_: Zeros)
  for number in range(2, 100):
    shuffle = Shuffle(np.ones(number), seed=0, weights=np.arange(number) + 0.1)
    assert shuffle.places(np.arange(number)).max() == number - 1


def test_epochs_differ_and_stay_the_same_for_ever():
  orders = {
    (seed, epoch): tuple(Shuffle(np.array([3, 2]), seed=seed).places(np.arange(5) + 5 * epoch).tolist())
    for seed in (0, 1, -1)
    for epoch in range(4)
  }
  assert len(set(orders.values())) > 8
  # What checkpoints of earlier versions go on from.
  assert orders[0, 0] == GOLDEN
  weighted = Shuffle(np.array([3, 2]), seed=0, weights=np.array([1.0, 2.0]))
  assert tuple(weighted.places(np.arange(10)).tolist()) == GOLDEN_WEIGHTED


GOLDEN = (3, 2, 1, 0, 4)
GOLDEN_WEIGHTED = (4, 2, 4, 1, 3, 1, 3, 4, 2, 4)


def test_equal_weights_are_no_weights():
  one, other = (Shuffle(np.array([3, 2]), seed=0, weights=w).places(np.arange(50)) for w in (None, [4, 4]))
  np.testing.assert_array_equal(one, other)
  assert small._ITEMS > 50

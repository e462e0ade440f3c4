"""The schedule: every item once an epoch, the same whatever is asked first, shares as weighted, quick to find."""

import collections
import itertools
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ilx.data.schedule import Schedule, draws


def items_of(schedule, items, stream, start, stop):
  """(epoch, episode, item) triples that a stream has from ``start`` to ``stop - 1``."""
  result = []
  for span in schedule.spans(stream, start, stop):
    episodes = schedule.episodes(span.piece.epoch, span.piece.block)
    ends = np.cumsum(items[episodes])
    for place in schedule.items(span.piece)[span.start : span.stop]:
      which = int(np.searchsorted(ends, place, side="right"))
      result.append((span.piece.epoch, int(episodes[which]), int(place - (ends[which] - items[episodes[which]]))))
  return result


def everything(items):
  return {(episode, item) for episode, count in enumerate(items) for item in range(count)}


SIZES = st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any)


@settings(max_examples=60, deadline=None)
@given(items=SIZES, streams=st.integers(1, 9), block=st.integers(1, 5), seed=st.integers(0, 2**40))
def test_every_epoch_has_every_item_once(items, streams, block, seed):
  items = np.array(items)
  schedule = Schedule(items, seed=seed, streams=streams, block=block)
  total, epochs = int(items.sum()), 4
  seen = collections.Counter()
  for stream in range(streams):
    # The items at times below epochs * total.
    seen.update(items_of(schedule, items, stream, 0, -(-(epochs * total - stream) // streams)))
  assert seen == {(epoch, *item): 1 for epoch in range(epochs) for item in everything(items)}
  assert schedule.num_items == total


@settings(max_examples=60, deadline=None)
@given(items=SIZES, streams=st.integers(1, 5), rounds=st.integers(1, 40))
def test_after_any_number_of_rounds_no_item_is_two_ahead_of_another(items, streams, rounds):
  items = np.array(items)
  schedule = Schedule(items, seed=0, streams=streams, block=2)
  seen = collections.Counter(item[1:] for v in range(streams) for item in items_of(schedule, items, v, 0, rounds))
  counts = [seen[item] for item in everything(items)]
  assert sum(counts) == rounds * streams
  assert max(counts) - min(counts) <= 1


@settings(max_examples=60, deadline=None)
@given(items=SIZES, weighted=st.booleans(), cuts=st.lists(st.integers(0, 60), min_size=2, max_size=6))
def test_what_was_asked_before_makes_no_difference(items, weighted, cuts):
  items = np.array(items)
  weights = np.arange(1, len(items) + 1) if weighted else None
  options = {"seed": 3, "streams": 3, "block": 2, "weights": weights}
  whole = items_of(Schedule(items, **options), items, 1, 0, 60)
  asked = Schedule(items, **options)
  for start in reversed(sorted(cuts)):
    assert items_of(asked, items, 1, start, 60) == whole[start:]


@settings(max_examples=60, deadline=None)
@given(items=SIZES, streams=st.integers(1, 6), weighted=st.booleans())
def test_pieces_follow_one_another(items, streams, weighted):
  items = np.array(items)
  weights = np.arange(1, len(items) + 1) if weighted else None
  schedule = Schedule(items, seed=1, streams=streams, block=2, weights=weights)
  pieces = list(dict.fromkeys(span.piece for span in schedule.spans(streams - 1, 0, 50)))
  assert [schedule.after(piece) for piece in pieces[:-1]] == pieces[1:]


def test_blocks_are_whole_episodes_cut_where_streams_meet_and_where_the_ring_does():
  items = np.full(40, 10)
  schedule = Schedule(items, seed=0, streams=3, block=4)
  pieces = {span.piece for v in range(3) for span in schedule.spans(v, 0, 134) if span.piece.epoch == 0}
  assert sum(piece.stop - piece.start for piece in pieces) == 400
  cut = [piece for piece in pieces if (piece.start, piece.stop) != (0, 40)]
  assert 10 + 2 <= len(pieces) <= 10 + 3 and len(cut) <= 6
  for block in range(10):
    parts = sorted((piece.start, piece.stop) for piece in pieces if piece.block == block)
    assert parts[0][0] == 0 and parts[-1][1] == 40
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
    assert len(schedule.episodes(0, block)) == 4


def test_orders_differ_by_epoch_and_seed_and_stay_the_same_for_ever():
  items = np.full(5, 2)
  orders = {
    (seed, epoch): tuple(
      x[1:] for x in items_of(Schedule(items, seed=seed, streams=1, block=2), items, 0, 10 * epoch, 10 * epoch + 10)
    )
    for seed in (0, 1, 2**33)
    for epoch in (0, 1, 2)
  }
  assert len(set(orders.values())) == 9
  # What checkpoints of earlier versions go on from.
  assert orders[0, 0] == GOLDEN
  weighted = Schedule(items, seed=0, streams=1, block=2, weights=[1, 2, 3, 4, 5])
  assert tuple(x[1] for x in items_of(weighted, items, 0, 0, 12)) == GOLDEN_WEIGHTED


GOLDEN = ((3, 1), (0, 1), (1, 1), (1, 0), (4, 0), (2, 1), (2, 0), (4, 1), (0, 0), (3, 0))
GOLDEN_WEIGHTED = (4, 1, 2, 2, 4, 3, 3, 4, 1, 4, 4, 2)


def test_every_item_is_as_likely_to_come_at_any_place():
  items = np.array([1, 4, 2, 3])
  for stream, place in ((0, 0), (1, 3)):
    found = collections.Counter(
      items_of(Schedule(items, seed=seed, streams=2, block=2), items, stream, place, place + 1)[0][1:]
      for seed in range(4000)
    )
    assert len(found) == 10
    assert scipy.stats.chisquare(list(found.values())).pvalue > 1e-4


def test_weights_are_shares_of_the_items():
  items = np.array([3, 3, 10, 1, 5, 0])
  weights = np.array([1.0, 0.25, 0.5, 0.0, 3.0, 7.0])
  schedule = Schedule(items, seed=0, streams=2, block=2, weights=weights)
  copies = collections.Counter()
  epochs = 2000
  for epoch in range(epochs):
    found = collections.Counter()
    # All pieces of the epoch, of both streams.
    for stream in range(2):
      start = schedule._first(epoch, stream)
      for item in items_of(schedule, items, stream, start, schedule._first(epoch + 1, stream)):
        assert item[0] == epoch
        found[item[1:]] += 1
    by_episode = collections.defaultdict(set)
    for (episode, _), count in found.items():
      by_episode[episode].add(count)
    assert all(len(counts) == 1 for counts in by_episode.values())  # an episode comes as a whole
    copies.update({episode: counts.pop() for episode, counts in by_episode.items()})
  expected = weights[[0, 1, 2, 4]] * 21 / (3 + 0.75 + 5 + 15)
  mean = np.array([copies[episode] for episode in (0, 1, 2, 4)]) / epochs
  assert set(copies) == {0, 1, 2, 4}
  # Of all epochs together, none is a whole copy off.
  np.testing.assert_allclose(mean, expected, atol=1 / epochs)


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_in_every_epoch_copies_are_as_weighted_on_average_over_seeds(epoch):
  items, weights = np.array([3, 3, 10, 1]), np.array([1.0, 0.25, 0.5, 3.0])
  expected = weights * 17 / np.dot(weights, items)
  found = [Schedule(items, seed=s, streams=1, block=1, weights=weights)._draw(epoch) for s in range(4000)]
  # Copies are the floor or the ceiling of their expectation, so their variance is at most 1/4.
  np.testing.assert_allclose(np.mean(found, axis=0), expected, atol=4 * 0.5 / np.sqrt(4000))


@settings(max_examples=60, deadline=None)
@given(items=SIZES, seed=st.integers(0, 100), data=st.data())
def test_with_weights_epochs_follow_one_another(items, seed, data):
  items = np.array(items)
  weights = data.draw(st.lists(st.floats(0.01, 100), min_size=len(items), max_size=len(items)))
  schedule = Schedule(items, seed=seed, streams=1, block=2, weights=weights)
  begins = [schedule.before(epoch) for epoch in range(30)]
  assert begins[0] == 0 and np.all(np.diff(begins) > 0)
  assert [schedule._epoch_at(time) for time in range(begins[-1])] == [
    epoch for epoch in range(29) for _ in range(begins[epoch + 1] - begins[epoch])
  ]


def test_copies_are_off_by_less_than_one():
  rng = np.random.default_rng(0)
  items, weights = rng.integers(1, 50, 300), rng.exponential(size=300)
  schedule = Schedule(items, seed=0, streams=1, block=8, weights=weights)
  expected = weights * items.sum() / np.dot(weights, items)
  for epoch in range(20):
    copies = schedule._draw(epoch)
    assert np.all((copies >= np.floor(expected - 1e-9)) & (copies <= np.ceil(expected + 1e-9)))


def test_equal_weights_are_no_weights_and_a_weight_of_zero_is_absence():
  items = np.array([3, 2, 4])
  plain = Schedule(items, seed=0, streams=2, block=1)
  same = Schedule(items, seed=0, streams=2, block=1, weights=np.full(3, 0.1))
  assert items_of(plain, items, 0, 0, 30) == items_of(same, items, 0, 0, 30)
  without = Schedule(items, seed=0, streams=2, block=1, weights=[1, 0, 1])
  assert {item[1] for item in items_of(without, items, 0, 0, 30)} == {0, 2}
  assert without.num_items == 7


def test_any_integer_is_a_seed():
  items = np.full(8, 3)
  plans = [Schedule(items, seed=seed, streams=1, block=2) for seed in (-1, -2, 1, 2**70)]
  assert len({tuple(items_of(plan, items, 0, 0, 24)) for plan in plans}) == 4


def test_a_far_epoch_with_weights_is_found_by_arithmetic():
  schedule = Schedule(np.full(10, 20), seed=0, streams=16, block=1, weights=np.arange(10) + 1.0)
  began = time.perf_counter()
  list(schedule.spans(3, 10**12, 10**12 + 16))
  assert time.perf_counter() - began < 0.2


@pytest.mark.parametrize("weighted", [False, True])
def test_a_far_batch_is_found_at_once(weighted):
  rng = np.random.default_rng(0)
  items = rng.integers(1, 200, 10_000)
  schedule = Schedule(items, seed=0, streams=16, block=32, weights=rng.uniform(size=10_000) if weighted else None)
  began = time.perf_counter()
  for stream in range(16):
    list(schedule.spans(stream, 16 * 10**6, 16 * 10**6 + 16))  # batch 1,000,000 of 256
  assert time.perf_counter() - began < 2


def test_wrong_numbers_are_refused():
  items = np.array([2, 0, 3])
  with pytest.raises(ValueError, match="no item is left to draw from; every episode is too short"):
    Schedule(np.zeros(3), seed=0, streams=1, block=1)
  with pytest.raises(ValueError, match="every episode with weight is too short"):
    Schedule(items, seed=0, streams=1, block=1, weights=[0, 1, 0])
  for weights in ([1, 2], [1, -1, 1], [1, np.nan, 1], [0, 0, 0]):
    with pytest.raises(ValueError, match="weights"):
      Schedule(items, seed=0, streams=1, block=1, weights=weights)
  for wrong in ({"streams": 0}, {"block": 0}):
    with pytest.raises(ValueError, match="schedule"):
      Schedule(items, **({"seed": 0, "streams": 1, "block": 1} | wrong))


def test_seeds_of_numpys_types_are_those_of_python():
  for seed in (-1, 3):
    assert draws(np.int64(seed), 1).randint(2**31) == draws(seed, 1).randint(2**31)

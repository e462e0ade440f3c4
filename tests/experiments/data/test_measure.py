import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from experiments.data import activity
from experiments.data.measure import Distinct, Moments, Sample, Words


@hypothesis.given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(0, 10_000))
def test_moments(sizes, seed):
  random = np.random.default_rng(seed)
  rows = random.normal(3, 2, size=(sum(sizes), 3))
  rows[random.random(rows.shape) < 0.2] = np.nan
  moments = Moments(3)
  for part in np.split(rows, np.cumsum(sizes)[:-1]):
    moments.add(part)
  for i in range(3):
    known = rows[np.isfinite(rows[:, i]), i]
    assert (moments.count[i], moments.lost[i]) == (len(known), len(rows) - len(known))
    found = [moments.mean[i], moments.std[i], moments.low[i], moments.high[i]]
    expected = [known.mean(), known.std(), known.min(), known.max()] if len(known) else [np.nan] * 4
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_sample_is_all_that_fits(tmp_path):
  sample = Sample(100)
  for start in range(0, 90, 30):
    sample.add({"a": np.arange(start, start + 30), "b": -np.arange(start, start + 30)}, 30)
  np.testing.assert_array_equal(sample.columns()["a"], np.arange(90))


def test_a_sample_is_uniform_and_keeps_rows_together():
  sample = Sample(2000)
  for start in range(0, 100_000, 1000):
    rows = np.arange(start, start + 1000)
    sample.add({"a": rows, "b": 2 * rows}, 1000)
  found = sample.columns()
  assert len(found["a"]) == 2000
  np.testing.assert_array_equal(found["b"], 2 * found["a"])
  assert len(np.unique(found["a"])) == 2000
  # Of ten parts each has 200 but for chance; five standard deviations are 67.
  counts = np.histogram(found["a"], np.arange(0, 100_001, 10_000))[0]
  assert np.abs(counts - 200).max() < 67
  assert sum(len(part) for part in sample._parts["a"]) <= 4000


def test_distinct():
  few = Distinct(1000)
  few.add(np.array([1, 2, 3, 2], np.uint64))
  few.add(np.array([3, 4], np.uint64))
  assert few.exact
  assert few.repeated == pytest.approx(1 / 3)
  hashes = activity.column_hashes(np.random.default_rng(0).integers(0, 50_000, 100_000))
  many = Distinct(5000)
  for part in np.split(hashes, 100):
    many.add(part)
  assert not many.exact
  assert len(many._keys) <= 5000
  assert many.repeated == pytest.approx(1 - len(np.unique(hashes)) / 100_000, abs=0.02)


def test_what_splits_share():
  a, b = Distinct(), Distinct()
  a.add(np.arange(10, dtype=np.uint64))
  b.add(np.arange(5, 8, dtype=np.uint64))
  assert (a.shared(b), b.shared(a)) == (0.3, 1.0)


def test_words():
  words = Words(2)
  for word in ["a", "b", "a", "c", "a", "c"]:
    words.add(word)
  assert (words.distinct, words.capped, words.total, words.most_common(1)) == (2, True, 6, [("a", 3)])


def test_hashes():
  random = np.random.default_rng(0)
  values = np.repeat(random.normal(size=(500, 7)).astype(np.float32), 2, axis=0)
  hashes = activity.column_hashes(values)
  assert len(np.unique(hashes)) == 500
  np.testing.assert_array_equal(hashes[::2], hashes[1::2])
  assert activity.content_hash({"a": values}) != activity.content_hash({"b": values})
  assert activity.content_hash({"a": [b"x", b""]}) != activity.content_hash({"a": [b"", b"x"]})
  # One bit, anywhere, gives another hash.
  bits = np.unpackbits(np.zeros((1, 16), np.uint8))[None] ^ np.eye(128, dtype=np.uint8)
  assert len(np.unique(activity.column_hashes(np.packbits(bits, axis=1)))) == 128
  assert len(np.unique(activity.column_hashes([b"a", b"b", b"a"]))) == 2
  # The same rows in another order make another episode.
  rows = np.array([1, 2, 3, 3, 2, 1, 1, 2, 3], np.uint64)
  a, b, c = activity.episode_hashes(rows, np.array([0, 3, 6, 9]))
  assert a == c != b
  swapped = activity.combine({"a": rows[:3], "b": rows[3:6]}), activity.combine({"a": rows[3:6], "b": rows[:3]})
  assert (swapped[0][0], swapped[0][2]) != (swapped[1][0], swapped[1][2])


def idle(observation, action, starts=None, **options):
  columns = {"steps/observation": np.array(observation, np.float32), "steps/action": np.array(action, np.float32)}
  starts = [0, len(observation)] if starts is None else starts
  return activity.idle(columns, np.array(starts), **options).astype(int).tolist()


def test_idle():
  # Nothing moves and the action is 0, or the one before, or (at first) the one behind.
  assert idle([1, 1, 1, 2], [0, 0, 0, 0]) == [1, 1, 0, 0]
  assert idle([1, 1, 1, 2], [5, 5, 5, 0]) == [1, 1, 0, 0]
  assert idle([1, 1, 1, 2], [5, 6, 7, 0]) == [0, 0, 0, 0]
  assert idle([1, 1, 1, 1], [5, 6, 6, 0]) == [0, 0, 1, 0]
  # A step is not compared with the next episode's, and the last action carries no meaning.
  assert idle([1, 1, 1, 1], [0, 0, 0, 0], [0, 2, 4]) == [1, 0, 1, 0]
  assert idle([1, 1, 1, 1], [7, 7, 7, 7], [0, 2, 4]) == [0, 0, 0, 0]
  assert idle([1, 1.01, 2], [0.01, 0, 0]) == [0, 0, 0]
  assert idle([1, 1.01, 2], [0.01, 0, 0], tolerance=0.02) == [1, 0, 0]


def longest(*actions, starts=None):
  columns = {f"steps/action/{i}": action for i, action in enumerate(actions)}
  return activity.longest_same(columns, np.array(starts or [0, len(actions[0])])).tolist()


def test_the_longest_stretch_of_one_action():
  numbers = np.array([[0, 1], [0, 1], [0, 1], [0, 2], [0, 2], [5, 5]], np.float32)
  assert longest(numbers) == [3]
  assert longest(numbers, starts=[0, 2, 6]) == [1, 2]
  assert longest(numbers, starts=[0, 1, 6]) == [0, 2]  # an episode without a transition
  assert longest(np.zeros(4)) == [3]  # the last step's action carries no meaning
  assert longest(np.full((3, 1), np.nan)) == [1]
  # Parts of an action change each on their own.
  assert longest(np.zeros(6), np.array([1, 1, 2, 2, 2, 2])) == [3]
  assert longest([b"a", b"a", b"b", b"b"]) == [2]
  assert activity.longest_same({"steps/observation": np.zeros(4)}, np.array([0, 2, 4])).tolist() == [0, 0]


def test_idle_with_texts_in_the_action():
  columns = {
    "steps/observation": np.zeros((6, 2), np.float32),
    "steps/action/move": np.zeros((6, 1), np.float32),
    "steps/action/say": [b"go", b"left", b"left", b"stop", b"stop", b""],
  }
  # Saying something is doing something, but for saying it again.
  assert activity.idle(columns, np.array([0, 6])).tolist() == [False, False, True, False, True, False]
  del columns["steps/action/move"]
  assert activity.idle(columns, np.array([0, 6])).tolist() == [False, False, True, False, True, False]


def test_idle_with_pictures():
  pictures, action = [b"a", b"a", b"b", b"b"], np.zeros((4, 1), np.float32)
  state = np.zeros((4, 2), np.float32)
  columns = {"steps/observation/image": pictures, "steps/action": action}
  starts = np.array([0, 4])
  assert activity.idle(columns, starts).tolist() == [True, False, True, False]
  # Numbers that stand still do not make up for pictures that change, unless these are ignored.
  columns |= {"steps/observation/state": state}
  assert activity.idle(columns, starts).tolist() == [True, False, True, False]
  assert activity.idle(columns, starts, ignored=["steps/observation/image"]).tolist() == [True, True, True, False]

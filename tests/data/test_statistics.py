import io
import sys
import tracemalloc

import datasketches
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilx.data import moments
from ilx.data.images import Images
from ilx.data.statistics import RANK_ERROR, SAMPLE, Accumulator, merge, sample, statistics
from ilx.types import QUANTILES


def _assert_moments(found, values):
  values = np.asarray(values, np.float64)
  np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-12, atol=1e-12)
  np.testing.assert_allclose(found.std, values.std(axis=0), rtol=1e-9, atol=1e-12)
  np.testing.assert_array_equal(found.min, values.min(axis=0))
  np.testing.assert_array_equal(found.max, values.max(axis=0))
  assert found.mean.dtype == found.std.dtype == found.min.dtype == found.max.dtype == np.float64


def _assert_ranks(quantiles, values):
  """Every value that stands for a quantile has the right rank, or lies among equals that have it."""
  assert quantiles.shape == (len(QUANTILES), values.shape[1])
  for column, found in zip(np.sort(values, axis=0).T, quantiles.T, strict=True):
    least, most = (np.searchsorted(column, found, side) / len(column) for side in ("left", "right"))
    assert np.all(least - RANK_ERROR <= QUANTILES) and np.all(most + RANK_ERROR >= QUANTILES)


def test_by_hand():
  found = statistics(np.array([[0, 2], [4, 2], [2, 8]], np.float32))
  assert found.count == 3
  np.testing.assert_allclose(found.mean, [2, 4])
  np.testing.assert_allclose(found.std, [np.sqrt(8 / 3), np.sqrt(8)])
  np.testing.assert_array_equal(found.min, [0, 2])
  np.testing.assert_array_equal(found.max, [4, 8])
  assert found.quantiles is None


@pytest.mark.parametrize("shape", [(1,), (70_000,), (40_000, 3), (300, 8, 8, 3)])
def test_many_blocks(shape):
  values = np.random.default_rng(0).standard_normal(shape).astype(np.float32) * 3 + 7
  _assert_moments(statistics(values), values)


@pytest.mark.parametrize(("offset", "scale"), [(1e8, 1.0), (1e9, 1e-3), (-1e12, 1e-1)])
def test_a_large_offset_costs_no_digits(offset, scale):
  values = np.random.default_rng(0).standard_normal((50_000, 2)) * scale + offset
  # The difference of squares would be off by whole units here. The offset is taken off without rounding.
  moved = values - offset
  found = statistics(values)
  np.testing.assert_allclose(found.std, moved.std(axis=0), rtol=1e-9)
  np.testing.assert_allclose(found.mean - offset, moved.mean(axis=0), atol=abs(offset) * 2e-16)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e30, 3.4e38])
def test_constants(value):
  found = statistics(np.full((100_000, 1), value), quantiles=True)
  assert found.min == found.max == value
  np.testing.assert_allclose(found.mean, value, rtol=1e-15)
  assert found.std <= abs(value) * 1e-15
  assert np.all(found.quantiles == np.float32(value))


def test_one_row():
  found = statistics(np.array([[3, -2]]), quantiles=True)
  for value in (found.mean, found.min, found.max, *found.quantiles):
    np.testing.assert_array_equal(value, [3, -2])
  np.testing.assert_array_equal(found.std, [0, 0])


def test_trees_and_integers():
  tree = {"image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "state": np.array([[True], [False]])}
  found = statistics(tree)
  _assert_moments(
    found._replace(**{k: getattr(found, k)["image"] for k in ("mean", "std", "min", "max")}), tree["image"]
  )
  assert found.mean["state"] == [0.5]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_no_number(bad):
  values = np.zeros((20, 3))
  values[7, 1] = bad
  with pytest.raises(ValueError, match="'pose/arm' has a number that is NaN, inf or beyond float32"):
    statistics({"pose": {"arm": values}}, quantiles=True)
  with pytest.raises(ValueError, match="the array has a number"):
    statistics(values)


@pytest.mark.parametrize("tree", [np.empty((0, 3)), {"a": np.ones(2), "b": np.ones(3)}, {}])
def test_no_rows_or_disagreeing_ones(tree):
  with pytest.raises(ValueError, match="one number of rows above 0"):
    statistics(tree)


def test_rows_of_another_tree_or_shape():
  accumulator = Accumulator()
  accumulator.update({"x": np.ones((2, 3))})
  with pytest.raises(ValueError, match=r"rows of .*y.* after rows of .*x"):
    accumulator.update({"y": np.ones((2, 3))})
  with pytest.raises(ValueError, match=r"'x' has shape \(4,\) after rows of \(3,\)"):
    accumulator.update({"x": np.ones((2, 4))})
  other = Accumulator(quantiles=False)
  with pytest.raises(ValueError, match="with and without quantiles"):
    other.update({"x": np.ones((2, 3))}) or accumulator.merge(other)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=6), st.integers(1, 40))
def test_the_same_bits_however_the_rows_are_divided(cuts, width):
  values = np.random.default_rng(width).standard_normal((5000, width)).astype(np.float32) * 100 + 30
  whole, parts = Accumulator(quantiles=False), Accumulator(quantiles=False)
  whole.update(values)
  for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 5000], strict=True):
    parts.update(values[start:stop])
  for a, b in zip(whole.result()[:5], parts.result()[:5], strict=True):
    np.testing.assert_array_equal(a, b)


def _updated(accumulator, tree):
  accumulator.update(tree)
  return accumulator


@pytest.mark.parametrize(
  "look",
  [Accumulator.result, lambda accumulator: _updated(Accumulator(), np.ones((3, 5))).merge(accumulator)],
  ids=["result", "merge"],
)
def test_looking_in_between_changes_no_bit(look):
  values = np.random.default_rng(0).standard_normal((50_000, 5)).astype(np.float32) * 100 + 30
  plain, looked = Accumulator(), Accumulator()
  for part in np.array_split(values, 7):
    plain.update(part)
    looked.update(part)
    look(looked)
  for a, b in zip(plain.result()[:5], looked.result()[:5], strict=True):
    np.testing.assert_array_equal(a, b)
  _assert_ranks(looked.result().quantiles, values)


def test_results_in_between_are_of_the_rows_so_far():
  values = np.random.default_rng(0).standard_normal((20_000, 4)).astype(np.float32)
  accumulator = Accumulator()
  for start in range(0, 20_000, 3000):
    accumulator.update(values[start : start + 3000])
    found = accumulator.result()
    assert found.count == len(values[: start + 3000])
    _assert_moments(found, values[: start + 3000])
    _assert_ranks(found.quantiles, values[: start + 3000])


@pytest.mark.parametrize(
  ("leaf", "problem"),
  [(np.ones((3, 2)), r"'b' has shape \(2,\) after"), (np.array([["x"]] * 3), "'b' is <U1; expected numbers")],
)
def test_rows_that_are_refused_change_nothing(leaf, problem):
  accumulator = _updated(Accumulator(), {"a": np.zeros((3, 1)), "b": np.zeros((3, 1))})
  with pytest.raises(ValueError, match=problem):
    accumulator.update({"a": np.ones((3, 1)), "b": leaf})
  assert (accumulator.result().count, accumulator.result().max) == (3, {"a": [0], "b": [0]})


@pytest.mark.parametrize(
  ("leaf", "problem"),
  [(np.ones((3, 2)), r"'b' has shapes \(1,\) and \(2,\)"), (np.full((3, 1), np.nan), "'b' has a number that is NaN")],
)
def test_an_accumulator_that_is_refused_changes_nothing(leaf, problem):
  accumulator = _updated(Accumulator(), {"a": np.zeros((3, 1)), "b": np.zeros((3, 1))})
  with pytest.raises(ValueError, match=problem):
    accumulator.merge(_updated(Accumulator(), {"a": np.ones((3, 1)), "b": leaf}))
  assert (accumulator.result().count, accumulator.result().max) == (3, {"a": [0], "b": [0]})


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.floats(-1e3, 1e3))
def test_merge_is_the_statistics_of_all(a, b, shift):
  rng = np.random.default_rng(a * 100 + b)
  first, second = rng.standard_normal((a, 3)), rng.standard_normal((b, 3)) + shift
  merged = merge(statistics({"x": first}), statistics({"x": second}, quantiles=True))
  assert merged.count == a + b
  assert merged.quantiles is None
  both = np.concatenate([first, second])
  np.testing.assert_allclose(merged.mean["x"], both.mean(axis=0), rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(merged.std["x"], both.std(axis=0), rtol=1e-9, atol=1e-9)
  np.testing.assert_array_equal(merged.max["x"], both.max(axis=0))
  np.testing.assert_array_equal(merged.min["x"], both.min(axis=0))


def _seen(values, parts=1):
  accumulator = Accumulator()
  for part in np.array_split(values, parts):
    accumulator.update(part)
  return accumulator


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(0, 3000)] * 3), st.floats(-1e6, 1e6), st.integers(0, 99))
def test_merging_accumulators_is_associative(sizes, shift, seed):
  rng = np.random.default_rng(seed)
  sets = [rng.standard_normal((size, 2)) + shift * i for i, size in enumerate(sizes)]
  values = np.concatenate([*sets, [[0.0, 1.0]]])
  sets[2] = values[sum(sizes[:2]) :]
  (a, b, c), (d, e, f) = ([_seen(part, 3) for part in sets] for _ in range(2))
  a.merge(b)
  a.merge(c)  # (a + b) + c
  e.merge(f)
  d.merge(e)  # a + (b + c)
  whole = _seen(values).result()
  spread = np.ptp(values, axis=0).max()
  for found in (a.result(), d.result()):
    assert found.count == len(values)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12, atol=1e-13 * spread)
    np.testing.assert_allclose(found.std, whole.std, rtol=1e-9)
    np.testing.assert_array_equal(found.min, whole.min)
    np.testing.assert_array_equal(found.max, whole.max)
    _assert_ranks(found.quantiles, values.astype(np.float32))
  # What was merged in is as it was, and can be used further.
  np.testing.assert_allclose(f.result().mean, sets[2].mean(axis=0), rtol=1e-9, atol=1e-9)


def test_merging_with_nothing():
  accumulator = Accumulator()
  accumulator.merge(_seen(np.array([[1.0], [3.0]])))
  accumulator.merge(Accumulator())
  assert (accumulator.result().count, accumulator.result().mean) == (2, [2])


def test_quantiles_are_within_the_stated_error():
  assert datasketches.kll_floats_sketch(moments._SKETCH_ITEMS).normalized_rank_error(False) <= RANK_ERROR
  rng = np.random.default_rng(0)
  size = 300_000
  values = np.stack(
    [
      rng.standard_normal(size),
      np.arange(size),  # sorted, both ways
      -np.arange(size),
      np.exp(8 * rng.standard_normal(size)),
      rng.integers(0, 3, size),  # many equal ones
      np.where(rng.random(size) < 0.004, 1e30, rng.random(size)),
      np.tile(np.arange(1000), 300),
    ],
    axis=1,
  ).astype(np.float32)
  _assert_ranks(statistics(values, quantiles=True).quantiles, values)


def test_quantiles_of_few_rows_are_exact():
  values = np.random.default_rng(0).standard_normal((500, 2, 3)).astype(np.float32)
  found = statistics(values, quantiles=True).quantiles
  assert (found.shape, found.dtype) == ((len(QUANTILES), 2, 3), np.float32)
  np.testing.assert_array_equal(found, np.quantile(values, QUANTILES, axis=0, method="inverted_cdf"))


def test_memory_stays_flat():
  accumulator = Accumulator()
  values = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
  tracemalloc.start()
  for _ in range(300):
    accumulator.update(values)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert accumulator.count == 300_000
  assert peak < 2 << 20  # the rows are 10 MB


def test_large_leaves_have_no_quantiles_and_only_the_rows_asked_for():
  rng = np.random.default_rng(0)
  tree = {"picture": rng.integers(0, 256, (9, 40, 40), np.uint8), "small": rng.standard_normal((9, 1024))}
  found = statistics(tree, quantiles=True, rows=np.array([1, 4, 5]))
  assert found.count == 9
  np.testing.assert_allclose(found.mean["picture"], tree["picture"][[1, 4, 5]].mean(axis=0))
  np.testing.assert_allclose(found.mean["small"], tree["small"].mean(axis=0), rtol=1e-12)
  assert found.quantiles["picture"].shape == (len(QUANTILES), 40, 40)
  assert np.isnan(found.quantiles["picture"]).all() and not np.isnan(found.quantiles["small"]).any()


@pytest.mark.parametrize(("shape", "axes"), [((90, 90, 3), (0, 1, 2)), ((3, 90, 90), None), ((130, 130), None)])
def test_huge_leaves_have_the_moments_of_their_channels(shape, axes):
  values = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8) // (1 + np.arange(shape[-1]))
  found = statistics(values)
  for name in ("mean", "std", "min", "max"):
    expected = getattr(values.astype(np.float64), name)(axis=axes)
    np.testing.assert_allclose(getattr(found, name), np.broadcast_to(expected, shape), rtol=1e-12)


def test_only_the_pictures_asked_for_are_decoded():
  pixels = np.random.default_rng(0).integers(0, 256, (4, 40, 30, 3), np.uint8)
  contents = []
  for picture in pixels:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "PNG")
    contents.append(file.getvalue())
  contents[1] = b"broken"
  images = Images.of(contents, (40, 30, 3))
  np.testing.assert_allclose(statistics(images, rows=np.array([0, 2, 3])).mean, pixels[[0, 2, 3]].mean(axis=0))
  with pytest.raises(ValueError, match="picture 1"):
    statistics(images)


def test_columns_that_are_no_arrays_are_read_in_parts():
  class Column:
    """Indexed like an array, as pictures and chained datasets are."""

    shape = (5_000_000, 2)
    most = 0

    def __len__(self):
      return self.shape[0]

    def __getitem__(self, part):
      rows = np.arange(*part.indices(len(self)))
      self.most = max(self.most, len(rows))
      return np.stack([rows, -rows], axis=1)

  column = Column()
  np.testing.assert_allclose(statistics(column).mean, [2_499_999.5, -2_499_999.5], rtol=1e-12)
  assert 10_000 < column.most < 1_000_000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 40), st.data())
def test_a_sample_of_parts_is_a_part_of_the_sample(steps, size, data):
  monkeypatch = pytest.MonkeyPatch()
  with monkeypatch.context() as patch:
    patch.setattr(sys.modules["ilx.data.statistics"], "SAMPLE", size)
    steps = np.array(steps)
    whole = sample(steps, len(steps))
    cut = data.draw(st.integers(0, len(steps)))
    parts = [sample(steps[:cut], len(steps)), sample(steps[cut:], len(steps), cut) + steps[:cut].sum()]
  np.testing.assert_array_equal(np.concatenate(parts), whole)
  assert np.all(np.diff(whole) > 0) and whole[0] >= 0 and whole[-1] < steps.sum()
  assert len(whole) <= size
  if steps.sum() <= size and steps.max() <= size // len(steps):
    assert len(whole) == steps.sum()


def test_a_sample_is_spread_over_episodes_and_steps():
  steps = np.full(40_000, 100)
  rows = sample(steps, len(steps))
  assert 0.5 * SAMPLE < len(rows) <= SAMPLE
  np.testing.assert_allclose(np.histogram(rows % 100, 10, (0, 100))[0] / len(rows), 0.1, atol=0.01)
  np.testing.assert_allclose(np.histogram(rows // 100, 10, (0, 40_000))[0] / len(rows), 0.1, atol=0.01)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilx.data.statistics import merge, statistics


def _assert_moments(found, values):
  values = np.asarray(values, np.float64)
  np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-12, atol=1e-12)
  np.testing.assert_allclose(found.std, values.std(axis=0), rtol=1e-9, atol=1e-12)
  np.testing.assert_array_equal(found.min, values.min(axis=0))
  np.testing.assert_array_equal(found.max, values.max(axis=0))
  assert found.mean.dtype == found.std.dtype == found.min.dtype == found.max.dtype == np.float64


def test_by_hand():
  found = statistics(np.array([[0, 2], [4, 2], [2, 8]], np.float32))
  assert found.count == 3
  np.testing.assert_allclose(found.mean, [2, 4])
  np.testing.assert_allclose(found.std, [np.sqrt(8 / 3), np.sqrt(8)])
  np.testing.assert_array_equal(found.min, [0, 2])
  np.testing.assert_array_equal(found.max, [4, 8])


@pytest.mark.parametrize("shape", [(1,), (70_000,), (40_000, 3), (300, 8, 8, 3)])
def test_many_chunks(shape):
  values = np.random.default_rng(0).standard_normal(shape).astype(np.float32) * 3 + 7
  _assert_moments(statistics(values), values)


def test_a_large_offset_costs_no_digits():
  values = np.random.default_rng(0).standard_normal((50_000, 2)) + 1e8
  # The difference of squares would be off by whole units here.
  np.testing.assert_allclose(statistics(values).std, (values - 1e8).std(axis=0), rtol=1e-8)


def test_trees_and_integers():
  tree = {"image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "state": np.array([[True], [False]])}
  found = statistics(tree)
  _assert_moments(
    found._replace(**{k: getattr(found, k)["image"] for k in ("mean", "std", "min", "max")}), tree["image"]
  )
  assert found.mean["state"] == [0.5]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.floats(-1e3, 1e3))
def test_merge_is_the_statistics_of_all(a, b, shift):
  rng = np.random.default_rng(a * 100 + b)
  first, second = rng.standard_normal((a, 3)), rng.standard_normal((b, 3)) + shift
  merged = merge(statistics({"x": first}), statistics({"x": second}))
  assert merged.count == a + b
  both = np.concatenate([first, second])
  np.testing.assert_allclose(merged.mean["x"], both.mean(axis=0), rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(merged.std["x"], both.std(axis=0), rtol=1e-9, atol=1e-9)
  np.testing.assert_array_equal(merged.max["x"], both.max(axis=0))
  np.testing.assert_array_equal(merged.min["x"], both.min(axis=0))


@pytest.mark.parametrize("tree", [np.empty((0, 3)), {"a": np.ones(2), "b": np.ones(3)}, {}])
def test_no_rows_or_disagreeing_ones(tree):
  with pytest.raises(ValueError, match="one number of rows above 0"):
    statistics(tree)

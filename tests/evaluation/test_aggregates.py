"""Against scipy and by hand."""

import numpy as np
import pytest
import scipy.stats

from ilx.evaluation import aggregates

TASKS = [np.array([10.0, 20.0, 60.0]), np.array([90.0, 120.0, 100.0, 80.0])]
OTHERS = [np.array([15.0, 20.0, 20.0]), np.array([85.0, 120.0])]


def test_values_are_those_of_the_definitions():
  runs = np.concatenate(TASKS)
  assert aggregates.mean(TASKS).value == pytest.approx((30.0 + 97.5) / 2)
  assert aggregates.interquartile_mean(TASKS).value == pytest.approx(scipy.stats.trim_mean(runs, 0.25))
  assert aggregates.optimality_gap(TASKS).value == pytest.approx(100 - (10 + 20 + 60 + 90 + 100 + 100 + 80) / 7)
  u = [scipy.stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(TASKS, OTHERS, strict=True)]
  assert aggregates.probability_of_improvement(TASKS, OTHERS).value == pytest.approx(np.mean(u))
  share, low, high = aggregates.performance_profile(TASKS, [0.0, 60.0, 100.0, 200.0])
  np.testing.assert_allclose(share, [1, 4 / 7, 1 / 7, 0])
  assert np.all(low <= share) and np.all(share <= high) and high[2] - low[2] > 0.1


def test_intervals_are_of_seeds_drawn_in_every_task():
  """With one seed a task nothing can vary; with many the interval of the mean is that of a plain bootstrap by scipy."""
  one = aggregates.mean([np.array([3.0]), np.array([5.0])])
  assert one == (4.0, 4.0, 4.0)
  scores = np.random.default_rng(0).normal(50, 10, size=40)
  found = aggregates.mean([scores], resamples=20_000)
  expected = scipy.stats.bootstrap((scores,), np.mean, method="percentile", n_resamples=20_000).confidence_interval
  np.testing.assert_allclose(found[1:], expected, atol=0.15)
  # Two tasks far apart: were seeds drawn across tasks, the mean would vary by dozens.
  apart = aggregates.mean([scores, scores + 1000])
  assert apart.high - apart.low < found.high - found.low


def test_certain_improvement_and_none():
  better = [task + 1000 for task in TASKS]
  assert aggregates.probability_of_improvement(better, TASKS) == (1.0, 1.0, 1.0)
  assert aggregates.probability_of_improvement(TASKS, TASKS).value == 0.5


@pytest.mark.parametrize("scores", [[], [np.array([])], [np.ones((2, 2))], [np.array([1.0, np.nan])]])
def test_what_is_no_score_is_refused(scores):
  with pytest.raises(ValueError, match=r"scores must be finite, \[seeds\]"):
    aggregates.mean(scores)


@pytest.mark.parametrize(
  "estimate",
  [
    aggregates.mean,
    aggregates.interquartile_mean,
    aggregates.optimality_gap,
    lambda tasks, **more: aggregates.probability_of_improvement(tasks, tasks, **more),
    lambda tasks, **more: aggregates.performance_profile(tasks, [1.0], **more),
  ],
)
def test_an_interval_needs_resamples(estimate):
  with pytest.raises(ValueError, match="resamples=0 must be at least 1"):
    estimate(TASKS, resamples=0)


def test_tasks_must_be_the_same():
  with pytest.raises(ValueError, match="2 tasks of ours and 1 of theirs"):
    aggregates.probability_of_improvement(TASKS, TASKS[:1])


def test_the_bands_of_profiles_hold_95_percent():
  _, low, high = aggregates.performance_profile([np.repeat([0.0, 1.0], 50)], [0.5])
  np.testing.assert_allclose([low[0], high[0]], [0.40, 0.60], atol=0.015)


def test_gaps_end_at_their_target():
  assert aggregates.optimality_gap([np.array([1.0, 3.0])], target=2.0).value == 0.5


@pytest.mark.parametrize(
  "estimate",
  [
    aggregates.mean,
    aggregates.interquartile_mean,
    aggregates.optimality_gap,
    lambda tasks, seed: aggregates.probability_of_improvement(tasks, tasks[::-1], seed=seed),
  ],
)
def test_a_seed_fixes_the_bootstrap(estimate):
  rng = np.random.default_rng(0)
  tasks = [rng.normal(50, 20, size=30) for _ in range(2)]
  assert estimate(tasks, seed=1) == estimate(tasks, seed=1) != estimate(tasks, seed=2)

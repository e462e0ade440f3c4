import re

import numpy as np
import pytest
from report_pages import make, page

from experiments.report import axes, charts, write_report


def test_references_far_from_the_returns_do_not_squeeze_the_histogram(tmp_path):
  content = page(make(tmp_path))
  assert "Random (−281) is off to the left." in content.text  # noqa: RUF001
  assert "Expert (9,512) is off" not in content.text


def test_long_logs_keep_their_spikes(tmp_path):
  log = [{"step": i, "train/loss": 5.0 if i == 7777 else 1.0} for i in range(1, 20001)]
  source = write_report(make(tmp_path, log=log)).read_text()
  assert len(source) < 60_000
  curve = re.search(r'class="curve"[^>]* d="M([^"]*)"', source).group(1)
  heights = sorted({float(point.split()[1]) for point in curve.split("L")})
  # The spike alone is near the top, all else near the bottom; each has a margin of 5 % of the range.
  assert heights == pytest.approx([5 / 1.1, 100 - 5 / 1.1], abs=0.02)
  assert sum(float(point.split()[1]) < 50 for point in curve.split("L")) == 1
  assert curve.count("L") < 700


def test_axes():
  axis = axes.tight(-100, 300, count=4)
  assert axis.ticks == [(-100, "−100"), (0, "0"), (100, "100"), (200, "200"), (300, "300")]  # noqa: RUF001
  assert [axis.percent(v) for v in (-100, 0, 300)] == [0, 25, 100]
  assert [label for _, label in axes.tight(0, 1.2e6, count=4).ticks] == ["0", "0.5M", "1.0M"]
  assert [label for _, label in axes.tight(0, 40_000, count=4).ticks] == ["0", "10k", "20k", "30k", "40k"]
  log = axes.logarithmic([0.02, 0.5])
  assert [label for _, label in log.ticks] == ["0.01", "0.1", "1"]
  assert log.percent(0.1) == pytest.approx(50)


def test_bins():
  assert charts.bins([500.0, 500.0]) == [490, 510]
  edges = charts.bins([float(i) for i in range(101)])
  assert np.allclose(edges, np.arange(0, 101, 20))
  skewed = charts.bins([0.0, *[1000.0 + 0.01 * i for i in range(99)]])
  assert len(skewed) - 1 <= 30

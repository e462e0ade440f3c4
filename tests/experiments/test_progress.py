"""What training prints as it goes."""

import io

import pytest
from rich.console import Console

from experiments import progress


@pytest.mark.parametrize(("rate", "shown"), [(0.314, "0.314"), (0.02, "0.02"), (12.34, "12.3"), (4321.0, "4,321")])
def test_slow_updates_have_a_speed_too(monkeypatch, rate, shown):
  monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
  out = io.StringIO()
  with progress.TrainingProgress(10, Console(file=out)) as shower:
    shower.update(5, {"train/loss": 1.5, "updates_per_second": rate})
  assert f"loss 1.5  {shown} updates/s" in out.getvalue()

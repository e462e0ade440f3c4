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


def test_updates_between_two_rows_are_told(monkeypatch):
  out = io.StringIO()
  with progress.TrainingProgress(10, Console(file=out)) as shower:
    shower.updates(1)
    assert not out.getvalue()  # a line now and then
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    shower.updates(3)
    shower.update(5, {"train/loss": 1.5, "updates_per_second": 1.0})
    shower.updates(7)
  lines = [line for line in out.getvalue().splitlines() if line]
  assert [line.split()[0] for line in lines] == ["3/10", "5/10", "7/10"]
  assert "ETA" in lines[0] and "loss 1.5" in lines[2]


def test_a_bar_moves_between_two_rows():
  console = Console(file=io.StringIO(), force_terminal=True)
  with progress.TrainingProgress(10, console) as shower:
    shower.updates(7)
    assert shower._bar.tasks[0].completed == 7

"""The memory curve: its arithmetic, its files, and that the command runs."""

import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from experiments.benchmarks import streaming
from experiments.benchmarks.streaming import Point

ROOT = pathlib.Path(__file__).resolve().parents[2]


def curve(per_million, warm=300.0):
  """200 MB that grow to ``warm`` at once, and from then on by so many MB per million batches."""
  rest = [Point(n, n / 500, warm + per_million * n / 1e6) for n in range(1000, 10_001, 1000)]
  return [Point(0, 0.0, 200.0), *rest]


def test_the_summary_leaves_the_warm_up_out():
  found = streaming.summarise(curve(per_million=50.0))
  assert found.slope == pytest.approx(50.0)
  assert found.rate == pytest.approx(500)
  assert (found.first, found.last) == (pytest.approx(300.25), pytest.approx(300.5))
  assert (found.low, found.high) == (found.first, found.last)


def test_files_hold_every_point():
  points = curve(per_million=0.0)
  lines = streaming.to_csv(points).splitlines()
  assert lines[0] == "batches,seconds,resident_mb" and lines[1] == "0,0.000,200.0" and len(lines) == 12
  drawing = ElementTree.fromstring(streaming.to_svg(points))
  (line,) = drawing.iter("{http://www.w3.org/2000/svg}polyline")
  heights = [float(place.split(",")[1]) for place in line.attrib["points"].split()]
  assert len(heights) == 11 and heights[0] > heights[1] == heights[-1]


def test_the_command_runs(tmp_path):
  csv, svg = tmp_path / "memory.csv", tmp_path / "memory.svg"
  command = [sys.executable, "-m", "experiments.benchmarks.streaming", "--quick", f"--csv={csv}", f"--svg={svg}"]
  run = subprocess.run(
    command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False
  )
  assert run.returncode == 0, run.stderr
  assert "slope" in run.stdout
  assert csv.read_text().splitlines()[-1].startswith("400,")
  assert svg.read_text().startswith("<svg")

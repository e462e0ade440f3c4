"""The benchmarks run and say what they measured; how fast it was is no test's business."""

import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.benchmarks import matmuls, measure, startup

ROOT = pathlib.Path(__file__).resolve().parents[2]
# (figure, what it stands beside), with the figures that have a bar of a fixed height.
EXPECTED = {
  ("BC update, batch 256", "1024-wide matmul"): None,
  ("BC update, batch 256", "its own matmuls alone"): None,
  ("BC update, batch 8", "1024-wide matmul"): None,
  ("BC update, batch 8", "its own matmuls alone"): None,
  ("BC, the first update", "its own matmuls alone"): None,
  ("IQL update, batch 256", "1024-wide matmul"): 500,
  ("IQL, the first update", "one update"): 10,
  ("IQL acting, 64 environments", "1024-wide matmul"): None,
  ("IQL update, batch 8", "1024-wide matmul"): 5000,
  ("BC, 10 seeds at once, batch 256", "one seed's update"): None,
  ("transformer of 10 k", "1024-wide matmul, float32"): None,
  ("IQL, a million updates", "1024-wide matmul, as many operations"): None,
  ("BC of pictures 36 x 36 from the host", "batches on the device"): None,
  ("read ArrayRecord", "np.copyto of the columns"): 10e6,
  ("read ArrayRecord", "np.copy into fresh memory"): None,
  ("read ArrayRecord", "ArrayRecord read, not parsed"): None,
  ("read ArrayRecord", "TFDS' own reading"): None,
  ("read TFRecord", "np.copyto of the columns"): 10e6,
  ("read TFRecord", "TFRecord read, not parsed"): None,
  ("read TFRecord", "tf.data, whole episodes"): None,
  ("parse one episode of 1000 steps", "np.copyto of its bytes"): 25,
  ("parse one episode of 1000 steps", "TFDS' own parser"): None,
  ("batches, host memory", "numpy indexing, rows known"): 2e6,
  ("batches, memory map", "numpy indexing, rows known"): 1e6,
  ("batches, stream", "numpy indexing, rows known"): None,
  ("batches, stream", "tf.data, the same files"): None,
  ("batches, device memory", "numpy indexing, rows known"): 2e6,
  ("windows of 20, host memory", "numpy indexing, rows known"): 50e3,
  ("pictures, JPEG 128 x 128", "Pillow alone, all cores"): None,
  ("pictures, PNG 128 x 128", "Pillow alone, all cores"): None,
  ("statistics of 20,000 steps", "numpy's mean, std, min, max"): 2,
  ("statistics of 20,000 steps", "reading alone"): 2,
  ("open 20,000 steps, prepared", "open 10,000"): 0.05,
  ("evaluate, HalfCheetah-v5", "EnvPool alone"): None,
  ("import ilx", "import jax, flax, optax"): 0.5,
}


def command(*arguments):
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  program = [sys.executable, "-m", "experiments.benchmarks", *arguments]
  return subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_every_figure_stands_beside_its_limit(tmp_path):
  done = command("--quick", f"--json={tmp_path / 'speeds.json'}")
  assert done.returncode == 0, done.stderr[-2000:]
  content = json.loads((tmp_path / "speeds.json").read_text())
  assert [path.name for path in tmp_path.iterdir()] == ["speeds.json"]
  assert content["quick"] is True
  rows = [measure.Row(**row) for row in content["rows"]]
  assert {(row.name, row.limit) for row in rows} == set(EXPECTED)
  for row in rows:
    for value in (row.value, row.limit_value, row.ratio, *row.spread, row.cpu_value, row.cpu_ratio):
      assert math.isfinite(value) and value > 0, row
    assert row.ratio == pytest.approx(row.value / row.limit_value)
    assert row.spread[0] <= row.spread[1]
    assert row.name in done.stdout and row.limit in done.stdout
    if (row.name, row.limit) == ("BC update, batch 256", "1024-wide matmul"):
      gflops = row.limit_value * matmuls.flops(256, (17, 256, 256, 6)) / 1e9
      assert row.bar == pytest.approx(2000 * gflops / 270, rel=1e-3)
    elif row.name == "IQL update, batch 256":  # scaled to the matmul's rate
      assert 0 < row.bar < 10 * EXPECTED[row.name, row.limit]
    elif "10 seeds at once" in row.name:
      assert row.bar == pytest.approx(10 * row.limit_value, rel=1e-3)
    elif row.name.startswith("pictures"):
      assert row.bar == pytest.approx(0.95 * row.limit_value)
    else:
      assert row.bar == EXPECTED[row.name, row.limit]
  assert {"cpu", "cores", "devices", "versions", "git_commit", "load_average"} <= set(content["machine"])


def test_wrong_arguments():
  done = command("updatez")
  assert done.returncode != 0 and "no benchmark 'updatez'; did you mean 'updates'?" in done.stderr + done.stdout
  done = command("startup", "--json=/no/such/folder/x.json")
  assert done.returncode != 0 and "there is no folder /no/such/folder" in done.stderr + done.stdout


def test_help_is_no_mistake():
  done = command("--help")
  assert done.returncode == 0 and "--[no]quick" in done.stdout


def test_flops_by_hand():
  # Forward 2*(2*3 + 3*5) = 42 a row, weights the same, inputs of the second layer 2*3*5 = 30.
  assert matmuls.flops(7, (2, 3, 5)) == 7 * (42 + 42 + 30)


def test_row_of_rates_and_of_times():
  slow = measure.Seconds(np.array([0.2, 0.5, 0.4]), np.array([0.1, 0.1, 0.1]))
  fast = measure.Seconds(np.array([0.1, 0.1, 0.2]), np.array([0.05, 0.05, 0.05]))
  rate = measure.row("thing", slow, "steps/s", "limit", fast, bar=3)
  assert (rate.value, rate.limit_value, rate.ratio) == pytest.approx((2.5, 10, 0.25))
  assert rate.spread == pytest.approx((0.2, 0.5))
  assert (rate.cpu_value, rate.cpu_ratio) == pytest.approx((10, 0.5))
  assert rate.reached(rate.value) is False and rate.reached(rate.cpu_value) is True
  time = measure.row("thing", slow, "us", "limit", fast, bar=3e5)
  assert (time.value, time.limit_value, time.ratio) == pytest.approx((4e5, 1e5, 4))
  assert time.reached(time.value) is False and time.reached(2e5) is True
  assert measure.row("thing", slow, "s", "limit", fast).reached(1.0) is None


def test_rounds_alternate():
  order = []
  calls = {name: lambda name=name: order.append(name) or 2.0 for name in ("a", "b")}
  times = measure.interleave(calls, 3)
  assert order == ["a", "b", "b", "a", "a", "b"]
  assert times["a"].wall.shape == times["b"].cpu.shape == (3,)


def test_an_import_too_many_is_an_error(monkeypatch):
  monkeypatch.setattr(startup, "LATER", ("optax",))
  with pytest.raises(RuntimeError, match="import ilx imports optax"):
    startup.run(quick=True)

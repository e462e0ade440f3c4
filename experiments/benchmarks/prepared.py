"""What is made of a dataset once (statistics, the memory-mapped columns), and opening it from then on."""

import tempfile

import numpy as np

from experiments.benchmarks import fake, measure
from experiments.benchmarks.measure import Row
from ilx.data import cache, index, rlds

STATISTICS_BAR, OPEN_BAR = 2.0, 0.05


def run(quick: bool) -> list[Row]:
  """The index with statistics and quantiles of a million steps; opening large and small datasets."""
  rounds = 2 if quick else 7
  large, small = fake.episodes(20 if quick else 1000), fake.episodes(10)
  columns = [np.asarray(x, np.float64) for x in (large.observation, large.action, large.reward[:, None])]
  with tempfile.TemporaryDirectory(prefix="ilx-benchmark-") as folder:
    info = rlds.read_info(fake.record(large, folder, "large"))
    few = rlds.read_info(fake.record(small, folder, "small"))

    def build() -> float:
      index.build(info)
      return 1.0

    def load() -> float:
      rlds.load(info.directory)
      return 1.0

    def moments() -> float:
      for column in columns:
        column.mean(axis=0), column.std(axis=0), column.min(axis=0), column.max(axis=0)
      return 1.0

    def open_large() -> float:
      for _ in range(10):
        cache.open(rlds.read_info(info.directory))
      return 10.0

    def open_small() -> float:
      for _ in range(10):
        cache.open(rlds.read_info(few.directory))
      return 10.0

    calls = {"build": build, "load": load, "moments": moments, "large": open_large, "small": open_small}
    for call in calls.values():
      call()
    times = measure.interleave(calls, rounds)
  steps = f"{large.num_steps:,} steps"
  return [
    measure.row(
      f"statistics of {steps}",
      times["build"],
      "s",
      limit,
      times[key],
      bar=STATISTICS_BAR,
      note="reading included; mean, std, min, max, quantiles of 24 dimensions",
    )
    for key, limit in (("moments", "numpy's mean, std, min, max"), ("load", "reading alone"))
  ] + [
    measure.row(
      f"open {steps}, prepared", times["large"], "s", f"open {small.num_steps:,}", times["small"], bar=OPEN_BAR
    )
  ]

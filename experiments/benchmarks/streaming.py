"""Memory of a process that streams: what is resident over many batches, as a table and a curve.

python -m experiments.benchmarks.streaming                                    a million batches of 8, a minute or two
python -m experiments.benchmarks.streaming --csv=memory.csv --svg=memory.svg  the figures and the curve as files
python -m experiments.benchmarks.streaming --quick                            seconds: does it run?

The dataset, of random numbers, is several times the blocks that are in memory, and is gone through many times.
"""

import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from absl import flags

from experiments import cli
from experiments.benchmarks import fake
from ilx import data
from ilx.data import stream

# Of the batches: until then, the heaps of the threads fill. glibc's allocator comes to keep on them what it mapped one
# by one at first, and the gaps between take up to 20 MB; with MALLOC_MMAP_THRESHOLD_=131072 in the environment it stays
# with mapping, and the curve is flat from the beginning.
WARM_UP = 0.5
POINTS = 200


class Point(NamedTuple):
  """The process after some batches.

  Attributes:
    batches: taken so far.
    seconds: since the first was asked for.
    resident: memory in MB (2**20 bytes), whatever it holds.
  """

  batches: int
  seconds: float
  resident: float


class Summary(NamedTuple):
  """What the curve says.

  Attributes:
    first: MB at the end of the warm-up.
    last: MB at the end.
    low: the least after the warm-up.
    high: the most after the warm-up.
    slope: MB per million batches, of the straight line through what follows the warm-up.
    rate: batches a second, over all.
  """

  first: float
  last: float
  low: float
  high: float
  slope: float
  rate: float


def measure(batches: int, batch_size: int, episodes: int, buffer_bytes: int) -> Iterator[Point]:
  """Streams from a temporary dataset of ``episodes`` of 1,000 steps, and looks at the memory now and then."""
  with tempfile.TemporaryDirectory(prefix="ilx-streaming-") as folder:
    path = fake.record(fake.episodes(episodes), folder, "streaming")
    opened = stream.open(path)
    with opened.batches(data.Transitions(), batch_size, seed=0, buffer_bytes=buffer_bytes) as source:
      began = time.perf_counter()
      for done in range(batches + 1):
        if done * POINTS % batches < POINTS:
          yield Point(done, time.perf_counter() - began, resident())
        next(source)


def resident() -> float:
  """This process's resident memory in MB."""
  status = pathlib.Path("/proc/self/status").read_text()
  return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


def summarise(points: list[Point]) -> Summary:
  """Of at least two points behind the warm-up."""
  warm = [point for point in points if point.batches >= WARM_UP * points[-1].batches]
  memory = np.array([point.resident for point in warm])
  slope = np.polyfit([point.batches / 1e6 for point in warm], memory, 1)[0]
  rate = points[-1].batches / points[-1].seconds
  return Summary(memory[0], memory[-1], memory.min(), memory.max(), float(slope), rate)


def to_csv(points: list[Point]) -> str:
  """One line a point, below a heading."""
  lines = [f"{point.batches},{point.seconds:.3f},{point.resident:.1f}" for point in points]
  return "\n".join(["batches,seconds,resident_mb", *lines]) + "\n"


def to_svg(points: list[Point], width: int = 640, height: int = 240) -> str:
  """The curve in one file: batches to the right, MB upwards from 0."""
  left, bottom, top = 60, height - 40, 20
  most = max(point.resident for point in points) * 1.1

  def place(point: Point) -> str:
    x = left + (width - left - 20) * point.batches / points[-1].batches
    return f"{x:.1f},{bottom - (bottom - top) * point.resident / most:.1f}"

  texts = [(left, bottom + 16, "start", "0"), (width - 20, bottom + 16, "end", f"{points[-1].batches:,} batches")]
  texts += [(left - 6, bottom, "end", "0"), (left - 6, top + 10, "end", f"{most:.0f} MB")]
  return "\n".join(
    [
      f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="serif" font-size="12">',
      "<title>Resident memory of a streaming process</title>",
      f'<rect width="{width}" height="{height}" fill="white"/>',
      f'<path d="M{left},{top}V{bottom}H{width - 20}" fill="none" stroke="gray"/>',
      f'<polyline points="{" ".join(map(place, points))}" fill="none" stroke="steelblue" stroke-width="2"/>',
      *(f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in texts),
      "</svg>\n",
    ]
  )


def define_flags() -> None:
  """The command's flags."""
  flags.DEFINE_integer("batches", 1_000_000, "How many batches to take.", lower_bound=20)
  flags.DEFINE_integer("batch_size", 8, "Transitions in a batch.", lower_bound=1)
  flags.DEFINE_integer("episodes", 1000, "Episodes of 1,000 steps in the dataset.", lower_bound=1)
  flags.DEFINE_integer("buffer_mb", 16, "Blocks of all streams together, in MB.", lower_bound=1)
  flags.DEFINE_bool("quick", False, "Few batches from a small dataset: shows that it runs.")
  flags.DEFINE_string("csv", None, "File for the figures.")
  flags.DEFINE_string("svg", None, "File for the curve.")


def main() -> None:
  """Measures, prints the summary, writes the files."""
  values = flags.FLAGS
  batches, episodes = (400, 20) if values.quick else (values.batches, values.episodes)
  points = []
  for point in measure(batches, values.batch_size, episodes, values.buffer_mb << 20):
    points.append(point)
    if len(points) % (POINTS // 20) == 1:
      print(f"{point.batches:>10,} batches {point.seconds:>8.1f} s {point.resident:>8.1f} MB", flush=True)
  found = summarise(points)
  print(
    f"after the warm-up: {found.first:.1f} MB to {found.last:.1f} MB, from {found.low:.1f} to {found.high:.1f}; "
    f"slope {found.slope:+.2f} MB per million batches; {found.rate:,.0f} batches of {values.batch_size} a second"
  )
  for path, text in ((values.csv, to_csv(points)), (values.svg, to_svg(points))):
    if path:
      pathlib.Path(path).write_text(text)


if __name__ == "__main__":
  define_flags()
  cli.run(main)

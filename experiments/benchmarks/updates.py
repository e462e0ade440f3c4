"""BC updates through the trainer's own device program, beside the float32 matmuls that they consist of."""

import jax
import numpy as np

import ilx
from experiments.benchmarks import fake, matmuls, measure
from experiments.benchmarks.measure import Row
from experiments.benchmarks.training import copied, initial_state, one_device, repeated_updates
from ilx.parallel.mesh import replicated
from ilx.training.programs import make_program

HIDDEN = (256, 256)
SIZES = (fake.OBSERVATION, *HIDDEN, fake.ACTION)
# The bar, and the rate of the large matmul on the CPU for which it was set.
BAR, BAR_GFLOPS = 2_000, 270


def run(quick: bool) -> list[Row]:
  """Updates a second at batch 256 and at batch 8, and the time that the first update takes."""
  rounds = 2 if quick else 9
  episodes = fake.episodes(20 if quick else 1000)
  agent = ilx.agents.bc(ilx.data.spec(episodes), hidden=HIDDEN)
  episodes = jax.device_put(episodes, replicated(one_device()))
  rows = []
  for batch_size in (256, 8):
    rows += _speed(agent, episodes, batch_size, 0.05 if quick else 0.5, rounds)
  return [*rows, _first(agent, episodes, 1 if quick else 5)]


def _speed(agent: ilx.Agent, episodes: ilx.data.Episodes, batch_size: int, seconds: float, rounds: int) -> list[Row]:
  flops = matmuls.flops(batch_size, SIZES)
  calls = {
    "update": measure.repeated(repeated_updates(agent, episodes, batch_size), seconds),
    "shapes": measure.repeated(matmuls.same_shapes(batch_size, SIZES), seconds),
    "large": measure.repeated(matmuls.large(), seconds, work=2 * matmuls.SIDE**3 / flops),
  }
  times = measure.interleave(calls, rounds)
  gflops = float(np.median(flops / times["large"].wall)) / 1e9
  note, bar = f"{flops / 1e6:.1f} MFLOP an update; the large matmul runs at {gflops:.0f} GFLOP/s", None
  if batch_size == 256 and jax.default_backend() == "cpu":
    bar = BAR * gflops / BAR_GFLOPS
    note += f"; the bar, {BAR:,} where that runs at {BAR_GFLOPS}, is scaled to it"
  name = f"BC update, batch {batch_size}"
  return [
    measure.row(name, times["update"], "updates/s", f"{matmuls.SIDE}-wide matmul", times["large"], bar=bar, note=note),
    measure.row(name, times["update"], "updates/s", "its own matmuls alone", times["shapes"]),
  ]


def _first(agent: ilx.Agent, episodes: ilx.data.Episodes, rounds: int) -> Row:
  """Compilation and one update, anew each time."""
  state = initial_state(agent, episodes, 256)
  jax.block_until_ready(copied(state))

  def update() -> float:
    program = make_program(agent, 256, one_device())
    jax.block_until_ready(program(copied(state), episodes, jax.random.key(0), 1))
    return 1.0

  def shapes() -> float:
    matmuls.same_shapes(256, SIZES)(1)
    return 1.0

  times = measure.interleave({"update": update, "shapes": shapes}, rounds)
  note = "compilation included"
  return measure.row("BC, the first update", times["update"], "s", "its own matmuls alone", times["shapes"], note=note)

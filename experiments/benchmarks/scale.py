"""How well large models use an accelerator; and a million updates of IQL, many seeds, and pictures from the host.

Needs jax, flax, optax, chex, absl and orbax alone. On a CPU all is small, and shows that it runs.
"""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ilx
from experiments.benchmarks import agents, fake, matmuls, measure, seeds
from experiments.benchmarks.measure import Row
from experiments.benchmarks.training import one_device, repeated_updates
from ilx.parallel.mesh import replicated
from ilx.training import programs, tiers


class Size(NamedTuple):
  """A transformer policy and how it is trained.

  Attributes:
    layers, heads, width: of the transformer.
    length: steps in a window, each a token.
    batch: windows.
    remat: see `ilx.networks.transformer.Transformer`.
    target: of the utilisation, or None.
  """

  layers: int
  heads: int
  width: int
  length: int
  batch: int
  remat: str | None
  target: float | None

  @property
  def parameters(self) -> int:
    """Of the layers' matmuls."""
    return 12 * self.layers * self.width**2


ACCELERATOR = {
  "10 M": Size(6, 6, 384, 1024, 64, None, 0.25),
  "100 M": Size(12, 13, 832, 1024, 32, None, 0.40),
  "350 M": Size(22, 9, 1152, 1024, 16, None, 0.45),
  "1 B": Size(20, 16, 2048, 1024, 16, "dots", 0.50),
}
CPU = {"1 M": Size(4, 4, 144, 128, 4, None, None)}
QUICK = {"10 k": Size(2, 2, 20, 16, 4, None, None)}
FORMULA = "6 x parameters + 6 x layers x length x width a token, causal attention counted as half of the full one"


def run(quick: bool) -> list[Row]:
  """The rows; bars are for accelerators."""
  rounds, seconds = (2, 0.05) if quick else (5, 1.0)
  accelerator = jax.default_backend() != "cpu"
  sizes = QUICK if quick else ACCELERATOR if accelerator else CPU
  rows = []
  for name, size in sizes.items():
    of = functools.partial(utilisation, name, size, accelerator, seconds, rounds)
    rows += measure.attempt(f"transformer of {name}", lambda of=of: [of()])
  episodes = fake.episodes(20 if quick else 1000)
  agent = ilx.agents.iql(ilx.data.spec(episodes))
  data = jax.device_put(jax.tree.map(np.asarray, agent.view.prepare(episodes)), replicated(one_device()))
  rows += measure.attempt("a million", lambda: [million(agent, data, accelerator, seconds, rounds)])
  if accelerator:  # of a CPU they are in `seeds`
    rows += measure.attempt("seeds", lambda: [seeds.many("IQL", agent, episodes, seconds, rounds)])
  return rows + measure.attempt("pictures", lambda: [pictures(quick, accelerator, seconds, rounds)])


def model_flops(size: Size) -> float:
  """Of one update, as `FORMULA` says: forward, and twice as much backward; what is computed again is not counted."""
  attention = 6 * size.layers * size.length * size.width
  return float(size.batch * size.length * (6 * size.parameters + attention))


def utilisation(name: str, size: Size, accelerator: bool, seconds: float, rounds: int) -> Row:
  """Model FLOPs a second of the trainer's program beside those of a large matmul in the same type."""
  dtype = jnp.bfloat16 if accelerator else jnp.float32
  episodes = fake.episodes(8, size.length + 1 if size.length > 900 else 1000)
  agent = ilx.agents.bc_transformer(
    ilx.data.spec(episodes),
    length=size.length,
    layers=size.layers,
    heads=size.heads,
    width=size.width,
    dropout=0.0,
    dtype=dtype,
    remat=size.remat,
  )
  data = jax.device_put(jax.tree.map(np.asarray, agent.view.prepare(episodes)), replicated(one_device()))
  side = 8192 if accelerator else matmuls.SIDE
  work, tera = model_flops(size), 1e-12
  calls = {
    "update": measure.repeated(repeated_updates(agent, data, size.batch), seconds, work=work * tera),
    "large": measure.repeated(matmuls.large(side, dtype), seconds, work=2 * side**3 * tera),
  }
  times = measure.interleave(calls, rounds)
  del calls  # the state of one size must leave room for the next
  rate = 1 / float(np.median(times["large"].wall))
  note = (
    f"{size.layers} layers of width {size.width}, {size.batch} windows of {size.length} tokens, {dtype.__name__}, "
    f"remat {size.remat}; the ratio is the model FLOP utilisation, {work / 1e12:.3g} TFLOP an update: {FORMULA}"
  )
  limit = f"{side}-wide matmul, {dtype.__name__}"
  bar = size.target * rate if size.target else None
  return measure.row(f"transformer of {name}", times["update"], "TFLOP/s", limit, times["large"], bar=bar, note=note)


def million(agent: ilx.Agent, data: ilx.data.Episodes, accelerator: bool, seconds: float, rounds: int) -> Row:
  """IQL's usual run, from the rate of its updates."""
  work = agents.flops.of(agent.update, *agents.shapes(agent, data, 256))
  calls = {
    "update": measure.repeated(repeated_updates(agent, data, 256), seconds, work=1e-6),
    "large": measure.repeated(matmuls.large(), seconds, work=1e-6 * 2 * matmuls.SIDE**3 / work),
  }
  times = measure.interleave(calls, rounds)
  limit = f"{matmuls.SIDE}-wide matmul, as many operations"
  bar = 120 if accelerator else None
  return measure.row("IQL, a million updates", times["update"], "s", limit, times["large"], bar=bar)


def pictures(quick: bool, accelerator: bool, seconds: float, rounds: int) -> Row:
  """Updates from pictures that come from host memory, beside the same program on batches that are there already."""
  side, batch_size, steps = (84, 256, 20_000) if accelerator else (36, 8 if quick else 64, 200 if quick else 4_000)
  rng = np.random.default_rng(0)
  episodes = ilx.data.from_columns(
    observation=rng.integers(0, 256, (steps, side, side, 3), np.uint8),
    action=rng.integers(0, 18, steps, np.int32),
    reward=np.zeros(steps, np.float32),
    discount=np.ones(steps, np.float32),
    is_terminal=np.zeros(steps, bool),
    starts=np.arange(0, steps + 1, 100),
  )
  spec = ilx.Spec(jax.ShapeDtypeStruct((side, side, 3), jnp.uint8), ilx.Discrete(18))
  agent, mesh = ilx.agents.bc(spec, encoder="nature"), one_device()
  with tiers.open_runner(
    agent, episodes, batch_size=batch_size, seed=0, mesh=mesh, tier="host", lengths=itertools.repeat(_PIECE)
  ) as runner:
    fed, resident = runner.init(), runner.init()
    program = programs.make_fed_program(agent, mesh)
    first = agent.view.take(episodes, episodes.rows[:batch_size])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), first)
    sums = programs.make_sums(agent, mesh, jax.eval_shape(lambda state: state, fed), shapes)
    stack = jax.tree.map(lambda x: jnp.broadcast_to(x, (_PIECE, *x.shape)), first)

    def from_host(n: int) -> None:
      nonlocal fed
      for _ in range(n):
        fed, _ = runner.advance(fed, _PIECE)
      jax.block_until_ready(fed)

    def there(n: int) -> None:
      nonlocal resident
      for _ in range(n):
        resident, _ = program(resident, sums(), stack, _PIECE)
      jax.block_until_ready(resident)

    # Long enough for what was made ahead not to count.
    calls = {
      "host": measure.repeated(from_host, 2 * seconds, work=_PIECE),
      "there": measure.repeated(there, 2 * seconds, work=_PIECE),
    }
    times = measure.interleave(calls, rounds)
  idle = 1 - float(np.median(times["there"].wall / times["host"].wall))
  note = f"BC, Nature CNN, batch {batch_size}; the devices are idle {max(0.0, idle):.1%} of the time"
  return measure.row(
    f"BC of pictures {side} x {side} from the host",
    times["host"],
    "updates/s",
    "batches on the device",
    times["there"],
    note=note,
  )


# Updates of one call.
_PIECE = 8

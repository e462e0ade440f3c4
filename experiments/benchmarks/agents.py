"""Every agent at its standard shapes: updates a second, the first update, memory, acting.

The limit of all is the rate of a large float32 matmul: the operations of one update's matmuls and convolutions, counted
in its jaxpr, at that rate.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import ilx
from experiments.benchmarks import fake, flops, matmuls, measure
from experiments.benchmarks.measure import Row
from experiments.benchmarks.training import copied, initial_state, one_device, repeated_updates
from ilx.parallel.mesh import replicated
from ilx.training.programs import make_program

# The rate of the large matmul on the CPU for which the bars were set, in GFLOP/s.
BAR_GFLOPS = 270
ENVIRONMENTS = 64


class Subject(NamedTuple):
  """An agent to measure.

  Attributes:
    make: from a spec.
    batch_size: of its paper; fewer for the deep network of pictures.
    bar: updates a second where the large matmul runs at `BAR_GFLOPS`, or None.
    bar_first: seconds until the first update is made, or None.
    pictures: whether it learns from them.
  """

  make: Callable[[ilx.Spec], ilx.Agent]
  batch_size: int = 256
  bar: float | None = None
  bar_first: float | None = None
  pictures: bool = False


SUBJECTS = {
  "BC": Subject(ilx.agents.bc, bar=2000),
  "TD3+BC": Subject(ilx.agents.td3_bc),
  "IQL": Subject(ilx.agents.iql, bar=500, bar_first=10),
  "ReBRAC": Subject(ilx.agents.rebrac, batch_size=1024),
  "DT": Subject(functools.partial(ilx.agents.dt, target_return=1000.0), batch_size=64, bar=12, bar_first=20),
  "BC transformer": Subject(ilx.agents.bc_transformer, batch_size=64),
  "chunked BC": Subject(ilx.agents.chunked_bc),
  "BC, Nature": Subject(functools.partial(ilx.agents.bc, encoder="nature"), pictures=True),
  "BC, IMPALA": Subject(functools.partial(ilx.agents.bc, encoder="impala"), batch_size=64, pictures=True),
}


def run(quick: bool) -> list[Row]:
  """The rows of all agents; on a CPU the bars are scaled to the rate of its large matmul."""
  rounds, seconds = (2, 0.05) if quick else (7, 0.7)
  made = {False: fake.episodes(20 if quick else 1000)}
  if not quick:
    made[True] = fake.episodes(2, pictures=True)
  specs = {pictures: ilx.data.spec(episodes) for pictures, episodes in made.items()}
  rows = []
  for name, subject in SUBJECTS.items():
    if quick and name != "IQL":
      continue
    episodes, agent = made[subject.pictures], subject.make(specs[subject.pictures])
    rows += measure.attempt(name, functools.partial(of_agent, name, agent, subject, episodes, quick, seconds, rounds))
  return rows


def of_agent(
  name: str,
  agent: ilx.Agent,
  subject: Subject,
  episodes: ilx.data.Episodes,
  quick: bool,
  seconds: float,
  rounds: int,
) -> list[Row]:
  """All rows of one."""
  data = jax.device_put(jax.tree.map(np.asarray, agent.view.prepare(episodes)), replicated(one_device()))
  rows = updates(name, agent, data, subject.batch_size, seconds, rounds, subject.bar)
  rows.append(first(name, agent, data, subject, 1 if quick else 3))
  if name in ("IQL", "DT"):
    rows += acting(name, agent, data, seconds, rounds)
  if name == "IQL":
    rows += updates(name, agent, data, 8, seconds, rounds, None, least=5000)
  return rows


def updates(
  name: str,
  agent: ilx.Agent,
  data: ilx.data.Episodes,
  batch_size: int,
  seconds: float,
  rounds: int,
  bar: float | None,
  least: float | None = None,
) -> list[Row]:
  """Updates a second by the trainer's own program; ``least`` is a bar that is not scaled."""
  work = flops.of(agent.update, *shapes(agent, data, batch_size))
  calls = {
    "update": measure.repeated(repeated_updates(agent, data, batch_size), seconds),
    "large": measure.repeated(matmuls.large(), seconds, work=2 * matmuls.SIDE**3 / work),
  }
  times = measure.interleave(calls, rounds)
  gflops = float(np.median(work / times["large"].wall)) / 1e9
  memory = _memory(agent, data, batch_size)
  note = (
    f"{work / 1e6:.1f} MFLOP of matmuls an update, the large matmul runs at {gflops:.0f} GFLOP/s; the program's own "
    f"memory is {memory / 2**20:.1f} MiB"
  )
  if bar and jax.default_backend() == "cpu":
    note += f"; the bar, {bar:,} where that runs at {BAR_GFLOPS}, is scaled to it"
    bar *= gflops / BAR_GFLOPS
  title = f"{name} update, batch {batch_size}"
  limit = f"{matmuls.SIDE}-wide matmul"
  return [measure.row(title, times["update"], "updates/s", limit, times["large"], bar=least or bar, note=note)]


def first(name: str, agent: ilx.Agent, data: ilx.data.Episodes, subject: Subject, rounds: int) -> Row:
  """Compilation of the trainer's program and one update, anew each time, beside the update alone."""
  state = initial_state(agent, data, subject.batch_size)

  def compiled() -> float:
    # Another function each time, so that no cache of tracing or compilation helps.
    fresh = agent._replace(update=lambda state, batch: agent.update(state, batch))
    program = make_program(fresh, subject.batch_size, one_device())
    jax.block_until_ready(program(copied(state), data, jax.random.key(0), 1))
    return 1.0

  alone = repeated_updates(agent, data, subject.batch_size)
  alone(1)
  times = measure.interleave({"first": compiled, "alone": lambda: (alone(1), 1.0)[1]}, rounds)
  return measure.row(
    f"{name}, the first update", times["first"], "s", "one update", times["alone"], bar=subject.bar_first
  )


def acting(name: str, agent: ilx.Agent, data: ilx.data.Episodes, seconds: float, rounds: int) -> list[Row]:
  """Time of one action, by environment, where `ENVIRONMENTS` act together; observations come from the host."""
  params = initial_state(agent, data, 8).params
  act = jax.jit(lambda params, carry, step: agent.act(params, carry, step, None), donate_argnums=1)  # as `evaluate`
  observation = np.asarray(data.observation[:ENVIRONMENTS])
  step = ilx.Step(observation, np.zeros(ENVIRONMENTS, np.float32), np.zeros(ENVIRONMENTS, bool))

  def call(n: int) -> None:
    carry = agent.carry(ENVIRONMENTS)
    for _ in range(n):
      action, carry = act(params, carry, step)
      np.asarray(action)

  work = flops.of(lambda params, carry: agent.act(params, carry, step, None), params, agent.carry(ENVIRONMENTS))
  calls = {
    "act": measure.repeated(call, seconds, work=ENVIRONMENTS),
    "large": measure.repeated(matmuls.large(), seconds, work=2 * matmuls.SIDE**3 / work * ENVIRONMENTS),
  }
  times = measure.interleave(calls, rounds)
  title = f"{name} acting, {ENVIRONMENTS} environments"
  note = f"{work / 1e6:.1f} MFLOP for all environments together"
  limit = f"{matmuls.SIDE}-wide matmul"
  return [measure.row(title, times["act"], "us", limit, times["large"], bar=100 if name == "DT" else None, note=note)]


def shapes(agent: ilx.Agent, data: ilx.data.Episodes, batch_size: int) -> tuple[Any, Any]:
  """The state's and a batch's, for counting and compiling."""

  def both(key, data):
    batch = agent.view.sample(key, data, batch_size)
    return agent.init(key, batch), batch

  return jax.eval_shape(both, jax.random.key(0), data)


def _memory(agent: ilx.Agent, data: ilx.data.Episodes, batch_size: int) -> int:
  """Bytes that one update needs beside its arguments and results."""
  return jax.jit(agent.update).lower(*shapes(agent, data, batch_size)).compile().memory_analysis().temp_size_in_bytes

"""Ten seeds in one program beside one of them; on a CPU spread over devices, as experiments of many seeds are."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np

import ilx
from experiments import devices
from experiments.benchmarks import fake, measure
from experiments.benchmarks.measure import Row
from experiments.benchmarks.training import initial_state, one_device, repeated_updates
from ilx.parallel import make_mesh
from ilx.parallel.mesh import replicated
from ilx.training import seeds as seeds_lib
from ilx.training.programs import make_program

COUNT = 10
SUBJECTS = {"BC": ilx.agents.bc, "IQL": ilx.agents.iql}


def run(quick: bool) -> list[Row]:
  """The rows; a CPU of several cores is measured in a process of its own, which takes it for several devices."""
  if jax.default_backend() == "cpu" and jax.device_count() == 1 and (count := devices.of_cpu(COUNT)) > 1:
    return _in_a_process(count, quick)
  rounds, seconds = (2, 0.05) if quick else (7, 0.7)
  episodes = fake.episodes(20 if quick else 1000)
  subjects = {"BC": SUBJECTS["BC"]} if quick else SUBJECTS
  return [many(name, make(ilx.data.spec(episodes)), episodes, seconds, rounds) for name, make in subjects.items()]


def many(
  name: str, agent: ilx.Agent, episodes: ilx.data.Episodes, seconds: float, rounds: int, batch_size: int = 256
) -> Row:
  """Time of an update of all seeds in one program beside that of one seed, on one device."""
  mesh = make_mesh()
  alone = one_device()
  prepared = jax.tree.map(np.asarray, agent.view.prepare(episodes))
  data = jax.device_put(prepared, replicated(mesh))
  seeds = seeds_lib.plan(COUNT, mesh)
  program = make_program(agent, batch_size, mesh, seeds)
  states = [initial_state(agent, data, batch_size, mesh) for _ in range(COUNT)]
  state, keys = seeds_lib.stack(states, seeds, mesh), jax.random.split(jax.random.key(0), COUNT)

  def call(n: int) -> None:
    nonlocal state
    state, _ = jax.block_until_ready(program(state, data, keys, n))

  one = repeated_updates(agent, jax.device_put(prepared, replicated(alone)), batch_size, alone)
  calls = {"many": measure.repeated(call, 2 * seconds), "one": measure.repeated(one, seconds)}
  times = measure.interleave(calls, rounds)
  bar = COUNT if jax.default_backend() == "cpu" else 2
  note = f"{mesh.size} device(s); the bar is {bar} times one seed's time"
  title = f"{name}, {COUNT} seeds at once, batch {batch_size}"
  bar_us = 1e6 * bar * float(np.median(times["one"].wall))
  return measure.row(title, times["many"], "us", "one seed's update", times["one"], bar=bar_us, note=note)


def _in_a_process(count: int, quick: bool) -> list[Row]:
  with tempfile.TemporaryDirectory() as folder:
    output = pathlib.Path(folder) / "rows.json"
    command = [sys.executable, "-m", "experiments.benchmarks", "seeds", f"--json={output}", *["--quick"] * quick]
    subprocess.run(
      command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "JAX_NUM_CPU_DEVICES": str(count)}
    )
    rows = json.loads(output.read_text())["rows"]
  return [Row(**row)._replace(spread=tuple(row["spread"])) for row in rows]

"""Where the data is while it is learnt from: on the devices, or on the host, or in files."""

import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from ilx.data import host
from ilx.data.episodes import Episodes
from ilx.parallel import mesh as mesh_lib
from ilx.training import feed, programs
from ilx.types import Agent, Tree, View

Tier = Literal["auto", "device", "host"]

# (state, length) -> (state, sums of the metrics): the next `length` updates.
Advance = Callable[[Any, int], tuple[Any, Any]]


class Streamed(Protocol):
  """Data that makes its own batches, such as ``ilx.data.stream.Stream``."""

  def batches(
    self, view: View, batch_size: int, seed: int, *, start: int = 0, host: tuple[int, int] = (0, 1)
  ) -> Iterator[Tree]:
    """Endless batches from batch ``start`` on, of which host h of H gets its part; batch i depends on seed and i."""
    ...


class Runner(NamedTuple):
  """Learning from data of one tier.

  Attributes:
    init: ``key -> state``, on the mesh.
    updates: ``(start, lengths)`` opens the data at update ``start``; what it yields is called with each of ``lengths``.
  """

  init: Callable[[jax.Array], Any]
  updates: Callable[[int, Iterator[int]], contextlib.AbstractContextManager[Advance]]


def open_runner(
  agent: Agent, data: Episodes | Streamed, *, batch_size: int, seed: int, mesh: Mesh, tier: Tier = "auto"
) -> Runner:
  """The runner for the data and the tier.

  Raises:
    ValueError: where there is nothing to learn from, or the tier does not go with the data.
  """
  if tier not in ("auto", "device", "host"):
    raise ValueError(f"tier={tier!r}: expected 'auto', 'device' or 'host'")
  hosts = jax.process_index(), jax.process_count()
  if not isinstance(data, Episodes):
    if tier == "device":
      raise ValueError("tier='device': streamed data does not go to the devices as a whole; load it instead")
    return _fed(
      agent, lambda start: data.batches(agent.view, batch_size, seed, start=start, host=hosts), batch_size, mesh
    )
  if len(data.rows) == 0:
    raise ValueError("episodes: no step to learn from; every episode has a single step")
  data = agent.view.prepare(data)
  key = jax.random.split(jax.random.key(seed))[1]
  if tier == "device" or (tier == "auto" and fits(data)):
    return _resident(agent, data, batch_size, key, mesh)
  return _fed(
    agent, lambda start: host.batches(agent.view, data, batch_size, key, start=start, host=hosts), batch_size, mesh
  )


def fits(data: Episodes) -> bool:
  """Whether the columns, pictures decoded, take at most half of a device's free memory, on every host."""
  needed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(data))
  stats = jax.local_devices()[0].memory_stats() or {}
  if "bytes_limit" in stats:
    free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
  else:  # a CPU: all devices share the machine's memory
    free = free_memory() // jax.local_device_count()
  found = needed <= free // 2
  if jax.process_count() > 1:  # hosts that differed would wait for each other for ever
    found = bool(multihost_utils.process_allgather(np.array(found)).all())
  return found


def free_memory() -> int:
  """Bytes of memory that a process may still take, the cache of files included, within the limit of its cgroup."""
  try:
    lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) << 10
  except (OSError, StopIteration):  # not Linux
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  limit, used = (pathlib.Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
  if limit.exists() and (text := limit.read_text().strip()).isdigit():
    free = min(free, int(text) - int(used.read_text()))
  return max(free, 0)


def _resident(agent: Agent, episodes: Episodes, batch_size: int, key: jax.Array, mesh: Mesh) -> Runner:
  everywhere = mesh_lib.replicated(mesh)
  # Weights are for the host; what draws by them is the table.
  episodes = jax.device_put(jax.tree.map(np.asarray, episodes.replace(weights=None)), everywhere)
  run = programs.make_program(agent, batch_size, mesh)
  init = jax.jit(lambda key, data: agent.init(key, agent.view.sample(key, data, batch_size)), out_shardings=everywhere)

  @contextlib.contextmanager
  def updates(start: int, lengths: Iterator[int]) -> Iterator[Advance]:
    del start, lengths  # the state's own step says which batch is next
    yield lambda state, length: run(state, episodes, key, length)

  return Runner(lambda key: init(key, episodes), updates)


def _fed(agent: Agent, batches: Callable[[int], Iterator[Tree]], batch_size: int, mesh: Mesh) -> Runner:
  first = batches(0)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype), next(first))
  first.close()
  run = programs.make_fed_program(agent, mesh)
  init = jax.jit(
    lambda key: agent.init(key, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)),
    out_shardings=mesh_lib.replicated(mesh),
  )
  capacity = feed.capacity(shapes)

  @contextlib.contextmanager
  def updates(start: int, lengths: Iterator[int]) -> Iterator[Advance]:
    with feed.Feed(batches(start), feed.pieces(lengths, capacity), capacity, mesh) as stacks:

      def advance(state: Any, length: int) -> tuple[Any, Any]:
        sums = programs.make_sums(agent, mesh, state, shapes)
        for _ in range(math.ceil(length / capacity)):
          stack, count = next(stacks)
          state, sums = run(state, sums, stack, count)
        return state, sums

      yield advance

  return Runner(init, updates)

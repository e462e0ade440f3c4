"""Where the data is while it is learnt from: on the devices, or on the host, or in files."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ilx.data import host
from ilx.data.episodes import Episodes
from ilx.parallel import mesh as mesh_lib
from ilx.parallel import placement
from ilx.training import feed, memory, programs, states, waiting
from ilx.training import seeds as seeds_lib
from ilx.training.pace import Pace
from ilx.training.seeds import Seeds
from ilx.types import Agent, Tree, View

Tier = Literal["auto", "device", "host"]


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
    state: shapes and shardings of the state, ``jax.ShapeDtypeStruct``.
    init: the state before the first update, made where it is to be: no device ever holds more than its part, but for
      seeds that are spread, of which each device has all until they are.
    advance: ``(state, length) -> (state, sums of the metrics)``: the next ``length`` updates, lengths as announced;
      raises `waiting.Stopped`, which has both, where a signal ends it before.
  """

  state: Any
  init: Callable[[], Any]
  advance: Callable[[Any, int], tuple[Any, Any]]


@contextlib.contextmanager
def open_runner(
  agent: Agent,
  data: Episodes | Streamed,
  *,
  batch_size: int,
  seed: int,
  mesh: Mesh,
  tier: Tier = "auto",
  seeds: Seeds | None = None,
  strategy: programs.Strategy = "jit",
  rules: placement.Rules = placement.DEFAULT,
  start: int = 0,
  lengths: Iterable[int] = (),
  patience: waiting.Patience | None = None,
  pace: Pace | None = None,
) -> Iterator[Runner]:
  """The runner for the data and the tier, which goes on at update ``start``.

  Args:
    agent: what learns.
    data: see ``ilx.train``, as the next ones.
    batch_size: of each seed.
    seed: the (first) seed.
    mesh: where updates are made.
    tier: where episodes are.
    seeds: None for one seed, without an axis for it.
    strategy: how devices share an update.
    rules: where the leaves of the state go.
    start: updates already made.
    lengths: what ``advance`` will be called with, so that batches can be made ahead.
    patience: with which data that is not on the devices is waited for; ``source`` is found here.
    pace: what divides ``lengths`` and says when to stop.

  Raises:
    ValueError: where there is nothing to learn from, or the tier does not go with the data.
  """
  check(tier, data)
  streamed = not isinstance(data, Episodes)
  if not streamed:
    if len(data.rows) == 0:
      raise ValueError("episodes: no step to learn from; every episode has a single step")
    data = agent.view.prepare(data)
  numbers = [seed + i for i in range(seeds.count if seeds else 1)]
  keys = [jax.random.split(seeds_lib.key(n)) for n in numbers]
  run = _Run(agent, batch_size, numbers, keys, mesh, seeds, strategy, rules, pace or Pace())
  if not streamed and (tier == "device" or (tier == "auto" and memory.fits(data))):
    yield _resident(run, data)
    return
  patience = dataclasses.replace(patience or waiting.Patience(), source=_source(data))
  with _fed(run, data, start, lengths, patience) as runner:
    yield runner


def check(tier: Tier, data: Episodes | Streamed) -> None:
  """Raises ValueError for data that are none, and for a tier that is none or where they cannot be."""
  if tier not in ("auto", "device", "host"):
    raise ValueError(f"tier={tier!r}: expected 'auto', 'device' or 'host'")
  if isinstance(data, Episodes):
    return
  if not callable(getattr(data, "batches", None)):
    raise ValueError(
      f"data is {data!r:.100}; expected episodes, as of ilx.data.load(name), or a stream, as of ilx.data.stream.open"
    )
  if tier == "device":
    raise ValueError("tier='device': streamed data does not go to the devices as a whole; load it instead")


class _Run(NamedTuple):
  """What all tiers need to know; ``numbers`` and ``keys`` (of the initial parameters, of sampling) have one a seed."""

  agent: Agent
  batch_size: int
  numbers: list[int]
  keys: list[jax.Array]
  mesh: Mesh
  seeds: Seeds | None
  strategy: programs.Strategy
  rules: placement.Rules
  pace: Pace

  @property
  def one_at_a_time(self) -> bool:
    """Devices that are one CPU's share its threads: all of them could wait for each other, each in another program."""
    spread = self.seeds and self.seeds.spread
    return jax.local_device_count() > 1 and self.mesh.devices.flat[0].platform == "cpu" and not spread

  def init(self, one: Callable[[jax.Array], Any]) -> Any:
    """The state of one seed, or of all: made one by one by one program, so that they are those of single runs."""
    made = [one(key[0]) for key in self.keys]
    return seeds_lib.stack(made, self.seeds, self.mesh) if self.seeds else made[0]

  def place(self, batch: Tree) -> states.Placed:
    """Where the state goes, given a batch's shapes."""
    return states.place(self.agent, batch, self.mesh, self.rules, self.seeds)

  def make_sums(self, state: Any, batch: Tree) -> Callable[[], Any]:
    """Makes the metrics' sums before the first update, given the shapes of one seed's state and batch."""
    return programs.make_sums(self.agent, self.mesh, state, batch, self.seeds)


def _resident(run: _Run, episodes: Episodes) -> Runner:
  agent = run.agent
  # Weights are for the host; what draws by them is the table.
  episodes = mesh_lib.everywhere(jax.tree.map(np.asarray, episodes.replace(weights=None)), run.mesh)

  def sample(key, data):
    return agent.view.sample(key, data, run.batch_size)

  batch = jax.eval_shape(sample, run.keys[0][0], episodes)
  placed = run.place(batch)
  where = states.shardings(placed.state)
  program = programs.make_program(agent, run.batch_size, run.mesh, run.seeds, run.strategy, where)
  init = jax.jit(lambda key, data: agent.init(key, sample(key, data)), out_shardings=states.shardings(placed.one))
  key = run.keys[0][1]
  if run.seeds:
    key = jax.device_put(
      jnp.stack([key[1] for key in run.keys]), NamedSharding(run.mesh, seeds_lib.partition(run.seeds))
    )
  finite, look = programs.make_look(run.mesh, run.seeds)
  zeros = functools.cache(lambda: run.make_sums(placed.one, batch))  # a signal is heard once updates are traced

  def advance(state: Any, length: int) -> tuple[Any, Any]:
    sums, before, stop = zeros()(), finite(state), False
    if run.one_at_a_time:
      jax.block_until_ready((sums, before))
    run.pace.begin()
    while length and not stop:
      made = run.pace.length(length)
      length -= made
      state, sums = program(state, episodes, key, made, sums)  # the step says which batch is next
      stop = run.pace.look(sums, made, length)
    if run.one_at_a_time:
      jax.block_until_ready(sums)
    # Not in between: what is found must not depend on how time divided the updates.
    sums = look(sums, before, finite(state), state.step)
    if stop:
      raise waiting.Stopped(state, sums)
    return state, sums

  return Runner(placed.state, lambda: run.init(lambda key: init(key, episodes)), advance)


@contextlib.contextmanager
def _fed(
  run: _Run, data: Episodes | Streamed, start: int, lengths: Iterable[int], patience: waiting.Patience
) -> Iterator[Runner]:
  agent, batch_size, mesh, seeds = run.agent, run.batch_size, run.mesh, run.seeds
  served = seeds_lib.served(seeds, mesh) if seeds else [0]
  # A host makes all of a seed that a device of its own learns alone, else its part of every seed's batches.
  hosts = (0, 1) if seeds and seeds.spread else mesh_lib.share(mesh)
  with contextlib.ExitStack() as unused:  # until the feed closes them
    if isinstance(data, Episodes):
      batches = [host.batches(agent.view, data, batch_size, run.keys[s][1], start=start, host=hosts) for s in served]
      item = agent.view.take(data, np.asarray(data.rows[:1]))
    else:

      def begin() -> list[Iterator[Tree]]:
        sized = []
        for s in served:
          opened = data.batches(agent.view, batch_size, run.numbers[s], start=start, host=hosts)
          unused.callback(feed.close, opened)
          sized.append(feed.Sized(opened, batch_size // hosts[1], patience.source))
        sized[0].peek()
        return sized

      try:
        batches = waiting.call(begin, patience)
      except (TimeoutError, waiting.Stopped, KeyboardInterrupt):
        unused.pop_all()  # a thread is stuck in them
        raise
      item = batches[0].peek()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), _device_dtype(x)), item)
    placed = run.place(shapes)
    init = jax.jit(
      lambda key: agent.init(key, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)),
      out_shardings=states.shardings(placed.one),
    )
    program = programs.make_fed_program(agent, mesh, seeds, run.strategy, states.shardings(placed.state))
    zeros, pace = run.make_sums(placed.one, shapes), run.pace
    capacity = feed.capacity(shapes, len(run.numbers))
    unused.pop_all()
  with feed.Feed(batches, feed.pieces(lengths, capacity), capacity, mesh, seeds, patience) as stacks:

    def advance(state: Any, length: int) -> tuple[Any, Any]:
      sums = zeros()
      pace.begin()
      while length:
        try:
          stack, count = next(stacks)
        except waiting.Stopped as stopped:
          stopped.state, stopped.sums = state, sums
          raise
        state, sums = program(state, sums, stack, count)
        if run.one_at_a_time:
          jax.block_until_ready(sums)
        length -= count
        if pace.look(sums, count, length):
          raise waiting.Stopped(state, sums)
      return state, sums

    yield Runner(placed.state, lambda: run.init(init), advance)


def _device_dtype(x: np.ndarray) -> np.dtype:
  """The one that it has on a device, such as float32 of float64."""
  return jax.dtypes.canonicalize_dtype(x.dtype)


def _source(data: Episodes | Streamed) -> str:
  """What data are called in messages."""
  if isinstance(data, Episodes):
    return "the episodes in host memory"
  folders = [str(source.info.directory) for source in getattr(data, "sources", ())]
  return ", ".join(folders) or f"the {type(data).__name__} that was given"

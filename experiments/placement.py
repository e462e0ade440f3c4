"""Where a run's state would live, and what its updates would need: ``--explain_placement``."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import agents, loading
from experiments.progress import LoadingProgress
from experiments.task import load as load_task
from ilx import parallel
from ilx.parallel import placement
from ilx.training import lowering

HEADS = ("parameter", "shape", "dtype", "divided", "bytes a device")


class Leaf(NamedTuple):
  """One array of a state. ``divided``: the axes of the mesh, for each of its own."""

  name: str
  shape: tuple[int, ...]
  dtype: str
  divided: str
  bytes: int


def explain(config: ml_collections.ConfigDict, console: Console | None = None) -> None:
  """Prints a row for every parameter, totals, and the memory of the compiled update; nothing is put on devices.

  The data are opened, since the spec is theirs. To see a mesh that the machine lacks, emulate it:
  ``JAX_PLATFORMS=cpu XLA_FLAGS=--xla_force_host_platform_device_count=8``.

  Raises:
    ValueError: for a config, mesh or batch that would not run.
  """
  console = console or Console()
  mesh = parallel.make_mesh(**config.mesh)
  with LoadingProgress() as progress:
    task = load_task(config, progress)
  data = task.data
  agent = agents.make(config.agent, data.spec, config.steps, config.frame_stack, data.facts, data.train)
  lowered = lowering.lower(
    agent,
    data.train,
    batch_size=config.batch_size,
    mesh=mesh,
    tier=data.tier,
    seeds=None if config.seeds == 1 else config.seeds,
    strategy=config.strategy,
  )
  found = leaves(lowered.state)
  axes = " x ".join(f"{name}={size}" for name, size in mesh.shape.items())
  _write(console, [f"{loading.describe(data)}\nmesh: {axes}; a batch of {config.batch_size}"])
  _table(console, [leaf for leaf in found if not _of_optimizer(leaf)])
  _write(console, [*totals(found), *memory(lowered.program.compile(), found)])


def leaves(state: Any) -> list[Leaf]:
  """Of a tree of shapes with shardings."""

  def leaf(path: tuple[Any, ...], x: jax.ShapeDtypeStruct) -> Leaf:
    spec = [*x.sharding.spec, *(None,) * (len(x.shape) - len(x.sharding.spec))]
    names = ["+".join(name) if isinstance(name, tuple) else name or "-" for name in spec]
    divided = ", ".join(names) if set(names) - {"-"} else ""
    return Leaf(placement.name_of(path), x.shape, str(x.dtype), divided, placement.bytes_per_device(x))

  return [leaf(*item) for item in jax.tree_util.tree_leaves_with_path(state)]


def totals(found: Sequence[Leaf]) -> list[str]:
  """Of params, optimizer and rest, what a device holds."""
  kinds = {"params": [], "optimizer": [], "rest": []}
  for leaf in found:
    kind = "optimizer" if _of_optimizer(leaf) else "params" if leaf.name.startswith("params/") else "rest"
    kinds[kind].append(leaf)
  rows = [
    f"{kind}: {size_of(sum(leaf.bytes for leaf in own))} a device, of {sum(map(_elements, own)):,} numbers"
    for kind, own in kinds.items()
    if own
  ]
  return [*rows, f"state: {size_of(sum(leaf.bytes for leaf in found))} a device"]


def memory(compiled: jax.stages.Compiled, found: Sequence[Leaf]) -> list[str]:
  """What a device needs while it makes updates, as the compiler says."""
  platform, stats = jax.devices()[0].platform, compiled.memory_analysis()
  if stats is None:
    return [f"updates: the compiler for {platform} does not say what memory they need"]
  state = sum(leaf.bytes for leaf in found)
  data, temporary = stats.argument_size_in_bytes - state, stats.temp_size_in_bytes
  fresh = stats.output_size_in_bytes - stats.alias_size_in_bytes
  return [
    f"updates: {size_of(state + data + temporary + fresh)} a device: the state, {size_of(data)} of data, "
    f"{size_of(temporary + fresh)} of intermediate values, as compiled for {platform}"
  ]


def size_of(count: int) -> str:
  """Bytes for people: ``1.5 MiB``."""
  place = min(4, int(math.log2(count) // 10)) if count else 0
  return f"{count:,} B" if place == 0 else f"{count / 1024**place:.1f} {('', 'KiB', 'MiB', 'GiB', 'TiB')[place]}"


def _of_optimizer(leaf: Leaf) -> bool:
  return "optimizer" in leaf.name.split("/")


def _elements(leaf: Leaf) -> int:
  return math.prod(leaf.shape)


def _table(console: Console, found: Sequence[Leaf]) -> None:
  rows = [
    (leaf.name, " x ".join(map(str, leaf.shape)), leaf.dtype, leaf.divided or "whole", f"{leaf.bytes:,}")
    for leaf in found
  ]
  if not console.is_terminal:
    widths = [max(map(len, column)) for column in zip(HEADS, *rows, strict=True)]
    for *texts, number in [HEADS, *rows]:
      texts = [text.ljust(width) for text, width in zip(texts, widths, strict=False)]
      _write(console, ["  ".join([*texts, number.rjust(widths[-1])])])
    return
  table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
  for place, head in enumerate(HEADS):
    table.add_column(head, justify="right" if place == len(HEADS) - 1 else "left", overflow="fold")
  for row in rows:
    table.add_row(*row, style=None if row[3] == "whole" else "cyan")
  console.print(table)


def _write(console: Console, lines: Sequence[str]) -> None:
  # Not console.print: it would fold lines at 80 columns.
  console.file.write("\n".join(lines) + "\n")
  console.file.flush()

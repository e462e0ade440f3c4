"""What a transformer of a billion parameters would send and hold on 8, 64 and 512 devices, as a page of results.

python -m experiments.results.scaling

The trainer's program is compiled for emulated devices, ahead of time, each mesh in a process of its own; nothing is
allocated or run. Times are computed from what is compiled, not measured.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import cli, markdown, outputs
from experiments.results import hlo, links, scaled
from experiments.revision import git_commit

FLAGS = flags.FLAGS

# data x fsdp x tensor.
MESHES = (
  (1, 1, 1),
  *((1, 8, 1), (1, 4, 2)),
  *((1, 64, 1), (8, 8, 1), (8, 4, 2)),
  *((1, 512, 1), (8, 64, 1), (64, 8, 1), (64, 4, 2)),
)
# Of the peak, that the matmuls of one device are taken to reach.
EFFICIENCY = 0.5

PAGE = """# A billion parameters on 8, 64 and 512 devices, on paper

Made by one command, in which nothing is trained, measured or even allocated:

    {command}

The policy is `bc_transformer` with {layers} layers of width {width} and {heads} heads: {parameters:,} parameters in
float32, computation in bfloat16, AdamW behind a clip of the gradients' norm, `remat="{remat}"`. Every device has
{windows} windows of {length} steps a batch (weak scaling; where `tensor` is 2, two devices share twice as many). The
trainer's own program is compiled ahead of time from shapes (`ilx.training.lowering`) for as many emulated CPU devices
as the table says, each mesh in a process of its own. No size is extrapolated.

## What a device holds

State is parameters, Adam's two moments, and counters, as placed by the default rules. It falls as 1/fsdp (and
1/tensor) but for what is whole everywhere: leaves of at most {small:,} numbers, and the few that fsdp does not divide;
{whole} on every device here. "Intermediate" is XLA's plan for the CPU, which computes bfloat16 in float32 and has
attention weights in memory: more than elsewhere.

{memory}

## What a device sends and receives

Bytes are of one update: of the arrays that collectives gather or reduce on one device, those in the loop over layers
counted {layers} times. They are read from the program as XLA's partitioner leaves it. After that the CPU's compiler
widens bfloat16 to float32 and merges collectives; counted as wide, the bytes are those of the optimised program (the
largest difference is {difference}).

{sent}

Over `fsdp` each layer's parameters are gathered in the forward pass and again in the backward pass, in bfloat16, and
its gradients are reduced; over `data` only a device's part of the gradients is. Over `tensor` activations are reduced,
twice a layer in the forward pass and three times in the backward pass, which makes part of the forward pass again.
Activations travel over neither `fsdp` nor `data`.

"Sliced" are all-reduces of which each device keeps a part. The CPU's compiler leaves them so; those for GPUs and TPUs
have a pass that makes them reduce-scatters, as which they count below. That the partitioner chooses the same
collectives for those targets is an assumption.

## Expected share of communication

Computing: model FLOPs, 6 x parameters of the matmuls + 6 x layers x length x width a token (causal attention counted as
half of the full one; what `remat` computes again is not counted), at {efficiency:.0%} of the peak. Communication: every
collective by the bandwidth of its links, one after the other, without latency (an update has {count} collectives on the
last mesh). "Share" is communication / (communication + computing), nothing overlapping. Where communication takes less
than computing it could be hidden as a whole, if the compiler's schedule lets it overlap.

{times}

{sources}

jax {jax}, commit {commit}.
"""


def define_flags() -> None:
  """Of this command; not made on import, where they would meet those of other commands."""
  flags.DEFINE_string("output", str(pathlib.Path(__file__).with_suffix(".md")), "The file to write.")


def main() -> None:
  found = []
  for mesh in MESHES:
    print(f"data={mesh[0]} fsdp={mesh[1]} tensor={mesh[2]}", flush=True)
    found.append(in_process(mesh))
  command = " ".join(["python -m experiments.results.scaling", *sys.argv[1:]])
  outputs.write(pathlib.Path(FLAGS.output), page(found, command, (git_commit() or "unknown")[:12]))
  print(f"written to {FLAGS.output}")


def in_process(mesh: Sequence[int]) -> dict[str, Any]:
  """`scaled.measure` in a process that has as many emulated devices, and what the partitioner wrote meanwhile."""
  with tempfile.TemporaryDirectory() as folder:
    options = {
      "xla_force_host_platform_device_count": int(np.prod(mesh)),
      "xla_dump_to": folder,
      "xla_dump_hlo_pass_re": "spmd-partitioning",
      "xla_dump_hlo_module_re": "jit_program",
    }
    variables = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(f"--{name}={value}" for name, value in options.items())}
    command = [sys.executable, "-m", "experiments.results.scaled", *map(str, mesh)]
    done = subprocess.run(command, env=os.environ | variables, check=True, stdout=subprocess.PIPE, text=True)
    if np.prod(mesh) == 1:
      sent = []  # nothing is partitioned
    else:
      (partitioned,) = pathlib.Path(folder).glob("*after_spmd-partitioning*.txt")
      sent = hlo.collectives(partitioned.read_text())
  return json.loads(done.stdout.splitlines()[-1]) | {"collectives": sent}


def page(found: Sequence[dict[str, Any]], command: str, commit: str) -> str:
  """The Markdown page, from what `in_process` found for every mesh."""
  spread = [one for one in found if int(np.prod(one["mesh"])) > 1]
  pure = [one for one in spread if one["mesh"][2] == 1]
  return PAGE.format(
    command=command,
    layers=scaled.LAYERS,
    width=scaled.WIDTH,
    heads=scaled.HEADS,
    windows=scaled.WINDOWS,
    length=scaled.LENGTH,
    remat=scaled.REMAT,
    parameters=found[0]["parameters"],
    small=found[0]["small"],
    whole=f"{min(one['whole'] for one in pure) / 1e6:.1f} to {max(one['whole'] for one in pure) / 1e6:.1f} MB",
    memory=_table([*_MESH, "state", "of it whole", "state x fsdp x tensor", "intermediate"], map(_memory, found)),
    difference=f"{max(abs(_difference(one)) for one in spread):.1%}",
    sent=_table([*_MESH, *hlo.KINDS[:2], "of these sliced", "others", "widened", "optimised"], map(_sent, spread)),
    efficiency=EFFICIENCY,
    count=sum(one.times for one in spread[-1]["collectives"]),
    times="\n\n".join(_times(machine, spread) for machine in links.MACHINES),
    sources="\n\n".join(machine.sources for machine in links.MACHINES),
    jax=found[0]["jax"],
    commit=commit,
  )


_MESH = ("devices", "data x fsdp x tensor")


def _memory(one: dict[str, Any]) -> list[str]:
  parts = one["mesh"][1] * one["mesh"][2]
  return [
    *_mesh(one),
    f"{one['state'] / 1e6:,.1f} MB",
    f"{one['whole'] / 1e6:.1f} MB" if parts > 1 else "all",
    f"{one['state'] * parts / 1e9:.2f} GB",
    f"{one['intermediate'] / 1e9:.1f} GB",
  ]


def _sent(one: dict[str, Any]) -> list[str]:
  gathers, reductions = (_bytes(c for c in one["collectives"] if c.kind == kind) for kind in hlo.KINDS[:2])
  others = _bytes(c for c in one["collectives"] if c.kind not in hlo.KINDS[:2])
  sliced = _bytes(c for c in one["collectives"] if c.sliced)
  columns = (gathers, reductions, sliced, others, _widened(one), one["optimised"])
  return [*_mesh(one), *(f"{size / 1e9:.2f} GB" if size else "none" for size in columns)]


def _times(machine: links.Machine, found: Sequence[dict[str, Any]]) -> str:
  computing = scaled.model_flops() / (EFFICIENCY * machine.flops)

  def row(one: dict[str, Any]) -> list[str]:
    devices = int(np.prod(one["mesh"]))
    taken = [links.seconds(one["collectives"], machine, devices, sliced) for sliced in (False, True)]
    shares = [seconds / (seconds + computing) for seconds in taken]
    return [
      *_mesh(one),
      f"{taken[1] * 1e3:.1f} ms",
      f"{shares[1]:.0%}",
      f"{shares[0]:.0%}",
      "yes" if taken[1] < computing else "no",
    ]

  heads = [*_MESH, "communication", "share", "share, nothing sliced", "could be hidden"]
  return f"{machine.name}, computing {computing * 1e3:.0f} ms:\n\n{_table(heads, map(row, found))}"


def _mesh(one: dict[str, Any]) -> list[str]:
  return [str(int(np.prod(one["mesh"]))), " x ".join(map(str, one["mesh"]))]


def _bytes(found: Iterable[hlo.Collective]) -> int:
  return sum(one.bytes * one.times for one in found)


def _widened(one: dict[str, Any]) -> int:
  return sum(c.widened * c.times for c in one["collectives"])


def _difference(one: dict[str, Any]) -> float:
  """Between what the partitioner's program sends, widened as the CPU's compiler does, and the optimised one."""
  return _widened(one) / one["optimised"] - 1


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  return markdown.table(heads, rows, right=range(len(heads)))


if __name__ == "__main__":
  define_flags()
  cli.run(main)

"""How long collectives take at least, by the bandwidth of links; their latency is left out."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from experiments.results.hlo import Collective


class Machine(NamedTuple):
  """Devices and what joins them.

  Attributes:
    name: for people.
    flops: the most bfloat16 operations a second, of one device.
    memory: bytes of one device.
    seconds: ``(bytes that each device of a group receives, the group, number of devices in all) -> seconds``.
    sources: where the numbers are from, and what the model of the links is.
  """

  name: str
  flops: float
  memory: float
  seconds: Callable[[float, tuple[int, ...], int], float]
  sources: str


def seconds(found: Iterable[Collective], machine: Machine, devices: int, slice_reductions: bool) -> float:
  """Of all collectives one after the other.

  Each device of a group of n receives ``(n - 1) / n`` of the bytes of an all-gather, a reduce-scatter or an
  all-to-all, twice that of an all-reduce (a reduce-scatter, then an all-gather), and all of a permutation's.

  Args:
    found: of one program.
    machine: on which.
    devices: how many run it.
    slice_reductions: whether all-reduces of which each device needs a part are reduce-scatters.
  """
  total = 0.0
  for one in found:
    size = len(one.group)
    if size == 1:
      continue
    share = 1.0 if one.kind == "collective-permute" else (size - 1) / size
    if one.kind == "all-reduce" and not (slice_reductions and one.sliced):
      share *= 2
    total += one.times * machine.seconds(share * one.bytes, one.group, devices)
  return total


def _h200(received: float, group: tuple[int, ...], devices: int) -> float:
  """NVLink among the 8 GPUs of a host; across hosts each GPU's own adapter brings its share of what the host needs."""
  del devices
  hosts = {device // 8 for device in group}
  within = received / 450e9
  if len(hosts) == 1:
    return within
  size, per_host = len(group), len(group) / len(hosts)
  from_outside = received * (len(hosts) - 1) / len(hosts) / ((size - 1) / size)
  return max(within if per_host > 1 else 0.0, from_outside / (per_host * 50e9))


def _v5p(received: float, group: tuple[int, ...], devices: int) -> float:
  """Of a three-dimensional torus of all devices a group has as many of the axes as it has of the logarithm."""
  axes = 3 * math.log(len(group)) / math.log(devices)
  # Below 4 x 4 x 4 nothing joins the ends of an axis: a chip has one link along it instead of two.
  return received / (axes * 100e9 * (2 if devices >= 64 else 1))


H200 = Machine(
  "H200",
  989e12,
  141e9,
  _h200,
  "H200 SXM: 989 TFLOP/s of dense bfloat16 (half of the 1,979 with sparsity), 141 GB, NVLink at 450 GB/s in each "
  "direction among 8 GPUs of a host (as others quote NVIDIA's figures); 400 Gb/s InfiniBand, 50 GB/s, for each GPU "
  "across hosts (assumed). Devices are numbered host by host, `tensor` innermost. A group that spans hosts "
  "takes as long as the slower of its two parts: what each GPU receives over NVLink, or what a host receives from the "
  "others through the adapters of its GPUs in the group.",
)
V5P = Machine(
  "TPU v5p",
  459e12,
  95 * 2**30,
  _v5p,
  "TPU v5p: 459 TFLOP/s of bfloat16, 95 GiB, 1,200 GB/s of inter-chip bandwidth in both directions together over six "
  "links (Google Cloud's page on the TPU v5p): 100 GB/s a link and direction. A group of n of N chips has "
  "3 log n / log N axes of the torus, two links along each (one in a slice of 8 chips, which does not close).",
)
MACHINES = (H200, V5P)

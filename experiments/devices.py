"""For how many devices a CPU is taken."""

import contextlib
import os
from typing import TYPE_CHECKING

import jax

if TYPE_CHECKING:
  import ml_collections

# Data lie on every device: no more of them than this for every core.
_MOST = 4


def of_cpu(seeds: int) -> int:
  """As few devices as keep all cores busy, where each computes whole seeds.

  Matmuls of one seed are too small to be divided among cores well. On two cores ten seeds took 6.5 (BC, batch 256) and
  7.3 times (IQL) the time of one where they were spread over two devices, and 10 times on a single one.

  Args:
    seeds: of one program.

  Returns:
    1 where there is nothing to spread: one core, or a number of seeds that does not divide among few devices.
  """
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  if seeds <= cores:
    return seeds
  return next((count for count in range(cores, _MOST * cores + 1) if seeds % count == 0), 1)


def spread_seeds(config: "ml_collections.ConfigDict") -> None:
  """Takes a CPU for so many devices where a run has several seeds, unless its user divides either.

  For before anything else of jax; where there are accelerators it changes nothing. Data that must be on the devices
  would be there as often.
  """
  divided = config.mesh.to_dict() != {"data": -1, "fsdp": 1, "tensor": 1}
  chosen = jax.config.jax_num_cpu_devices > 0 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
  if config.seeds > 1 and config.tier != "device" and not divided and not chosen:
    with contextlib.suppress(RuntimeError):  # a config file has used jax already
      jax.config.update("jax_num_cpu_devices", of_cpu(config.seeds))

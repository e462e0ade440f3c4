"""How much memory is free, on the devices and on the host, and whether data fit in it."""

import math
import os
import pathlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from ilx.data.episodes import Episodes


def fits(data: Episodes) -> bool:
  """Whether the columns, pictures decoded, take at most half of a device's free memory, on every host.

  Of a TPU's a quarter: it keeps pictures in an order of axes in which items cannot be drawn, and makes a copy to draw
  from, of up to two and a half times their size (20,000 and 270,000 of 84 x 84 x 4 for a v5e).
  """
  needed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(data))
  device = jax.local_devices()[0]
  stats = device.memory_stats() or {}
  if "bytes_limit" in stats:
    free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
  else:  # a CPU: all devices share the machine's memory
    free = free_memory() // jax.local_device_count()
  found = needed <= free // (4 if device.platform == "tpu" else 2)
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
    lines = (used.parent / "memory.stat").read_text().splitlines()
    cached = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    free = min(free, int(text) - int(used.read_text()) + cached)
  return max(free, 0)

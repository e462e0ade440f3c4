"""What a figure must be read with: the machine, the versions, and what else was running."""

import datetime
import os
import pathlib
import platform
from importlib import metadata
from typing import Any

import jax

import ilx
from experiments.revision import git_commit

PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "envpool", "array-record", "tensorflow-datasets")


def facts() -> dict[str, Any]:
  """JSON-able: cpu, cores, devices, memory, versions, git_commit, date, load average of the last minute."""
  devices = jax.devices()
  pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
  return {
    "cpu": _cpu(),
    "cores": len(os.sched_getaffinity(0)),
    "memory_gib": round(pages / 2**30, 1),
    "devices": f"{len(devices)} x {devices[0].device_kind}",
    "python": platform.python_version(),
    "ilx": ilx.__version__,
    "versions": {name: version for name in PACKAGES if (version := _version(name))},
    "git_commit": git_commit(),
    "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    "load_average": round(os.getloadavg()[0], 2),
  }


def _version(package: str) -> str | None:
  try:
    return metadata.version(package)
  except metadata.PackageNotFoundError:
    return None


def _cpu() -> str:
  info = pathlib.Path("/proc/cpuinfo")
  lines = info.read_text().splitlines() if info.exists() else []
  return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())

"""What may happen to a run: damage on the disk, and a disk that is full."""

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np

from ilx.training import manifest

_DISK_BYTES = 24 << 20


def good(checkpoints: pathlib.Path) -> list[int]:
  """The steps of the checkpoints that are what was written, rising."""
  found = sorted(int(path.name) for path in checkpoints.glob("*") if path.name.isdigit())
  return [step for step in found if manifest.check(checkpoints / str(step)) is None]


def damage(checkpoints: pathlib.Path, rng: np.random.Generator) -> str:
  """Damages the newest checkpoint where there is an older good one to fall back on; says how.

  A file is cut short, has a bit changed or is removed, or half of all files are.
  """
  steps = good(checkpoints)
  if len(steps) < 2:
    return "none"
  newest = checkpoints / str(steps[-1])
  files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
  path = files[rng.integers(len(files))]
  data = bytearray(path.read_bytes())
  how = str(rng.choice(["cut", "flip", "remove", "half"]))
  if how == "cut":
    path.write_bytes(data[: rng.integers(len(data))])
  elif how == "flip":
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)
  elif how == "remove":
    path.unlink()
  else:
    for other in files[: len(files) // 2]:
      other.unlink()
  return f"{how} {path.relative_to(checkpoints)}"


@contextlib.contextmanager
def small_disk(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, bool]]:
  """A folder, and whether it is a disk of its own, of a few megabytes; only root can have one."""
  folder.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
  mounted = os.geteuid() == 0 and shutil.which("mount") and not subprocess.run(mount, capture_output=True).returncode
  try:
    yield folder, bool(mounted)
  finally:
    if mounted:
      subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def filled(disk: pathlib.Path) -> Iterator[None]:
  """Not a byte is left on ``disk`` meanwhile."""
  ballast = disk / "ballast"
  try:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
      while True:
        file.write(bytes(1 << 12))
    yield
  finally:
    ballast.unlink()

"""Writing that survives a power cut."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
  """Writes a file and waits until it is on the disk."""
  with path.open("w") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
  """Waits until the names in a folder are on the disk."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)

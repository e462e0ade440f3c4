"""A dataset's small files: reading that says what is wrong, writing that survives a power cut."""

import json
import os
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
  """The content of a dataset's JSON file.

  Raises:
    FileNotFoundError: where there is no such file.
    ValueError: where it is no JSON; names it.
  """
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise FileNotFoundError(f"{path} is missing: not a TFDS dataset folder, or an unfinished copy") from None
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path} is no valid JSON: {error}") from None


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

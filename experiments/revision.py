"""Which code runs."""

import pathlib
import subprocess
from typing import Any

_NO_CODE = [f":(top,exclude)experiments/results/{name}" for name in ("runs", "README.md")]
_CHANGED = "-dirty"


def git_commit() -> str | None:
  """The commit of the code that runs, "-dirty" appended where files differ from it; None outside a checkout.

  What the results table writes is no code: its runs would make all that follow them dirty.
  """
  folder = pathlib.Path(__file__).parent
  try:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    status = ["git", "status", "--porcelain", "--untracked-files=no", "--", ":/", *_NO_CODE]
    changes = subprocess.run(status, cwd=folder, capture_output=True, text=True, check=True)
  except (OSError, subprocess.CalledProcessError):
    return None
  return commit.stdout.strip() + (_CHANGED if changes.stdout.strip() else "")


def split(commit: Any) -> tuple[str, bool]:
  """Of what ``git_commit`` gave: the commit alone, empty if unknown, and whether the code differed from it."""
  commit = str(commit or "")
  return commit.removesuffix(_CHANGED), commit.endswith(_CHANGED)


def short(commit: Any) -> str:
  """``1a2b3c4d5e6f``, or ``1a2b3c4d5e6f (with changes)``; empty if unknown."""
  name, changed = split(commit)
  return name[:12] + (" (with changes)" if changed else "")

"""Which code runs."""

import pathlib
import subprocess


def git_commit() -> str | None:
  """The commit of the code that runs, "-dirty" appended where files differ from it; None outside a checkout."""
  folder = pathlib.Path(__file__).parent
  try:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    changes = subprocess.run(
      ["git", "status", "--porcelain", "--untracked-files=no"], cwd=folder, capture_output=True, text=True, check=True
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return commit.stdout.strip() + ("-dirty" if changes.stdout.strip() else "")

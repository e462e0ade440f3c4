"""Shared fixtures."""

import pathlib

import pytest


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """Demonstrations by others, kept beside the checkout; the project does not need them."""
  folder = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
  if not folder.is_dir():
    pytest.skip(f"no demonstrations by others at {folder}")
  return folder

"""Shared fixtures; eight emulated devices, so that sharding is tested on any machine."""

import pathlib

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """Demonstrations by others, kept beside the checkout; the project does not need them."""
  folder = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
  if not folder.is_dir():
    pytest.skip(f"no demonstrations by others at {folder}")
  return folder

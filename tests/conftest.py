"""Shared fixtures; eight emulated devices, so that sharding is tested on any machine."""

import gc
import os
import pathlib
from collections.abc import Iterator

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
# Most of the tests' time is compiling, and most of compiling is making loops fast that these tests run a few times; of
# what is left, XLA's newer way of making them takes three quarters (an option that versions without it pass over). In
# the environment too, for the processes that they start: results are to be compared bit for bit.
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
_OPTION = "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"
if _OPTION not in (given := os.environ.get("XLA_FLAGS", "")):  # which XLA reads when it first computes
  os.environ["XLA_FLAGS"] = f"{given} {_OPTION}".strip()


@pytest.fixture(scope="module", autouse=True)
def programs_go_with_their_tests() -> Iterator[None]:
  """Compiled programs are dropped when a file's tests end.

  Each maps several regions of memory, of which Linux gives a process 65,530 (vm.max_map_count); thousands of tests in
  one process need more, and what then fails is not Python but the process.
  """
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """Demonstrations by others, kept beside the checkout; the project does not need them."""
  folder = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
  if not folder.is_dir():
    pytest.skip(f"no demonstrations by others at {folder}")
  return folder


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
  """Attention chooses cuDNN's where it may, and programs for a GPU with it can be lowered, without having one."""
  monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91100)
  monkeypatch.setattr("ilx.networks.attention._has_flash_attention", lambda backend: True)

"""How XLA is asked to compile the programs that ilx itself runs: updates and policies at play."""

import os

import jax
import jaxlib

_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"


def options() -> dict[str, str] | None:
  """For ``jax.jit(..., compiler_options=...)``; None where the compiler's own choices are good.

  jaxlib 0.10.2, the last for Python 3.11, has YNNPACK compute convolutions on a CPU, 4 to 8 times slower than Eigen did
  before and does after (those of the Nature network, 256 pictures of 84 x 84, 2 cores: 20 GFLOP/s instead of 145). What
  is asked for is its own choice but for convolutions. A user's ``XLA_FLAGS`` about it stay.
  """
  # Policies may play on the CPU beside training on a GPU.
  device = jax.config.jax_default_device
  platform = jax.default_backend() if device is None else getattr(device, "platform", device)
  if jaxlib.__version__ != "0.10.2" or platform != "cpu" or _FUSIONS in os.environ.get("XLA_FLAGS", ""):
    return None
  return {_FUSIONS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"}

"""One of the two processes of test_signals.py: ``python signalled_process.py FOLDER HOST:PORT,PROCESSES,INDEX``.

In the evaluation after four updates process 1 gets a signal, and both need the other's part of the evaluation.
"""

import os
import signal
import sys

import jax
import numpy as np

import ilx
from ilx import testing
from ilx.parallel import hosts

SPEC = testing.continuous_spec()


def evaluate(params, step):
  if step == 4 and jax.process_index() == 1:
    os.kill(os.getpid(), signal.SIGTERM)
  return {"together": float(hosts.gather(np.float64(jax.process_index() + 1)).sum())}


def main() -> None:
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 1)
  hosts.initialize(sys.argv[2])
  sizes = {"steps": 1000, "batch_size": 8, "log_every": 2, "checkpoint_every": 1000, "evaluate_every": 4}
  rows = []
  try:
    ilx.train(
      ilx.agents.bc(SPEC, hidden=(4,)),
      testing.fake_episodes(SPEC),
      workdir=sys.argv[1],
      evaluate=evaluate,
      on_progress=lambda step, row: rows.append((step, row.get("eval/together"))),
      **sizes,
    )
  except ilx.training.Interrupted as stop:
    print(f"signal {stop.signal}, rows {rows}: {stop}")
  except ilx.training.FolderInUseError as error:
    print(error)


if __name__ == "__main__":
  main()

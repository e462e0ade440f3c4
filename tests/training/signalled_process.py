"""One of the two processes of test_signals.py: ``signalled_process.py FOLDER HOST:PORT,PROCESSES,INDEX [within]``.

In the evaluation after four updates process 1 gets a signal, and both need the other's part of the evaluation. With
``within`` it gets one after four of the updates of an interval that takes longer than is waited for.
"""

import os
import signal
import sys

import jax
import numpy as np

import ilx
from ilx import testing
from ilx.parallel import hosts
from ilx.training import pace

SPEC = testing.continuous_spec()


def evaluate(params, step):
  if step == 4 and jax.process_index() == 1:
    os.kill(os.getpid(), signal.SIGTERM)
  return {"together": float(hosts.gather(np.float64(jax.process_index() + 1)).sum())}


def signal_within(step):
  if step == 4 and jax.process_index() == 1:
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", 1)
  hosts.initialize(sys.argv[2])
  sizes = {"steps": 1000, "batch_size": 8, "log_every": 2, "checkpoint_every": 1000, "evaluate_every": 4}
  rows, within = [], sys.argv[3:] == ["within"]
  if within:
    sizes |= {"log_every": 1000, "evaluate_every": 1000}
    pace._PERIOD, pace._GRACE = 0.0, -1.0  # every update on its own
  try:
    ilx.train(
      ilx.agents.bc(SPEC, hidden=(4,)),
      testing.fake_episodes(SPEC),
      workdir=sys.argv[1],
      evaluate=evaluate,
      on_progress=lambda step, row: rows.append((step, row.get("eval/together"))),
      on_updates=signal_within if within else None,
      checkpoint_minutes=1e-9 if hosts.is_first() else 1e9,  # as if their clocks differed
      **sizes,
    )
  except ilx.training.Interrupted as stop:
    print(f"signal {stop.signal}, rows {rows}: {stop}")
  except ilx.training.FolderInUseError as error:
    print(error)


if __name__ == "__main__":
  main()

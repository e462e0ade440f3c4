"""How processes are told of each other; several of them are in tests/experiments/test_hosts.py."""

import jax
import pytest

from ilx.parallel import hosts


def test_what_is_named_is_not_looked_for(monkeypatch):
  """Slurm, of a process that it started, says one GPU, whatever the process was told of the others."""
  asked = {}

  def initialize(address, processes, index, **how):
    asked.update(how, address=address, processes=processes, index=index)

  monkeypatch.setattr(jax.distributed, "initialize", initialize)
  hosts.initialize("10.0.0.1:1234,2,1")
  named = {"address": "10.0.0.1:1234", "processes": 2, "index": 1}
  assert asked == {**named, "cluster_detection_method": "deactivate"}


@pytest.mark.parametrize("how", ["10.0.0.1,2,0", "10.0.0.1:1,2,2", "2", ""])
def test_what_names_no_process_is_refused(how):
  with pytest.raises(ValueError, match=r"expected 'auto' or COORDINATOR:PORT,PROCESSES,INDEX"):
    hosts.initialize(how)

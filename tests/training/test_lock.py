import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from ilx.training.lock import FolderInUseError, locked

# Holds a folder's lock as another process would, without the time that importing jax takes.
HOLDER = """
import fcntl, json, os, sys, time
file = open(sys.argv[1] + "/.lock", "a+")
fcntl.flock(file, fcntl.LOCK_EX)
file.write(json.dumps({"pid": os.getpid(), "host": "elsewhere"}))
file.flush()
print("held", flush=True)
time.sleep(60)
"""

# Ends in the lock, and leaves a worker.
FORKING = """
import os, sys
from ilx.training.lock import locked
with locked(sys.argv[1]):
  if not os.fork():
    sys.stdin.read()
  os._exit(0)
"""


@pytest.fixture
def holder(tmp_path):
  with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()


def test_another_process_is_named_and_its_death_releases(tmp_path, holder):
  message = rf"{tmp_path} is in use by process {holder.pid} on elsewhere"
  with pytest.raises(FolderInUseError, match=message), locked(tmp_path):
    pytest.fail("went on")
  os.kill(holder.pid, signal.SIGKILL)
  holder.wait()
  with locked(tmp_path):
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_other_processes_are_kept_out_until_the_end(tmp_path):
  take = "import fcntl, sys; fcntl.flock(open(sys.argv[1] + '/.lock', 'a+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"

  def other():
    return subprocess.run([sys.executable, "-c", take, str(tmp_path)], capture_output=True, text=True)

  with locked(tmp_path):
    with locked(tmp_path):  # the same thread may
      pass
    assert "BlockingIOError" in other().stderr
  assert other().returncode == 0


def test_another_thread_is_kept_out(tmp_path):
  found = []

  def enter():
    try:
      with locked(tmp_path):
        found.append(None)
    except FolderInUseError as error:
      found.append(str(error))

  def in_thread():
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()

  with locked(tmp_path):
    in_thread()
  in_thread()
  assert "another thread" in found[0] and found[1] is None


def test_a_forked_process_does_not_hold_what_it_inherits(tmp_path):
  """A worker may live longer than the run."""
  with subprocess.Popen([sys.executable, "-c", FORKING, str(tmp_path)], stdin=subprocess.PIPE) as process:
    assert process.wait(60) == 0  # its worker lives until the input ends
    with locked(tmp_path):
      pass


def test_an_error_within_releases(tmp_path):
  with pytest.raises(KeyError), locked(tmp_path / "new"):
    raise KeyError
  with locked(tmp_path / "new"):
    pass

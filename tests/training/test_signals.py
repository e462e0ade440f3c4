import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings

import pytest

from ilx.training import manifest
from ilx.training.lock import locked
from ilx.training.signals import StopSignals

PROCESS = pathlib.Path(__file__).with_name("signalled_process.py")
ROOT = pathlib.Path(__file__).parents[2]


def _two(folder, *how):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  processes = [
    subprocess.Popen(
      [sys.executable, str(PROCESS), str(folder), f"{address},2,{index}", *how],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  found = [process.communicate(timeout=300) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], found
  return [output.splitlines()[-1] for output, _ in found]


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_update(tmp_path):
  first, second = _two(tmp_path)
  rows = "[(2, None), (4, None), (4, 3.0)]"
  assert first == second
  assert first == f"signal 15, rows {rows}: stopped by SIGTERM; 4 of 1000 updates are saved in {tmp_path}"
  assert manifest.check(tmp_path / "checkpoints" / "4") is None
  assert manifest.check(tmp_path / "checkpoints" / "2") is None  # as the first process found it late


def test_a_signal_to_one_of_two_processes_stops_both_within_an_interval(tmp_path):
  first, second = _two(tmp_path, "within")
  assert first == second
  assert first == f"signal 15, rows []: stopped by SIGTERM; 4 of 1000 updates are saved in {tmp_path}"
  assert manifest.check(tmp_path / "checkpoints" / "4") is None


def test_a_folder_in_use_is_refused_by_both_of_two_processes(tmp_path):
  with locked(tmp_path):
    outputs = _two(tmp_path)
  assert all("is in use" in output for output in outputs)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_the_first_signal_interrupts_act_as_before_and_terminations_do_not(number):
  seen = []
  numbers = (signal.SIGINT, signal.SIGTERM)
  before = [signal.signal(each, lambda number, _: seen.append(number)) for each in numbers]
  try:
    with StopSignals() as stop:
      assert not stop.agree()
      os.kill(os.getpid(), number)
      assert stop.agree() and stop.received == number and not seen
      os.kill(os.getpid(), signal.SIGTERM)
      assert not seen
      os.kill(os.getpid(), signal.SIGINT)
      assert seen == [signal.SIGINT] and stop.received == number
    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [signal.SIGINT, signal.SIGTERM]
  finally:
    for each, handler in zip(numbers, before, strict=True):
      signal.signal(each, handler)


def test_work_in_the_middle_of_which_a_signal_comes_is_dropped():
  with StopSignals() as stop:
    assert stop.unless_signalled(lambda: 3) == 3
    assert stop.unless_signalled(lambda: [os.kill(os.getpid(), signal.SIGTERM), 4]) is None
    assert stop.unless_signalled(lambda: pytest.fail("begun")) is None


def test_what_a_signal_breaks_is_dropped_and_said():
  """Such as environments whose workers got it too."""

  def work():
    try:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(1)
    except KeyboardInterrupt:
      raise BrokenPipeError("a worker is gone") from None

  with StopSignals() as stop, pytest.warns(UserWarning, match="dropped because of SIGTERM: BrokenPipeError"):
    assert stop.unless_signalled(work) is None
  with StopSignals() as stop, pytest.raises(ZeroDivisionError):
    stop.unless_signalled(lambda: 1 / 0)


def _forked(before=lambda: None):
  """A worker that has called ``before`` and would then sleep."""
  ready, told = os.pipe()
  with warnings.catch_warnings(action="ignore"):  # of a fork beside threads
    worker = os.fork()
  if not worker:
    before()
    os.write(told, b"x")
    time.sleep(60)
    os._exit(0)
  assert os.read(ready, 1) == b"x"
  return worker


def _terminated(worker):
  os.kill(worker, signal.SIGTERM)
  status = os.waitpid(worker, 0)[1]
  return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM


@pytest.mark.parametrize("raising", [False, True])
def test_a_forked_worker_dies_of_a_signal_and_the_run_goes_on(raising):
  def work():
    return _terminated(_forked())

  with StopSignals() as stop:
    assert stop.unless_signalled(work) if raising else work()
    assert not stop.agree()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.agree()


def test_the_first_interrupt_of_a_terminal_leaves_workers_to_the_run():
  with StopSignals():
    assert _terminated(_forked(lambda: os.kill(os.getpid(), signal.SIGINT)))


def test_outside_the_main_thread_it_does_nothing():
  before = signal.getsignal(signal.SIGTERM)
  found = []

  def enter():
    with StopSignals() as stop:
      found.append((signal.getsignal(signal.SIGTERM) is before, stop.agree()))

  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert found == [(True, False)]

"""Processes side by side: their share of the machine, their failures, and signals."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from experiments.launch import processes
from experiments.launch.processes import Process, Share
from ilx.training import Interrupted

ROOT = pathlib.Path(__file__).resolve().parents[3]
ALL = Share(None, None)
# Says that it is there, and when it is told to stop ends as a run does that has saved, a moment later.
PATIENT = """
import pathlib, signal, sys, time
def stop(number, frame):
  pathlib.Path(sys.argv[1] + ".told").open("a").write("told\\n")
  time.sleep(0.3 if sys.argv[1].endswith("a") else 0.9)
  pathlib.Path(sys.argv[1] + ".saved").touch()
  sys.exit(143)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""
# A launcher of three of these. What is started behind a shell's & ignores SIGINT, and its children do, too.
LAUNCHER = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from experiments.launch import processes
from ilx.training import Interrupted
folder, jobs = pathlib.Path(sys.argv[1]), int(sys.argv[2])
words = [sys.executable, "-c", sys.argv[3]]
todo = [processes.Process(name, [*words, str(folder / name)], folder / f"{name}.log") for name in "abc"]
try:
  processes.finish(todo, processes.shares(jobs), print)
except Interrupted as stop:
  print(stop)
  sys.exit(128 + stop.signal)
"""


def python(name, code, folder, **variables):
  return Process(name, [sys.executable, "-c", code], folder / f"{name}.log", variables)


def finish(todo, parts=(ALL,)):
  ends = []
  processes.finish(todo, parts, ends.append)
  return ends


def wait_for(*paths):
  deadline = time.monotonic() + 60
  while not all(path.exists() for path in paths):
    assert time.monotonic() < deadline, f"none of {paths}"
    time.sleep(0.02)


def test_output_and_variables(tmp_path):
  code = "import os, sys; print(os.environ['COLOUR']); print('oh', file=sys.stderr)"
  (end,) = finish([python("a", code, tmp_path, COLOUR="red")])
  assert end.failure is None
  assert (tmp_path / "a.log").read_text().splitlines() == ["red", "oh"]


def test_a_failure_is_told_with_the_last_line_and_the_others_go_on(tmp_path):
  bad = python("bad", "print('first'); print('error: the disk is full'); raise SystemExit(3)", tmp_path)
  killed = python("killed", "import os; os.kill(os.getpid(), 9)", tmp_path)
  ends = {end.process.name: end.failure for end in finish([bad, killed, python("good", "", tmp_path)])}
  assert ends == {
    "bad": f"bad: exit status 3: error: the disk is full; see {tmp_path / 'bad.log'}",
    "killed": f"killed: ended by SIGKILL: no output; see {tmp_path / 'killed.log'}",
    "good": None,
  }


def test_no_more_at_a_time_than_there_are_shares(tmp_path):
  code = f"import glob, os, time; os.mkdir('{tmp_path}/at' + str(os.getpid())); time.sleep(0.2);"
  code += f"print(len(glob.glob('{tmp_path}/at*'))); os.rmdir('{tmp_path}/at' + str(os.getpid()))"
  finish([python(name, code, tmp_path) for name in "abcd"], [ALL, ALL])
  found = [int((tmp_path / f"{name}.log").read_text()) for name in "abcd"]
  assert max(found) == 2


def test_each_has_the_cores_and_gpus_of_its_share(tmp_path):
  mine = os.sched_getaffinity(0)
  core = max(mine)
  code = "import os; print(os.sched_getaffinity(0), os.environ['CUDA_VISIBLE_DEVICES'])"
  finish([python("a", code, tmp_path)], [Share((core,), ("2", "3"))])
  assert (tmp_path / "a.log").read_text() == f"{{{core}}} 2,3\n"
  assert os.sched_getaffinity(0) == mine


def test_cores_are_shared_out_in_equal_parts(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {4, 5, 6, 7, 9})
  assert processes.shares(1) == [ALL]
  assert [share.cores for share in processes.shares(2)] == [(4, 6), (5, 7)]
  assert [share.cores for share in processes.shares(7)] == [(4,), (5,), (6,), (7,), (9,), (4,), (5,)]


def test_gpus_are_shared_out(monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,GPU-5,MIG-7")
  assert [share.gpus for share in processes.shares(2, None)] == [("0", "3"), ("GPU-5", "MIG-7")]
  assert [share.gpus for share in processes.shares(2, 1)] == [("0",), ("3",)]
  assert [share.gpus for share in processes.shares(2, 0)] == [None, None]
  assert processes.shares(1, None) == [ALL], "a single job sees them all as it is"
  for jobs, each in ((5, None), (3, 2)):
    with pytest.raises(ValueError, match=r"there are 4; give fewer --jobs"):
      processes.shares(jobs, each)


def test_gpus_are_found(monkeypatch, tmp_path):
  (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: x)'\necho 'GPU 1: H100 (UUID: y)'\n")
  (tmp_path / "nvidia-smi").chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
  monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  assert processes.visible_gpus() == ["0", "1"]
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  assert processes.visible_gpus() == []
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
  assert processes.visible_gpus() == []


def _launch(folder, jobs):
  words = [sys.executable, "-c", LAUNCHER, str(folder), str(jobs), PATIENT]
  environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_signal_lets_all_save_and_starts_no_more(tmp_path):
  launcher = _launch(tmp_path, jobs=2)
  wait_for(tmp_path / "a", tmp_path / "b")
  launcher.send_signal(signal.SIGTERM)
  output, errors = launcher.communicate(timeout=60)
  assert launcher.returncode == 128 + signal.SIGTERM, errors
  assert output == "stopped by SIGTERM; 3 of 3 are not finished\n"
  assert (tmp_path / "a.saved").exists() and (tmp_path / "b.saved").exists()
  assert not (tmp_path / "c.log").exists()


def test_ctrl_c_reaches_those_that_run_once_as_sigterm(tmp_path):
  launcher = _launch(tmp_path, jobs=2)
  wait_for(tmp_path / "a", tmp_path / "b")
  # A terminal sends it to the launcher's whole group, in which its children are not.
  children = [
    int(pid) for pid in pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
  ]
  assert len(children) == 2 and launcher.pid not in map(os.getpgid, children)
  assert all(os.getpgid(child) != os.getpgid(launcher.pid) for child in children)
  launcher.send_signal(signal.SIGINT)
  launcher.communicate(timeout=60)
  assert launcher.returncode == 128 + signal.SIGINT
  for name in "ab":
    assert (tmp_path / f"{name}.told").read_text() == "told\n"
    assert (tmp_path / f"{name}.saved").exists()


def test_a_second_signal_kills(tmp_path):
  stubborn = PATIENT.replace("0.3", "60")
  launcher = subprocess.Popen(
    [sys.executable, "-c", LAUNCHER, str(tmp_path), "1", stubborn],
    env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
  )
  wait_for(tmp_path / "a")
  launcher.send_signal(signal.SIGTERM)
  wait_for(tmp_path / "a.told")
  launcher.send_signal(signal.SIGTERM)
  assert launcher.wait(timeout=20) == 128 + signal.SIGTERM
  assert not (tmp_path / "a.saved").exists()


def test_what_goes_wrong_here_leaves_no_process_behind(tmp_path):
  process = Process("a", [sys.executable, "-c", PATIENT, str(tmp_path / "a")], tmp_path / "a.log")

  def fail():
    if (tmp_path / "a").exists():
      raise BrokenPipeError("nobody listens")

  with pytest.raises(BrokenPipeError):
    processes.finish([process], [ALL], print, wait=fail)
  assert (tmp_path / "a.saved").exists()


def test_a_signal_when_all_is_done_is_no_interruption(tmp_path):
  ends = []

  def ended(entry):
    ends.append(entry)
    os.kill(os.getpid(), signal.SIGTERM)

  processes.finish([python("a", "", tmp_path)], [ALL], ended)
  assert len(ends) == 1
  with pytest.raises(Interrupted, match="1 of 2"):
    processes.finish([python(name, "", tmp_path) for name in "ab"], [ALL], ended)


def test_what_is_ignored_stays_ignored(tmp_path):
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
  try:
    processes.finish([python(n, "", tmp_path) for n in "ab"], [ALL], lambda end: os.kill(os.getpid(), signal.SIGHUP))
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)

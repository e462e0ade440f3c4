"""Damaged files of every kind are refused or read, nothing else; and the fuzzer would notice if they were not."""

import os
import random
import subprocess
import sys
import time

import pytest

from experiments.fuzz import mutate, run, targets

NAMES = (
  "example",
  "record",
  "columns",
  "features",
  "dataset_info",
  "split",
  "picture",
  "tfrecord",
  "tfrecord.gz",
  "array_record",
  "journal",
  "index",
  "signed_index",
  "cache",
  "signed_cache",
)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
  return targets.targets(tmp_path_factory.mktemp("fuzz"))


def test_nothing_is_left_out(known):
  assert tuple(known) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_damage_is_refused_or_read(known, name):
  report = run.attack(known[name], name, seed=1, first=0, count=max(20, round(600 / known[name].cost)))
  assert not report.failures, "\n".join(report.failures)
  assert report.refused > 0


def _attack(read, count=8):
  return run.attack(targets.Target(lambda rng: rng.randbytes(9), read, 1), "x", 0, 0, count)


def test_it_notices_what_is_no_value_error():
  report = _attack(lambda content: {}[content])
  assert len(report.failures) == 8 and "KeyError" in report.failures[0]
  assert '--target="x" --seed=0 --first=0 --inputs=1' in report.failures[0]


def test_it_notices_silence_memory_and_time(monkeypatch):
  def silent(content):
    raise targets.SilentError("other values")

  assert "silent: other values" in _attack(silent).failures[0]
  assert "times the memory allowed" in _attack(lambda content: bytearray(20 << 20)).failures[0]
  monkeypatch.setattr(run, "SECONDS", 0.01)
  assert _attack(lambda content: time.sleep(0.02), 1).failures[0].startswith("0.0 s")
  assert "no end" in _attack(lambda content: time.sleep(5), 1).failures[0]


@pytest.mark.parametrize(
  ("read", "told"),
  [
    ("os.abort()", "the process died (-6)"),
    # Memory that Python's own accounting does not see.
    ("ctypes.memset(libc.malloc(1 << 29) or fail(), 0, 1)", "MemoryError"),
  ],
)
def test_it_notices_that_the_process_dies_or_takes_memory(read, told):
  script = (
    "import ctypes, os, multiprocessing; multiprocessing.set_start_method('fork')\n"
    "from experiments.fuzz import run, targets\n"
    "libc = ctypes.CDLL(None); libc.malloc.restype = ctypes.c_void_p\n"
    "def fail(): raise MemoryError\n"
    f"t = targets.Target(lambda rng: b'', lambda content: {read}, 1)\n"
    "print(run.isolated(t, 'x', 0, 5, 3).failures[0])"
  )
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
  assert told in done.stdout and "--first=5" in done.stdout


def test_inputs_follow_from_their_number(known):
  for name, target in known.items():
    assert run.make(target, name, 0, 3) == run.make(target, name, 0, 3)
  assert len({run.make(known["example"], "example", 0, number) for number in range(50)}) > 40


def test_a_million_is_divided_by_cost(known):
  counts = run.shares(known, 1_000_000)
  assert sum(counts.values()) >= 1_000_000 and counts["example"] > counts["cache"] > 0


def test_mutations_leave_their_seeds_alone():
  document = {"a": [1, {"b": 2}], "c": "x"}
  for number in range(300):
    mutate.document(random.Random(number), [document])
  assert document == {"a": [1, {"b": 2}], "c": "x"}

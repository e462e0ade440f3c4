"""Runs of two processes: what one learns, wherever they are cut off and whatever goes on after that."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

PROCESS = pathlib.Path(__file__).with_name("host_process.py")
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, record_cartpole):
  """Of a run by one process; of one by two, of which one was killed, and both started again; and of one that went on
  from there in a single process with fewer devices."""
  root = tmp_path_factory.mktemp("hosts")
  record_cartpole(root / "data")
  whole, killed, fewer = root / "whole", root / "killed", root / "fewer"
  _finished(_start(whole, 4))

  coordinator = f"127.0.0.1:{_port()}"
  first, second = (_start(killed, 2, f"{coordinator},2,{i}", KILL_AT="6") for i in range(2))
  second.wait(timeout=600)
  assert second.returncode == -signal.SIGKILL, second.communicate()[1]
  first.kill()  # as whoever started both would: alone it waits for the other
  first.wait()
  shutil.copytree(killed, fewer)
  _finished(_start(fewer, 2))
  coordinator = f"127.0.0.1:{_port()}"
  outputs = [_finished(one) for one in [_start(killed, 2, f"{coordinator},2,{i}") for i in range(2)]]
  return whole, killed, fewer, outputs


@pytest.mark.parametrize("name", ["iql", "peers", "transformer"])
def test_parameters_are_those_of_one_process(folders, name):
  whole, *others, _ = folders
  expected = np.load(whole / f"{name}.npz")
  for other in others:
    found = np.load(other / f"{name}.npz")
    assert found.files == expected.files and expected.files
    for leaf in expected.files:
      np.testing.assert_allclose(found[leaf], expected[leaf], rtol=1e-4, atol=2e-6)


def test_an_experiment_scores_the_same_episodes_and_writes_once(folders):
  whole, *others, _ = folders
  expected, rows = json.loads((whole / "bc/result.json").read_text()), _rows(whole)
  assert expected["episodes"] == 5
  for other in others:
    found = json.loads((other / "bc/result.json").read_text())
    assert found["returns"] == expected["returns"] and found["lengths"] == expected["lengths"]
    (version,) = found["dataset_versions"].values()
    assert version == "1.0.0" and found["dataset_versions"] == expected["dataset_versions"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    assert [row["step"] for row in _rows(other)] == [row["step"] for row in rows]
  assert len(json.loads((others[0] / "bc/result.json").read_text())["devices"]) == 4


def test_what_fails_in_one_process_ends_all(folders):
  *_, outputs = folders
  first, second = ([line for line in output.splitlines() if line.startswith("refused: ")] for output in outputs)
  assert len(first) == len(second) == 2
  assert "could not write checkpoint" in first[0] and f"process 0 failed: CheckpointError: {first[0][9:]}" in second[0]
  assert first[1] == "refused: no room for the log"
  assert second[1] == "refused: process 0 failed: OSError: no room for the log"


def _rows(folder: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in (folder / "bc/log.jsonl").read_text().splitlines()]


def _start(folder: pathlib.Path, devices: int, *distributed: str, **variables: str) -> subprocess.Popen:
  folder.mkdir(exist_ok=True)
  environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
  words = [sys.executable, str(PROCESS), str(folder), str(devices), *distributed]
  return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finished(process: subprocess.Popen) -> str:
  output, errors = process.communicate(timeout=900)
  assert process.returncode == 0, errors
  return output


def _port() -> int:
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]

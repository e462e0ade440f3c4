import json
import pathlib

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ilx.data import shards
from ilx.training import logs


def test_jsonl_resumes_at_a_step_and_drops_what_comes_after(tmp_path):
  path = tmp_path / "log.jsonl"
  log = logs.JsonlLog(path)
  for step in (10, 20, 30):
    log.write(step, {"train/loss": np.float32(step)})
    log.write(step, {"eval/return_ci95": (1.0, np.float64(2.0))})
  log.close()
  with open(path, "a") as file:
    file.write('{"step": 40, "train/lo')  # the process was killed here
  log = logs.JsonlLog(path, resume_step=20)
  log.write(30, {"train/loss": float("nan")})
  log.close()
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  # Evaluations at the step resumed from stay where they are not due again, as that after the last update of a run that
  # is made longer.
  assert [(row["step"], [*row][-1]) for row in rows] == [
    (10, "train/loss"), (10, "eval/return_ci95"), (20, "train/loss"), (20, "eval/return_ci95"), (30, "train/loss")
  ]  # fmt: skip
  assert rows[0]["train/loss"] == 10.0
  assert rows[1]["eval/return_ci95"] == [1.0, 2.0]
  assert rows[4]["train/loss"] is None


def test_an_evaluation_that_is_made_again_takes_the_place_of_the_one_before(tmp_path):
  path = tmp_path / "log.jsonl"
  for again in (1.0, 2.0):
    log = logs.JsonlLog(path, resume_step=20)
    log.write(20, {"eval/return": again})
    log.write(20, {"eval/other": again})
    log.write(30, {"train/loss": again})
    log.close()
  rows = [(row["step"], *list(row.items())[2:]) for row in logs.read_jsonl(path)]
  assert rows == [(20, ("eval/return", 2.0)), (20, ("eval/other", 2.0)), (30, ("train/loss", 2.0))]


def test_damaged_lines_are_named_and_left_out(tmp_path):
  path = tmp_path / "log.jsonl"
  path.write_bytes(b'{"step": 1, "a": 1}\n{"step": 2, "a"\n\x00\xff\n[3]\n{"step": 4, "a": 4}\n{"step": null}\n')
  with pytest.warns(UserWarning, match=r"log\.jsonl: line \d is damaged") as told:
    log = logs.JsonlLog(path, resume_step=5)
  assert [str(one.message).split()[2] for one in told] == ["2", "3", "4", "6"]
  log.write(6, {"a": 6})
  log.close()
  assert [row["step"] for row in logs.read_jsonl(path)] == [1, 4, 6]


def test_seconds_go_on_where_they_stopped(tmp_path):
  path = tmp_path / "log.jsonl"
  path.write_text('{"step": 10, "seconds": 500.0}\n{"step": 20, "seconds": 900.0}\n')
  log = logs.JsonlLog(path, resume_step=10)
  log.write(20, {})
  log.close()
  assert 500.0 <= logs.read_jsonl(path)[-1]["seconds"] < 510.0


def test_tensorboard_has_the_scalars(tmp_path):
  log = logs.TensorBoardLog(tmp_path)
  log.write(5, {"train/loss": 0.25, "eval/return_ci95": [1.0, 2.0]})
  log.close()
  content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
  assert b"train/loss" in content
  assert b"return_ci95" not in content


def _scalars(folder):
  """(step, name, value) of all event files in the order of their names; a start drops what was from its step on."""
  found = []
  for path in sorted(folder.iterdir()):
    with path.open("rb") as file:
      events = [Event.FromString(record) for _, record in shards.scan_tfrecord(file, path.stat().st_size, path.name)]
    assert events.pop(0).file_version == "brain.Event:2"
    for event in events:
      if event.session_log.status == SessionLog.START:
        found = [row for row in found if row[0] < event.step]
      found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
  return found


def test_tensorboard_has_a_row_as_soon_as_it_is_written(tmp_path):
  log = logs.TensorBoardLog(tmp_path)
  for step in range(1, 40):
    log.write(step, {"train/loss": step / 4})
    assert (step, "train/loss", step / 4) in _scalars(tmp_path)
  resumed = logs.TensorBoardLog(tmp_path, resume_step=30)  # the first one was killed
  resumed.write(31, {"train/loss": 0.5})
  resumed.close()
  assert _scalars(tmp_path) == [*((step, "train/loss", step / 4) for step in range(1, 31)), (31, "train/loss", 0.5)]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
  logs.JsonlLog(tmp_path / "log.jsonl").close()

  def full(self, text):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(pathlib.Path, "write_text", full)
  with pytest.raises(OSError, match=r"cannot write .*log\.jsonl: No space left on device"):
    logs.JsonlLog(tmp_path / "log.jsonl")
  with pytest.raises(OSError, match=r"cannot write .*result\.json: No space left on device"):
    logs.write_json(tmp_path / "result.json", {})
  assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_write_json_is_atomic_and_speaks_plain_json(tmp_path):
  path = tmp_path / "result.json"
  logs.write_json(path, {"a": np.arange(2), "b": float("inf"), "c": (np.int64(1), None)})
  assert json.loads(path.read_text()) == {"a": [0, 1], "b": None, "c": [1, None]}
  assert [p.name for p in tmp_path.iterdir()] == ["result.json"]

"""Where worked-out files go, what they hold for, and how they get there."""

import os
import threading
import time

import numpy as np
import pytest

from ilx import data
from ilx.data import derived, rlds


@pytest.fixture
def info(tmp_path):
  with data.Recorder(tmp_path, name="small", episodes_per_shard=1) as recorder:
    for _ in range(2):
      recorder.add(data.episode(np.zeros((3, 1)), np.zeros((2, 1)), np.zeros(2), terminal=True))
  return rlds.read_info(recorder.path)


def test_a_fingerprint_follows_the_files(info):
  before = derived.fingerprint(info)
  assert derived.fingerprint(rlds.read_info(info.directory)) == before and len(before) == 16
  shard = info.splits["train"].files[1]
  without_times = derived.fingerprint(info, times=False)
  os.utime(shard, ns=(0, 0))
  touched = derived.fingerprint(info)
  assert touched != before
  assert derived.fingerprint(info, times=False) == without_times
  (info.directory / "metadata.json").write_text("{}")
  assert derived.fingerprint(info) not in (before, touched)
  assert derived.fingerprint(info, times=False) != without_times
  with_it = derived.fingerprint(info)
  shard.unlink()
  without = derived.fingerprint(info)
  assert without != with_it and without == derived.fingerprint(info)


def test_a_dataset_whose_other_splits_are_not_there_works(tmp_path):
  with data.Recorder(tmp_path, name="small") as recorder:
    for split in ("train", "val"):
      recorder.add(data.episode(np.zeros((3, 1)), np.zeros((2, 1)), np.zeros(2), terminal=True), split=split)
  info = rlds.read_info(recorder.path)
  info.splits["val"].files[0].unlink()
  assert data.mapped(info.directory).num_steps == 3
  assert data.streamed(info.directory).num_transitions == 2
  for tier in (data.mapped, data.streamed):
    with pytest.raises(FileNotFoundError, match=r"small-val.* is missing"):
      tier(info.directory, "val")


@pytest.mark.parametrize("change", [{"name": "/evil/pwned"}, {"name": "../../evil"}, {"version": "1/../../../evil"}])
def test_what_a_dataset_calls_itself_makes_no_path(info, tmp_path, monkeypatch, change):
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path / "root"))
  monkeypatch.setattr(derived.os, "access", lambda *_: False)
  found = derived.folder(info._replace(**change))
  assert found.parent == tmp_path / "root" / ".derived"
  assert "evil" in found.name and not found.name.startswith(".")
  long = derived.folder(info._replace(name="[*é]" * 100)).name
  assert len(long.encode()) < 130 and "*" not in long and "[" not in long


def test_what_is_beside_a_dataset_is_found_though_it_can_be_read_alone(info, tmp_path, monkeypatch):
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path / "root"))
  kept = derived.folder(info) / "thing"
  assert derived.find(info, "thing") == kept
  kept.mkdir(parents=True)
  monkeypatch.setattr(derived.os, "access", lambda *_: False)
  assert derived.find(info, "thing") == kept
  assert derived.find(info, "other") == derived.folder(info) / "other"
  assert derived.folder(info).parent == tmp_path / "root" / ".derived"
  assert derived.holds(info, kept) and derived.holds(info, derived.folder(info) / "other")
  os.utime(info.splits["train"].files[0], ns=(0, 0))
  assert not derived.holds(info, kept)


def test_derived_files_are_beside_a_dataset_that_can_be_written(info, tmp_path, monkeypatch):
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path / "root"))
  assert derived.folder(info) == info.directory / ".ilx" / derived.fingerprint(info)
  info.directory.chmod(0o555)  # so even to root
  try:
    assert derived.folder(info) == tmp_path / "root" / ".derived" / f"small-1.0.0-{derived.fingerprint(info)}"
  finally:
    info.directory.chmod(0o755)


def test_a_folder_is_published_whole_or_not_at_all(tmp_path):
  target = tmp_path / "made" / "it"
  with pytest.raises(FileNotFoundError), derived.publishing(target) as staging:
    (staging / "half").rename(staging / "absent" / "half")
  assert list(target.parent.iterdir()) == []
  with derived.publishing(target) as staging:
    (staging / "whole").write_text("x")
    assert not target.exists()
  assert (target / "whole").read_text() == "x"
  with pytest.raises(FileExistsError), derived.publishing(target):
    pass
  assert [path.name for path in target.parent.iterdir()] == ["it"]


def test_one_at_a_time(tmp_path):
  order = []

  def work(name):
    with derived.locked(tmp_path / "thing"):
      order.append(name)
      time.sleep(0.05)
      order.append(name)

  threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert order[0::2] == order[1::2]


def test_keys_tell_requests_apart():
  assert derived.key("train", rlds.EVERYTHING) == derived.key("train", rlds.Selection())
  assert derived.key("train", rlds.EVERYTHING) != derived.key("train", rlds.Selection(lazy=True))

"""Writing on Beam gives the folder that writing one episode after the other gives, byte for byte."""

import contextlib
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from test_write import Numbers, contents

from ilx.data import journal, read_info
from ilx.data.convert import beam
from ilx.data.convert.source import Converted
from ilx.data.convert.write import write


class Mixed(Numbers):
  """Episodes 2 and 5 have another field; the splits come in turns."""

  def __getitem__(self, index):
    steps, metadata, _ = super().__getitem__(index)
    if index in (2, 5):
      steps = steps | {"other": np.zeros(len(steps["reward"]))}
    return Converted(steps, metadata, ("train", "val", "a/b" if index == 8 else "test")[index % 3])


def both(tmp_path, source, **options):
  expected = write(source, tmp_path / "sequential", **options)
  found = beam.write(source, tmp_path / "beam", **options)
  assert sorted(os.listdir(found.parent)) == ["1.0.0"]
  assert contents(found) == contents(expected)
  return found


def test_byte_for_byte(tmp_path):
  both(tmp_path, Numbers(14), episodes_per_shard=3, metadata={"licence": "MIT"}, name="other")


def test_byte_for_byte_with_skips_of_every_kind(tmp_path):
  source = Mixed(16, damaged=(0, 7), nan=(9,))
  path = both(tmp_path, source, skip_damaged=True, episodes_per_shard=2)
  info = read_info(path)
  skipped = {episode["index"]: episode["reason"] for episode in info.metadata["skipped"]}
  assert skipped.keys() == {0, 2, 5, 7, 8, 9}
  assert skipped[5].startswith("Recorder.add: field 'other' is float32")
  assert {name: split.lengths for name, split in info.splits.items()} == {
    "test": (2, ), "train": (2, 2), "val": (2, 2),
  }  # fmt: skip


def test_pictures(tmp_path):
  both(tmp_path, _Pictures(5), image_format="jpeg", episodes_per_shard=2)


class _Pictures(Numbers):
  def __getitem__(self, index):
    steps, metadata, split = super().__getitem__(index)
    return Converted(steps | {"camera": np.full((len(steps["reward"]), 8, 8, 3), index, np.uint8)}, metadata, split)


def test_other_processes(tmp_path, monkeypatch):
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.path.dirname(__file__), *sys.path]))
  source = Numbers(9, damaged=(4,))
  options = {"skip_damaged": True, "episodes_per_shard": 3}
  expected = write(source, tmp_path / "sequential", **options)
  flags = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
  found = beam.write(source, tmp_path / "beam", **options, pipeline_options=flags)
  assert contents(found) == contents(expected)


@pytest.mark.parametrize(
  ("source", "problem"),
  [
    (Numbers(8, damaged=(4,)), r"numbers: episode 4: numbers\.bin, record 4: wrong checksum"),
    (Mixed(4), "numbers: episode 2: Recorder.add: field 'other' is float32"),
  ],
)
def test_a_failing_episode_is_named_and_nothing_stays(tmp_path, source, problem):
  with pytest.raises(Exception, match=problem):
    beam.write(source, tmp_path)
  assert os.listdir(tmp_path / "numbers") == []


def test_all_damaged(tmp_path):
  with pytest.raises(ValueError, match=r"all 2 episodes are damaged; the first: numbers\.bin, record 0"):
    beam.write(Numbers(2, (0, 1)), tmp_path, skip_damaged=True)
  assert os.listdir(tmp_path / "numbers") == []


def test_a_folder_that_workers_do_not_see(tmp_path, monkeypatch):
  monkeypatch.setattr(beam, "_TOKEN", "token-of-another-machine")
  real = beam._check_reachable
  monkeypatch.setattr(beam, "_check_reachable", lambda staging, token: real(f"{staging}-elsewhere", token))
  with pytest.raises(Exception, match=r"-elsewhere cannot be reached by the worker on .*: choose a directory"):
    beam.write(Numbers(2), tmp_path)


def test_what_is_refused_before_anything_runs(tmp_path):
  path = beam.write(Numbers(2), tmp_path)
  before = contents(path)
  with pytest.raises(FileExistsError, match=r"numbers/1\.0\.0 is already there"):
    beam.write(Numbers(3), tmp_path)
  assert contents(path) == before
  for options, problem in (
    ({"name": "../x"}, "name"),
    ({"version": "1"}, "version"),
    ({"episodes_per_shard": 0}, "episodes_per_shard is 0"),
    ({"image_format": "gif"}, "image_format 'gif'"),
    ({"metadata": {"x": np.float32(1)}}, "metadata is not JSON"),
  ):
    with pytest.raises(ValueError, match=problem):
      beam.write(Numbers(2), tmp_path / "new", **options)
  with pytest.raises(ValueError, match="has no episodes"):
    beam.write(Numbers(0), tmp_path / "new")
  assert not (tmp_path / "new").exists()


_KILLED = """
  import os, sys
  from test_write import Numbers
  from ilx.data.convert import beam
  beam._describe = lambda *_: os.kill(os.getpid(), 9)  # all shards are written
  beam.write(Numbers(4), sys.argv[1])
"""


def test_what_a_killed_run_leaves_is_removed(tmp_path, monkeypatch):
  environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}
  child = subprocess.run([sys.executable, "-c", textwrap.dedent(_KILLED), tmp_path], env=environment, check=False)
  assert child.returncode == -9
  unfinished = tmp_path / "numbers" / "1.0.0.incomplete"
  assert any(path.stat().st_size for path in unfinished.glob("*/*array_record*"))
  with contextlib.closing(journal.Journal(unfinished / "journal.tfrecord")):
    before = sorted(unfinished.rglob("*"))
    with pytest.raises(RuntimeError, match=r"numbers/1\.0\.0\.incomplete is being recorded by another process"):
      beam.write(Numbers(4), tmp_path)
    assert sorted(unfinished.rglob("*")) == before
  real, seen = beam._run, []
  monkeypatch.setattr(beam, "_run", lambda *args: (seen.extend(unfinished.rglob("*")), real(*args)))
  found = beam.write(Numbers(4), tmp_path)
  assert len(seen) == 3 and not set(seen) & (set(before) - {unfinished / "journal.tfrecord"})
  assert os.listdir(tmp_path / "numbers") == ["1.0.0"]
  assert contents(found) == contents(write(Numbers(4), tmp_path / "sequential"))


def test_an_unfinished_recording_is_kept(tmp_path):
  with pytest.raises(ValueError, match="episode 2: "):
    write(Numbers(damaged=(2,)), tmp_path)
  with pytest.raises(ValueError, match=r"1\.0\.0\.incomplete holds an unfinished recording; finish it, or remove"):
    beam.write(Numbers(), tmp_path)
  assert contents(write(Numbers(), tmp_path)) == contents(beam.write(Numbers(), tmp_path / "other"))


def test_without_beam(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
  with pytest.raises(ModuleNotFoundError, match=r'pip install "ilx\[beam\]"'):
    beam.write(Numbers(2), tmp_path)
  assert not any(tmp_path.iterdir())

"""Any source becomes a dataset: resumed after a kill, without its damaged episodes, the same bytes in the end."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import ilx.data
from ilx.data import episode, load, read_info
from ilx.data.convert.source import Converted
from ilx.data.convert.write import write


class Numbers:
  """Episode i has i % 3 + 1 actions that earn i each; those in ``damaged`` cannot be read."""

  def __init__(self, count=7, damaged=(), metadata=None, name="numbers", offset=0.0, nan=()):
    self.name, self.metadata = name, {"env_id": "Numbers-v0"} if metadata is None else metadata
    self.count, self.damaged, self.offset, self.nan = count, damaged, offset, nan
    self.asked = []

  def __len__(self):
    return self.count

  def __getitem__(self, index):
    self.asked.append(index)
    if index in self.damaged:
      raise ValueError(f"numbers.bin, record {index}: wrong checksum")
    length = index % 3 + 1
    observation = np.full((length + 1, 2), index + self.offset)
    observation[-1] = np.nan if index in self.nan else observation[-1]
    made = episode(observation, np.zeros((length, 1)), np.full(length, index), terminal=True)
    return Converted(
      {**made, "said": [f"{index}"] * (length + 1)}, {"index": index}, "val" if index % 4 == 3 else "train"
    )


class Stopped(BaseException):
  pass


def stop_at(wanted):
  def progress(done, total):
    if done == wanted:
      raise Stopped

  return progress


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_source_becomes_a_dataset(tmp_path):
  told = []
  path = write(Numbers(), tmp_path, progress=lambda *args: told.append(args), metadata={"licence": "MIT"})
  assert path == tmp_path / "numbers" / "1.0.0"
  assert told == [(done, 7) for done in range(8)]
  info = read_info(path)
  assert {name: split.num_episodes for name, split in info.splits.items()} == {"train": 6, "val": 1}
  returns = [i * (i % 3 + 1) for i in range(7)]
  assert info.metadata == {
    "env_id": "Numbers-v0",
    "licence": "MIT",
    "num_episodes": 7,
    "num_transitions": 13,
    "data_return": np.mean(returns),
    "data_return_std": np.std(returns),
  }
  assert load(path, "val").observation[:, 0].tolist() == [3, 3]
  assert load(path).observation[:, 0].tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 5, 5, 5, 5, 6, 6]


def test_what_source_and_user_say_of_returns_stays(tmp_path):
  source = Numbers(metadata={"data_return": None, "num_episodes": 3})
  assert read_info(write(source, tmp_path, metadata={"data_return_std": 2})).metadata == {
    "data_return": None, "data_return_std": 2, "num_episodes": 3, "num_transitions": 13,
  }  # fmt: skip


@pytest.mark.parametrize("stop", [0, 1, 3, 6, 7])
def test_goes_on_behind_the_last_written_with_the_same_bytes(tmp_path, stop):
  options = {"damaged": (1, 2), "nan": (5,)}
  whole = write(Numbers(**options), tmp_path / "whole", skip_damaged=True, episodes_per_shard=2)
  with pytest.raises(Stopped):
    write(Numbers(**options), tmp_path, skip_damaged=True, progress=stop_at(stop))
  source, told = Numbers(**options), []
  path = write(source, tmp_path, skip_damaged=True, episodes_per_shard=2, progress=lambda *args: told.append(args))
  assert contents(path) == contents(whole)
  assert told == [(done, 7) for done in range(stop, 8)]
  # the last one written is read again, to see that the source is the same
  assert [index for index in source.asked if index >= stop] == list(range(stop, 7))
  assert len([index for index in source.asked if index < stop]) <= 1
  assert read_info(path).metadata["skipped"] == [
    {"index": 1, "reason": "numbers.bin, record 1: wrong checksum"},
    {"index": 2, "reason": "numbers.bin, record 2: wrong checksum"},
    {"index": 5, "reason": "episode: field 'observation' is NaN or inf in float32 at step 3"},
  ]
  assert read_info(path).metadata["num_episodes"] == 4


_CHILD = """
  import sys
  import test_write
  test_write.write(test_write.Numbers(2000, (5,)), sys.argv[1], skip_damaged=True, progress=print)
"""


def test_kill_9(tmp_path):
  child = subprocess.Popen(
    [sys.executable, "-uc", textwrap.dedent(_CHILD), str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])},
  )
  try:
    while not child.stdout.readline().startswith("100 "):
      pass
  finally:
    child.send_signal(signal.SIGKILL)
    child.communicate()
  assert not (tmp_path / "numbers" / "1.0.0").exists()
  source = Numbers(2000, (5,))
  path = write(source, tmp_path, skip_damaged=True)
  assert min(source.asked) >= 99
  assert contents(path) == contents(write(Numbers(2000, (5,)), tmp_path / "whole", skip_damaged=True))


def test_a_damaged_episode_is_named_and_nothing_lost(tmp_path):
  with pytest.raises(ValueError, match=r"numbers: episode 4: numbers\.bin, record 4: wrong checksum"):
    write(Numbers(damaged=(4,)), tmp_path)
  assert not (tmp_path / "numbers" / "1.0.0").exists()
  source = Numbers()  # repaired
  write(source, tmp_path)
  assert source.asked == [3, 4, 5, 6]


@pytest.mark.parametrize(
  ("changed", "problem"),
  [
    ({"count": 8}, r"of a source of another length \(7 then, 8 now\)"),
    (
      {"metadata": {"env_id": "Other-v0"}},
      r"of another mapping or options; remove .*1\.0\.0\.incomplete to begin anew",
    ),
    ({"name": "others"}, r"of a source of another name \('numbers' then, 'others' now\)"),
    ({"offset": 1.0}, "in which episode 3 is not what the source gives now"),
  ],
)
def test_a_changed_source_is_refused(tmp_path, changed, problem):
  with pytest.raises(Stopped):
    write(Numbers(damaged=(1,)), tmp_path, name="n", skip_damaged=True, progress=stop_at(4))
  with pytest.raises(ValueError, match=r"n/1\.0\.0\.incomplete holds an unfinished conversion .*" + problem):
    write(Numbers(damaged=(1,), **changed), tmp_path, name="n", skip_damaged=True)
  with pytest.raises(ValueError, match=r"left out episode 1 \(numbers\.bin"):
    write(Numbers(damaged=(1,)), tmp_path, name="n")
  write(Numbers(damaged=(1,)), tmp_path, name="n", skip_damaged=True)


def test_a_conversion_that_came_to_nothing_is_begun_anew(tmp_path):
  other = {"count": 5, "metadata": {"env_id": "Other-v0"}, "offset": 1.0}
  for changes in ({}, {"metadata": {}}, other):
    with pytest.raises(ValueError, match=r"episode 0: .*wrong checksum"):
      write(Numbers(damaged=(0,), **changes), tmp_path)
  with pytest.raises(Stopped):
    write(Numbers(**other), tmp_path, progress=stop_at(2))
  # From the first episode on it is the last one's.
  with pytest.raises(ValueError, match=r"of a source of another length \(5 then, 7 now\)"):
    write(Numbers(), tmp_path)
  path = write(Numbers(**other), tmp_path)
  assert contents(path) == contents(write(Numbers(**other), tmp_path / "whole"))


def test_what_was_skipped_is_not_forgotten(tmp_path):
  with pytest.raises(Stopped):
    write(Numbers(damaged=(0,)), tmp_path, skip_damaged=True, progress=stop_at(1))
  with pytest.raises(ValueError, match="of another mapping or options"):
    write(Numbers(damaged=(0,), metadata={}), tmp_path, skip_damaged=True)


def test_a_recording_is_not_mixed_with_a_conversion(tmp_path):
  recorder = ilx.data.Recorder(tmp_path, name="numbers")
  recorder.add(Numbers()[0].steps)
  recorder.suspend()
  with pytest.raises(ValueError, match=r"1\.0\.0\.incomplete holds an unfinished recording"):
    write(Numbers(), tmp_path)


def test_nothing_to_write(tmp_path):
  with pytest.raises(ValueError, match="numbers: has no episodes"):
    write(Numbers(0), tmp_path)
  with pytest.raises(ValueError, match=r"numbers: all 2 episodes are damaged; the first: numbers\.bin, record 0"):
    write(Numbers(2, (0, 1)), tmp_path, skip_damaged=True)
  with pytest.raises(ValueError, match="numbers: metadata is not JSON"):
    write(Numbers(metadata={"x": np.float32(1)}), tmp_path)


def test_other_errors_are_not_skipped(tmp_path):
  class Gone(Numbers):
    def __getitem__(self, index):
      raise FileNotFoundError("numbers.bin is missing")

  with pytest.raises(FileNotFoundError):
    write(Gone(), tmp_path, skip_damaged=True)


def test_a_dataset_that_is_there_stays(tmp_path):
  path = write(Numbers(), tmp_path)
  before = contents(path)
  with pytest.raises(FileExistsError, match=r"numbers/1\.0\.0 is already there"):
    write(Numbers(3), tmp_path)
  assert contents(path) == before


def test_the_default_root_and_pictures(tmp_path, monkeypatch):
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path))

  class Pictures(Numbers):
    def __getitem__(self, index):
      steps = super().__getitem__(index).steps
      return Converted(steps | {"camera": np.zeros((len(steps["reward"]), 8, 8, 3), np.uint8)})

  path = write(Pictures(2), name="pictures", version="2.0.1", image_format="jpeg")
  assert path == tmp_path / "pictures" / "2.0.1"
  assert read_info(path).features["steps"].feature["camera"].encoding == "jpeg"

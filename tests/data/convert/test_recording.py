import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

import ilx.data
from ilx.data.convert import npz
from ilx.types import Continuous


@pytest.fixture
def path(tmp_path):
  """Two episodes of 3 and 2 steps, the first a time limit; actions leave [-1, 1]."""
  observation = np.arange(10.0).reshape(5, 2)
  np.savez(
    tmp_path / "My Demo.npz",
    observations=observation,
    actions=np.array([[0.5], [2.0], [-1.0], [0.25], [-4.0]]),
    rewards=np.array([1.0, 2, 3, 4, 5]),
    dones=np.array([0, 0, 1, 0, 1], bool),
    episode_lengths=np.array([3, 2]),
    meta=np.array(json.dumps({
      "env_id": "Toy-v0", "env_kwargs": {"seed": 9, "size": 3}, "note": "n", "source": {"repo": "r", "license": "MIT"},
    })),
  )  # fmt: skip
  return tmp_path / "My Demo.npz"


OPTIONS = {"preset": "ilpyt", "max_episode_steps": 3, "action": Continuous(np.array([-1.0]), np.array([1.0]))}


def test_what_is_written_is_what_was_recorded(path, tmp_path):
  where = npz.convert(path, tmp_path / "data", **OPTIONS, metadata={"expert_return": 7.0})
  assert where == tmp_path / "data" / "my-demo" / "1.0.0"
  episodes = ilx.data.load(where)
  assert np.asarray(episodes.starts).tolist() == [0, 3, 6]
  # the cut episode lost its last action, the terminal one repeats its last observation
  assert episodes.observation.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [8, 9]]
  assert episodes.action[[0, 1, 3, 4], 0].tolist() == [0.5, 1.0, 0.25, -1.0]
  assert episodes.reward[[0, 1, 3, 4]].tolist() == [1, 2, 4, 5]
  assert episodes.is_terminal.tolist() == [False] * 5 + [True]
  assert ilx.data.returns(episodes).tolist() == [3.0, 9.0]
  assert not list((tmp_path / "data").glob(".convert-*"))


def test_metadata(path, tmp_path):
  where = npz.convert(path, tmp_path, name="toy", version="2.0.0", **OPTIONS, metadata={"expert_return": 7.0})
  metadata = ilx.data.read_info(where).metadata
  recording = metadata.pop("recording")
  assert metadata == {
    "env_id": "Toy-v0", "env_kwargs": {"size": 3}, "note": "n", "source": {"repo": "r", "license": "MIT"},
    "licence": "MIT", "action_low": [-1.0], "action_high": [1.0], "data_return": 7.5, "data_return_std": 1.5,
    "expert_return": 7.0,
  }  # fmt: skip
  counts = {"episodes": 2, "steps": 5, "terminals": 1, "time_limits": 1, "dropped": 1, "out_of_bounds": 2}
  assert counts.items() <= recording.items()
  assert (recording["file"], recording["max_episode_steps"], recording["clipped"]) == ("My Demo.npz", 3, True)
  assert len(recording["sha256"]) == 64
  assert recording["layout"]["terminal"] == "dones"


def test_tfds_reads_it(path, tmp_path):
  where = npz.convert(path, tmp_path, **OPTIONS)
  source = tfds.builder_from_directory(where).as_data_source(split="train")
  second = list(source[1]["steps"])
  assert len(source) == 2
  assert [step["reward"] for step in second[:2]] == [4.0, 5.0]
  assert [bool(step["is_terminal"]) for step in second] == [False, False, True]


def test_an_earlier_dataset_stays(path, tmp_path):
  where = npz.convert(path, tmp_path, **OPTIONS)
  before = {file: file.read_bytes() for file in where.iterdir()}
  with pytest.raises(FileExistsError, match=r"my-demo/1\.0\.0 is already there"):
    npz.convert(path, tmp_path, **OPTIONS | {"clip": False})
  assert {file: file.read_bytes() for file in where.iterdir()} == before


def test_nothing_is_left_where_writing_fails(path, tmp_path, monkeypatch):
  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(ilx.data.Recorder, "add", full)
  with pytest.raises(OSError, match="No space left"):
    npz.convert(path, tmp_path / "data", **OPTIONS)
  assert not list((tmp_path / "data").iterdir())


def test_no_transition_is_an_error(tmp_path):
  one = {"observations": np.zeros((1, 2)), "actions": np.zeros((1, 1)), "rewards": np.zeros(1)}
  np.savez(tmp_path / "a.npz", **one, episode_lengths=np.array([1]))
  with pytest.raises(ValueError, match="no episode was added"):
    npz.convert(tmp_path / "a.npz", tmp_path, preset="dapg")


def test_names(tmp_path):
  assert npz.default_name("x/cs285_Hopper-v4_expert.npz") == "cs285_hopper-v4_expert"
  assert npz.default_name("12_É a.npz") == "a"
  with pytest.raises(ValueError, match="give a name"):
    npz.default_name("123.npz")

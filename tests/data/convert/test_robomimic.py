import json

import h5py
import numpy as np
import pytest
from converting import assert_equal, convert, learns, steps_of

import ilx.data
from ilx.data.convert import robomimic

LENGTHS = (5, 4, 6)
ROBOSUITE = {"env_name": "Lift", "type": 1, "env_version": "1.5", "env_kwargs": {"reward_shaping": False}}


def demonstrations(lengths=LENGTHS, seed=0, picture=False):
  """As (observations {key: [T+1, ...]}, action, reward, dones, states), solved at the last step but one."""
  rng = np.random.default_rng(seed)
  found = []
  for length in lengths:
    observation = {"object": rng.normal(size=(length + 1, 10)), "robot0_eef_pos": rng.normal(size=(length + 1, 3))}
    if picture:
      observation["agentview_image"] = rng.integers(0, 256, (length + 1, 40, 48, 3), np.uint8)
    solved = (np.arange(length) >= length - 2).astype(np.float64)
    found.append(
      (observation, rng.uniform(-1, 1, (length, 7)), solved, solved.astype(int), rng.normal(size=(length, 20)))
    )
  return found


def write_file(path, demos, *, next_obs=True, env=ROBOSUITE, masks=None, meta=None, names=None):
  """The layout that robomimic's dataset_states_to_obs.py writes."""
  path.unlink(missing_ok=True)  # HDF5 writes no file that a source still has open
  with h5py.File(path, "w") as file:
    data = file.create_group("data")
    for index, (observation, action, reward, dones, states) in enumerate(demos):
      group = data.create_group(names[index] if names else f"demo_{index}")
      for name, value in (("actions", action), ("rewards", reward), ("dones", dones), ("states", states)):
        group.create_dataset(name, data=value)
      for key, value in observation.items():
        group.create_dataset(f"obs/{key}", data=value[:-1], compression="gzip")
        if next_obs:
          group.create_dataset(f"next_obs/{key}", data=value[1:], compression="gzip")
      group.attrs["num_samples"] = len(action)
      group.attrs["model_file"] = "<mujoco/>"
      if meta:
        group.attrs["ep_meta"] = json.dumps(meta[index])
    data.attrs["total"] = sum(len(action) for _, action, *_ in demos)
    data.attrs["env_args"] = json.dumps(env, indent=4)
    for key, listed in (masks or {}).items():
      file[f"mask/{key}"] = np.array(listed, dtype="S")
  return path


@pytest.fixture
def path(tmp_path):
  return tmp_path / "low_dim.hdf5"


def check(steps, observation, action, reward):
  assert_equal(steps["observation"], {key: value.astype(np.float32) for key, value in observation.items()})
  np.testing.assert_array_equal(steps["action"][:-1], action.astype(np.float32))
  np.testing.assert_array_equal(steps["reward"][:-1], reward.astype(np.float32))


def test_round_trip(path, tmp_path):
  demos = demonstrations((30, 20, 40))
  source = robomimic.open(write_file(path, demos), extras=("states",))
  for index, (observation, action, reward, _, states) in enumerate(demos):
    check(source[index].steps, observation, action, reward)
    assert source[index].metadata == {"demo": f"demo_{index}", "success": True}
    np.testing.assert_array_equal(source[index].steps["states"][:-1], states.astype(np.float32))
  loaded, info = convert(source, tmp_path / "out")
  rows = steps_of(loaded, 1)
  check(
    {
      "observation": {k: v[rows] for k, v in loaded.observation.items()},
      "action": loaded.action[rows],
      "reward": loaded.reward[rows],
    },
    *demos[1][:3],
  )
  assert info.metadata["env_args"] == ROBOSUITE and info.metadata["action_low"] == [-1.0] * 7
  assert "model_file" not in json.dumps(info.metadata)
  assert learns(loaded, info.metadata)


def test_pictures(path, tmp_path):
  demos = demonstrations(picture=True)
  loaded, _ = convert(robomimic.open(write_file(path, demos)), tmp_path / "out")
  pictures = np.concatenate([observation["agentview_image"] for observation, *_ in demos])
  np.testing.assert_array_equal(np.asarray(loaded.observation["agentview_image"]), pictures)
  jpeg = robomimic.open(path, images="jpeg")[0].steps["observation"]["agentview_image"]
  assert jpeg.encoded(0).startswith(b"\xff\xd8") and jpeg.shape == (6, 40, 48, 3)
  raw = robomimic.open(path, images="raw", observations="agentview_image")[2].steps["observation"]
  assert list(raw) == ["agentview_image"]
  np.testing.assert_array_equal(raw["agentview_image"], demos[2][0]["agentview_image"])


def test_what_ends_the_task(path):
  demos = demonstrations()
  demos[1] = (*demos[1][:2], np.zeros(4), np.zeros(4, int), demos[1][4])
  write_file(path, demos)
  steps = robomimic.open(path)[0].steps
  assert steps["discount"][:-1].tolist() == [1, 1, 1, 0, 0] and steps["is_terminal"].tolist() == [False] * 5 + [True]
  source = robomimic.open(path)
  assert not source[1].steps["is_terminal"].any() and not source[1].metadata["success"]
  demos[0] = (*demos[0][:3], np.ones(5, int), demos[0][4])
  write_file(path, demos)
  assert robomimic.open(path, terminal="success")[0].steps["discount"][:-1].tolist() == [1, 1, 1, 0, 0]
  never = robomimic.open(path, terminal="never")[0].steps
  assert never["discount"][:-1].all() and not never["is_terminal"].any()
  with pytest.raises(ValueError, match="terminal is 'always'"):
    robomimic.open(path, terminal="always")


def test_success_is_told_by_sparse_rewards_alone(path):
  shaped = ROBOSUITE | {"env_kwargs": {"reward_shaping": True}}
  assert robomimic.open(write_file(path, demonstrations(), env=shaped))[0].metadata == {"demo": "demo_0"}


def test_without_next_observations(path):
  demos = demonstrations()
  demos[1] = (*demos[1][:3], np.zeros(4, int), demos[1][4])
  source = robomimic.open(write_file(path, demos, next_obs=False), extras=("states",))
  repeated = {key: np.concatenate([value[:-1], value[-2:-1]]) for key, value in demos[0][0].items()}
  check(source[0].steps, repeated, *demos[0][1:3])
  observation, action, reward, _, states = demos[1]
  check(source[1].steps, {key: value[:-1] for key, value in observation.items()}, action[:-1], reward[:-1])
  np.testing.assert_array_equal(source[1].steps["states"], states.astype(np.float32))


def test_masks(path, tmp_path):
  names = [f"demo_{number}" for number in (0, 10, 9, 2)]
  masks = {"train": ["demo_0", "demo_10"], "valid": ["demo_2"], "better": ["demo_9", "demo_2"]}
  write_file(path, demonstrations((3, 4, 5, 6)), masks=masks, names=names)
  source = robomimic.open(path)
  found = [(source[i].metadata["demo"], source[i].split, source[i].metadata["mask_better"]) for i in range(4)]
  assert found == [
    ("demo_0", "train", False), ("demo_2", "valid", True), ("demo_9", "rest", True), ("demo_10", "train", False),
  ]  # fmt: skip
  _, info = convert(source, tmp_path / "out")
  assert {name: split.num_episodes for name, split in info.splits.items()} == {"train": 2, "valid": 1, "rest": 1}
  assert len(ilx.data.load(info.directory, "rest").starts) == 2
  with pytest.raises(ValueError, match=r"'demo_2' is in both masks 'valid' and 'better'"):
    robomimic.open(path, splits=("train", "valid", "better"))
  with pytest.raises(ValueError, match=r"no mask 'worse'; there: better"):
    robomimic.open(path, splits=("train", "valid", "worse"))
  write_file(path, demonstrations(), masks={"train": ["demo_7"]})
  with pytest.raises(ValueError, match="'mask/train' lists 'demo_7'"):
    robomimic.open(path)


def test_instructions(path):
  meta = [{"lang": "lift the cube"}, {}, {"lang": "drop it"}]
  source = robomimic.open(write_file(path, demonstrations(), meta=meta))
  assert [set(source[i].steps["language_instruction"]) for i in range(3)] == [{"lift the cube"}, {""}, {"drop it"}]
  assert len(source[0].steps["language_instruction"]) == 6


def test_the_first_demonstration_may_lack_an_instruction(path):
  meta = [{"seed": 1}, {"lang": "drop it"}, {"lang": None}]
  source = robomimic.open(write_file(path, demonstrations(), meta=meta))
  assert [set(source[i].steps["language_instruction"]) for i in range(3)] == [{""}, {"drop it"}, {""}]
  source = robomimic.open(write_file(path, demonstrations(), meta=[{"seed": 1}, {}, {"lang": None}]))
  assert "language_instruction" not in source[1].steps


def test_a_damaged_description_stops_its_demonstration_alone(path):
  write_file(path, demonstrations(), meta=[{"lang": "lift"}, {}, {}])
  with h5py.File(path, "a") as file:
    file["data/demo_0"].attrs["ep_meta"] = "{"
    file["data/demo_1"].attrs["ep_meta"] = '{"lang": "drop it"}'
  source = robomimic.open(path)
  assert set(source[1].steps["language_instruction"]) == {"drop it"}
  with pytest.raises(ValueError, match=r"'data/demo_0: ep_meta' is not JSON"):
    source[0]


def test_other_actions(path):
  demos = demonstrations()
  write_file(path, demos)
  with h5py.File(path, "a") as file:
    for index, (_, action, *_) in enumerate(demos):
      file[f"data/demo_{index}/actions_abs"] = action * 5
      file[f"data/demo_{index}/actions"][0] = 2.0
      file[f"data/demo_{index}/action_dict/abs_pos"] = action[:, :3]
  assert robomimic.open(path)[0].steps["action"].max() == 1
  assert robomimic.open(path, clip=False)[0].steps["action"].max() == 2
  source = robomimic.open(path, actions="actions_abs", extras=("action_dict/abs_pos",))
  np.testing.assert_array_equal(source[0].steps["action"][:-1], (demos[0][1] * 5).astype(np.float32))
  assert "action_low" not in source.metadata and source[0].steps["action_dict_abs_pos"].shape == (6, 3)


def test_d4rl_made_into_robomimic(path):
  env = {"env_name": "halfcheetah-medium-v2", "type": 2, "env_kwargs": {}}
  source = robomimic.open(write_file(path, demonstrations(), env=env))
  assert source.metadata["env_id"] == "HalfCheetah-v4" and "success" not in source[0].metadata


def remove(name):
  return lambda file: file.__delitem__(name)


def replace(name, value):
  def change(file):
    del file[name]
    file[name] = value

  return change


def say(name, key, value):
  return lambda file: file[name].attrs.__setitem__(key, value)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (remove("data"), "no group 'data'"),
    (remove("data/demo_1/obs"), "has no 'data/demo_1/obs/object'"),
    (remove("data/demo_0/obs"), "no group 'data/demo_0/obs'; .*dataset_states_to_obs.py"),
    (remove("data/demo_1/rewards"), "has no 'data/demo_1/rewards'"),
    (remove("data/demo_1/dones"), "has no 'data/demo_1/dones'"),
    (replace("data/demo_1/obs/object", np.zeros((3, 10))), "dataset 'data/demo_1/obs/object' is float64"),
    (replace("data/demo_1/next_obs/object", np.zeros((4, 9))), "'data/demo_1/next_obs/object' has the shape"),
    (replace("data/demo_1/rewards", np.full(4, np.nan)), "'data/demo_1/rewards' is NaN"),
    (replace("data/demo_1/dones", np.full(4, 3)), "'data/demo_1/dones' must hold flags"),
    (replace("data/demo_1/actions", np.zeros((4, 6))), r"'data/demo_1/actions' has the shape \[4, 6\]"),
    (say("data/demo_1", "num_samples", 9), "'data/demo_1' has 4 actions, but its num_samples is 9"),
    (say("data", "env_args", "{"), "attribute 'env_args' is not JSON"),
    (lambda file: file.create_group("data/notes"), "'data/notes' is no demonstration"),
  ],
)
def test_wrong_files(path, change, message):
  write_file(path, demonstrations())
  with h5py.File(path, "a") as file:
    change(file)
  with pytest.raises(ValueError, match=rf"low_dim.hdf5: .*{message}|low_dim.hdf5: {message}"):
    robomimic.open(path)[1]

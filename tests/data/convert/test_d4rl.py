import h5py
import numpy as np
import pytest
from converting import convert, learns, steps_of

from ilx.data.convert import d4rl
from ilx.data.convert.d4rl_tasks import task

LENGTHS = (5, 3, 7)
TERMINAL = (True, False, False)


def played(seed=0, lengths=LENGTHS, terminal=TERMINAL, dtype=np.float32):
  """Episodes as (observation [T+1, 3], action [T, 2], reward [T], terminal)."""
  rng = np.random.default_rng(seed)
  return [
    (rng.normal(size=(n + 1, 3)).astype(dtype), rng.uniform(-1, 1, (n, 2)).astype(dtype), rng.normal(size=n), end)
    for n, end in zip(lengths, terminal, strict=True)
  ]


def arrays(episodes, timeouts=True, next_observations=True):
  """The layout of D4RL's files."""
  found = {
    "observations": np.concatenate([observation[:-1] for observation, *_ in episodes]),
    "actions": np.concatenate([action for _, action, *_ in episodes]),
    "rewards": np.concatenate([reward for *_, reward, _ in episodes]).astype(np.float32),
    "terminals": np.concatenate([np.arange(len(a)) == len(a) - (1 if end else 0) for _, a, _, end in episodes]),
  }
  if timeouts:
    found["timeouts"] = np.concatenate([np.arange(len(a)) == len(a) - (0 if end else 1) for _, a, _, end in episodes])
  if next_observations:
    found["next_observations"] = np.concatenate([observation[1:] for observation, *_ in episodes])
  return found


def write_file(path, found):
  path.unlink(missing_ok=True)  # HDF5 writes no file that a source still has open
  with h5py.File(path, "w") as file:
    for name, value in found.items():
      file.create_dataset(name, data=value, compression="gzip" if np.ndim(value) else None)
  return path


@pytest.fixture
def path(tmp_path):
  return tmp_path / "halfcheetah_medium-v2.hdf5"


def check(source, episodes, dropped=()):
  """Compares every episode; those at ``dropped`` have lost their last action."""
  assert len(source) == len(episodes)
  for index, (observation, action, reward, terminal) in enumerate(episodes):
    steps = source[index].steps
    length = len(action) - (index in dropped)
    np.testing.assert_array_equal(steps["observation"][:length], observation[:length].astype(np.float32))
    np.testing.assert_array_equal(steps["action"][:-1], action[:length].astype(np.float32))
    np.testing.assert_array_equal(steps["reward"][:-1], reward[:length].astype(np.float32))
    assert len(steps["reward"]) == length + 1 and steps["is_terminal"].tolist() == [False] * length + [terminal]
    assert steps["discount"][:-1].tolist() == [1.0] * (length - 1) + [0.0 if terminal else 1.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reads_what_was_played(path, dtype):
  episodes = played(dtype=dtype)
  source = d4rl.open(write_file(path, arrays(episodes)))
  check(source, episodes)
  for index, (observation, *_) in enumerate(episodes):
    np.testing.assert_array_equal(source[index].steps["observation"], observation.astype(np.float32))


def test_what_followed_the_last_action(path):
  episodes = played()
  source = d4rl.open(write_file(path, arrays(episodes, next_observations=False)))
  check(source, episodes, dropped=(1, 2))
  np.testing.assert_array_equal(source[0].steps["observation"][-1], episodes[0][0][-2])
  np.testing.assert_array_equal(source[1].steps["observation"], episodes[1][0][:-1])


def test_cuts_without_timeouts(path):
  episodes = played()
  found = arrays(episodes, timeouts=False)
  check(d4rl.open(write_file(path, found)), episodes)
  assert d4rl.open(path).metadata["recording"]["cuts"] == "next_observations"
  # a time limit alone: 5 rows to the terminal, then rows of 4
  lengths = [
    len(d4rl.open(path, cuts="length", max_episode_steps=4, next_observations=False)[i].steps["reward"])
    for i in range(4)
  ]
  # (4 + terminal 1), then 4 + 4 + 2 of the other ten
  assert lengths == [4, 2, 4, 4]
  assert len(d4rl.open(path, cuts="terminals", next_observations=False)) == 2
  del found["next_observations"]
  source = d4rl.open(write_file(path, found))
  assert source.metadata["recording"]["cuts"] == "length"
  assert source.metadata["recording"]["max_episode_steps"] == 1000
  unknown = write_file(path.with_name("mine.hdf5"), found)
  with pytest.raises(ValueError, match=r"mine.hdf5: has neither 'timeouts' nor 'next_observations'.*max_episode_steps"):
    d4rl.open(unknown)
  with pytest.raises(ValueError, match="cuts='timeouts' needs the dataset 'timeouts'"):
    d4rl.open(unknown, cuts="timeouts")
  assert len(d4rl.open(write_file(path.with_name("kitchen-mixed-v0.hdf5"), found))) == 2


def test_a_reset_that_no_flag_tells_of(path):
  episodes = played()
  found = arrays(episodes)
  found["timeouts"][:] = False
  with pytest.raises(ValueError, match=r"'next_observations', episode 1, is not the next row .* at step 2"):
    d4rl.open(write_file(path, found))[1]
  check(d4rl.open(path, cuts="next_observations"), episodes)


def test_terminals_after_which_the_episode_goes_on(path):
  found = arrays(played(lengths=(6, 4), terminal=(False, False)))
  found["terminals"][[2, 3]] = True
  write_file(path, found)
  with pytest.raises(ValueError, match=r"'terminals', episode 0, is true .* terminals='goals'"):
    d4rl.open(path)[0]
  for name in ("observations", "next_observations"):
    found[name] *= 0.1  # positions that no step leaves by more than 1
  source = d4rl.open(write_file(path, found), terminals="goals")
  assert [source[index].steps["discount"].tolist() for index in range(2)] == [[1, 1, 0, 0, 1, 1, 0], [1, 1, 1, 1, 0]]
  assert not source[0].steps["is_terminal"].any()


def test_episodes_of_one_action(path):
  episodes = played(lengths=(1, 1, 2), terminal=(True, False, True))
  check(d4rl.open(write_file(path, arrays(episodes))), episodes)
  # a cut one without its final observation has no transition
  source = d4rl.open(write_file(path, arrays(episodes, next_observations=False)))
  check(source, [episodes[0], episodes[2]])


def antmaze(path, jump_at=None):
  rng = np.random.default_rng(0)
  position = np.cumsum(rng.uniform(-0.1, 0.1, (20, 2)), axis=0)
  position[10:] += 8 if jump_at is None else 0
  if jump_at is not None:
    position[jump_at:] += 8
  rows = np.arange(20)
  return write_file(
    path,
    {
      "observations": np.concatenate([position, rng.normal(size=(20, 3))], axis=1).astype(np.float32),
      "actions": rng.uniform(-1, 1, (20, 8)).astype(np.float32),
      "rewards": np.isin(rows, (6, 7)).astype(np.float32),
      "terminals": np.isin(rows, (6, 7)).astype(np.float32),
      "timeouts": np.isin(rows, (9, 19)),
      "infos/goal": rng.normal(size=(20, 2)),
      "infos/qpos": np.concatenate([position, rng.normal(size=(20, 13))], axis=1),
    },
  )


def test_antmaze(tmp_path):
  source = d4rl.open(antmaze(tmp_path / "Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5"))
  assert [len(source[i].steps["reward"]) for i in range(len(source))] == [10, 10]
  steps = source[0].steps
  assert np.flatnonzero(steps["discount"][:-1] == 0).tolist() == [6, 7]
  assert not steps["is_terminal"].any()
  with h5py.File(next(tmp_path.iterdir())) as file:
    np.testing.assert_array_equal(steps["qpos"], file["infos/qpos"][:10].astype(np.float32))
    np.testing.assert_array_equal(source[1].steps["goal"], file["infos/goal"][10:].astype(np.float32))
  # version 0: the ant is elsewhere three rows before the flag
  source = d4rl.open(antmaze(tmp_path / "antmaze-umaze-v0.hdf5", jump_at=7))
  assert [len(source[i].steps["reward"]) for i in range(len(source))] == [8, 3, 10]
  assert source[0].steps["is_terminal"][-1] and source[0].steps["reward"][-2] == 1


def test_metadata_and_round_trip(path, tmp_path):
  episodes = played(lengths=(30, 20, 40))
  found = arrays(episodes)
  found |= {"infos/qpos": np.arange(90.0)[:, None], "infos/qvel/left": np.arange(90), "infos/version": np.int64(3)}
  found |= {"metadata/algorithm": np.bytes_("SAC"), "metadata/iteration": np.int32(7), "metadata/policy/fc": np.ones(3)}
  found["actions"][3, 0] = episodes[0][1][3, 0] = 1.5
  source = d4rl.open(write_file(path, found))
  loaded, info = convert(source, tmp_path / "out")
  for index, (observation, action, reward, _) in enumerate(episodes):
    rows = steps_of(loaded, index)
    np.testing.assert_array_equal(loaded.observation[rows], observation)
    np.testing.assert_array_equal(loaded.action[rows][:-1], np.clip(action, -1, 1))
    np.testing.assert_array_equal(loaded.reward[rows][:-1], reward.astype(np.float32))
  assert source[1].steps["qpos"][:, 0].tolist() == [*range(30, 50), 49]
  assert source[0].steps["qvel_left"].dtype == np.int32 and "version" not in source[0].steps
  about = info.metadata
  assert about["env_id"] == "HalfCheetah-v4" and about["random_return"] == -280.178953
  assert about["expert_return"] == 12135.0 and about["d4rl"] == {"algorithm": "SAC", "iteration": 7}
  assert about["action_low"] == [-1.0, -1.0] and about["recording"]["clipped"] and info.name == "halfcheetah_medium-v2"
  assert loaded.action.max() == 1.0
  unclipped = d4rl.open(path, clip=False, infos=("qpos",))
  assert unclipped[0].steps["action"][3, 0] == 1.5 and "qvel_left" not in unclipped[0].steps
  assert learns(loaded, about)


@pytest.mark.parametrize("name", ["HalfCheetah-v4_expert", "Hopper-v4_replay"])
def test_real_demonstrations(shared_data, tmp_path, name):
  recorded = dict(np.load(shared_data / "offline" / f"{name}.npz", allow_pickle=False))
  stops = np.cumsum(recorded["episode_lengths"])
  following = np.roll(recorded["observations"], -1, axis=0)
  following[stops - 1] = recorded["final_observations"]
  found = {key: recorded[key] for key in ("observations", "actions", "rewards", "terminals", "timeouts")}
  path = write_file(tmp_path / "hopper_medium-v2.hdf5", found | {"next_observations": following})
  source = d4rl.open(path)
  assert len(source) == len(stops)
  loaded, info = convert(source, tmp_path / "out")
  low, high = np.float32(info.metadata["action_low"]), np.float32(info.metadata["action_high"])
  for index, (start, stop) in enumerate(zip(np.append(0, stops[:-1]), stops, strict=True)):
    rows = steps_of(loaded, index)
    np.testing.assert_array_equal(
      loaded.observation[rows][:-1], recorded["observations"][start:stop].astype(np.float32)
    )
    np.testing.assert_array_equal(
      loaded.observation[rows][-1], recorded["final_observations"][index].astype(np.float32)
    )
    expected = np.clip(recorded["actions"][start:stop].astype(np.float32), low, high)
    np.testing.assert_array_equal(loaded.action[rows][:-1], expected)
    np.testing.assert_array_equal(loaded.reward[rows][:-1], recorded["rewards"][start:stop].astype(np.float32))
    assert loaded.is_terminal[rows][-1] == recorded["terminals"][stop - 1]
  assert info.metadata["data_return"] == pytest.approx(recorded["episode_returns"].mean(), rel=1e-4)


def test_human_demonstrations(shared_data, tmp_path):
  # the source of door-human-v0, laid out as D4RL laid it out: no episode is terminal, nothing follows the last action
  recorded = dict(np.load(shared_data / "demos" / "dapg_AdroitHandDoor_human.npz", allow_pickle=False))
  stops = np.cumsum(recorded["episode_lengths"])
  found = {key: recorded[key] for key in ("observations", "actions", "rewards")}
  found["terminals"], found["timeouts"] = np.zeros(stops[-1], bool), np.isin(np.arange(stops[-1]), stops - 1)
  source = d4rl.open(write_file(tmp_path / "door-v0_demos_clipped.hdf5", found))
  loaded, info = convert(source, tmp_path / "out")
  assert info.metadata["env_id"] == "AdroitHandDoor-v1"
  for index, (start, stop) in enumerate(zip(np.append(0, stops[:-1]), stops, strict=True)):
    rows = steps_of(loaded, index)
    np.testing.assert_array_equal(loaded.observation[rows], recorded["observations"][start:stop].astype(np.float32))
    expected = np.clip(recorded["actions"][start : stop - 1], -1, 1).astype(np.float32)
    np.testing.assert_array_equal(loaded.action[rows][:-1], expected)
  assert len(source) == 25 and not loaded.is_terminal.any()


@pytest.mark.parametrize(
  ("name", "env_id", "expert"),
  [
    ("halfcheetah-medium-v2", "HalfCheetah-v4", 12135.0),
    ("hopper_mixed", "Hopper-v4", 3234.3),
    ("walker_mixed", "Walker2d-v4", 4592.3),
    ("ant_medium_replay-v1", None, 3879.7),
    ("door-v0_demos_clipped", "AdroitHandDoor-v1", 2880.5693087298737),
    ("pen-demos-v0-bc-combined", "AdroitHandPen-v1", 3076.8331017826877),
    ("maze2d-umaze-dense-v1", None, 193.66285642381482),
    ("maze2d-large-sparse-v1", None, 273.99),
    ("mini_kitchen_microwave_kettle_light_slider-v0", None, 4.0),
    ("antmaze-large-play-v2", None, 1.0),
  ],
)
def test_names(name, env_id, expert):
  known = task(name)
  assert known.env_id == env_id and known.expert_return == expert


@pytest.mark.parametrize("name", ["bullet-hopper-medium-v0", "hopper", "my-halfcheetah-medium-v2", "carla-lane-v0"])
def test_unknown_names(name):
  assert task(name) is None


def test_shapes_by_column(path):
  found = arrays(played())
  found["rewards"], found["terminals"] = found["rewards"][:, None], found["terminals"][:, None].astype(np.float32)
  check(d4rl.open(write_file(path, found)), played())


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda f: f.pop("rewards"), "no dataset 'rewards'"),
    (lambda f: f.update(actions=f["actions"][:-1]), r"dataset 'actions' has the shape \(14, 2\), but .* 15 rows"),
    (lambda f: f.update(terminals=f["terminals"][:-1]), "dataset 'terminals' is bool"),
    (lambda f: f.update(terminals=f["terminals"] * 2.5), "dataset 'terminals' must hold flags"),
    (lambda f: f.update(rewards=np.full(15, np.nan)), "dataset 'rewards', episode 0, is NaN or infinite"),
    (lambda f: f.update(actions=np.full((15, 2), 1e300)), "dataset 'actions', episode 0, is NaN or infinite"),
    (lambda f: f.update(next_observations=f["observations"][:, :2]), "dataset 'next_observations' is"),
  ],
)
def test_wrong_arrays(path, change, message):
  found = arrays(played())
  change(found)
  with pytest.raises(ValueError, match=rf"halfcheetah_medium-v2.hdf5: {message}"):
    d4rl.open(write_file(path, found))[0]


def test_wrong_options(path):
  write_file(path, arrays(played()))
  with pytest.raises(ValueError, match="cuts is 'flags'"):
    d4rl.open(path, cuts="flags")
  with pytest.raises(ValueError, match="no dataset 'infos/qpos'; there: none"):
    d4rl.open(path, infos=("qpos",))
  with pytest.raises(FileNotFoundError):
    d4rl.open(path.with_name("absent.hdf5"))

import json
import pathlib
import shutil

import gymnasium
import h5py
import minari as library
import numpy as np
import pytest
from converting import convert, learns, steps_of
from fixtures import make_minari

from ilx.data.convert import minari
from ilx.data.convert.minari_spaces import parse

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "minari"
pytestmark = pytest.mark.filterwarnings("ignore")  # the library warns of authors and code that are not given


@pytest.fixture
def datasets(tmp_path, monkeypatch):
  folder = tmp_path / "datasets"
  monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
  return folder


@pytest.fixture
def folder(tmp_path):
  """A copy of the fixture, to be changed."""
  return pathlib.Path(shutil.copytree(FIXTURE, tmp_path / "copy"))


def check_made_up(source):
  """That a source has what ``make_minari`` put in; pictures may have lost a little."""
  assert len(source) == 2
  for index in range(2):
    observation, action, reward, terminated = make_minari.episode(index)
    steps = source[index].steps
    found = steps["observation"]
    assert sorted(found) == ["both", "camera", "grid", "mission"] and sorted(found["both"]) == ["0", "1"]
    np.testing.assert_array_equal(found["both"]["0"], observation["both"][0].astype(np.float32))
    np.testing.assert_array_equal(found["both"]["1"], observation["both"][1])
    np.testing.assert_array_equal(found["grid"], observation["grid"])
    assert list(found["mission"]) == observation["mission"]
    assert found["camera"].encoded(0).startswith(b"\xff\xd8") and found["camera"].shape[1:] == (32, 36, 1)
    assert np.abs(np.asarray(found["camera"])[..., 0].astype(int) - observation["camera"]).mean() < 3
    np.testing.assert_array_equal(steps["action"][:-1], action - 3)
    np.testing.assert_array_equal(steps["reward"][:-1], reward.astype(np.float32))
    assert steps["is_terminal"].tolist() == [False] * len(action) + [bool(terminated[-1])]
    assert source[index].metadata["seed"] == ("9223372036854775815" if index == 0 else "")
  assert source.metadata["num_actions"] == 3


def test_fixture_written_by_minari(tmp_path):
  source = minari.open(FIXTURE / "main_data.hdf5")
  check_made_up(source)
  assert source.name == "test-hdf5-v0" and source.metadata["minari"]["author"] == ["nobody"]
  loaded, info = convert(source, tmp_path)
  assert sorted(loaded.observation) == ["both", "camera", "grid"]  # text has no place in arrays
  assert sorted(info.features["steps"].feature["observation"]) == ["both", "camera", "grid", "mission"]


@pytest.mark.parametrize("storage", make_minari.STORAGES)
def test_storages(datasets, tmp_path, storage):
  source = minari.open(make_minari.write(datasets, storage), infos=("speed", "arm/angle"))
  check_made_up(source)
  steps = source[1].steps
  assert steps["infos"]["speed"].tolist() == [0, 1, 2, 3] and steps["infos"]["arm"]["angle"].tolist() == [[1, 1]] * 4
  loaded, _ = convert(source, tmp_path / "out")
  assert loaded.starts.tolist() == [0, 5, 9]


def collect(name, episodes, dataset, storage="hdf5", **kwargs):
  """Random play, collected by Minari."""
  collector = library.DataCollector(gymnasium.make(name, **kwargs), data_format=storage)
  collector.action_space.seed(0)
  for seed in range(episodes):
    collector.reset(seed=seed)
    done = False
    while not done:
      _, _, terminated, truncated, _ = collector.step(collector.action_space.sample())
      done = terminated or truncated
  return collector.create_dataset(dataset, ref_min_score=1.0, ref_max_score=9.0, num_episodes_average_score=1)


def check_against_library(loaded, source, dataset, convert_action=lambda x: x):
  """Every episode, against Minari's own reading."""
  assert len(source) == dataset.total_episodes
  for index, episode in enumerate(dataset.iterate_episodes()):
    rows = steps_of(loaded, index)
    np.testing.assert_array_equal(loaded.observation[rows], episode.observations.astype(np.float32))
    np.testing.assert_array_equal(loaded.action[rows][:-1], convert_action(episode.actions))
    np.testing.assert_array_equal(loaded.reward[rows][:-1], episode.rewards.astype(np.float32))
    assert loaded.is_terminal[rows][-1] == episode.terminations[-1]
    assert source[index].metadata["seed"] == str(index)
    assert source[index].metadata["rewards_sum"] == pytest.approx(episode.rewards.sum())


@pytest.mark.parametrize("storage", make_minari.STORAGES)
def test_cartpole_by_the_library(datasets, tmp_path, storage):
  dataset = collect("CartPole-v1", 20, "cartpole/random-v0", storage)
  source = minari.open(datasets / "cartpole" / "random-v0")
  loaded, info = convert(source, tmp_path / "out")
  check_against_library(loaded, source, dataset)
  about = info.metadata
  assert about["env_id"] == "CartPole-v1" and about["env_kwargs"] == {"max_episode_steps": 500}
  assert (about["num_actions"], about["random_return"], about["expert_return"]) == (2, 1.0, 9.0)
  assert about["env_spec"]["entry_point"] and info.name == "cartpole-random-v0"
  assert storage != "hdf5" or learns(loaded, about)


def test_pendulum_by_the_library(datasets, tmp_path):
  dataset = collect("Pendulum-v1", 2, "pendulum/random-v0")
  source = minari.open(datasets / "pendulum" / "random-v0")
  loaded, info = convert(source, tmp_path / "out")
  check_against_library(loaded, source, dataset, lambda action: np.clip(action, -2, 2))
  assert info.metadata["action_low"] == [-2.0] and not loaded.is_terminal.any()
  assert learns(loaded, info.metadata)


def test_pictures(datasets, tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 32, 40, 3), np.uint8)
  space, action_space = gymnasium.spaces.Box(0, 255, (32, 40, 3), np.uint8), gymnasium.spaces.Box(-1, 1, (2,))
  for jpeg in (True, False):
    buffers = [
      library.data_collector.EpisodeBuffer(
        observations=list(pixels[i]), actions=list(np.full((4, 2), 3.0, np.float32)), rewards=[0.0] * 4,
        terminations=[False] * 4, truncations=[False] * 3 + [True],
      )
      for i in range(2)
    ]  # fmt: skip
    name = f"pictures/{'jpeg' if jpeg else 'raw'}-v0"
    dataset = library.create_dataset_from_buffers(
      name, buffers, observation_space=space, action_space=action_space, jpeg_encoding=jpeg
    )
    source = minari.open(datasets / name)
    loaded, _ = convert(source, tmp_path / "out", name=name.replace("/", "-"))
    assert source[0].steps["observation"].encoded(0).startswith(b"\xff\xd8" if jpeg else b"\x89PNG")
    for index, episode in enumerate(dataset.iterate_episodes()):
      np.testing.assert_array_equal(np.asarray(loaded.observation[steps_of(loaded, index)]), episode.observations)
    assert loaded.action.max() == 1
    assert minari.open(datasets / name, clip=False)[0].steps["action"].max() == 3
  raw = minari.open(datasets / "pictures" / "raw-v0", images="raw")[1].steps["observation"]
  np.testing.assert_array_equal(raw, pixels[1])


def test_terminations_after_which_the_episode_goes_on(folder):
  with h5py.File(folder / "main_data.hdf5", "a") as file:
    file["episode_1/terminations"][0] = True
  steps = minari.open(folder)[1].steps
  assert steps["discount"].tolist() == [0, 1, 0, 0] and steps["is_terminal"].tolist() == [False] * 3 + [True]


def test_attributes_that_not_all_episodes_have(folder, tmp_path):
  with h5py.File(folder / "main_data.hdf5", "a") as file:
    file["episode_0"].attrs.update({"skill": 3, "who": "Ann", "options/wind": 2.5, "list": [1, 2]})
    file["episode_1"].attrs["other"] = 1
  source = minari.open(folder)
  first, second = source[0].metadata, source[1].metadata
  assert (first["skill"], first["who"], first["options_wind"]) == (3.0, "Ann", 2.5)
  assert np.isnan(second["skill"]) and second["who"] == "" and first.keys() == second.keys()
  convert(source, tmp_path / "out")


@pytest.mark.parametrize(
  ("spec", "env_id"),
  [
    ({"id": "HalfCheetah-v5", "kwargs": {}, "max_episode_steps": 1000}, "HalfCheetah-v5"),
    ({"id": "Hopper-v4", "kwargs": {"render_mode": "rgb_array"}}, "Hopper-v4"),
    ({"id": "Ant-v5", "kwargs": {"include_cfrc_ext_in_observation": False}}, None),
    ({"id": "HalfCheetah-v5", "kwargs": {}, "additional_wrappers": [{"name": "FlattenObservation"}]}, None),
    ({"id": "AdroitHandDoor-v1", "kwargs": {"reward_type": "dense"}}, "AdroitHandDoor-v1"),
    ({"id": "LunarLanderContinuous-v3", "kwargs": {"continuous": True}}, "LunarLanderContinuous-v3"),
    ({"id": "FrankaKitchen-v1", "kwargs": {}}, None),
  ],
)
def test_environments(folder, spec, env_id):
  about = json.loads((folder / "metadata.json").read_text())
  (folder / "metadata.json").write_text(json.dumps(about | {"env_spec": json.dumps(spec)}))
  found = minari.open(folder).metadata
  assert found.get("env_id") == env_id and found["env_spec"] == spec


def test_environments_are_envpools():
  envpool = pytest.importorskip("envpool")
  known = set(envpool.list_all_envs())
  for pattern, _ in minari._ENVPOOL:
    for part in pattern.split("|") if "(" not in pattern else []:
      for name in [part[: part.index("[")] + n for n in part[part.index("[") + 1 : -1]] if "[" in part else [part]:
        assert name in known
  for name in minari._MUJOCO.split("|"):
    assert {f"{name}-v4", f"{name}-v5"} <= known


def edit(**changes):
  def change(folder):
    about = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps({k: v for k, v in (about | changes).items() if v is not None}))

  return change


def replace(name, value=None):
  def change(folder):
    with h5py.File(folder / "main_data.hdf5", "a") as file:
      del file[name]
      if value is not None:
        file[name] = value

  return change


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (edit(total_episodes=3), "has 2 episodes, but metadata.json says 3"),
    (edit(data_format="zarr"), "data_format 'zarr' is not known"),
    (edit(observation_space=None), "metadata.json: lacks 'observation_space'"),
    (edit(action_space='{"type": "Graph"}'), "metadata.json: 'action_space' is no space that is known"),
    (edit(action_space="{"), "metadata.json: 'action_space' is no space that is known"),
    (edit(env_spec="{"), "'env_spec' is not JSON"),
    (lambda f: (f / "metadata.json").write_text("[]"), "metadata.json: the top level must be an object"),
    (lambda f: (f / "metadata.json").write_text("["), "metadata.json: not JSON"),
    (replace("episode_1/rewards"), "main_data.hdf5: has no 'episode_1/rewards'"),
    (replace("episode_1/observations/mission"), "main_data.hdf5: has no 'episode_1/observations/mission'"),
    (replace("episode_1/rewards", np.zeros(2)), "main_data.hdf5: episode_1: terminations is bool"),
    (replace("episode_1/rewards", np.full(3, np.inf)), "main_data.hdf5: episode_1: rewards is NaN or infinite"),
    (replace("episode_1/actions", np.zeros((3, 2))), r"episode_1: actions is \[3, 2\]; the space says \[3\]"),
    (replace("episode_1/observations/grid", np.zeros((3, 3, 3, 2))), "episode_1: observations/grid is float64"),
    (
      replace("episode_1/observations/mission", np.zeros(4)),
      "episode_1: observations/mission has 4 rows that are no Text",
    ),
  ],
)
def test_wrong_files(folder, change, message):
  change(folder)
  with pytest.raises(ValueError, match=message):
    minari.open(folder)[1]


def test_absent(tmp_path):
  with pytest.raises(FileNotFoundError, match="not a Minari dataset"):
    minari.open(tmp_path)
  with pytest.raises(ValueError, match="has no 'episode_0/infos/wind'"):
    minari.open(FIXTURE, infos=("wind",))[0]
  with pytest.raises(IndexError):
    minari.open(FIXTURE)[2]


def test_spaces_are_those_of_the_library():
  for space in make_minari.spaces():
    parsed = parse(library.serialization.serialize_space(space), "here")
    assert parsed.kind == type(space).__name__
  assert parsed.n == 3 and parsed.start == 3
  many = gymnasium.spaces.MultiDiscrete([2, 3]), gymnasium.spaces.MultiBinary([2, 2])
  assert [parse(library.serialization.serialize_space(space), "here").shape for space in many] == [(2,), (2, 2)]


def test_damaged_parquet(datasets):
  folder = make_minari.write(datasets, "parquet")
  path = next((folder / "1").glob("*.parquet"))
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])
  with pytest.raises(ValueError, match=r"data/1: cannot be read"):
    minari.open(folder)[1]
  path.unlink()
  with pytest.raises(ValueError, match=r"data/1: has no parquet file"):
    minari.open(folder)[1]

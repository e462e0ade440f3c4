import itertools

import numpy as np
import pytest
from converting import convert, learns, steps_of

import ilx.data
from ilx.data.convert import ogbench
from ilx.data.convert.npz_rows import Rows

LENGTHS = (6, 2, 9)


def arrays(seed=0, lengths=LENGTHS, visual=False):
  """The layout of OGBench's files: flat, the last row of every trajectory without a transition."""
  rng = np.random.default_rng(seed)
  count = sum(lengths)
  pixels = rng.integers(0, 256, (count, 64, 64, 3), np.uint8)
  return {
    "observations": pixels if visual else rng.normal(size=(count, 4)).astype(np.float32),
    "actions": rng.uniform(-1, 1, (count, 2)).astype(np.float32),
    "terminals": np.isin(np.arange(count), np.cumsum(lengths) - 1),
    "qpos": rng.normal(size=(count, 5)).astype(np.float32),
    "qvel": rng.normal(size=(count, 5)).astype(np.float32),
  }


def write_files(folder, name="antmaze-large-navigate-v0", compressed=True, **parts):
  save = np.savez_compressed if compressed else np.savez
  for split, found in parts.items():
    save(folder / f"{name}{'-val' if split == 'val' else ''}.npz", **found)
  return folder / f"{name}.npz"


def trajectories(lengths):
  return [slice(*bounds) for bounds in itertools.pairwise(np.append(0, np.cumsum(lengths)).tolist())]


@pytest.mark.parametrize("compressed", [True, False])
def test_round_trip(tmp_path, compressed):
  train, val = arrays(lengths=(30, 20, 40)), arrays(seed=1, lengths=(7,))
  train["actions"][2] = 3.0
  path = write_files(tmp_path, compressed=compressed, train=train, val=val)
  source = ogbench.open(path)
  assert len(source) == 4 and [source[i].split for i in range(4)] == ["train"] * 3 + ["val"]
  loaded, info = convert(source, tmp_path / "out")
  for index, rows in enumerate(trajectories((30, 20, 40))):
    here = steps_of(loaded, index)
    np.testing.assert_array_equal(loaded.observation[here], train["observations"][rows])
    np.testing.assert_array_equal(loaded.action[here][:-1], np.clip(train["actions"][rows][:-1], -1, 1))
    for name in ("qpos", "qvel"):
      np.testing.assert_array_equal(source[index].steps[name], train[name][rows])
  assert not loaded.is_terminal.any() and not loaded.reward.any() and loaded.action.max() == 1
  np.testing.assert_array_equal(ilx.data.load(info.directory, "val").observation, val["observations"])
  assert info.metadata["ogbench_env"] == "antmaze-large-v0" and "no rewards" in info.metadata["note"]
  assert info.metadata["action_high"] == [1.0, 1.0]
  assert learns(loaded, info.metadata)


def test_real_trajectories(shared_data, tmp_path):
  recorded = dict(np.load(shared_data / "offline" / "Hopper-v4_medium.npz", allow_pickle=False))
  stops = np.cumsum(recorded["episode_lengths"])
  found = {
    "observations": np.insert(recorded["observations"], stops, recorded["final_observations"], axis=0),
    "actions": np.insert(recorded["actions"], stops, 0, axis=0),
    "terminals": np.insert(np.zeros(stops[-1], bool), stops, True),
  }
  loaded, _ = convert(ogbench.open(write_files(tmp_path, "hopper", train=found)), tmp_path / "out")
  np.testing.assert_array_equal(loaded.observation, found["observations"].astype(np.float32))
  np.testing.assert_array_equal(loaded.action[loaded.rows], recorded["actions"].astype(np.float32))
  np.testing.assert_array_equal(loaded.starts, np.append(0, stops + np.arange(1, len(stops) + 1)))


def test_pictures(tmp_path):
  found = arrays(lengths=(4, 3), visual=True)
  path = write_files(tmp_path, "visual-cube-single-play-v0", train=found)
  loaded, _ = convert(ogbench.open(path), tmp_path / "out")
  np.testing.assert_array_equal(loaded.observation, found["observations"])
  assert type(ogbench.open(path)[0].steps["observation"]).__name__ == "Images"
  np.testing.assert_array_equal(ogbench.open(path, images="raw")[1].steps["observation"], found["observations"][4:])
  assert ogbench.open(path, images="jpeg")[1].steps["observation"].encoded(0).startswith(b"\xff\xd8")
  with pytest.raises(ValueError, match="images is 'gif'"):
    ogbench.open(path, images="gif")


def test_powderworld(tmp_path):
  # whole numbers for flags, six layers and not three colours
  rng = np.random.default_rng(0)
  found = {
    "observations": rng.integers(0, 256, (9, 8, 8, 6), np.uint8),
    "actions": rng.integers(0, 5, 9).astype(np.int32),
    "terminals": np.array([0, 0, 0, 1, 0, 0, 0, 0, 1], np.int32),
  }
  source = ogbench.open(write_files(tmp_path, "powderworld-easy-play-v0", train=found))
  loaded, info = convert(source, tmp_path / "out")
  np.testing.assert_array_equal(loaded.observation, found["observations"])
  np.testing.assert_array_equal(loaded.action[:3], found["actions"][:3])
  assert loaded.starts.tolist() == [0, 4, 9] and "action_low" not in info.metadata


def test_rewards_that_were_made(tmp_path):
  found = arrays() | {"rewards": np.arange(17, dtype=np.float64), "masks": np.arange(17) % 3 != 0}
  source = ogbench.open(write_files(tmp_path, train=found))
  steps = source[0].steps
  assert steps["reward"].tolist() == [0, 1, 2, 3, 4, 0] and steps["discount"][:-1].tolist() == [0, 1, 1, 0, 1]
  assert "note" not in source.metadata and not steps["is_terminal"].any()


def test_options(tmp_path):
  path = write_files(tmp_path, train=arrays(), val=arrays())
  assert len(ogbench.open(path, val=False)) == 3
  assert "qpos" not in ogbench.open(path, states=False)[0].steps
  only = ogbench.open(path.with_name(f"{path.stem}-val.npz"))
  assert only[0].split == "val" and len(only) == 3
  with pytest.raises(IndexError):
    only[3]


def test_trajectories_without_a_transition_and_cut_ones(tmp_path):
  found = arrays(lengths=(1, 5, 3))
  found["terminals"][-1] = False
  source = ogbench.open(write_files(tmp_path, train=found))
  assert [len(source[i].steps["reward"]) for i in range(len(source))] == [5, 3]
  np.testing.assert_array_equal(source[1].steps["observation"], found["observations"][6:])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda f: f.pop("actions"), "no array 'actions'"),
    (lambda f: f.update(actions=f["actions"][:-1]), r"array 'actions' has the shape \(16, 2\), but .* 17 rows"),
    (lambda f: f.update(qvel=f["qvel"][:-1]), "array 'qvel' has the shape"),
    (lambda f: f.update(terminals=f["terminals"] * 3), "array 'terminals' must hold flags"),
    (
      lambda f: f["observations"].__setitem__((7, 1), np.inf),
      "array 'observations', trajectory 1, is NaN .* at step 1",
    ),
    (
      lambda f: f.update(observations=np.asfortranarray(f["observations"])),
      "array 'observations' is stored by columns",
    ),
    (lambda f: f.update(observations=np.full(17, "x", object)), "array 'observations' holds pickled Python objects"),
    (lambda f: f.update(terminals=np.ones(17, bool)), "has no trajectory with an action"),
  ],
)
def test_wrong_arrays(tmp_path, change, message):
  found = arrays()
  change(found)
  path = write_files(tmp_path, train=found)
  with pytest.raises(ValueError, match=rf"antmaze-large-navigate-v0.npz: {message}"):
    [ogbench.open(path)[i] for i in range(2)]


@pytest.mark.parametrize("compressed", [True, False])
def test_damage_is_noticed(tmp_path, compressed):
  path = write_files(tmp_path, compressed=compressed, train=arrays(lengths=(400, 300)))
  content = bytearray(path.read_bytes())
  for place in range(300, len(content) // 2, 997):
    damaged = content.copy()
    damaged[place] ^= 0x40
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"antmaze-large-navigate-v0.npz"):
      [ogbench.open(path)[i] for i in range(2)]
  path.write_bytes(content[: len(content) // 2])
  with pytest.raises(ValueError, match="not an npz file"):
    ogbench.open(path)
  with pytest.raises(FileNotFoundError):
    ogbench.open(tmp_path / "absent.npz")


def test_rows_in_any_order(tmp_path):
  found = {"a": np.arange(60.0).reshape(20, 3), "b": np.arange(20)}
  np.savez_compressed(tmp_path / "rows.npz", **found)
  rows = Rows(tmp_path / "rows.npz")
  for start, stop in [(0, 5), (5, 9), (15, 20), (3, 3), (2, 6), (0, 20)]:
    for name, value in found.items():
      np.testing.assert_array_equal(rows.read(name, start, stop), value[start:stop])
  for start, stop in [(-1, 3), (4, 3), (0, 21)]:
    with pytest.raises(ValueError, match="has no rows"):
      rows.read("a", start, stop)
  with pytest.raises(ValueError, match="no array 'c'; there: a, b"):
    rows.read("c", 0, 1)

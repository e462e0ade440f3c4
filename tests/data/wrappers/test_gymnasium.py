"""What is played in a Gymnasium environment is what the dataset holds."""

import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import gymnasium
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from gymnasium import spaces

import ilx
from ilx.data import load, read_info, returns
from ilx.data.encode import flatten
from ilx.data.wrappers.gymnasium import RecordEpisodes


class Everything(gymnasium.Env):
  """Observations of every kind that has a place; ends by itself after ``length`` steps, with action 1 earlier."""

  render_mode = "rgb_array"
  observation_space = spaces.Dict({
    "box": spaces.Box(-np.inf, np.inf, (2,), np.float64),
    "deep": spaces.Dict({"bits": spaces.MultiBinary(3), "digits": spaces.MultiDiscrete([2, 3])}),
    "pair": spaces.Tuple((spaces.Discrete(100, start=-5), spaces.Text(5))),
    "pixels": spaces.Box(0, 255, (8, 8, 3), np.uint8),
  })  # fmt: skip
  action_space = spaces.Tuple((spaces.Discrete(2), spaces.Dict({"arm": spaces.Box(-0.1, 0.1, (2,), np.float64)})))

  def __init__(self, length=4):
    self.length, self.step_number, self.played = length, 0, []
    self._box = np.zeros(2)

  def _observation(self):
    self._box[:] = self.step_number / 3  # the same memory every time
    return {
      "box": self._box,
      "deep": {"bits": np.array([1, 0, 1], np.int8), "digits": np.array([1, 2])},
      "pair": (self.step_number, f"t{self.step_number}"),
      "pixels": np.full((8, 8, 3), self.step_number, np.uint8),
    }

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.step_number = 0
    return self._observation(), {"word": "reset"}

  def step(self, action):
    self.step_number += 1
    self.played.append(action)
    terminated = bool(action[0]) or self.step_number == self.length
    info = {"word": "step", "success": self.step_number, "inner": {"x": np.ones(2)}}
    return self._observation(), self.step_number, terminated, self.step_number == self.length, info

  def render(self):
    return np.full((16, 24, 3), 10 * self.step_number, np.uint8)


class Simple(gymnasium.Env):
  """Any spaces; says what it is told to."""

  observation_space = spaces.Box(-1, 1, (1,), np.float32)
  action_space = spaces.Discrete(2)

  def __init__(self, observation_space=None, action_space=None):
    self.observation_space = observation_space or self.observation_space
    self.action_space = action_space or self.action_space
    self.fails = self.closed = False

  def reset(self, *, seed=None, options=None):
    return np.zeros(1), {}

  def step(self, action):
    if self.fails:
      raise RuntimeError("broken")
    return np.ones(1, int), 1, False, False, {}

  def close(self):
    self.closed = True


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def play(env, episodes, log=None, seed=0):
  """Plays at random; logs (observation, action, reward, terminated, truncated) of every step."""
  env.action_space.seed(seed)
  for index in range(episodes):
    observation, _ = env.reset(seed=seed + index)
    steps, done = [(observation, None, None, None, None)], False
    while not done:
      action = env.action_space.sample()
      observation, reward, terminated, truncated, _ = env.step(action)
      steps.append((observation, action, reward, terminated, truncated))
      done = terminated or truncated
    if log is not None:
      log.append(steps)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "MountainCarContinuous-v0"])
def test_the_dataset_is_what_was_played(tmp_path, env_id):
  log = []
  with RecordEpisodes(gymnasium.make(env_id, max_episode_steps=12), tmp_path, name="played") as env:
    play(env, 8, log)
  episodes = load(tmp_path / "played")
  assert episodes.num_episodes == 8
  source = tfds.builder_from_directory(str(tmp_path / "played" / "1.0.0")).as_data_source("train")
  ended = set()
  for index, (steps, item) in enumerate(zip(log, source, strict=True)):
    rows = slice(episodes.starts[index], episodes.starts[index + 1])
    np.testing.assert_array_equal(episodes.observation[rows], np.array([step[0] for step in steps], np.float32))
    np.testing.assert_array_equal(episodes.action[rows][:-1], np.array([step[1] for step in steps[1:]]))
    np.testing.assert_array_equal(episodes.reward[rows][:-1], np.array([step[2] for step in steps[1:]], np.float32))
    terminated = steps[-1][3]
    ended.add(terminated)
    assert episodes.is_terminal[rows].tolist() == [False] * (len(steps) - 1) + [terminated]
    assert episodes.discount[rows][:-1].tolist() == [1.0] * (len(steps) - 2) + [0.0 if terminated else 1.0]
    assert item["episode_metadata"] == {"seed": index}
    np.testing.assert_array_equal([step["action"] for step in item["steps"]], episodes.action[rows])
  assert ended == ({True, False} if env_id == "CartPole-v1" else {False})
  metadata = read_info(tmp_path / "played" / "1.0.0").metadata
  assert (metadata["env_id"], metadata["env_kwargs"]) == (env_id, {"max_episode_steps": 12})
  assert metadata["recorded_with"] == {"gymnasium": gymnasium.__version__}
  assert metadata["data_return"] == pytest.approx(returns(episodes).mean(), rel=1e-6)
  assert (metadata["num_episodes"], metadata["num_transitions"]) == (8, episodes.num_transitions)
  if env_id == "CartPole-v1":
    assert metadata["num_actions"] == 2
  else:
    bound = 2.0 if env_id == "Pendulum-v1" else 1.0
    assert (metadata["action_low"], metadata["action_high"]) == ([-bound], [bound])


def test_playing_what_is_stored_shows_the_same(tmp_path):
  """Also for actions in float64, which no float32 holds."""
  env = gymnasium.make("Pendulum-v1", max_episode_steps=50)
  with RecordEpisodes(env, tmp_path, name="played") as recorded:
    recorded.reset(seed=5)
    for step in range(50):
      recorded.step(np.array([2 * np.sin(step / 7)]))
  episodes = load(tmp_path / "played")
  shown = [env.reset(seed=5)[0]] + [env.step(action)[0] for action in episodes.action[:-1].astype(np.float64)]
  np.testing.assert_array_equal(shown, episodes.observation)


def test_spaces_info_and_frames(tmp_path):
  env = Everything()
  with RecordEpisodes(
    env, tmp_path, name="all", info_keys=("word", "success", "inner"), frames=True, image_format="png"
  ) as env:
    env.episode_metadata = {"player": "me"}
    env.reset(seed=3)
    for choice in (0, 0, 1):
      env.step((choice, {"arm": np.array([0.1, -0.1])}))
  for _, arm in ((a, b["arm"]) for a, b in env.unwrapped.played):
    assert arm.dtype == np.float64 and np.all(np.abs(arm) <= 0.1)
    np.testing.assert_array_equal(arm, arm.astype(np.float32))
  (item,) = tfds.builder_from_directory(str(env.recorder.path)).as_data_source("train")
  assert item["episode_metadata"] == {"seed": 3, "player": b"me"}
  steps = [dict(flatten(step)) for step in item["steps"]]
  assert len(steps) == 4
  within = np.nextafter(np.float32([0.1, -0.1]), np.float32(0))  # the float32 nearest to 0.1 is beyond the bound
  for index, step in enumerate(steps):
    np.testing.assert_array_equal(step["observation/box"], np.full(2, index / 3, np.float32))
    np.testing.assert_array_equal(step["observation/deep/bits"], [1, 0, 1])
    np.testing.assert_array_equal(step["observation/deep/digits"], [1, 2])
    assert step["observation/pair/0"] == index
    assert step["observation/pair/1"] == f"t{index}".encode()
    np.testing.assert_array_equal(step["observation/pixels"], np.full((8, 8, 3), index))
    np.testing.assert_array_equal(step["frame"], np.full((16, 24, 3), 10 * index))
    # what the reset did not tell is 0
    assert step["info/success"] == index
    np.testing.assert_array_equal(step["info/inner/x"], np.full(2, float(index > 0)))
    assert step["info/word"] == (b"step" if index else b"reset")
    assert step["action/0"] == (index == 2)
    np.testing.assert_array_equal(step["action/1/arm"], within * (index < 3))
  assert [step["reward"] for step in steps] == [1, 2, 3, 0]
  assert [step["is_terminal"] for step in steps] == [False, False, False, True]


def test_an_end_at_the_time_limit_is_an_end(tmp_path):
  with RecordEpisodes(Everything(2), tmp_path, name="both") as env:
    env.reset()
    for _ in range(2):
      *_, terminated, truncated, _ = env.step((0, {"arm": np.zeros(2)}))
  assert terminated and truncated
  (item,) = tfds.builder_from_directory(str(env.recorder.path)).as_data_source("train")
  assert [step["is_terminal"] for step in item["steps"]] == [False, False, True]
  assert item["episode_metadata"] == {"seed": -1}


@pytest.mark.parametrize(("keep", "kept"), [(True, [0, 2, 3, 4]), (False, [2])])
def test_abandoned_episodes(tmp_path, keep, kept):
  counts = [3, 0, 5, 2, 1]  # the time limit is 5
  env = gymnasium.wrappers.TimeLimit(Simple(), 5)
  env = RecordEpisodes(env, tmp_path, name="left", keep_abandoned=keep)
  for index, count in enumerate(counts):
    env.reset(seed=index)
    for _ in range(count):
      env.step(1)
  env.close()
  episodes = load(tmp_path / "left")
  assert (np.diff(episodes.starts) - 1).tolist() == [counts[index] for index in kept]
  assert not episodes.is_terminal.any()
  source = tfds.builder_from_directory(str(env.recorder.path)).as_data_source("train")
  assert [item["episode_metadata"]["seed"] for item in source] == kept


_CHILD = """
  import sys
  import gymnasium
  from test_gymnasium import RecordEpisodes, play
  env = RecordEpisodes(gymnasium.make("CartPole-v1"), sys.argv[1], name="played")
  while True:
    play(env, 1, seed=env.recorder.num_episodes)
    print(env.recorder.num_episodes, flush=True)
"""


def test_kill_9_loses_at_most_the_episode_being_played(tmp_path):
  child = subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(_CHILD), str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])},
  )
  told = 0
  try:
    while told < 5:
      told = int(child.stdout.readline())
  finally:
    child.send_signal(signal.SIGKILL)
    rest = child.communicate()[0].split()
  told = max([told, *map(int, rest)])
  assert not (tmp_path / "played" / "1.0.0").exists()
  with RecordEpisodes(gymnasium.make("CartPole-v1"), tmp_path, name="played") as env:
    kept = env.recorder.num_episodes
    assert kept in (told, told + 1)
    for index in range(kept, kept + 2):
      play(env, 1, seed=index)
  with RecordEpisodes(gymnasium.make("CartPole-v1"), tmp_path / "whole", name="played") as whole:
    for index in range(kept + 2):
      play(whole, 1, seed=index)
  assert contents(env.recorder.path) == contents(whole.recorder.path)


def test_an_exception_publishes_nothing_and_the_recording_goes_on(tmp_path):
  def interrupted():
    with RecordEpisodes(gymnasium.make("CartPole-v1"), tmp_path, name="played") as env:
      play(env, 2)
      env.reset()
      env.step(0)
      raise KeyError("stop")

  with pytest.raises(KeyError):
    interrupted()
  assert not (tmp_path / "played" / "1.0.0").exists()
  with pytest.raises(ValueError, match=r"unfinished recording of .*CartPole-v1.*, not of .*Acrobot-v1"):
    RecordEpisodes(gymnasium.make("Acrobot-v1"), tmp_path, name="played")
  env = RecordEpisodes(gymnasium.make("CartPole-v1"), tmp_path, name="played")
  play(env, 1, seed=2)
  env.close()
  env.close()
  assert load(tmp_path / "played").num_episodes == 3


def test_a_broken_step_drops_the_episode(tmp_path):
  env = RecordEpisodes(Simple(), tmp_path, name="left")
  env.reset()
  env.step(0)
  env.unwrapped.fails = True
  with pytest.raises(RuntimeError, match="broken"):
    env.step(0)
  env.unwrapped.fails = False
  with pytest.raises(RuntimeError, match="reset first"):
    env.step(0)
  env.reset()
  env.step(0)
  env.close()
  assert load(tmp_path / "left").num_transitions == 1


def test_nothing_played(tmp_path):
  env = RecordEpisodes(Simple(), tmp_path, name="none")
  with pytest.raises(RuntimeError, match="no episode is being played; reset first"):
    env.step(0)
  env.reset()
  env.close()
  assert env.unwrapped.closed
  assert not (tmp_path / "none" / "1.0.0").exists()


def test_what_cannot_be_recorded(tmp_path):
  with pytest.raises(TypeError, match="records one environment"):
    RecordEpisodes(gymnasium.make_vec("CartPole-v1", 2), tmp_path, name="x")
  for space, kind in (
    (spaces.Sequence(spaces.Discrete(2)), "Sequence"),
    (spaces.Graph(spaces.Discrete(2), None), "Gra"),
  ):
    with pytest.raises(ValueError, match=f"observation/a is a {kind}"):
      RecordEpisodes(Simple(spaces.Dict({"a": space})), tmp_path, name="x")
  with pytest.raises(ValueError, match=r"action has the key 'a/b'"):
    RecordEpisodes(Simple(action_space=spaces.Dict({"a/b": spaces.Discrete(2)})), tmp_path, name="x")
  with pytest.raises(ValueError, match="frames need render_mode"):
    RecordEpisodes(gymnasium.make("CartPole-v1"), tmp_path, name="x", frames=True)
  env = gymnasium.make("Pendulum-v1", g=9.0)
  env.spec.kwargs["g"] = np.float64(9)
  env.spec.kwargs["wind"] = np.zeros(1)
  with pytest.raises(ValueError, match="option 'wind' is not JSON"):
    RecordEpisodes(env, tmp_path, name="x")
  assert not any(tmp_path.iterdir())
  RecordEpisodes(env, tmp_path, name="x", metadata={"env_kwargs": {}}).close()
  env = RecordEpisodes(Simple(), tmp_path, name="y", info_keys=("success",))
  env.reset()
  with pytest.raises(ValueError, match="info has no 'success' at this step"):
    env.step(0)
  env.close()


@pytest.mark.parametrize(
  ("space", "expected"),
  [
    (spaces.MultiBinary(3), ilx.types.MultiDiscrete((2, 2, 2))),
    (spaces.MultiDiscrete([2, 5]), ilx.types.MultiDiscrete((2, 5))),
    (
      spaces.Dict(stick=spaces.Box(-2, 2, (2,)), keys=spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(2)))),
      {"stick": ([-2, -2], [2, 2]), "keys": {"0": ilx.types.Discrete(2), "1": ilx.types.MultiDiscrete((2, 2))}},
    ),
  ],
)
def test_bounds_of_every_part_are_recorded(tmp_path, space, expected):
  """Of what is never played, too."""
  env = RecordEpisodes(Simple(action_space=space), tmp_path, name="parts")
  env.reset()
  env.step(jax.tree.map(np.zeros_like, space.sample()))
  env.close()
  found = ilx.data.spec(ilx.data.load(env.recorder.path), ilx.data.read_info(env.recorder.path).metadata).action
  if isinstance(found, dict):
    found["stick"] = found["stick"].low.tolist(), found["stick"].high.tolist()
  assert found == expected


def test_an_option_that_is_a_tuple_and_a_seed_too_large(tmp_path):
  def recorded():
    env = gymnasium.make("Pendulum-v1", g=9.0)
    env.spec.kwargs["range"] = (0.2, 1.0)  # as healthy_z_range of Ant
    return RecordEpisodes(env, tmp_path, name="tuple")

  env = recorded()
  play(env, 1)
  with pytest.raises(ValueError, match="does not fit in 64 bits"):
    env.reset(seed=2**63)
  env.__exit__(KeyboardInterrupt)
  env = recorded()
  assert env.recorder.num_episodes == 1
  env.close()


def test_no_bounds_where_there_are_none(tmp_path):
  env = RecordEpisodes(Simple(action_space=spaces.Box(-np.inf, np.inf, (1,))), tmp_path, name="free")
  env.reset()
  env.step(np.float32([0.5]))
  env.close()
  about = json.loads((env.recorder.path / "metadata.json").read_text())
  assert about.keys() == {"recorded_with", "num_episodes", "num_transitions", "data_return", "data_return_std"}


@pytest.mark.parametrize(
  ("library", "module"), [("gymnasium", "ilx.data.wrappers.gymnasium"), ("dm_env", "ilx.data.wrappers.dm_env")]
)
def test_a_missing_library_is_named(monkeypatch, library, module):
  monkeypatch.setitem(sys.modules, library, None)
  monkeypatch.delitem(sys.modules, module, raising=False)
  with pytest.raises(ModuleNotFoundError, match=rf'{library}.*pip install "ilx\[gym\]"'):
    importlib.import_module(module)

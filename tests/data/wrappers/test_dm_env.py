"""What is played in a dm_env environment is what the dataset holds."""

import os
import signal
import subprocess
import sys
import textwrap

import dm_env
import numpy as np
import pytest
import tensorflow_datasets as tfds
from dm_env import specs

from ilx.data import load, read_info
from ilx.data.encode import flatten
from ilx.data.wrappers.dm_env import RecordEpisodes


class Counter(dm_env.Environment):
  """Counts its steps to ``length``; ends by itself, or is cut where ``cut``. Seconds of physics tick on the side."""

  def __init__(self, length=3, cut=False, action_spec=None):
    self.length, self.cut, self.count, self.closed, self.fails = length, cut, None, 0, False
    self._action_spec = action_spec or specs.BoundedArray((2,), np.float64, -1, [0.1, 2])
    self.played, self._memory = [], np.zeros(2)
    self.physics = "physics"

  def _observation(self):
    self._memory[:] = self.count / 3
    return {"place": self._memory, "parts": [self.count, (np.float32(1), f"t{self.count}")]}

  def reset(self):
    self.count = 0
    return dm_env.restart(self._observation())

  def step(self, action):
    if self.fails:
      raise RuntimeError("broken")
    if self.count is None:
      return self.reset()
    self.count += 1
    self.played.append(action)
    observation, reward = self._observation(), np.float64(self.count)
    if self.count == self.length:
      self.count = None
      return dm_env.truncation(reward, observation, 0.75) if self.cut else dm_env.termination(reward, observation)
    return dm_env.transition(reward, observation, discount=0.99)

  def observation_spec(self):
    return {"place": specs.Array((2,), float), "parts": [specs.Array((), int), (specs.Array((), np.float32), None)]}

  def action_spec(self):
    return self._action_spec

  def close(self):
    self.closed += 1


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def play(env, episodes):
  """Begins every episode but the first by stepping on, as dm_env allows."""
  shown = [env.reset()]
  for _ in range(episodes):
    while not shown[-1].last():
      shown.append(env.step(np.array([0.1, len(shown) / 7])))
    shown.append(env.step(np.zeros(2)))
  return shown


@pytest.mark.parametrize("cut", [False, True])
def test_the_dataset_is_what_was_played(tmp_path, cut):
  env = Counter(3, cut)
  with RecordEpisodes(env, tmp_path, name="played", metadata={"env_id": "counter"}, keep_abandoned=False) as recorded:
    assert recorded.physics == "physics"
    recorded.episode_metadata["player"] = "me"
    play(recorded, 2)
  assert env.closed == 1
  path = tmp_path / "played" / "1.0.0"
  items = list(tfds.builder_from_directory(str(path)).as_data_source("train"))
  assert len(items) == 2
  for number, item in enumerate(items):
    assert item["episode_metadata"] == {"player": b"me"}
    steps = [dict(flatten(step)) for step in item["steps"]]
    assert [step["reward"] for step in steps] == [1, 2, 3, 0]
    assert [step["discount"] for step in steps] == [*np.float32([0.99, 0.99, 0.75 if cut else 0.0]), 0]
    assert [step["is_first"] for step in steps] == [True, False, False, False]
    assert [step["is_last"] for step in steps] == [False, False, False, True]
    assert [step["is_terminal"] for step in steps] == [False, False, False, not cut]
    for index, step in enumerate(steps):
      np.testing.assert_array_equal(step["observation/place"], np.full(2, index / 3, np.float32))
      assert step["observation/parts/0"] == index
      assert step["observation/parts/1/0"] == 1
      assert step["observation/parts/1/1"] == f"t{index}".encode()
      if index < 3:
        np.testing.assert_array_equal(step["action"], env.played[number * 3 + index])
  assert all(action[0] <= 0.1 and action.dtype == np.float64 for action in env.played)
  metadata = read_info(path).metadata
  assert metadata == {
    "env_id": "counter", "action_low": [-1.0, -1.0], "action_high": [0.1, 2.0],
    "num_episodes": 2, "num_transitions": 6, "data_return": 6.0, "data_return_std": 0.0,
  }  # fmt: skip


def test_nested_and_discrete_actions(tmp_path):
  spec = {"choice": specs.DiscreteArray(3), "arms": [specs.Array((1,), float), specs.BoundedArray((), float, 0, 0.1)]}
  env = Counter(action_spec=spec)
  with RecordEpisodes(env, tmp_path, name="nested") as recorded:
    recorded.reset()
    for _ in range(3):
      recorded.step({"choice": 2, "arms": [np.array([1 / 3]), 0.1]})
  assert all(action["arms"][0].item() == np.float32(1 / 3) for action in env.played)
  (item,) = tfds.builder_from_directory(str(recorded.recorder.path)).as_data_source("train")
  first = dict(flatten(next(iter(item["steps"]))))
  assert first["action/choice"] == 2
  np.testing.assert_array_equal(first["action/arms/0"], np.float32([1 / 3]))
  assert 0.0999 < first["action/arms/1"] <= 0.1
  with RecordEpisodes(Counter(action_spec=specs.DiscreteArray(3)), tmp_path, name="discrete") as recorded:
    recorded.reset()
    recorded.step(1)
  assert read_info(recorded.recorder.path).metadata["num_actions"] == 3


def test_frames(tmp_path):
  env = Counter()
  shot = lambda: np.full((8, 16, 3), 10 * (3 if env.count is None else env.count), np.uint8)  # noqa: E731
  with RecordEpisodes(env, tmp_path, name="seen", frame=shot, image_format="png") as recorded:
    recorded.reset()
    for _ in range(3):
      recorded.step(np.zeros(2))
  (item,) = tfds.builder_from_directory(str(recorded.recorder.path)).as_data_source("train")
  assert [int(step["frame"].mean()) for step in item["steps"]] == [0, 10, 20, 30]
  recorded = RecordEpisodes(env, tmp_path, name="bad", frame=lambda: np.zeros((8, 8)))
  with pytest.raises(ValueError, match=r"a frame is float64 \[8, 8\]"):
    recorded.reset()


@pytest.mark.parametrize("keep", [True, False])
def test_abandoned_episodes(tmp_path, keep):
  recorded = RecordEpisodes(Counter(3), tmp_path, name="left", keep_abandoned=keep)
  for count in (2, 0, 3, 1):
    recorded.reset()
    for _ in range(count):
      recorded.step(np.zeros(2))
  recorded.close()
  source = tfds.builder_from_directory(str(recorded.recorder.path)).as_data_source("train")
  found = [[bool(step["is_terminal"]) for step in item["steps"]] for item in source]
  whole = [False, False, False, True]
  assert found == ([[False] * 3, whole, [False] * 2] if keep else [whole])


_CHILD = """
  import sys
  from test_dm_env import Counter, RecordEpisodes, play
  env = RecordEpisodes(Counter(), sys.argv[1], name="played", keep_abandoned=False)
  while True:
    play(env, 1)
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
  with RecordEpisodes(Counter(), tmp_path, name="played", keep_abandoned=False) as env:
    kept = env.recorder.num_episodes
    assert kept in (told, told + 1)
    for _ in range(2):
      play(env, 1)
  with RecordEpisodes(Counter(), tmp_path / "whole", name="played", keep_abandoned=False) as whole:
    for _ in range(kept + 2):
      play(whole, 1)
  assert contents(env.recorder.path) == contents(whole.recorder.path)


def test_an_exception_publishes_nothing_and_another_environment_is_refused(tmp_path):
  def interrupted():
    with RecordEpisodes(Counter(), tmp_path, name="x", metadata={"env_id": "a"}) as env:
      play(env, 1)
      raise KeyError("stop")

  with pytest.raises(KeyError):
    interrupted()
  assert not (tmp_path / "x" / "1.0.0").exists()
  with pytest.raises(ValueError, match=r"unfinished recording of \{'env_id': 'a'\}, not of \{'env_id': 'b'\}"):
    RecordEpisodes(Counter(), tmp_path, name="x", metadata={"env_id": "b"})
  RecordEpisodes(Counter(), tmp_path, name="x", metadata={"env_id": "a"}).close()
  assert read_info(tmp_path / "x" / "1.0.0").metadata["num_episodes"] == 1


def test_a_broken_step_drops_the_episode(tmp_path):
  env = Counter()
  recorded = RecordEpisodes(env, tmp_path, name="x")
  recorded.reset()
  recorded.step(np.zeros(2))
  env.fails = True
  with pytest.raises(RuntimeError, match="broken"):
    recorded.step(np.zeros(2))
  env.fails = False
  with pytest.raises(RuntimeError, match="not seen to begin"):
    recorded.step(np.zeros(2))
  recorded.close()
  assert not recorded.recorder.path.exists()


def test_what_cannot_be_recorded(tmp_path):
  class Changing(Counter):
    def _observation(self):
      return np.zeros(self.count + 1)

  class Rewards(Counter):
    def step(self, action):
      return super().step(action)._replace(reward={"a": 1.0})

  for kind, problem in ((Changing, r"'observation' has shapes \(1,\) and \(2,\)"), (Rewards, "the reward is object")):
    recorded = RecordEpisodes(kind(1), tmp_path, name="x")
    recorded.reset()
    with pytest.raises(ValueError, match=problem):
      recorded.step(np.zeros(2))
    recorded.close()
  with pytest.raises(AttributeError, match="nothing"):
    _ = recorded.nothing


def test_ilx_reads_it(tmp_path):
  class Flat(Counter):
    def _observation(self):
      return {"x": np.full(3, self.count)}

  with RecordEpisodes(Flat(), tmp_path, name="flat", keep_abandoned=False) as recorded:
    play(recorded, 2)
  episodes = load(recorded.recorder.path)
  assert episodes.observation["x"][:, 0].tolist() == [0, 1, 2, 3] * 2
  assert episodes.is_terminal.tolist() == [False, False, False, True] * 2

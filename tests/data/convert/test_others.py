"""The importer on recordings that others published; figures from their README and by counting."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow_datasets as tfds

import ilx.data
from ilx.data.convert import npz
from ilx.types import Continuous, Discrete


def box(size, bound=1.0):
  return Continuous(np.full(size, -bound), np.full(size, bound))


class Expected(NamedTuple):
  action: Continuous | Discrete
  limit: int | None
  episodes: int
  steps: int
  lengths: tuple[int, int]
  data_return: float
  terminals: int
  observation: tuple[int, ...]
  out_of_bounds: int = 0


DEMOS = {
  "cs285_HalfCheetah-v4_expert": Expected(box(6), 1000, 2, 2000, (1000, 1000), 4035, 0, (17,), 1270),
  "cs285_Hopper-v4_expert": Expected(box(3), 1000, 2, 2000, (1000, 1000), 3718, 0, (11,), 1389),
  "dapg_AdroitHandDoor_human": Expected(box(28), None, 25, 6729, (223, 300), 794, 0, (39,), 5497),
  "ilpyt_CartPole-v0": Expected(Discrete(2), 200, 101, 20200, (200, 200), 200, 0, (4,)),
  "ilpyt_LunarLander-v2": Expected(Discrete(4), 1000, 101, 22737, (168, 675), 268, 101, (8,)),
  "ilpyt_LunarLanderContinuous-v2": Expected(box(2), 1000, 101, 20013, (155, 251), 284, 101, (8,)),
  "imitation_pendulum": Expected(box(1, 2.0), 200, 56, 11200, (200, 200), -189, 0, (3,)),
  "sb2_expert_cartpole": Expected(Discrete(2), 500, 100, 49527, (27, 500), 495, 1, (4,)),
}
OFFLINE = {
  "Adroit_pen_expert": Expected(box(24), None, 25, 5000, (200, 200), 7431, 0, (45,)),
  "FetchPush-v4_expert": Expected(box(4), None, 150, 7500, (50, 50), -8.7, 0, (31,)),
  "HalfCheetah-v4_expert": Expected(box(6), None, 20, 20000, (1000, 1000), 4157, 0, (17,)),
  "HalfCheetah-v4_medium": Expected(box(6), None, 50, 50000, (1000, 1000), 1664, 0, (17,)),
  "HalfCheetah-v4_replay": Expected(box(6), None, 104, 104000, (1000, 1000), 2769, 0, (17,)),
  "Hopper-v4_expert": Expected(box(3), None, 20, 20000, (1000, 1000), 3728, 0, (11,)),
  "Hopper-v4_medium": Expected(box(3), None, 132, 50264, (213, 916), 1132, 132, (11,)),
  "Hopper-v4_replay": Expected(box(3), None, 296, 113510, (8, 1000), 1308, 230, (11,)),
  "LunarLander-v2_mixed": Expected(Discrete(4), None, 300, 129549, (59, 1000), 108, 249, (8,)),
  "MetaWorld_DoorOpen-v3_expert": Expected(box(4), None, 20, 3000, (150, 150), 949, 0, (39,)),
  "MetaWorld_DrawerOpen-v3_expert": Expected(box(4), None, 20, 3000, (150, 150), 899, 0, (39,)),
  "MetaWorld_Reach-v3_expert": Expected(box(4), None, 20, 3000, (150, 150), 1329, 0, (39,)),
  "MiniGrid-DoorKey-5x5_mixed": Expected(Discrete(7), None, 760, 31383, (7, 250), 0.84, 705, (7, 7, 3)),
  "PrivateEye-v5_human": Expected(Discrete(18), None, 1, 2187, (2187, 2187), 100_400, 0, (84, 84)),
}


def check(recording, expected):
  found = recording.metadata["recording"]
  lengths = np.diff(recording.starts)
  assert (found["episodes"], found["steps"], found["terminals"]) == (
    expected.episodes,
    expected.steps,
    expected.terminals,
  )
  assert (lengths.min(), lengths.max()) == expected.lengths
  assert found["out_of_bounds"] == expected.out_of_bounds
  # the figures are rounded to the last digit that is given
  assert recording.metadata["data_return"] == pytest.approx(
    expected.data_return, abs=0.5 if abs(expected.data_return) > 10 else 0.05
  )
  assert recording.observation.shape[1:] == expected.observation


@pytest.mark.parametrize("name", DEMOS)
def test_demonstrations(shared_data, tmp_path, name):
  expected = DEMOS[name]
  path = shared_data / "demos" / f"{name}.npz"
  options = {"action": expected.action, "max_episode_steps": expected.limit}
  recording = npz.read(path, **options)
  assert npz.read(path, name.split("_")[0], **options).metadata == recording.metadata
  check(recording, expected)
  where = npz.write(recording, tmp_path, name="demos")
  episodes = ilx.data.load(where)
  dropped = recording.metadata["recording"]["dropped"]
  assert (episodes.num_episodes, episodes.num_transitions) == (expected.episodes, expected.steps - dropped)
  assert episodes.is_terminal.sum() == expected.terminals
  spec = ilx.data.spec(episodes, ilx.data.read_info(where).metadata)
  assert type(spec.action) is type(expected.action)
  source = tfds.builder_from_directory(where).as_data_source(split="train")
  assert len(source) == expected.episodes
  steps = list(source[0]["steps"])
  assert len(steps) == ilx.data.lengths(episodes)[0] + 1
  np.testing.assert_array_equal(steps[1]["observation"], episodes.observation[1])
  np.testing.assert_array_equal(steps[1]["action"], episodes.action[1])


@pytest.mark.parametrize("name", OFFLINE)
def test_offline(shared_data, name):
  recording = npz.read(shared_data / "offline" / f"{name}.npz", action=OFFLINE[name].action)
  check(recording, OFFLINE[name])
  assert recording.metadata["recording"]["dropped"] == 0
  assert recording.action.dtype == (np.int32 if isinstance(OFFLINE[name].action, Discrete) else np.float32)


def test_images_arrive_as_they_were(shared_data, tmp_path):
  path = shared_data / "offline" / "MiniGrid-DoorKey-5x5_mixed.npz"
  episodes = ilx.data.load(npz.convert(path, tmp_path, action=Discrete(7)))
  with np.load(path) as arrays:
    first = int(arrays["episode_lengths"][0])
    expected = np.concatenate([arrays["observations"][:first], arrays["final_observations"][:1]])
  assert episodes.observation.dtype == np.uint8
  np.testing.assert_array_equal(episodes.observation[: first + 1], expected)


def test_a_human_playing_without_observations(shared_data):
  with pytest.raises(ValueError, match=r"atari_human_PrivateEye\.npz: has no observations"):
    npz.read(shared_data / "demos" / "atari_human_PrivateEye.npz")


def test_a_limit_that_was_not_cartpoles(shared_data):
  with pytest.raises(ValueError, match="101 of 101 episodes have exactly 200 steps"):
    npz.read(shared_data / "demos" / "ilpyt_CartPole-v0.npz", max_episode_steps=500)


def test_actions_go_with_the_observation_that_they_followed(shared_data):
  """Pendulum's equations, from each observation and action to the next observation and the reward."""
  recording = npz.read(shared_data / "demos" / "imitation_pendulum.npz", max_episode_steps=200)
  for observation, action, reward, _ in npz.episodes(recording):
    cos, sin, speed = observation.astype(np.float64).T
    angle, torque = np.arctan2(sin, cos), action[:, 0].astype(np.float64)
    expected = np.clip(speed[:-1] + 0.05 * (15 * sin[:-1] + 3 * torque), -8, 8)
    np.testing.assert_allclose(speed[1:], expected, atol=1e-5)
    np.testing.assert_allclose(reward, -(angle**2 + 0.1 * speed**2)[:-1] - 0.001 * torque**2, atol=1e-5)

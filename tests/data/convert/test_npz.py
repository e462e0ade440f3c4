import dataclasses
import json

import numpy as np
import pytest

from ilx.data.convert import npz
from ilx.data.convert.layouts import PRESETS, Layout
from ilx.types import Continuous, Discrete

BOX = Continuous(np.full(2, -1.0), np.full(2, 1.0))


def flat(lengths, **more):
  """Two numbers an observation, [10 e + t, e], and rewards 1, 2, 3, ... within an episode."""
  observation = np.concatenate([[[10.0 * e + t, e] for t in range(n)] for e, n in enumerate(lengths)])
  reward = np.concatenate([np.arange(1.0, n + 1) for n in lengths])
  action = np.zeros((len(reward), 2))
  return {"observations": observation, "actions": action, "rewards": reward, **more}


def rename(arrays, **names):
  return {names.get(key, key): value for key, value in arrays.items()}


def save(path, **arrays):
  np.savez(path, **arrays)
  return path


def last(lengths):
  flags = np.zeros(sum(lengths), bool)
  flags[np.cumsum(lengths) - 1] = True
  return flags


def episodes(recording):
  return list(npz.episodes(recording))


@pytest.fixture
def path(tmp_path):
  return tmp_path / "recording.npz"


def test_cs285_tells_time_limits_from_ends_by_length_and_keeps_the_last_observation(path):
  arrays = flat([3, 2])
  following = arrays["observations"] + [1.0, 0.0]
  lengths = np.array([3, 2])
  save(path, **arrays, next_observations=following, terminals=last([3, 2]), episode_lengths=lengths)
  recording = npz.read(path, "cs285", max_episode_steps=3)
  assert recording.terminal.tolist() == [False, True]
  assert recording.returns.tolist() == [6.0, 3.0]
  (o0, a0, r0, t0), (o1, a1, r1, t1) = episodes(recording)
  assert o0[:, 0].tolist() == [0, 1, 2, 3]
  assert o1[:, 0].tolist() == [10, 11, 12]
  assert (len(a0), len(a1), t0, t1) == (3, 2, False, True)
  assert r0.tolist() == [1, 2, 3]
  assert r1.tolist() == [1, 2]
  assert {x.dtype for x in (o0, a0, r0)} == {np.dtype(np.float32)}
  assert npz.summary(recording) == {
    "episodes": 2, "steps": 5, "return_mean": 4.5, "return_min": 3.0, "return_max": 6.0,
    "terminals": 1, "time_limits": 1, "dropped": 0,
  }  # fmt: skip


def test_cs285_refuses_steps_that_are_out_of_order(path):
  arrays = flat([3])
  following = arrays["observations"] + [1.0, 0.0]
  following[1] = 7.0
  save(path, **arrays, next_observations=following, terminals=last([3]), episode_lengths=np.array([3]))
  with pytest.raises(
    ValueError, match=r"'next_observations' at episode 0, step 1 is not the next row of 'observations'"
  ):
    npz.read(path, "cs285", max_episode_steps=3)


def test_ilpyt_repeats_a_terminal_observation_and_drops_the_last_action_at_a_time_limit(path):
  arrays = flat([4, 2]) | {"actions": np.array([0, 1, 2, 3, 1, 0], np.uint8)}
  save(path, **arrays, dones=last([4, 2]), episode_lengths=np.array([4, 2]))
  recording = npz.read(path, "ilpyt", max_episode_steps=4)
  (o0, a0, r0, t0), (o1, a1, r1, t1) = episodes(recording)
  assert (t0, t1) == (False, True)
  assert o0[:, 0].tolist() == [0, 1, 2, 3]
  assert a0.tolist() == [0, 1, 2]
  assert a0.dtype == np.int32
  assert r0.tolist() == [1, 2, 3]
  assert o1[:, 0].tolist() == [10, 11, 11]
  assert a1.tolist() == [1, 0]
  assert r1.tolist() == [1, 2]
  assert recording.returns.tolist() == [10.0, 3.0]
  assert npz.summary(recording)["dropped"] == 1


def test_a_limit_that_was_not_the_recordings_is_noticed(path):
  lengths = [4, 4, 4]
  save(path, **flat(lengths), dones=last(lengths), episode_lengths=np.array(lengths))
  with pytest.raises(ValueError, match="3 of 3 episodes have exactly 4 steps, which looks like a time limit"):
    npz.read(path, "ilpyt", max_episode_steps=9)
  with pytest.raises(ValueError, match="episode 0 has 4 steps, more than max_episode_steps=3"):
    npz.read(path, "ilpyt", max_episode_steps=3)
  with pytest.raises(ValueError, match="give max_episode_steps"):
    npz.read(path, "ilpyt")
  all_ends = dataclasses.replace(PRESETS["ilpyt"], ends="flags")
  assert npz.read(path, all_ends).terminal.all()
  assert not npz.read(path, "ilpyt", max_episode_steps=4).terminal.any()


def test_the_limit_in_meta_is_used(path):
  meta = json.dumps({"env_id": "X-v0", "env_kwargs": {"max_episode_steps": 4}})
  save(path, **flat([4, 2]), dones=last([4, 2]), episode_lengths=np.array([4, 2]), meta=np.array(meta))
  recording = npz.read(path, "ilpyt")
  assert recording.terminal.tolist() == [False, True]
  assert recording.metadata["env_id"] == "X-v0"


def test_imitation_has_an_observation_more_and_split_points(path):
  # episodes of 2, 3 and 1 actions; the last is a fragment
  obs = np.array([0.0, 1, 2, 10, 11, 12, 13, 20, 21])[:, None]
  rews = np.array([1.0, 2, 1, 2, 3, 5])
  save(
    path, obs=obs, acts=np.zeros((6, 1)), rews=rews, terminal=np.array([True, True, False]), indices=np.array([2, 5])
  )
  recording = npz.read(path, "imitation", max_episode_steps=3)
  assert recording.terminal.tolist() == [True, False, False]
  assert [o[:, 0].tolist() for o, *_ in episodes(recording)] == [[0, 1, 2], [10, 11, 12, 13], [20, 21]]
  assert [r.tolist() for _, _, r, _ in episodes(recording)] == [[1, 2], [1, 2, 3], [5]]


def test_imitation_with_one_episode_has_no_split_points(path):
  save(
    path, obs=np.zeros((4, 1)), acts=np.zeros((3, 1)), rews=np.ones(3), terminal=np.array([True]), indices=np.zeros(0)
  )
  assert npz.read(path, "imitation", max_episode_steps=9).starts.tolist() == [0, 3]


def test_sb2_has_start_flags_and_actions_in_a_column(path):
  arrays = rename(flat([3, 1, 5]), observations="obs") | {"actions": np.arange(9).reshape(9, 1) % 2}
  starts = np.array([1, 0, 0, 1, 1, 0, 0, 0, 0], bool)
  save(path, **arrays, episode_starts=starts, episode_returns=np.array([6.0, 1.0, 15.0]))
  recording = npz.read(path, "sb2", max_episode_steps=5)
  assert recording.terminal.tolist() == [True, True, False]
  assert recording.starts.tolist() == [0, 3, 4, 9]
  assert recording.action.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
  assert [len(a) for _, a, _, _ in episodes(recording)] == [3, 1, 4]
  assert [len(o) for o, *_ in episodes(recording)] == [4, 2, 5]


def test_returns_that_the_rewards_do_not_sum_to(path):
  arrays = rename(flat([3, 1]), observations="obs")
  save(path, **arrays, episode_starts=np.array([1, 0, 0, 1]), episode_returns=np.array([6.0, 2.0]))
  with pytest.raises(ValueError, match="rewards of episode 1 sum to 1, but array 'episode_returns' says 2"):
    npz.read(path, "sb2", max_episode_steps=5)


def test_dapg_has_no_ends(path):
  save(path, **flat([3, 2, 1]), episode_lengths=np.array([3, 2, 1]), init_qpos=np.zeros((3, 2)))
  recording = npz.read(path, "dapg")
  assert not recording.terminal.any()
  # the last episode has one action and nothing after it: no transition
  assert [len(a) for _, a, _, _ in episodes(recording)] == [2, 1]
  assert npz.summary(recording)["dropped"] == 3


def offline(lengths, terminal, cut, **more):
  stops = last(lengths)
  ends = np.flatnonzero(stops)
  arrays = flat(lengths, episode_lengths=np.array(lengths, np.int32))
  arrays["terminals"], arrays["timeouts"] = np.zeros_like(stops), np.zeros_like(stops)
  arrays["terminals"][ends], arrays["timeouts"][ends] = terminal, cut
  arrays["episode_returns"] = np.array([n * (n + 1) / 2 for n in lengths], np.float32)
  arrays["final_observations"] = np.array([[100.0 + e, e] for e in range(len(lengths))])
  return arrays | more


def test_offline_takes_flags_as_they_are(path):
  # the last episode has neither flag: cut
  save(path, **offline([3, 1, 2], [True, False, False], [False, True, False]))
  recording = npz.read(path, "offline", action=BOX)
  assert recording.terminal.tolist() == [True, False, False]
  assert [o[:, 0].tolist() for o, *_ in episodes(recording)] == [[0, 1, 2, 100], [10, 101], [20, 21, 102]]
  assert npz.summary(recording)["dropped"] == 0


def test_d4rl_without_final_observations(path):
  arrays = offline([3, 1, 2], [True, False, False], [False, True, False])
  save(path, **{key: arrays[key] for key in ("observations", "actions", "rewards", "terminals", "timeouts")})
  (o0, *_), (o2, _, _, t2) = episodes(npz.read(path, "d4rl"))
  assert o0[:, 0].tolist() == [0, 1, 2, 2]
  assert o2[:, 0].tolist() == [20, 21]
  assert not t2


def test_flags_that_disagree_with_lengths(path):
  save(path, **offline([3, 2], [True, True], [False, False], episode_lengths=np.array([2, 3])))
  with pytest.raises(
    ValueError, match="'episode_lengths' and 'terminals or timeouts' disagree on whether an episode starts at step 2"
  ):
    npz.read(path, "offline")


@pytest.mark.parametrize("keep_lengths", [True, False])
def test_stacked_episodes_are_laid_out_flat(path, keep_lengths):
  layout = Layout(
    "obs", "act", "rew", stacked=True, extra_observation=True, terminal="done", lengths="n" if keep_lengths else None
  )
  obs = np.arange(2 * 4 * 1.0).reshape(2, 4, 1)
  save(path, obs=obs, act=np.zeros((2, 3, 2)), rew=np.ones((2, 3)), done=np.array([True, False]), n=np.array([2, 3]))
  recording = npz.read(path, layout)
  expected = [[0, 1, 2], [4, 5, 6, 7]] if keep_lengths else [[0, 1, 2, 3], [4, 5, 6, 7]]
  assert [o[:, 0].tolist() for o, *_ in episodes(recording)] == expected
  assert recording.terminal.tolist() == [True, False]


def test_actions_out_of_bounds_are_counted_and_clipped(path):
  actions = np.array([[0.5, 1.5], [-3.0, 2.0], [1.0, -1.0]])
  save(path, **offline([3], [True], [False], actions=actions))
  recording = npz.read(path, "offline", action=BOX)
  assert recording.metadata["recording"]["out_of_bounds"] == 2
  assert recording.action.tolist() == [[0.5, 1.0], [-1.0, 1.0], [1.0, -1.0]]
  kept = npz.read(path, "offline", action=BOX, clip=False)
  assert kept.metadata["recording"]["out_of_bounds"] == 2
  np.testing.assert_array_equal(kept.action, actions.astype(np.float32))


def test_action_size_differs_from_the_environments(path):
  save(path, **offline([3], [True], [False], actions=np.zeros((3, 4))))
  with pytest.raises(ValueError, match="'actions' has 4 numbers an action; the environment takes 2"):
    npz.read(path, "offline", action=BOX)


@pytest.mark.parametrize(
  "actions",
  [
    np.array([2, 0, 1], np.uint8),
    np.array([[2.0], [0.0], [1.0]]),
    np.eye(3)[[2, 0, 1]],
    np.eye(3, dtype=bool)[[2, 0, 1]],
  ],
)
def test_discrete_actions_become_int32(path, actions):
  save(path, **offline([3], [True], [False], actions=actions))
  action = npz.read(path, "offline", action=Discrete(3)).action
  assert action.tolist() == [2, 0, 1]
  assert action.dtype == np.int32


@pytest.mark.parametrize(
  ("actions", "message"),
  [
    (np.array([0, 1, 3]), r"'actions' is 3 at episode 0, step 2; the environment has actions 0 to 2"),
    (np.array([0, -1, 1]), r"'actions' is -1 at episode 0, step 1"),
    (np.array([0.0, 0.5, 1.0]), "expected one whole number an action"),
    (np.full((3, 3), 0.3), "expected one whole number an action"),
  ],
)
def test_discrete_actions_that_are_none(path, actions, message):
  save(path, **offline([3], [True], [False], actions=actions))
  with pytest.raises(ValueError, match=message):
    npz.read(path, "offline", action=Discrete(3))


def test_images_stay_uint8_and_other_integers_become_int32(path):
  images = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2)
  save(path, **offline([3], [True], [False], observations=images, final_observations=images[:1]))
  ((observation, *_),) = episodes(npz.read(path, "offline"))
  assert observation.dtype == np.uint8
  assert observation.shape == (4, 2, 2)
  save(path, **offline([3], [True], [False], observations=images.astype(np.int64), final_observations=images[:1] * 1))
  with pytest.raises(
    ValueError, match="'final_observations' has dtype uint8, which differs from the observations' int32"
  ):
    npz.read(path, "offline")


@pytest.mark.parametrize(
  ("key", "at", "value", "message"),
  [
    ("observations", (3, 1), np.nan, "array 'observations' is not finite at episode 1, step 0"),
    ("actions", (4, 0), np.inf, "array 'actions' is not finite at episode 1, step 1"),
    ("rewards", 2, np.nan, "array 'rewards' is not finite at episode 0, step 2"),
    ("rewards", 2, 1e39, "array 'rewards' is not finite at episode 0, step 2"),
    ("final_observations", (1, 0), np.nan, "array 'final_observations' is not finite at episode 1"),
  ],
)
def test_numbers_that_are_not_finite(path, key, at, value, message):
  arrays = offline([3, 2], [True, True], [False, False])
  arrays[key][at] = value
  save(path, **arrays)
  with pytest.raises(ValueError, match=rf"recording\.npz: {message}"):
    npz.read(path, "offline", action=BOX)


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("observations", np.zeros((4, 2)), r"'observations' has shape \(4, 2\) of float64; expected numbers \[5, ...\]"),
    ("actions", np.zeros((4, 2)), r"'actions' has shape \(4, 2\) of float64; expected \[5, A\]"),
    ("rewards", np.zeros((5, 2)), r"'rewards' has shape \(5, 2\) of float64; expected numbers \[N\]"),
    ("terminals", np.zeros(4), r"'terminals' has shape \(4,\) of float64; expected numbers \[5\]"),
    ("terminals", np.full(5, 2), r"'terminals' must hold flags"),
    ("final_observations", np.zeros((2, 3)), r"'final_observations' has shape \(2, 3\) .* expected numbers \[2, 2\]"),
    ("final_observations", np.zeros((1, 2)), r"'final_observations' has shape \(1, 2\) .* expected numbers \[2, 2\]"),
    ("episode_lengths", np.array([3, 3]), r"'episode_lengths' does not split the 5 steps into episodes"),
    ("episode_lengths", np.array([5, 0]), r"'episode_lengths' does not split the 5 steps into episodes"),
    ("rewards", np.array(list("abcde")), "'rewards' has shape"),
    ("observations", np.array([{}] * 5, object), "'observations' holds pickled Python objects"),
  ],
)
def test_arrays_of_the_wrong_shape(path, key, value, message):
  save(path, **offline([3, 2], [True, True], [False, False], **{key: value}))
  with pytest.raises(ValueError, match=rf"recording\.npz: array {message}"):
    npz.read(path, "offline")


def test_a_terminal_inside_an_episode(path):
  arrays = offline([3, 2], [True, True], [False, False])
  layout = Layout("observations", "actions", "rewards", lengths="episode_lengths", terminal="terminals")
  arrays["terminals"][1] = True
  save(path, **arrays)
  with pytest.raises(ValueError, match="'terminals' is true at episode 0, step 1, inside an episode"):
    npz.read(path, layout)


@pytest.mark.parametrize("meta", ["[1]", "not json", '{"env_kwargs": 3}'])
def test_meta_that_is_no_object(path, meta):
  save(path, **offline([3], [True], [False]), meta=np.array(meta))
  with pytest.raises(ValueError, match="array 'meta'"):
    npz.read(path, "offline")

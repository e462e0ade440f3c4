import logging

import av
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.evaluation import environments, render, video
from ilx.evaluation.acting import Policy
from ilx.evaluation.rollout import evaluate

LEFT = Policy(lambda params, carry, step, key: (jnp.zeros(1, jnp.int32), carry), lambda batch_size: ())
TROT = Policy(lambda params, carry, step, key: (step.observation[:, 2:8] * 0.5, carry), lambda batch_size: ())


def _decode(path):
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    return stream.codec_context.name, stream.codec_context.pix_fmt, round(float(stream.average_rate)), frames


def test_video_of_cartpole(tmp_path):
  path = video.record_video(LEFT, None, "CartPole-v1", tmp_path / "new" / "episode.mp4")
  assert path == tmp_path / "new" / "episode.mp4"
  codec, pixels, fps, frames = _decode(path)
  assert (codec, pixels, fps) == ("h264", "yuv420p", 25)  # what browsers play; every other of 50 steps a second
  assert frames[0].shape == (424, 600, 3)
  length = int(evaluate(LEFT, None, "CartPole-v1", episodes=1).lengths[0])
  assert len(frames) == 1 + -(-length // 2) + 25  # the last stays for a second
  picture = [frame[24:].astype(int) for frame in frames]
  assert picture[0].std() > 20
  moved = np.abs(picture[-1] - picture[0]).max(axis=2) > 100
  assert 500 < moved.sum() < 0.1 * moved.size  # the pole has fallen, the background stays
  assert np.abs(frames[0][:24].astype(int) - frames[-1][:24]).max() > 100  # the caption has changed
  assert path.stat().st_size < 1 << 20
  assert [file.name for file in path.parent.iterdir()] == ["episode.mp4"]


def test_video_of_mujoco_without_display(tmp_path, caplog):
  path = video.record_video(TROT, None, "HalfCheetah-v5", tmp_path / "episode.mp4", max_seconds=0.5)
  if path is None and "EGL" in caplog.text:
    pytest.skip(f"no EGL on this machine: {caplog.text}")
  _, _, fps, frames = _decode(path)
  assert fps == 20
  assert len(frames) == 1 + 10 + 20
  assert frames[0].shape == (384, 480, 3)
  assert np.unique(frames[0][24:].reshape(-1, 3), axis=0).shape[0] > 1000  # shaded, not one flat colour


@pytest.mark.parametrize(
  ("env_id", "policy", "reason"), [("FrozenLake-v1", LEFT, "not implemented"), ("HalfCheetah-v5", TROT, "apt install")]
)
def test_where_nothing_can_be_drawn_there_is_none_and_a_reason(tmp_path, caplog, monkeypatch, env_id, policy, reason):
  monkeypatch.setenv("__EGL_VENDOR_LIBRARY_FILENAMES", str(tmp_path / "absent.json"))  # as if no driver were installed
  old = tmp_path / "episode.mp4"
  old.write_bytes(b"an earlier video")
  with caplog.at_level(logging.WARNING):
    assert video.record_video(policy, None, env_id, old, max_seconds=0.2) is None
  assert f"No video of {env_id}" in caplog.text
  assert reason in caplog.text
  assert old.read_bytes() == b"an earlier video"
  assert list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize(
  ("program", "reason"), [("/bin/false", "status 1"), ("/no/such/python", "could not be started")]
)
def test_a_process_that_dies_is_no_harm(tmp_path, caplog, monkeypatch, program, reason):
  monkeypatch.setattr(video.sys, "executable", program)
  assert video.record_video(LEFT, None, "CartPole-v1", tmp_path / "episode.mp4") is None
  assert reason in caplog.text


def test_a_replay_that_differs_is_refused(tmp_path):
  import envpool

  seed = int(environments.slot_seeds(0, 1)[0])
  env = envpool.make("CartPole-v1", "gymnasium", num_envs=1, seed=seed, render_mode="rgb_array")
  frames = render._frames(
    env, np.zeros(3, np.int32), np.asarray([1.0, 1.0, 0.5]), False, stride=1, repeat=1, limit=9, small=False
  )
  with pytest.raises(RuntimeError, match=r"earned 1.0 at step 3, the episode 0.5"):
    list(frames)


def test_small_pictures_are_enlarged_and_sides_are_even():
  image = render._captioned(np.zeros((33, 81, 3), np.uint8), "step 0", False)
  assert image.size == (244, 100 + 24)


def test_several_episodes_in_a_grid(tmp_path):
  """Three episodes of unequal length: two columns, two rows, as long as the longest."""
  lean = Policy(lambda params, carry, step, key: ((step.observation[:, 2] > 0).astype(jnp.int32), carry), lambda n: ())
  path = video.record_video(lean, None, "CartPole-v1", tmp_path / "episodes.mp4", seed=3, episodes=3, max_seconds=2)
  lengths = evaluate(lean, None, "CartPole-v1", episodes=3, seed=3).lengths
  assert len(set(lengths.tolist())) == 3
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    fps = round(float(stream.average_rate))
  assert frames[0].shape == (2 * (200 + 18), 2 * 300, 3)  # half of what CartPole draws, and a line of text
  assert abs(len(frames) - (1 + -(-min(max(lengths), 100) // 2) + fps)) <= 1
  cells = [frames[-1][row : row + 200, column : column + 300] for row in (18, 236) for column in (0, 300)]
  brightness = [float(cell.mean()) for cell in cells]
  longest = int(np.argmax(lengths))
  assert all(b < 0.7 * brightness[longest] for i, b in enumerate(brightness[:3]) if i != longest)  # over: darker
  assert brightness[3] < 30  # there is no fourth


def test_repeated_actions_are_drawn_at_every_step(tmp_path):
  path = video.record_video(LEFT, None, "CartPole-v1", tmp_path / "e.mp4", env_kwargs={"action_repeat": 4})
  plain = video.record_video(LEFT, None, "CartPole-v1", tmp_path / "plain.mp4")
  counts = []
  for one in (path, plain):
    with av.open(str(one)) as container:
      counts.append(sum(1 for _ in container.decode(container.streams.video[0])))
  assert counts[0] == counts[1]  # pushed left all the time, four at a time or one


def test_a_cut_in_the_middle_of_a_repeated_action(tmp_path):
  """Pendulum has 30 steps a second: of the eight actions of four steps, the last is cut after two."""
  push = Policy(
    lambda params, carry, step, key: (jnp.where(step.observation[:, 2:3] > 0, -2.0, 2.0), carry), lambda n: ()
  )
  kwargs = {"max_seconds": 1, "env_kwargs": {"action_repeat": 4}}
  path = video.record_video(push, None, "Pendulum-v1", tmp_path / "e.mp4", **kwargs)
  with av.open(str(path)) as container:
    frames = sum(1 for _ in container.decode(container.streams.video[0]))
  assert frames == 1 + 30 + 30  # the start, every step, and a second of the last


@pytest.mark.parametrize("episodes", [0, 65])
def test_too_many_episodes(tmp_path, episodes):
  with pytest.raises(ValueError, match=f"1 to 64 episodes, not {episodes}"):
    video.record_video(LEFT, None, "CartPole-v1", tmp_path / "episode.mp4", episodes=episodes)

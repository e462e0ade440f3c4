"""Tasks of gymnasium are played and counted as EnvPool's are."""

import json

import av
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.evaluation import environments, matching, render, video
from ilx.evaluation.acting import Policy, random_policy
from ilx.evaluation.playing import play
from ilx.evaluation.rollout import evaluate
from ilx.types import Continuous, Discrete, MultiDiscrete, Step

BALANCE = Policy(
  lambda params, carry, step, key: ((step.observation[:, 2] + step.observation[:, 3] > 0).astype(jnp.int32), carry),
  lambda batch_size: (),
)


class Arcade(gymnasium.Env):
  """Earns the stick's tilt and a point for the third button; done as its reset said, with success where lucky."""

  def __init__(self, unbounded=False):
    size = np.full(2, np.inf if unbounded else 2.0)
    self.observation_space = gymnasium.spaces.Dict(
      {"screen": gymnasium.spaces.Box(0, 255, (4, 4), np.uint8), "lives": gymnasium.spaces.Box(0, 9, (1,), np.float64)}
    )
    self.action_space = gymnasium.spaces.Dict(
      {"stick": gymnasium.spaces.Box(-size, size, dtype=np.float64), "buttons": gymnasium.spaces.MultiDiscrete([2, 5])}
    )

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.lives = int(self.np_random.integers(1, 10))
    return self._observed(), {"success": False}

  def step(self, action):
    self.lives -= 1
    reward = float(action["stick"][0]) + (action["buttons"][1] == 3)
    return self._observed(), reward, self.lives == 0, False, {"success": self.lives == 0 and reward > 1}

  def _observed(self):
    return {"screen": np.full((4, 4), self.lives, np.uint8), "lives": np.array([self.lives], np.float64)}


class Lamp(gymnasium.Env):
  """A picture as bright as its observation, which a random start and the actions change."""

  observation_space = gymnasium.spaces.Box(0, 255, (1,), np.float32)
  action_space = gymnasium.spaces.Box(-20, 20, (1,), np.float32)
  metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

  def __init__(self, render_mode=None):
    self.render_mode = render_mode

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.light = self.np_random.uniform(60, 200, 1).astype(np.float32)
    return self.light, {}

  def step(self, action):
    self.light = np.clip(self.light + action, 0, 255)
    return self.light, float(self.light[0]), False, False, {}

  def render(self):
    return np.full((240, 320, 3), self.light[0], np.uint8)


@pytest.fixture(autouse=True)
def arcade(monkeypatch):
  monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.envs.registration.registry))
  gymnasium.register("Arcade-v0", Arcade, max_episode_steps=6)
  gymnasium.register("Endless-v0", Arcade)
  gymnasium.register("Lamp-v0", Lamp, max_episode_steps=5)


def test_returns_are_those_of_a_plain_loop():
  result = evaluate(BALANCE, None, "gymnasium:CartPole-v1", episodes=6, seed=3, num_envs=2)
  expected = np.zeros(6)
  for slot, seed in enumerate(environments.slot_seeds(3, 2)):
    env = gymnasium.make("CartPole-v1")
    for episode in range(slot, 6, 2):
      observation, _ = env.reset(seed=int(seed)) if episode == slot else env.reset()
      ended = False
      while not ended:
        observation, reward, terminated, truncated, _ = env.step(int(observation[2] + observation[3] > 0))
        expected[episode] += reward
        ended = terminated or truncated
  np.testing.assert_array_equal(result.returns, expected)
  np.testing.assert_array_equal(result.lengths, expected)
  assert result.env_version == f"gymnasium {gymnasium.__version__}"
  assert result.successes is None
  assert len(set(expected)) > 1


def test_an_agent_of_envpools_task_plays_gymnasiums():
  assert environments.spec("gymnasium:CartPole-v1").action == environments.spec("CartPole-v1").action
  matching.check_spec(environments.spec("CartPole-v1"), environments.spec("gymnasium:CartPole-v1"))


def test_dicts_of_observations_and_of_actions():
  spec = environments.spec("gymnasium:Arcade-v0")
  assert spec.observation["screen"] == jax.ShapeDtypeStruct((4, 4), np.uint8)
  assert spec.observation["lives"] == jax.ShapeDtypeStruct((1,), np.float32)
  assert spec.action["buttons"] == MultiDiscrete((2, 5))
  assert isinstance(spec.action["stick"], Continuous) and spec.action["stick"].high.tolist() == [2.0, 2.0]

  def act(params, carry, step, key):
    count = step.reward.shape[0]
    lucky = step.observation["screen"][:, 0, 0] == 1  # the last step but where the time limit comes first
    tilt = jnp.stack([jnp.where(lucky, 9.0, -1.0), jnp.zeros(count)], axis=1)  # beyond the bound, 2
    return {"stick": tilt, "buttons": jnp.array([[1, 3]] * count, jnp.int32)}, carry

  episodes = []
  env = environments.make("gymnasium:Arcade-v0", 3, 0)
  played = play(
    Policy(act, lambda n: ()), None, env, episodes=9, on_episode=lambda index, episode: episodes.append(episode)
  )
  for episode, value, length, success in zip(episodes, played.returns, played.lengths, played.successes, strict=True):
    lives = int(episode.observation["lives"][0, 0])
    assert length == min(lives, 6)
    assert episode.is_terminal == success == (lives <= 6)
    assert value == pytest.approx(3.0 if lives <= 6 else 0.0)
    assert episode.action["stick"].max() == (2.0 if lives <= 6 else -0.0)
    assert episode.action["buttons"].tolist() == [[1, 3]] * length
    assert episode.reward.dtype == episode.observation["lives"].dtype == np.float32
  assert 0 < played.successes.sum() < 9


def test_uniform_actions_of_every_part():
  spec = environments.spec("gymnasium:Arcade-v0")
  step = Step({}, jnp.zeros(500), jnp.zeros(500, bool))
  action, _ = random_policy(spec).act((), (), step, jax.random.key(0))
  assert action["stick"].shape == (500, 2) and float(jnp.abs(action["stick"]).max()) > 1.9
  assert [set(np.asarray(column)) for column in action["buttons"].T] == [{0, 1}, {0, 1, 2, 3, 4}]
  evaluate(random_policy(spec), (), "gymnasium:Arcade-v0", episodes=3, sample=True)


def test_a_wrong_choice_is_named():
  act = lambda params, carry, step, key: (  # noqa: E731
    {"stick": jnp.zeros((1, 2)), "buttons": jnp.array([[1, 5]])},
    carry,
  )
  with pytest.raises(ValueError, match="chose action 5; the environment has 0 to 4"):
    evaluate(Policy(act, lambda n: ()), None, "gymnasium:Arcade-v0", episodes=1)


@pytest.mark.parametrize(
  ("env_id", "kwargs", "said"),
  [
    ("gymnasium:CartPol-v1", {}, "Unknown environment id 'gymnasium:CartPol-v1': .*CartPole"),
    ("gymnasium:os:CartPole-v1", {}, "names a module"),
    ("gymnasium:CartPole-v1", {"max_episode_steps": -1}, "max_episode_steps=-1 must be at least 1"),
    ("gymnasium:CartPole-v1", {"max_episode_steps": 0}, "max_episode_steps=0 must be at least 1"),
    ("gymnasium:CartPole-v1", {"max_episode_steps": "a"}, "max_episode_steps='a' must be a whole number"),
    ("gymnasium:CartPole-v1", {"max_episode_steps": True}, "max_episode_steps=True must be a whole number"),
    ("gymnasium:CartPole-v1", {"max_episode_steps": 9.5}, "max_episode_steps=9.5 must be a whole number"),
    ("gymnasium:Endless-v0", {}, "has no time limit; set one: env_kwargs={'max_episode_steps': 1000}"),
    ("gymnasium:Arcade-v0", {"colour": 1}, "could not be made with {'colour': 1}.*colour"),
    ("gymnasium:Arcade-v0", {"unbounded": True}, r"actions are Box\(-inf, inf.*ilx plays bounded"),
    ("gymnasium:Blackjack-v1", {"max_episode_steps": 9}, "observations of Tuple"),
  ],
)
def test_what_cannot_be_played_is_said(env_id, kwargs, said):
  for call in (lambda: environments.spec(env_id, **kwargs), lambda: environments.make(env_id, 2, 0, **kwargs)):
    with pytest.raises(ValueError, match=said):
      call()


def test_parts_of_observations():
  wanted = {"where": {"screen": "screen"}, "all": ["lives", "screen"]}
  spec = environments.spec("gymnasium:Arcade-v0", observation=wanted)
  assert spec.observation["where"]["screen"] == jax.ShapeDtypeStruct((4, 4), np.uint8)
  assert spec.observation["all"] == jax.ShapeDtypeStruct((17,), np.float32)
  episodes = []
  env = environments.make("gymnasium:Arcade-v0", 2, 0, observation=wanted, action_repeat=2)
  play(random_policy(spec), (), env, episodes=4, key=jax.random.key(0), on_episode=lambda _, one: episodes.append(one))
  for episode in episodes:
    seen = episode.observation
    lives = seen["where"]["screen"][:, 0, 0]
    assert lives[0] - lives[-1] >= 1
    np.testing.assert_array_equal(seen["all"], np.repeat(lives[:, None], 17, axis=1))
    assert seen["all"].dtype == np.float32


def test_a_time_limit_can_be_set():
  result = evaluate(
    random_policy(environments.spec("gymnasium:Arcade-v0")),
    (),
    "gymnasium:Endless-v0",
    episodes=4,
    sample=True,
    env_kwargs={"max_episode_steps": 1},
  )
  assert result.lengths.tolist() == [1] * 4


def test_a_replay_is_drawn_and_checked(tmp_path):
  policy, episodes = random_policy(environments.spec("gymnasium:Lamp-v0")), []
  env = environments.make("gymnasium:Lamp-v0", 1, 5)
  play(policy, (), env, episodes=1, key=jax.random.key(0), on_episode=lambda _, episode: episodes.append(episode))
  (episode,) = episodes
  job = {"env_id": "gymnasium:Lamp-v0", "env_kwargs": {}, "seeds": environments.slot_seeds(5, 1).tolist()}
  job |= {"action_repeat": 1, "limit": 1000, "stride": 1, "fps": 10, "path": str(tmp_path / "episode.mp4")}
  job |= {"is_terminal": [episode.is_terminal]}
  (tmp_path / "job.json").write_text(json.dumps(job))
  np.savez(tmp_path / "episodes.npz", action_0=episode.action, reward_0=episode.reward)
  render.main(tmp_path)
  with av.open(job["path"]) as container:
    frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]
  assert len(frames) == 1 + len(episode.action) + 10  # the last stays for a second
  assert abs(float(frames[1][100:].mean()) - episode.observation[1, 0]) < 3  # what the first action led to
  np.savez(tmp_path / "episodes.npz", action_0=episode.action, reward_0=episode.reward + 1)
  with pytest.raises(RuntimeError, match="the replay earned"):
    render.main(tmp_path)


def test_what_cannot_be_drawn_is_said(tmp_path, caplog):
  policy = random_policy(environments.spec("gymnasium:Lamp-v0"))  # which the process that draws does not know
  assert video.record_video(policy, (), "gymnasium:Lamp-v0", tmp_path / "a.mp4", sample=True) is None
  assert "No video of gymnasium:Lamp-v0" in caplog.text
  policy = random_policy(environments.spec("gymnasium:Arcade-v0"))
  assert video.record_video(policy, (), "gymnasium:Arcade-v0", tmp_path / "b.mp4", sample=True) is None
  assert "actions of several parts are not drawn" in caplog.text


def test_spec_of_choices():
  assert environments.spec("gymnasium:FrozenLake-v1").action == Discrete(4)


class Lucky(gymnasium.Env):
  """Three steps; tells of a success at the second of an even episode alone, and nothing in between or on reset."""

  observation_space = gymnasium.spaces.Box(0, 9, (1,), np.float32)
  action_space = gymnasium.spaces.Discrete(2)
  episode = -1

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self.episode, self.t = self.episode + 1, 0
    return np.zeros(1, np.float32), {}

  def step(self, action):
    self.t += 1
    told = {"is_success": True} if self.t == 2 and self.episode % 2 == 0 else {}
    return np.zeros(1, np.float32), 1.0, False, False, told


@pytest.mark.parametrize("times", [1, 3])
def test_a_success_is_of_its_own_episode(times):
  gymnasium.register("Lucky-v0", Lucky, max_episode_steps=3)
  stay = Policy(lambda params, carry, step, key: (jnp.zeros(step.reward.shape, jnp.int32), carry), lambda n: ())
  kwargs = {"episodes": 6, "num_envs": 2, "env_kwargs": {"action_repeat": times}}
  result = evaluate(stay, (), "gymnasium:Lucky-v0", **kwargs)
  assert result.successes.tolist() == [True, True, False, False, True, True]

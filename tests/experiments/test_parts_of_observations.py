"""From a recording of a part of what the environment shows to scores and a video of the policy that learnt from it."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import ilx
from experiments import run, task
from experiments.configs import bc
from experiments.data import __main__ as tool
from ilx.evaluation import environments

ROOT = pathlib.Path(__file__).parents[2]
GRID = "MiniGrid-DoorKey-5x5-v0"
AS_RECORDED = {"observation": "image", "max_episode_steps": 10}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
  """Two episodes of random play, of which the picture alone was kept."""
  path = tmp_path_factory.mktemp("recordings") / "grid.npz"
  env = environments.make(GRID, 2, 0, observation="image", max_episode_steps=10)
  episodes = []
  policy = ilx.evaluation.random_policy(env.spec)
  ilx.evaluation.play(
    policy, (), env, episodes=2, key=jax.random.key(0), on_episode=lambda _, one: episodes.append(one)
  )
  np.savez(
    path,
    obs=np.concatenate([one.observation for one in episodes]),
    acts=np.concatenate([one.action for one in episodes]),
    rews=np.concatenate([one.reward for one in episodes]),
    terminal=np.array([True, True]),
    indices=np.cumsum([len(one.action) for one in episodes])[:-1],
    meta=np.array(json.dumps({"env_id": GRID, "env_kwargs": {"max_episode_steps": 10}})),
  )
  return path


def _convert(capsys, recording, root, *flags):
  assert tool.main(["convert", str(recording), f"--root={root}", *flags]) == 0
  return capsys.readouterr().err


def test_from_the_recording_to_scores(recording, tmp_path, capsys):
  told = _convert(capsys, recording, tmp_path / "all", "--expert_return=0.9")
  option = json.dumps({"observation": "image"})
  assert f"does not fit {GRID}" in told and f"name it in env_kwargs, {option}." in told
  assert "does not fit" not in _convert(capsys, recording, tmp_path / "data", f"--env_kwargs={option}")

  config = bc.get_config()
  config.update(dataset=str(tmp_path / "data" / "grid"), split="train", steps=4, batch_size=8, log_every=2)
  config.evaluation.update(every=0, episodes=2, final_episodes=2)
  config.agent.update(encoder="flat", hidden=(8,))
  result = run.run(config, tmp_path / "run")
  assert result["env_kwargs"] == AS_RECORDED and len(result["returns"]) == 2
  assert (tmp_path / "run" / "episode.mp4").stat().st_size > 0

  # Other options, and another task, leave what the policy sees as it is.
  others = ["--env_id=MiniGrid-DoorKey-6x6-v0", '--env_kwargs={"max_episode_steps": 7}', "--episodes=2", "--json"]
  command = [sys.executable, "-m", "experiments.evaluate", f"--workdir={tmp_path / 'run'}", *others]
  ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert ended.returncode == 0, ended.stderr
  (score,) = json.loads(ended.stdout)["scores"]
  assert score["env_kwargs"] == {"observation": "image", "max_episode_steps": 7}
  assert max(score["lengths"][0]) <= 7

  config.env_kwargs = '{"max_episode_steps": 3}'
  short = run.run(config, tmp_path / "short")
  assert short["env_kwargs"] == {"observation": "image", "max_episode_steps": 3}
  assert max(short["lengths"]) <= 3

  # Data that do not say it: the part named at last, with the options as they were recorded, and their references.
  config.dataset, config.env_kwargs = str(tmp_path / "all" / "grid"), ""
  with pytest.raises(ValueError, match=r"does not fit .*observation\": \"image\""):
    run.run(config, tmp_path / "none")
  config.env_kwargs = option
  assert (found := task.load(config)).env_kwargs == AS_RECORDED and found.as_recorded
  assert found.metadata["expert_return"] == 0.9
  config.env_kwargs = json.dumps(AS_RECORDED | {"max_episode_steps": 3})
  assert not task.load(config).as_recorded

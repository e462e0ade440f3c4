"""Behaviour cloning starts to learn from every dataset of others that is at hand."""

import pathlib
import shutil

import jax
import numpy as np
import pytest

import ilx
from experiments import agents, task
from experiments.configs import bc
from ilx.data.convert import npz
from ilx.evaluation import environments
from ilx.parallel import mesh

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data"
RECORDINGS = sorted(
  path.relative_to(SHARED).as_posix() for path in SHARED.glob("*/*.npz") if path.parts[-2] != "policies"
)
# Holds actions alone; played again, they are PrivateEye-v5_human.
WITHOUT_OBSERVATIONS = "demos/atari_human_PrivateEye.npz"
# Recorded with another time limit than the task's.
LIMITS = {"demos/ilpyt_CartPole-v0.npz": 200}
# Single frames of tasks that stack four.
STACKED = ("offline/Breakout-v5_a3c.npz", "offline/PrivateEye-v5_human.npz")
# Recorded as one array, which is a part of what the task shows, or all of it put together: learnt from, but not played.
UNPLAYABLE = ("offline/FetchPush-v4_expert.npz", "offline/MiniGrid-DoorKey-5x5_mixed.npz")


def _config(dataset: pathlib.Path, **changes):
  config = bc.get_config()
  config.update(dataset=str(dataset), split="train", batch_size=64, steps=60, log_every=20)
  config.agent.update(hidden=(32,), learning_rate=1e-3)
  config.update_from_flattened_dict(changes)
  return config


def _losses(config) -> tuple[task.Task, list[float]]:
  """The mean loss between two logs."""
  found = task.load(config)
  rows = []
  ilx.train(
    agents.make(config.agent, found.data.spec, config.steps, config.frame_stack),
    found.data.train,
    steps=config.steps,
    batch_size=config.batch_size,
    mesh=jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), mesh.AXES),
    tier=found.data.tier,
    log_every=config.log_every,
    on_progress=lambda step, row: rows.append(row["train/loss"]),
  )
  return found, rows


@pytest.mark.parametrize("file", [file for file in RECORDINGS if file != WITHOUT_OBSERVATIONS])
def test_recordings(shared_data, tmp_path, file):
  import envpool

  about = npz.meta(shared_data / file)
  env_id, env_kwargs = about["env_id"], npz.env_kwargs(about)
  folder = npz.convert(
    shared_data / file,
    tmp_path,
    action=environments.spec(env_id, **env_kwargs).action,
    max_episode_steps=LIMITS.get(file) or envpool.make_spec(env_id, **env_kwargs).config.max_episode_steps,
  )
  stacked = {"frame_stack": 4, "split": "train[:1]"} if file in STACKED else {}
  config = _config(folder, **stacked)
  if file in UNPLAYABLE:
    with pytest.raises(ValueError, match=rf"does not fit {env_id}.*--config.env_id=none trains without playing"):
      task.load(config)
    config.env_id = "none"
  if stacked:
    with pytest.raises(ValueError, match=r"stacked frames: --config.frame_stack=4\."):
      task.load(_config(folder, split="train[:1]"))
  found, losses = _losses(config)
  assert found.env_id == (None if file in UNPLAYABLE else env_id)
  assert found.data.facts["data_episodes"] == (
    1 if stacked else ilx.data.read_info(folder).splits["train"].num_episodes
  )
  assert losses[-1] < losses[0], losses


def test_a_recording_of_actions_alone_is_refused(shared_data, tmp_path):
  with pytest.raises(ValueError, match="has no observations"):
    npz.convert(shared_data / WITHOUT_OBSERVATIONS, tmp_path)


def test_a_real_robots_dataset(shared_data, tmp_path):
  folder = shutil.copytree(shared_data / "rlds" / "bridge_dataset" / "1.0.0", tmp_path / "bridge_dataset" / "1.0.0")
  config = _config(folder, env_id="none", observation="state,image_0", heldout="val", tier="host")
  config.update(batch_size=16, steps=30, log_every=10)
  # As one flat row the picture's 12,288 numbers drown the state: its first updates saturate the actions for good.
  config.agent.encoder = "nature"
  found, losses = _losses(config)
  assert found.env_id is None
  assert {name: leaf.shape for name, leaf in found.data.spec.observation.items()} == {
    "state": (7,),
    "image_0": (64, 64, 3),
  }
  assert found.data.heldout.episodes.num_episodes == 25
  assert losses[-1] < 0.7 * losses[0], losses

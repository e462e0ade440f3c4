"""``python -m experiments.export``: from the folder of a run to a policy that plays alike."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import ilx
from experiments import export, run, trained
from experiments.configs import bc


@pytest.fixture(scope="module")
def finished(tmp_path_factory, record_cartpole):
  names = {"action_names": ["left", "right"], "mapping": {"frames": {"screen": {"resize": [8, 8]}}}}
  path = record_cartpole(tmp_path_factory.mktemp("data"), expert_return=500.0, random_return=20.0, **names)
  config = bc.get_config()
  config.update(
    dataset=str(path),
    split="train",
    heldout="",
    steps=20,
    batch_size=16,
    log_every=10,
    checkpoint_every=20,
    seed=5,
    seeds=2,
  )
  config.agent.update(hidden=(8,), learning_rate=1e-2)
  config.evaluation.update(every=20, episodes=3, final_episodes=5, video=False)
  workdir = tmp_path_factory.mktemp("runs") / "run"
  return workdir, run.run(config, workdir)


def test_the_command_exports_a_seed_of_a_run(finished, tmp_path):
  """The exported policy scores in the closing evaluation's episodes what the run's result says."""
  workdir, result = finished
  command = [sys.executable, "-m", "experiments.export", f"--workdir={workdir}", f"--output={tmp_path / 'policy'}"]
  done = subprocess.run([*command, "--seed=6"], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "policy: " in done.stdout and "ilx.export.load" in done.stdout
  policy = ilx.export.load(tmp_path / "policy")
  assert policy.spec["agent"]["name"] == "bc" and policy.spec["agent"]["seed"] == 6
  assert policy.spec["agent"]["steps"] == 20 and policy.spec["env_id"] == "CartPole-v1"
  played = ilx.evaluate(policy, policy.params, policy.spec["env_id"], episodes=5, seed=2_000_006)
  np.testing.assert_array_equal(played.returns, result["per_seed"][1]["returns"])
  again = subprocess.run([*command, "--seed=6"], capture_output=True, text=True)
  assert again.returncode == 1
  assert again.stderr.startswith("error: ") and "policy exists" in again.stderr and "Traceback" not in again.stderr


def test_the_first_seed_by_default(finished, tmp_path):
  workdir, _ = finished
  policy = ilx.export.load(export.export(workdir, tmp_path / "policy", platforms=("cpu",)))
  first, other = trained.load(workdir).params
  assert policy.spec["agent"]["seed"] == 5
  assert policy.spec["agent"]["mapping"] == {"frames": {"screen": {"resize": [8, 8]}}}
  assert policy.spec["action"] == {"kind": "discrete", "num_actions": 2, "names": ["left", "right"]}
  for found, expected in zip(policy.params.values(), jax.tree.leaves(first), strict=True):
    np.testing.assert_array_equal(found, expected)
  assert not np.array_equal(*(jax.tree.leaves(params.network)[1] for params in (first, other)))


def test_what_is_wrong_is_said(finished, tmp_path):
  workdir, _ = finished
  with pytest.raises(ValueError, match="--seed=9: the run is of seed 5 to 6"):
    export.export(workdir, tmp_path / "policy", seed=9)
  shutil.copy(workdir / "config.json", tmp_path)
  with pytest.raises(ValueError, match="has no checkpoint"):
    export.export(tmp_path, tmp_path / "policy")
  (tmp_path / "config.json").write_text(json.dumps([1]))
  with pytest.raises(ValueError, match=r"config.json is no config of a run"):
    export.export(tmp_path, tmp_path / "policy")
  assert not (tmp_path / "policy").exists()

"""From a training run to weight files: the commands, and which snapshots are chosen."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments.demos import datasets, export, policy


def _command(module, *flags):
  command = [sys.executable, "-m", f"experiments.demos.{module}", *flags]
  return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def log(tmp_path, monkeypatch):
  """Snapshots that return 0, 10, ... 100, where 30 and 60 sample badly."""
  monkeypatch.setattr(export, "_act", lambda weights: weights)

  def score(weights, env_id, *, seed, sample, episodes):
    value = float(weights["value"])
    return {"return_mean": 5.0 if sample and value in (30.0, 60.0) else value}

  monkeypatch.setattr(export, "score", score)
  for steps in range(11):
    policy.write_npz(tmp_path / f"{steps:09d}.npz", {"value": np.float32(10 * steps)})
  return [{"env_steps": steps, "return_mean": 10.0 * steps} for steps in range(11)]


def test_medium_is_the_earliest_within_a_third_to_a_half(tmp_path, log):
  assert export.choose_medium(tmp_path, log, "", random_return=0.0, expert_return=100.0) == 4
  assert export.choose_medium(tmp_path, log, "", random_return=-100.0, expert_return=100.0) == 0


def test_medium_is_the_closest_where_none_is_within(tmp_path, log):
  assert export.choose_medium(tmp_path, log[7:], "", random_return=0.0, expert_return=100.0) == 7
  assert export.choose_medium(tmp_path, log[:4], "", random_return=0.0, expert_return=100.0) == 2


def test_expert_counts_sampled_actions_too(tmp_path, log):
  assert export.choose_expert(tmp_path, log, "") == 10
  assert export.choose_expert(tmp_path, log[:7], "") == 5


def test_train_then_export(tmp_path, monkeypatch):
  workdir = tmp_path / "run"
  flags = ("--env_id=CartPole-v1", f"--workdir={workdir}", "--env_steps=8192", "--snapshot_every=4096")
  done = _command("train", *flags)
  assert done.returncode == 0, done.stderr
  log = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
  assert [row["env_steps"] for row in log] == [4096, 8192]
  assert sorted(path.name for path in workdir.iterdir()) == [
    "000004096.npz",
    "000008192.npz",
    "log.jsonl",
    "run.json",
  ]
  again = _command("train", *flags)
  assert again.returncode == 1
  assert "--workdir" in again.stderr
  assert "already holds a run" in again.stderr

  monkeypatch.setattr(policy, "WEIGHTS", tmp_path / "weights")
  run = json.loads((workdir / "run.json").read_text())
  scores = export._export(workdir, run, "expert", 8192)
  exported = policy.load("cartpole-expert")
  assert exported.metadata["scores"] == scores
  assert exported.metadata["env_steps"] == 8192
  with np.load(workdir / "000008192.npz") as snapshot:
    kernel = snapshot["head/logits/kernel"]
  np.testing.assert_array_equal(exported.weights["head/logits/kernel"], kernel.astype(np.float16))


@pytest.mark.parametrize(
  ("module", "flags", "message"),
  [
    ("train", ["--env_id=HalfCheeta-v5", "--workdir=/nowhere"], "HalfCheetah-v5"),
    ("export", ["--workdir=/nowhere"], "/nowhere holds no run.json"),
    ("build", ["--name=hoper-expert"], "hopper-expert"),
    ("build", [], "--name or --all"),
  ],
)
def test_errors_are_one_sentence(module, flags, message):
  done = _command(module, *flags)
  assert done.returncode != 0
  assert message in done.stderr
  assert "Traceback" not in done.stderr


def test_build_prints_the_folder(tmp_path):
  done = _command("build", "--name=cartpole-random", f"--root={tmp_path}")
  assert done.returncode == 0, done.stderr
  folder = tmp_path / "cartpole-random" / datasets.VERSION
  assert done.stdout.split() == [str(folder)]
  assert (folder / "dataset_info.json").is_file()

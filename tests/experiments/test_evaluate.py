"""Scoring a run again, as one types it."""

import json
import pathlib
import shutil
import subprocess
import sys
import types
from importlib import metadata

import av
import jax
import numpy as np
import pytest

from experiments import evaluate, run, task, trained
from experiments.configs import bc, dt
from ilx import agents, testing, training
from ilx.training import logs

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, record_cartpole):
  return record_cartpole(tmp_path_factory.mktemp("data"), expert_return=500.0, random_return=20.0)


def _run(module, dataset, workdir, **changes):
  config = module.get_config()
  config.update(dataset=str(dataset), split="train", steps=20, batch_size=16, log_every=10, checkpoint_every=10)
  config.evaluation.update(every=0, episodes=3, final_episodes=5, video=False)
  config.update_from_flattened_dict(changes)
  return run.run(config, workdir)


@pytest.fixture(scope="module")
def cloned(dataset, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "bc"
  return workdir, _run(bc, dataset, workdir, seeds=2, **{"agent.hidden": (8,)})


def test_evaluations_beside_training_find_the_same(dataset, tmp_path):
  """As an experiment, of two seeds, with held-out actions."""
  found = []
  for beside in (False, True):
    workdir = tmp_path / str(beside)
    changes = {"evaluation.beside": beside, "evaluation.every": 5, "heldout": "train", "agent.hidden": (8,)}
    result = _run(bc, dataset, workdir, seeds=2, steps=15, **changes)
    rows = [
      {k: v for k, v in row.items() if k not in ("seconds", "updates_per_second")}
      for row in logs.read_jsonl(workdir / "log.jsonl")
    ]
    found.append((sorted(rows, key=repr), result["per_seed"]))
  jax.tree.map(np.testing.assert_array_equal, *found)
  assert len([row for row in found[0][0] if "eval/return_mean" in row]) == 3


def _evaluate(*flags):
  command = [sys.executable, "-m", "experiments.evaluate", *map(str, flags)]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_same_episodes_have_the_runs_own_returns(cloned):
  """To the bit, and the file has what is printed."""
  workdir, result = cloned
  ended = _evaluate(f"--workdir={workdir}", "--episodes=5", "--json")
  assert ended.returncode == 0, ended.stderr
  found = json.loads(ended.stdout)
  assert found == json.loads((workdir / "evaluation.json").read_text())
  (score,) = found["scores"]
  assert score["returns"] == [list(one["returns"]) for one in result["per_seed"]]
  assert found["step"] == 20 and score["return_mean"] == pytest.approx(result["return_mean"])
  assert score["normalized_score"] == pytest.approx(result["normalized_score"])
  assert score["library"].startswith("EnvPool ")


def test_gymnasiums_version_stands_beside_its_tasks(cloned):
  workdir, _ = cloned
  output = workdir / "gymnasium.json"
  ended = _evaluate(f"--workdir={workdir}", "--episodes=2", "--env_id=gymnasium:CartPole-v1", f"--output={output}")
  assert ended.returncode == 0, ended.stderr
  assert f"gymnasium:CartPole-v1 (gymnasium {metadata.version('gymnasium')})" in ended.stdout
  assert json.loads(output.read_text())["scores"][0]["library"].startswith("gymnasium ")


def test_visitation_is_told(cloned):
  """Beside how far the data's own episodes are from each other; the returns stay the same."""
  workdir, _ = cloned
  output = workdir / "visited.json"
  ended = _evaluate(f"--workdir={workdir}", "--episodes=5", "--visitation", f"--output={output}")
  assert ended.returncode == 0, ended.stderr
  (score,) = json.loads(output.read_text())["scores"]
  (before,) = json.loads((workdir / "evaluation.json").read_text())["scores"]
  assert score["returns"] == before["returns"]
  found = score["visitation"]
  assert found["distance"] > 0 and found["within"] > 0
  assert f"visitation {found['distance']:.3f}" in ended.stdout


def test_a_grid_of_episodes_and_slots_that_step_apart(cloned):
  """The returns stay the same; the pictures are of the first seed's first episodes."""
  workdir, result = cloned
  output = workdir / "apart.json"
  ended = _evaluate(f"--workdir={workdir}", "--episodes=5", "--batch_size=2", "--video=3", f"--output={output}")
  assert ended.returncode == 0, ended.stderr
  (score,) = json.loads(output.read_text())["scores"]
  assert score["returns"] == [list(one["returns"]) for one in result["per_seed"]]
  assert f"video: {workdir / 'episodes.mp4'}" in ended.stdout
  with av.open(str(workdir / "episodes.mp4")) as container:
    frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.video[0])]
  assert frames[0].shape == (2 * (200 + 18), 2 * 300, 3)
  longest = max(result["per_seed"][0]["lengths"][:3])
  assert len(frames) == 1 + -(-longest // 2) + 25  # every other step, and a second of the last


def test_another_checkpoint_and_task(cloned):
  workdir, _ = cloned
  before = sorted(path.name for path in (workdir / "checkpoints").iterdir())
  output = workdir / "other.json"
  kwargs = '--env_kwargs={"max_episode_steps": 7}'
  ended = _evaluate(f"--workdir={workdir}", "--episodes=3", "--step=10", kwargs, f"--output={output}", "--seed=1")
  assert ended.returncode == 0, ended.stderr
  assert "10 updates, 2 seeds: CartPole-v1" in ended.stdout and "normalised" not in ended.stdout
  assert max(map(max, json.loads(output.read_text())["scores"][0]["lengths"])) == 7
  assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == before


@pytest.mark.parametrize(
  ("flags", "problem"),
  [
    (("--step=11",), "no checkpoint of step 11"),
    (("--env_id=Pendulum-v1",), "Pendulum-v1"),
    (("--target_returns=3",), "bc is not asked for returns"),
    (("--env_kwargs=[1]",), "--env_kwargs must be a JSON object"),
    (("--visitation", "--episodes=1"), "--episodes must be at least 2"),
    (('--env_kwargs={"max_episode_steps": "abc"}',), "CartPole-v1: an option has a wrong type"),
    (("--output=/no/such/folder/x.json",), "--output: /no/such/folder/x.json cannot be written: there is no folder"),
  ],
)
def test_what_cannot_be_is_one_line(cloned, flags, problem):
  ended = _evaluate(f"--workdir={cloned[0]}", *flags)
  assert ended.returncode == 1 and problem in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize(("head", "is_point"), [("deterministic", True), ("gaussian", False)])
def test_points_are_not_sampled(head, is_point):
  spec = testing.continuous_spec()
  agent = agents.bc(spec, hidden=(4,), head=head)
  batch = agent.view.take(testing.fake_episodes(spec), np.arange(2))
  params = jax.eval_shape(agent.init, jax.random.key(0), batch).params
  of_spec = types.SimpleNamespace(data=types.SimpleNamespace(spec=spec))
  assert evaluate._is_a_point(trained.Trained(None, of_spec, agent, [params], 0)) == is_point


def test_several_target_returns(dataset, tmp_path):
  sizes = {"agent.width": 8, "agent.layers": 1, "agent.length": 4, "agent.return_scale": 1.0, "agent.warmup": 0}
  _run(dt, dataset, tmp_path / "dt", **sizes)
  ended = _evaluate(f"--workdir={tmp_path / 'dt'}", "--episodes=3", "--target_returns=10,500")
  assert ended.returncode == 0, ended.stderr
  assert "asked for 10: return" in ended.stdout and "asked for 500: return" in ended.stdout
  written = json.loads((tmp_path / "dt" / "evaluation.json").read_text())
  assert [score["target_return"] for score in written["scores"]] == [10.0, 500.0]
  assert (written["seeds"], written["num_envs"], written["batch_size"]) == ([2_000_000], None, None)
  for wrong in ("nan", "1e400", "10,10.0", "10,x"):
    ended = _evaluate(f"--workdir={tmp_path / 'dt'}", f"--target_returns={wrong}")
    assert ended.returncode == 1 and f"--target_returns={wrong} must be finite numbers, each once" in ended.stderr


def test_episodes_that_are_not_learnt_from_are_not_visited(dataset):
  for tier in ("host", "streamed"):
    config = bc.get_config()
    config.update(dataset=str(dataset), split="train", tier=tier, where="episode IN (1, 3)")
    found = task.load(config)
    shown = evaluate.demonstrated(trained.Trained(config, found, None, [], 0), 7)
    assert [len(one) for one in shown] == [26, 36]  # of episodes of 20, 25, 30 and 35 transitions


def test_a_damaged_checkpoint_that_is_asked_for_is_named(cloned, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(cloned[0], workdir)
  largest = max((workdir / "checkpoints" / "10").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)
  with pytest.raises(training.CheckpointError, match=r"checkpoints/10 cannot be read: .* is damaged"):
    trained.load(workdir, 10)
  assert trained.load(workdir).step == 20


def test_references_are_of_the_environment_as_recorded(dataset):
  """Scores between another task's mean nothing."""
  config = bc.get_config()
  config.update(dataset=str(dataset), split="train")
  recorded = task.load(config)
  assert recorded.metadata["expert_return"] == 500.0 and recorded.as_recorded
  config.env_kwargs = '{"max_episode_steps": 7}'
  other = task.load(config)
  assert other.env_kwargs == {"max_episode_steps": 7}
  assert not {"expert_return", "random_return"} & set(other.metadata) and not other.as_recorded


def test_the_datas_return_is_no_reference_elsewhere(dataset, tmp_path):
  limit = '{"max_episode_steps": 7}'
  _run(bc, dataset, tmp_path / "short", env_kwargs=limit)
  result = json.loads((tmp_path / "short" / "result.json").read_text())
  assert result["return_mean"] <= 7 and result["data_episodes"] and result["data_return"] is None


def test_a_folder_without_a_run(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"holds no run.*config\.json"):
    trained.load(tmp_path)
  (tmp_path / "config.json").write_text("[")
  with pytest.raises(ValueError, match=r"config\.json is no config of a run"):
    trained.load(tmp_path)

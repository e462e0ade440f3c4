"""Which runs the results are made of, and by which fields."""

import json
import types

import numpy as np
import pytest

import ilx
from experiments import scoring
from experiments.configs import bc
from experiments.results import __main__ as command
from experiments.results import archive, runs, suite, table
from experiments.results.recordings import Recording

TASK = suite.TASKS["hopper-medium"]


def _fields(agent, name):
  return suite.fields(agent, suite.TASKS[name], 5000)


def test_fields_that_papers_set_for_some_tasks():
  maze = {"agent.expectile": 0.9, "agent.temperature": 10.0, "agent.reward_shift": -1.0, "agent.reward_scale": 1.0}
  assert maze.items() <= _fields("iql", "pointmaze-large").items()
  assert (
    not maze.keys() & _fields("iql", "hopper-medium").keys() | maze.keys() & _fields("bc", "pointmaze-large").keys()
  )
  assert _fields("iql", "fetchpush-v4_expert")["agent.reward_scale"] == 1.0
  coefficients = {"agent.actor_bc_coef": 0.01, "agent.critic_bc_coef": 0.001}
  assert coefficients.items() <= _fields("rebrac", "hopper-medium").items()


@pytest.mark.parametrize(
  ("name", "scale"),
  [
    ("pointmaze-medium", 1.0),
    ("fetchpush-v4_expert", 10.0),
    ("lunarlander-medium-expert", 100.0),
    ("hopper-medium", 1000.0),
  ],
)
def test_fields_of_transformers(name, scale):
  assert _fields("dt", name)["agent.return_scale"] == scale
  assert _fields("dt", name)["agent.warmup"] == _fields("bc_transformer", name)["agent.warmup"] == 500


def test_fields_of_pictures_and_of_data():
  assert {"agent.encoder": "nature", "frame_stack": 4}.items() <= _fields("bc", "breakout-v5_a3c").items()
  for name in suite.TASKS:
    found = _fields("bc", name)
    assert found["split"] == "train" and found["dataset"] == name


def test_which_agents_learn_what():
  for name in ("breakout-v5_a3c", "minigrid-doorkey-5x5_mixed"):
    assert not any(suite.applies(agent, suite.TASKS[name]) for agent in suite.CONTINUOUS_ONLY)
  names = "hopper-medium", "breakout-v5_a3c"
  costly = {(agent, name) for agent in suite.AGENTS for name in names if suite.costly(agent, suite.TASKS[name])}
  assert costly == {("bc_transformer", names[0]), ("dt", names[0])} | {(agent, names[1]) for agent in suite.AGENTS}


def test_evaluations_of_a_run():
  found = runs.overrides(runs.Run("bc", TASK, (3,), 40))
  assert (found["evaluation.final_episodes"], found["evaluation.every"], found["seed"]) == (100, 10, 3)


def test_seeds_and_updates_of_a_cell(monkeypatch):
  flags = types.SimpleNamespace(seeds=5, seeds_per_run=2, steps=40, transformer_steps=8)
  monkeypatch.setattr(command, "FLAGS", flags)
  assert [run.seeds for run in command._runs("bc", TASK)] == [(0, 1), (2, 3), (4,)]
  for agent, steps in (("bc", 40), ("dt", 8)):
    assert {run.steps for run in command._runs(agent, TASK)} == {steps}


def test_a_run_of_another_config_is_none(tmp_path):
  run = runs.Run("bc", TASK, (0,), 40)
  config = runs.config(run)
  for other, missing in ((config | {"batch_size": config["batch_size"] + 1}, (0,)), (config, ())):
    archive.add(tmp_path, "bc", TASK.dataset, [{"seed": 0, "steps": 40, "config": other}])
    assert runs.missing(run, tmp_path) == missing


def test_fields_that_tell_runs_apart():
  kept = archive.comparable(bc.get_config().to_dict())
  assert {"split", "top_return", "evaluation.final_episodes", "batch_size", "agent.hidden"} <= set(kept)
  # A field that only one of them knows is newer than the other.
  assert archive.agree({"a": 1, "b": 2}, {"a": 1}) and archive.agree({"a": 1}, {"a": 1, "b": 2})
  assert not archive.agree({"a": 1}, {"a": 2})


def test_seeds_of_one_run_are_kept_apart(tmp_path):
  seeds = [{"seed": seed, "returns": [0.96, 0.5 + seed]} for seed in (3, 4)]
  names = ("env_id", "random_return", "expert_return", "data_return", "data_episodes", "data_transitions", "steps")
  result = dict.fromkeys((*names, "seconds", "updates_per_second", "versions", "devices", "git_commit"), 1)
  row = {"step": 4, "eval/return_mean": 9.0, "eval/return_mean/seed3": 3.0, "eval/return_mean/seed4": 4.0}
  for name, content in (("result", result | seeds[0] | {"per_seed": seeds}), ("config", {}), ("where", {})):
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
  (tmp_path / "log.jsonl").write_text(json.dumps(row) + "\n")
  found = archive.entries(tmp_path)
  assert [entry["returns"] for entry in found] == [[0.96, 3.5], [0.96, 4.5]]
  assert [entry["curve"] for entry in found] == [[[4, 3.0]], [[4, 4.0]]]


def test_a_recording_with_the_tasks_own_limit_has_a_score(tmp_path):
  metadata = {"env_id": "CartPole-v1", "data_return": 2.0, "recording": {"max_episode_steps": 500}}
  with ilx.data.Recorder(tmp_path, name="toy", metadata=metadata) as recorder:
    recorder.add(ilx.data.episode(np.zeros((3, 4)), np.zeros(2, int), np.ones(2), terminal=True))
  run = tmp_path / "run"
  run.mkdir()
  result = {"env_id": "CartPole-v1", "env_kwargs": {}, "returns": [1.5], "random_return": 1.0}
  (run / "result.json").write_text(json.dumps(result))
  (run / "where.json").write_text("{}")
  (run / "log.jsonl").write_text("")
  row = table.collect(Recording("toy", None), recorder.path.parent.parent, [run])
  assert row.comparable and row.normalized == 50.0


def test_the_closing_score_is_of_other_episodes_than_the_curve(monkeypatch):
  seen = []

  def evaluate(*_, seed, episodes, **__):
    seen.append((seed, episodes))
    return ilx.evaluation.Result(np.zeros(episodes), np.ones(episodes, int), 1.0, 1, "x", "1")

  monkeypatch.setattr(ilx, "evaluate", evaluate)
  config = bc.get_config()
  config.update(steps=20, seed=3)
  config.evaluation.update(episodes=2, final_episodes=4)
  task = types.SimpleNamespace(env_id="x", env_kwargs={}, data=types.SimpleNamespace(heldout=None))
  scorer = scoring.Scorer(config, task, None, lambda share: None)
  for step in (10, 20):
    scorer(None, step)
  assert seen == [(1_000_003, 2), (2_000_003, 4)]

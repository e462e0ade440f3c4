"""Experiments of several seeds in one program: every seed is scored as in a run of its own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from experiments import agents, run, scoring
from experiments.configs import bc
from ilx.training import logs


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, record_cartpole):
  return record_cartpole(tmp_path_factory.mktemp("data"), expert_return=500.0)


def _config(dataset, /, **changes):
  config = bc.get_config()
  config.update(dataset=str(dataset), split="train[:3]", heldout="train[3:]", steps=20, batch_size=16, log_every=10)
  config.update(seed=5, checkpoint_every=20)
  config.agent.update(hidden=(8,), learning_rate=1e-2)
  config.evaluation.update(every=10, episodes=3, final_episodes=5, video=False)
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(scope="module")
def task(dataset):
  return run.load_task(_config(dataset))


def test_every_seed_is_scored_as_in_a_run_of_its_own(dataset, task):
  """In the same episodes, by the same program, to the bit."""
  config = _config(dataset, seeds=2)
  agent = agents.make(config.agent, task.data.spec, config.steps)
  data = jax.device_put(task.data.train.replace(weights=None))
  batch = agent.view.sample(jax.random.key(0), data, 16)
  params = [agent.init(jax.random.key(i), batch).params for i in range(2)]
  fractions = []
  scorer = scoring.Scorer(config, task, agent, fractions.append)
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *params)
  for step in (10, 20):
    row = scorer(stacked, step)
    for i in range(2):
      single = scoring.Scorer(_config(dataset, seed=5 + i), task, agent, lambda fraction: None)
      expected = single(params[i], step)
      assert row[f"return_mean/seed{5 + i}"] == expected["return_mean"]
      assert row[f"heldout_accuracy/seed{5 + i}"] == expected["heldout_accuracy"]
      assert not [name for name in expected if "/seed" in name]
      if step == 20:
        np.testing.assert_array_equal(scorer.played[i].returns, single.played[0].returns)
        np.testing.assert_array_equal(scorer.compared[i].recall, single.compared[0].recall)
    means = [row[f"return_mean/seed{seed}"] for seed in (5, 6)]
    assert means[0] != means[1]
    assert row["return_mean"] == pytest.approx(np.mean(means))
    assert row["heldout_accuracy"] == pytest.approx(np.mean([row[f"heldout_accuracy/seed{s}"] for s in (5, 6)]))
  returns = np.array([played.returns for played in scorer.played])
  assert row["return_ci95"] == ilx.evaluation.summary(returns)["mean_ci95"]
  assert max(fractions) == 1.0 and any(0 < fraction <= 0.5 for fraction in fractions)


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "run"
  return workdir, run.run(_config(dataset, seeds=2), workdir)


def test_the_result_has_a_part_for_every_seed(dataset, task, finished, tmp_path):
  workdir, _ = finished
  result = json.loads((workdir / "result.json").read_text())
  single = run.run(_config(dataset, seed=6), tmp_path)
  assert single["seeds"] == 1 and "per_seed" not in single
  assert (result["seed"], result["seeds"], result["episodes"]) == (5, 2, 5)
  assert [part["seed"] for part in result["per_seed"]] == [5, 6]
  part = result["per_seed"][1]
  assert part["loss"] == pytest.approx(single["loss"], rel=1e-3)
  assert set(part) <= set(single)
  assert part["random_return"] == result["random_return"] == single["random_return"]
  for name in ("returns", "lengths"):
    assert name not in result
    assert len(part[name]) == len(single[name]) == 5
  returns = np.array([part["returns"] for part in result["per_seed"]])
  assert returns.shape == (2, 5)
  assert returns.mean() == pytest.approx(result["return_mean"])
  assert result["return_ci95"] == list(ilx.evaluation.summary(returns)["mean_ci95"])
  accuracies = [part["heldout"]["accuracy"] for part in result["per_seed"]]
  assert result["heldout"]["accuracy"] == pytest.approx(np.mean(accuracies))
  assert result["heldout"]["actions"]["count"] == part["heldout"]["actions"]["count"]


def test_the_logs_have_every_seed(finished):
  workdir, result = finished
  rows = logs.read_jsonl(workdir / "log.jsonl")
  learnt, scored = ([row for row in rows if name in row] for name in ("train/loss", "eval/return_mean"))
  assert [row["step"] for row in learnt] == [row["step"] for row in scored] == [10, 20]
  for part in result["per_seed"]:
    assert learnt[-1][f"train/loss/seed{part['seed']}"] == part["loss"]
    assert scored[-1][f"eval/return_mean/seed{part['seed']}"] == pytest.approx(part["return_mean"])
  assert all("\n" not in json.dumps(row) and not any(isinstance(x, dict) for x in row.values()) for row in rows)
  written = b"".join(path.read_bytes() for path in (workdir / "tensorboard").iterdir())
  assert b"train/loss/seed6" in written and b"eval/return_mean/seed5" in written
  assert "seeds 5 to 6" in (workdir / "report.html").read_text()


def test_a_finished_run_of_many_seeds_is_scored_again_alike(dataset, finished):
  workdir, result = finished
  again = run.run(_config(dataset, seeds=2), workdir)
  np.testing.assert_array_equal(*([part["returns"] for part in each["per_seed"]] for each in (again, result)))


def test_other_seeds_are_another_run(dataset, finished):
  workdir, _ = finished
  before = (workdir / "result.json").read_bytes()
  with pytest.raises(ValueError, match=r"another config \(config.seeds: 2 there, 3 now\)"):
    run.run(_config(dataset, seeds=3), workdir)
  with pytest.raises(ValueError, match=r"another config \(config.seed: 5 there, 4 now\)"):
    run.run(_config(dataset, seeds=2, seed=4), workdir)
  assert (workdir / "result.json").read_bytes() == before


def test_a_run_from_before_there_were_seeds_goes_on(dataset, finished, tmp_path):
  config = {name: value for name, value in _config(dataset).to_dict().items() if name != "seeds"}
  logs.write_json(tmp_path / "config.json", config)
  (tmp_path / "result.json").write_text("{}")
  run.check_config(_config(dataset), tmp_path)
  with pytest.raises(ValueError, match=r"config.seeds: 1 there, 2 now"):
    run.check_config(_config(dataset, seeds=2), tmp_path)


@pytest.mark.parametrize("seeds", [0, -3])
def test_no_seeds_are_refused_before_anything_is_read(seeds, tmp_path):
  with pytest.raises(ValueError, match=f"config.seeds={seeds} must be at least 1"):
    run.run(_config("/nowhere", seeds=seeds), tmp_path / "run")
  assert not (tmp_path / "run").exists()

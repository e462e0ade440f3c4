import json

import pytest

from experiments.configs import bc
from experiments.results import builtin
from ilx.training import logs


def _result(seed, returns):
  return {
    "env_id": "Hopper-v5",
    "returns": returns,
    "return_mean": sum(returns) / len(returns),
    "episodes": len(returns),
    "steps": 5000,
    "seconds": 90.0,
    "seed": seed,
    "data_episodes": 25,
    "data_return": 80.0,
    "expert_return": 100.0,
    "random_return": 0.0,
    "git_commit": "0123456789abcdef",
    "versions": {"envpool": "1.2.5", "jax": "0.10.2"},
    "config": {"batch_size": 256},
    "where": {"cpu": "some processor", "cores": 2, "date": "2026-01-01"},
  }


def test_page_has_the_mean_over_seeds_and_every_seed():
  page = builtin.page({"hopper-expert": [_result(0, [90.0, 90.0]), _result(1, [98.0, 98.0])]}, "python -m this")
  row = next(line for line in page.splitlines() if line.startswith("| hopper-expert"))
  cells = [cell.strip() for cell in row.strip("|").split("|")]
  assert cells[:3] == ["hopper-expert", "Hopper-v5", "**94**"]
  assert cells[3] == "90 to 98"
  assert cells[5] == "90, 98"
  assert cells[6:] == ["100", "80", "0", "**94.0**", "1.5"]
  assert "2 seeds" in page
  assert "python -m this" in page
  assert "0123456789ab" in page


def test_finished_runs_are_read_and_not_run_again(tmp_path, monkeypatch):
  monkeypatch.setattr(builtin.bc, "execute", lambda *_: (_ for _ in ()).throw(AssertionError("ran again")))
  config = bc.get_config()
  config.update(dataset="hopper-expert", split="train[:25]")
  config.evaluation.video = False
  for name, content in (("result", {"steps": 1}), ("config", config.to_dict()), ("where", {"cores": 3})):
    logs.write_json(tmp_path / f"{name}.json", content)
  found = builtin.finish("hopper-expert", 0, tmp_path)
  assert found["steps"] == 1 and found["where"] == {"cores": 3}
  assert found["config"] == json.loads((tmp_path / "config.json").read_text())
  with pytest.raises(ValueError, match=r"another config \(config.dataset: 'hopper-expert' there"):
    builtin.finish("walker2d-expert", 0, tmp_path)

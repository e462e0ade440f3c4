"""Agents of one's own, ``module:function``, in experiments."""

import jax
import pytest

import ilx
from experiments import agents, export, run, trained
from experiments.configs import defaults
from ilx import testing

SPEC = testing.continuous_spec()

MODULE = """
import ilx
import optax

def cautious(spec, *, width=4, optimizer=None):
  return ilx.agents.bc(spec, hidden=(width,), optimizer=optimizer)

def own_rate(spec, learning_rate=1.0):
  return ilx.agents.bc(spec, hidden=(4,), optimizer=optax.sgd(learning_rate))

def nothing(spec):
  return 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
  (tmp_path / "agents_of_mine.py").write_text(MODULE)
  monkeypatch.syspath_prepend(tmp_path)
  return "agents_of_mine"


def test_it_runs_is_read_and_exported_as_any_other(mine, tmp_path, record_cartpole):
  config = defaults.get_config()
  path = record_cartpole(tmp_path / "data", expert_return=500.0, random_return=20.0)
  config.update(dataset=str(path), split="train", heldout="", steps=20, batch_size=16, log_every=10)
  with config.unlocked():
    config.agent.update(name=f"{mine}:cautious", width=8, learning_rate=1e-2)
  config.evaluation.update(every=20, episodes=2, final_episodes=2, video=False)
  workdir = tmp_path / "run"
  result = run.run(config, workdir)
  assert result["agent"] == f"{mine}:cautious"
  assert (workdir / "report.html").is_file()

  with pytest.raises(ValueError, match=rf"none of ilx's; --agent={mine}:cautious imports it"):
    trained.load(workdir)
  with pytest.raises(ValueError, match="none of ilx's"):
    trained.load(workdir, agent=f"{mine}:own_rate")
  (params,) = trained.load(workdir, agent=f"{mine}:cautious").params
  assert any(x.shape == (4, 8) for x in jax.tree.leaves(params.network))
  policy = ilx.export.load(export.export(workdir, tmp_path / "policy", agent=f"{mine}:cautious", platforms=("cpu",)))
  assert policy.spec["agent"]["name"] == f"{mine}:cautious"


def test_its_own_learning_rate_is_its_own(mine):
  batch = testing.fake_episodes(SPEC)
  agent = agents.make({"name": f"{mine}:own_rate", "learning_rate": 0.0, "encoder": "auto"}, SPEC, 4)
  batch = agent.view.take(batch, batch.rows[:4])
  state = agent.init(jax.random.key(0), batch)
  after, _ = agent.update(state, batch)
  assert all((a == b).all() for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(after.params), strict=True))


@pytest.mark.parametrize(
  ("section", "message"),
  [
    ({"name": "math:pi"}, "no module:function that can be imported: .* is not a callable object"),
    ({"name": ".mine:agent"}, "no module:function that can be imported"),
    ({"name": "no_such_module:agent"}, "no module:function that can be imported: No module named 'no_such_module'"),
    ({"name": "agents_of_mine:cautios"}, "has no attribute 'cautios'"),
    ({"name": "agents_of_mine:cautious", "widht": 3}, "did you mean 'width'"),
    (
      {"name": "agents_of_mine:own_rate", "gradient_clip": 1.0},
      "gradient_clip: .* takes no optimizer",
    ),
    ({"name": "agents_of_mine:nothing"}, "returns a int; it is to return an ilx.Agent"),
  ],
)
def test_what_cannot_be_is_said(mine, section, message):
  with pytest.raises(ValueError, match=message):
    agents.make(section, SPEC, 4)

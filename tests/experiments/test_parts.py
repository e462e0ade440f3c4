"""Actions of several parts, and options of heads, from the command line's config to the result."""

import json

import jax
import numpy as np
import pytest

import ilx
from experiments import agents, run
from experiments.configs import bc
from experiments.report import heldout
from experiments.report.compare.page import write_comparison
from ilx import testing


def _record(root, metadata):
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(root, name="pad", metadata=metadata) as recorder:
    for number in range(12):
      observation = rng.normal(size=(31, 3)).astype(np.float32)
      seen = observation[:-1]
      action = {
        "stick": np.tanh(seen[:, :2]),
        "hand": {"buttons": np.stack([seen[:, 0] > 0, np.clip(seen[:, 2] + 1, 0, 2)], 1).astype(np.int32)},
        "fire": seen[:, 1] > 0,
      }
      split = "train" if number < 10 else "val"
      recorder.add(ilx.data.episode(observation, action, np.zeros(30), terminal=True), split=split)
  return recorder.path


def test_a_policy_of_several_parts_is_learnt_and_scored(tmp_path, capsys):
  names = {"stick": ["left", "up"], "hand": {"buttons": ["grab", "grip <5>"]}, "fire": ["calm", "fire"]}
  path = _record(tmp_path, {"num_actions": {"hand": {"buttons": [2, 5]}}, "action_names": names})
  config = bc.get_config()
  config.update(dataset=f"{path}", split="train", heldout="val", env_id="none", batch_size=64)
  config.update(steps=400, log_every=200, checkpoint_every=400)
  config.agent.update(hidden=(32,), learning_rate=1e-2)
  config.evaluation.update(every=200)
  result = json.loads(json.dumps(run.run(config, tmp_path / "run"), default=np.ndarray.tolist))
  parts = result["heldout"]["parts"]
  assert set(parts) == {"stick", "hand/buttons", "fire"}
  assert parts["stick"]["explained"] > 0.9
  assert parts["fire"]["accuracy"] > 0.9 and parts["hand/buttons"]["all_right"] > 0.8
  choices = parts["hand/buttons"]["choices"]
  assert len(choices[1]["actions"]["count"]) == 5
  assert parts["stick"]["dimensions"]["names"] == ["left", "up"] and parts["fire"]["actions"]["names"] == names["fire"]
  assert [choice["name"] for choice in choices] == ["grab", "grip <5>"]
  common = [max(choice["actions"]["count"]) / 60 for choice in choices]
  assert [choice["commonest_share"] for choice in choices] == pytest.approx(common)
  assert parts["hand/buttons"]["commonest_share"] == pytest.approx(np.mean(common))
  assert (
    "hand/buttons: all choices right",
    heldout.shown(parts["hand/buttons"]["all_right"], True),
  ) in heldout.measures(result)
  report = (tmp_path / "run" / "report.html").read_text()
  assert "fire: accuracy" in report and "Nothing was scored" not in report
  assert "stick: The policy&#x27;s actions are off by" in report
  assert report.count("<figcaption>stick: mean absolute error, over updates") == 1
  assert "Every dimension of stick" in report and '<th scope="row">left</th>' in report
  assert "Every choice of hand/buttons" in report and '<th scope="row">grip &lt;5&gt;</th>' in report
  assert "always the commonest of each would be right in" in report
  told = " ".join(capsys.readouterr().out.split())
  assert "fire: held-out accuracy" in told and "stick: held-out error" in told
  page = write_comparison([tmp_path / "run"], tmp_path / "page.html")[0].read_text()
  assert "Nothing was evaluated" not in page and "stick: mean absolute error on held-out actions" in page
  assert page.count("fire: accuracy</th>") == 1


def test_options_of_heads():
  spec = testing.continuous_spec()
  section = {"name": "bc", "head": "discretised", "bins": 7, "binning": None, "modes": None}
  batch = testing.fake_episodes(spec)
  agent = agents.make(section, spec, steps=10)
  state = agent.init(jax.random.key(0), agent.view.take(batch, np.arange(4)))
  assert state.params.network["params"]["head"]["logits"]["kernel"].shape == (256, 3 * 7)
  assert state.params.action.quantiles is None
  with pytest.raises(ValueError, match="has no option 'modes'; it has bins, binning"):
    agents.make(section | {"modes": 3}, spec, steps=10)
  with pytest.raises(ValueError, match="rank_actions"):
    agents.make(section | {"binning": "quantile"}, spec, steps=10)


def test_quantile_bins_are_of_the_data():
  spec = testing.continuous_spec()
  episodes = testing.fake_episodes(spec)
  section = {"name": "bc", "head": "discretised", "binning": "quantile"}
  agent = agents.make(section, spec, steps=10, data=episodes)
  state = agent.init(jax.random.key(0), agent.view.take(episodes, np.arange(4)))
  expected = ilx.data.rank_actions(spec, episodes).action.quantiles
  np.testing.assert_array_equal(state.params.action.quantiles, expected)

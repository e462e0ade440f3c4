"""The weight files: small, without pickles, and as good as they say."""

import jax
import numpy as np
import pytest

from experiments.demos import datasets, policy, replay
from ilx.evaluation import environments, matching, rollout
from ilx.types import Step

SHIPPED = [f"{env}-{quality}" for env in datasets.ENVIRONMENTS for quality in ("medium", "expert")]
EXPERTS = {"halfcheetah": 8000, "hopper": 3000, "walker2d": 4000, "cartpole": 500, "lunarlander": 250}


def test_files_are_small_and_are_all_there_is():
  files = list(policy.WEIGHTS.iterdir())
  assert sorted(file.stem for file in files) == sorted([*SHIPPED, *map(replay.name, datasets.ENVIRONMENTS)])
  assert sum(file.stat().st_size for file in files) < 2.7e6


@pytest.mark.parametrize("name", SHIPPED)
def test_file_says_where_it_came_from(name):
  with np.load(policy.path(name), allow_pickle=False) as arrays:
    kinds = {key: arrays[key].dtype.kind for key in arrays.files}
    assert all(np.all(np.isfinite(arrays[key])) for key, kind in kinds.items() if kind == "f")
  assert kinds.pop("metadata") == "U"
  assert set(kinds.values()) == {"f"}
  loaded = policy.load(name)
  env_id = datasets.ENVIRONMENTS[name.split("-")[0]]
  assert loaded.metadata["name"] == name
  assert loaded.metadata["env_id"] == env_id
  assert f"--env_id={env_id}" in loaded.metadata["command"]
  assert f"--seed={loaded.metadata['seed']}" in loaded.metadata["command"]
  assert loaded.metadata["env_steps"] > 0
  for score in loaded.metadata["scores"].values():
    assert score["episodes"] == 100
    assert score["return_ci95"][0] <= score["return_mean"] <= score["return_ci95"][1]
  matching.check_spec(policy.spec(loaded.weights), environments.spec(env_id), env_id)


@pytest.mark.parametrize(("env", "required"), EXPERTS.items())
def test_expert_scores_what_it_says(env, required):
  shipped = policy.load(f"{env}-expert")
  stated = shipped.metadata["scores"]["mode"]
  assert stated["return_mean"] >= required
  player = policy.player(policy.forward(shipped.weights), policy.spec(shipped.weights).action)
  result = rollout.evaluate(player, (), shipped.metadata["env_id"], episodes=10, seed=1)
  assert result.returns.mean() == pytest.approx(stated["return_mean"], abs=5 * stated["return_std"] / 10**0.5 + 1)


@pytest.mark.parametrize("name", ["walker2d-expert", "lunarlander-expert"])
def test_numpy_and_the_agent_agree(name):
  shipped = policy.load(name)
  agent, params = policy.agent(shipped)
  player = policy.player(policy.forward(shipped.weights), policy.spec(shipped.weights).action)
  observation = np.random.default_rng(0).normal(size=(4096, *policy.spec(shipped.weights).observation.shape))
  step = Step(observation.astype(np.float32), np.zeros(4096, np.float32), np.zeros(4096, bool))
  ours, theirs = (jax.jit(act)(p, (), step, None)[0] for act, p in ((player.act, ()), (agent.act, params)))
  np.testing.assert_allclose(ours, theirs, atol=1e-4)
  # One observation, many samples: the same distribution.
  step = step._replace(observation=np.broadcast_to(step.observation[:1], step.observation.shape))
  key = jax.random.key(0)
  ours, theirs = (act(p, (), step, key)[0] for act, p in ((player.act, ()), (agent.act, params)))
  assert np.std(ours, axis=0).max() > 0
  np.testing.assert_allclose(np.mean(ours, axis=0), np.mean(theirs, axis=0), atol=0.06)
  np.testing.assert_allclose(np.std(ours, axis=0), np.std(theirs, axis=0), atol=0.06)


def test_samples_follow_the_key():
  shipped = policy.load("cartpole-medium")
  player = policy.player(policy.forward(shipped.weights), policy.spec(shipped.weights).action)
  step = Step(np.zeros((64, 4), np.float32), np.zeros(64, np.float32), np.zeros(64, bool))
  first, again, other = (np.asarray(player.act((), (), step, jax.random.key(i))[0]) for i in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)


def test_unknown_policy_names_those_that_ship():
  with pytest.raises(FileNotFoundError, match="cartpole-expert"):
    policy.load("cartpole-superb")

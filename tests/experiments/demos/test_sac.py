"""SAC: that updates find the best action, and which steps it learns from."""

import jax
import numpy as np
import pytest

from experiments.demos import sac

SHAPE = (600, sac.CRITIC_UPDATES_PER_ACTOR_UPDATE, 32)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  monkeypatch.setattr(sac, "HIDDEN", (64, 64))


def test_update_finds_the_best_action_of_a_bandit():
  rng = np.random.default_rng(0)
  state = sac.init(jax.random.key(0), 1, 1)
  observation = np.ones((*SHAPE, 1), np.float32)
  action = rng.uniform(-1, 1, (*SHAPE, 1)).astype(np.float32)
  reward = -10.0 * np.square(action[..., 0] - 0.5)
  state = sac.update(state, sac.Batch(observation, action, reward, np.zeros(SHAPE, np.float32), observation))
  mode = sac.policy_network(1).apply(state.actor, observation[0, 0, :1]).mode()
  np.testing.assert_allclose(mode, 0.5, atol=0.15)


def test_update_bootstraps_by_the_discount():
  rng = np.random.default_rng(0)
  observation = np.ones((*SHAPE, 1), np.float32)
  action = rng.uniform(-1, 1, (*SHAPE, 1)).astype(np.float32)
  reward = np.ones(SHAPE, np.float32)

  def value(discount):
    batch = sac.Batch(observation, action, reward, np.full(SHAPE, discount, np.float32), observation)
    state = sac.update(sac.init(jax.random.key(0), 1, 1), batch)
    return float(np.mean(sac._q_values(state.critic, observation[0, 0], action[0, 0])))

  assert abs(value(0.0) - 1.0) < 0.3
  assert value(1.0) > 2.0


def test_resets_are_no_transitions(monkeypatch):
  kept = []

  class Replay(sac._Replay):
    def add(self, rows):
      kept.append(rows)
      super().add(rows)

  monkeypatch.setattr(sac, "_Replay", Replay)
  steps = 1600
  (_,) = sac.train("Hopper-v5", seed=0, env_steps=steps, snapshot_every=steps)
  discount = np.concatenate([rows.discount for rows in kept])
  ended = np.sum(discount == 0.0) - np.sum(kept[-1].discount == 0.0)
  assert ended > 10
  assert len(discount) == steps - ended

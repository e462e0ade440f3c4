"""The walks of a maze can be joined to solve it, and cannot be imitated: shown without networks or gradients."""

import numpy as np
import pytest

from experiments.demos import datasets, maze, policy
from ilx import data
from ilx.evaluation import environments, rollout

NAME = "pointmaze-medium"
DISCOUNT, SWEEPS, NEIGHBOURS = 0.99, 60, 48
GOOD = 0.9  # the quantile of a bin's returns to go that is its value
BIN, FAST = 0.25, 0.8


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
  """State [N, 4], action and next state of half of the dataset."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(datasets, "STEPS_PER_ROUND", 24_000)
    episodes = data.load(datasets.build(NAME, tmp_path_factory.mktemp("root"), rounds=2))
  state = episodes.observation["observation"]
  return state[episodes.rows], episodes.action[episodes.rows], state[episodes.rows + 1]


def _bins(state):
  """A number for each box of position and speed."""
  position = np.floor(state[:, :2] / BIN).astype(int) + 100
  speed = np.digitize(state[:, 2:], [-FAST, FAST])
  return (position[:, 0] * 1000 + position[:, 1]) * 9 + speed[:, 0] * 3 + speed[:, 1]


def _values(state, next_state, goal):
  """[N]: minus the discounted steps to the goal after each transition, by value iteration over the bins."""
  bins, member = np.unique(_bins(state), return_inverse=True)
  following = _bins(next_state)
  after = np.searchsorted(bins, following)
  after[bins[np.minimum(after, len(bins) - 1)] != following] = len(bins)  # nowhere that any walk goes on from
  count = np.bincount(member)
  good = np.cumsum(count) - count + np.floor(GOOD * (count - 1)).astype(int)
  reached = np.linalg.norm(next_state[:, :2] - goal, axis=1) <= maze.REACHED - 0.1
  value = np.full(len(bins) + 1, -1 / (1 - DISCOUNT))
  for _ in range(SWEEPS):
    to_go = np.where(reached, 0.0, -1 + DISCOUNT * value[after])
    value[:-1] = to_go[np.lexsort((to_go, member))][good]
  return to_go


def _success(walks, sharpness):
  """Of acting as the walks near by did, better ones the more, the sharper; 0 is imitation."""
  task = maze.MAZES[NAME]
  state, action, next_state = walks
  values = {tuple(goal): _values(state, next_state, maze.centre(task, goal)) for goal in maze.cells(task, "g")}
  scale = np.float32([1, 1, 0.15, 0.15])
  known = state * scale

  def act(observation, rng):
    here, goal = observation["observation"] * scale, maze.cell_of(task, observation["desired_goal"])
    distance = np.sum(known**2, axis=1) - 2 * here @ known.T
    near = np.argpartition(distance, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    value = np.stack([values[tuple(g)][i] for g, i in zip(goal, near, strict=True)])
    weight = np.exp(sharpness * (value - value.max(axis=1, keepdims=True)))[..., None]
    return (np.sum(weight * action[near], axis=1) / np.sum(weight, axis=1)).astype(np.float32)

  player = policy.player(act, environments.spec(task.env_id).action)
  return rollout.evaluate(
    player, (), task.env_id, episodes=40, num_envs=20, seed=5, env_kwargs=task.env_kwargs
  ).returns.mean()


def test_stitching_solves_what_imitation_does_not(walks):
  assert _success(walks, sharpness=0.0) <= 0.15
  assert _success(walks, sharpness=2.0) >= 0.7

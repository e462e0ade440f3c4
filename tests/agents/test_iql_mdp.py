"""IQL where the answer is known: expectiles of a small MDP, and a maze that only stitched segments solve."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ilx
from ilx.agents import bc, iql
from ilx.types import Discrete, Spec, Step, Transition

STATES, ACTIONS, GAMMA = 4, 3, 0.8


def _one_hot_spec(states, actions):
  return Spec(jax.ShapeDtypeStruct((states,), jnp.float32), Discrete(actions))


def _mdp(size=256):
  """Steps ``(s, a, r, continues, s')`` of a random MDP, actions unevenly often; some steps end it."""
  rng = np.random.default_rng(0)
  reward, after = rng.normal(size=(STATES, ACTIONS)), rng.integers(STATES, size=(STATES, ACTIONS))
  s, a = rng.integers(STATES, size=size), rng.choice(ACTIONS, size, p=[0.6, 0.3, 0.1])
  # Of each action two outcomes: the usual next state, or the end.
  return s, a, reward[s, a], (rng.random(size) < 0.9).astype(float), after[s, a]


def _expectile(values, weights, expectile):
  low, high = values.min(), values.max()
  for _ in range(100):
    middle = (low + high) / 2
    u = values - middle
    if np.sum(weights * np.where(u > 0, expectile, 1 - expectile) * u) > 0:
      low = middle
    else:
      high = middle
  return middle


def _fixed_point(steps, expectile):
  s, a, r, continues, after = steps
  v = np.zeros(STATES)
  for _ in range(100):
    target = r + GAMMA * continues * v[after]
    q = np.array([[target[(s == i) & (a == j)].mean() for j in range(ACTIONS)] for i in range(STATES)])
    count = np.array([[np.sum((s == i) & (a == j)) for j in range(ACTIONS)] for i in range(STATES)])
    v = np.array([_expectile(q[i], count[i], expectile) for i in range(STATES)])
  return v, q


@pytest.mark.parametrize("expectile", [0.5, 0.9, 0.999])
def test_v_is_the_expectile_of_q(expectile):
  s, a, r, continues, after = steps = _mdp()
  v, q = _fixed_point(steps, expectile)
  if expectile == 0.5:
    # The values of the policy that the data are of, in closed form.
    reward = np.array([r[s == i].mean() for i in range(STATES)])
    chance = np.array(
      [[np.mean(continues[s == i] * (after[s == i] == j)) for j in range(STATES)] for i in range(STATES)]
    )
    np.testing.assert_allclose(v, np.linalg.solve(np.eye(STATES) - GAMMA * chance, reward), atol=1e-6)
  if expectile == 0.999:
    np.testing.assert_allclose(v, q.max(1), atol=0.03)
    assert np.all(v > _fixed_point(steps, 0.5)[0] + 0.2)

  agent = iql(
    _one_hot_spec(STATES, ACTIONS), expectile=expectile, discount=GAMMA, tau=0.05, hidden=(), optimizer=optax.adam(2e-2)
  )
  eye = jnp.eye(STATES)
  batch = Transition(eye[s], jnp.asarray(a, jnp.int32), jnp.asarray(r), jnp.asarray(continues), eye[after])
  batch = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, batch)

  @jax.jit
  def learn(state):
    return jax.lax.fori_loop(0, 4000, lambda _, state: agent.update(state, batch)[0], state)

  state = learn(agent.init(jax.random.key(0), batch))
  learnt_v, *learnt_q = (
    np.asarray(x["params"]["value"]["kernel"] + x["params"]["value"]["bias"]) for x in (state.value, *state.critic)
  )
  np.testing.assert_allclose(learnt_v[:, 0], v, atol=0.02)
  for one in learnt_q:
    np.testing.assert_allclose(one, q, atol=0.02)


MAZE = """
###########
#S..#.....#
#.#.#.###.#
#.#...#G#.#
#.#####.#.#
#...#.....#
###########
"""
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


class _Maze:
  def __init__(self):
    rows = MAZE.split()
    self.cells = [(i, j) for i, row in enumerate(rows) for j, c in enumerate(row) if c != "#"]
    self.number = {cell: n for n, cell in enumerate(self.cells)}
    self.start, self.goal = (next(n for n, (i, j) in enumerate(self.cells) if rows[i][j] == c) for c in "SG")

  def move(self, cell, action):
    i, j = self.cells[cell]
    return self.number.get((i + MOVES[action][0], j + MOVES[action][1]), cell)

  def distances(self, goal):
    """Steps to ``goal`` from every cell."""
    distance = np.full(len(self.cells), 10**6)
    distance[goal] = 0
    for _ in self.cells:
      for cell in range(len(self.cells)):
        distance[cell] = min([distance[cell]] + [distance[self.move(cell, a)] + 1 for a in range(4)])
    return distance

  def segments(self, count, length, seed):
    """Walks of at most ``length`` steps from anywhere to anywhere, a tenth of the moves at random; 1 at the goal."""
    rng = np.random.default_rng(seed)
    distances = [self.distances(cell) for cell in range(len(self.cells))]
    for _ in range(count):
      cell, aim = rng.choice(len(self.cells), 2, replace=False)
      path, actions = [cell], []
      while len(actions) < length and cell not in (aim, self.goal):
        near = [a for a in range(4) if distances[aim][self.move(cell, a)] < distances[aim][cell]]
        actions.append(rng.integers(4) if rng.random() < 0.1 else near[0])
        cell = self.move(cell, actions[-1])
        path.append(cell)
      if actions:
        yield path, actions

  def episodes(self, segments):
    path = np.concatenate([path for path, _ in segments])
    lengths = np.array([len(path) for path, _ in segments])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    last = np.zeros(len(path), bool)
    last[starts[1:] - 1] = True
    reached = np.roll(path == self.goal, -1) & ~last
    return ilx.data.from_columns(
      observation=np.eye(len(self.cells), dtype=np.float32)[path],
      action=np.concatenate([[*actions, 0] for _, actions in segments]).astype(np.int32),
      reward=reached.astype(np.float32),
      discount=np.ones(len(path), np.float32),
      is_terminal=last & (path == self.goal),
      starts=starts,
    )

  def steps_to_goal(self, agent, params, limit):
    """How many moves the policy's most likely actions take from the start; None where it does not get there."""
    eye = jnp.eye(len(self.cells))
    step = Step(eye, jnp.zeros(len(eye)), jnp.ones(len(eye), bool))
    action = np.asarray(agent.act(params, agent.carry(len(eye)), step, None)[0])
    cell = self.start
    for moves in range(limit):
      if cell == self.goal:
        return moves
      cell = self.move(cell, action[cell])
    return None


def test_segments_are_stitched_to_a_way_through_the_maze():
  maze = _Maze()
  shortest = maze.distances(maze.goal)[maze.start]
  segments = list(maze.segments(1000, 8, seed=0))
  assert shortest == 20
  assert not any(maze.start in path and maze.goal in path for path, _ in segments)
  episodes = maze.episodes(segments)
  spec = _one_hot_spec(len(maze.cells), 4)

  def learn(agent, episodes):
    state = ilx.train(agent, episodes, steps=2000, batch_size=128, seed=0, log_every=2000)
    return maze.steps_to_goal(agent, state.params, 3 * shortest)

  adam = optax.adam(3e-3)
  clone = bc(spec, hidden=(64,), optimizer=adam)
  assert learn(clone, episodes) is None
  best = ilx.data.weighted(episodes, ilx.data.top_return(0.1))
  assert ilx.data.returns(episodes).mean() < 0.3
  assert learn(clone, best) is None
  # The way is seldom taken: values near the highest, sharply weighted. Steps differ in value by a few hundredths.
  agent = iql(
    spec, expectile=0.9, temperature=10, discount=0.95, tau=0.05, reward_scale=10, hidden=(64,), optimizer=adam
  )
  assert learn(agent, episodes) == shortest

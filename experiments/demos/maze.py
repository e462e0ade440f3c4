"""Point mazes: a controller that knows the way, and the relabelling that makes a test of stitching of what it records.

A ball is pushed through one of EnvPool's mazes; 1 is paid, once, within 0.45 of the goal, and ends the episode. The
maps and the physics are those of PointMaze in Gymnasium-Robotics, with ten simulation steps to an action.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.demos import policy
from ilx.evaluation.trajectories import Episode

# One square of a map, and how far starts and goals are from the middle of theirs.
CELL, NOISE = 1.0, 0.25
REACHED = 0.45
ACTION_NOISE = 0.5
FRAME_SKIP = 10

# What an action of 1 adds to the speed within one step, in units per second: 100 N on a ball of 4.19 kg for 0.1 s.
_PUSH = 2.38
_SPEED = 2.5
_SLOWING = 4.0
# Off the middle of its square by more than this, the ball would catch on the corner of the next turn.
_CORNER = 0.3


class Maze(NamedTuple):
  """A task and the data that are recorded for it.

  Attributes:
    env_id: the task that is scored.
    recorded: the same maze with starts and goals everywhere.
    rows: the map: "1" is wall, "r" where the task starts, "g" where its goals are; without either, all is both.
    max_episode_steps: of the task.
    walk: actions in a recorded episode, unless it comes upon its goal.
    size: transitions recorded, in 100,000.
  """

  env_id: str
  recorded: str
  rows: tuple[str, ...]
  max_episode_steps: int
  walk: int
  size: float

  @property
  def env_kwargs(self) -> dict[str, Any]:
    """Options of the task."""
    return {"frame_skip": FRAME_SKIP, "continuing_task": False, "max_episode_steps": self.max_episode_steps}

  @property
  def recorded_kwargs(self) -> dict[str, Any]:
    """Options of the recording: on arrival, the ball gets another goal and goes on."""
    return {
      "frame_skip": FRAME_SKIP,
      "continuing_task": True,
      "reset_target": True,
      "max_episode_steps": self.walk,
    }


MAZES = {
  "pointmaze-medium": Maze(
    "PointMaze_Medium_Diverse_G-v3",
    "PointMaze_Medium-v3",
    ("11111111", "1r011001", "100100g1", "11000111", "10010001", "1g100101", "10001g01", "11111111"),
    60,
    15,
    1,
  ),
  "pointmaze-large": Maze(
    "PointMaze_Large_Diverse_G-v3",
    "PointMaze_Large-v3",
    (
      "111111111111",
      "1r0001g00001",
      "101101010101",
      "10000g0100g1",
      "101111011101",
      "10g101000001",
      "110101010111",
      "1001g0g10g01",
      "111111111111",
    ),
    80,
    15,
    1,
  ),
}


def cells(maze: Maze, kinds: str = "0rg") -> np.ndarray:
  """int ``[C, 2]``: row and column of the squares that are of one of ``kinds``."""
  return np.array([(r, c) for r, row in enumerate(maze.rows) for c, kind in enumerate(row) if kind in kinds])


def centre(maze: Maze, cell: np.ndarray) -> np.ndarray:
  """float64 ``[..., 2]``: x and y of the middle of squares ``[..., 2]`` (row, column)."""
  size = np.array([len(maze.rows), len(maze.rows[0])])
  row, column = np.moveaxis(cell + 0.5 - size / 2, -1, 0)
  return np.stack([column, -row], axis=-1) * CELL


def cell_of(maze: Maze, position: np.ndarray) -> np.ndarray:
  """int ``[..., 2]``: row and column of the square that a position ``[..., 2]`` is in."""
  size = np.array([len(maze.rows), len(maze.rows[0])])
  x, y = np.moveaxis(position / CELL, -1, 0)
  return np.clip(np.floor(np.stack([-y, x], axis=-1) + size / 2).astype(int), 1, size - 2)


def distances(maze: Maze, goal: tuple[int, int]) -> np.ndarray:
  """int ``[rows, columns]``: squares to walk to ``goal``; -1 in walls."""
  found = np.full((len(maze.rows), len(maze.rows[0])), -1)
  found[goal] = 0
  queue = deque([goal])
  while queue:
    row, column = queue.popleft()
    for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
      if maze.rows[near[0]][near[1]] != "1" and found[near] < 0:
        found[near] = found[row, column] + 1
        queue.append(near)
  return found


def _steps(maze: Maze) -> np.ndarray:
  """int ``[rows, columns, rows, columns, 2]``: from a square, towards a goal's, which square is next."""
  shape = len(maze.rows), len(maze.rows[0])
  table = np.zeros((*shape, *shape, 2), int)
  for goal in map(tuple, cells(maze)):
    away = distances(maze, goal)
    for cell in map(tuple, cells(maze)):
      around = [(cell[0] + r, cell[1] + c) for r, c in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))]
      table[(*cell, *goal)] = min((near for near in around if away[near] >= 0), key=lambda near: away[near])
  return table


def controller(maze: Maze, noise: float) -> policy.Forward:
  """Walks to the desired goal by the shortest way; normal noise of ``noise`` on the actions where there is a generator.

  It takes observations as the task gives them, a dict.
  """
  table = _steps(maze)

  def act(observation: Mapping[str, np.ndarray], rng: np.random.Generator | None) -> np.ndarray:
    state, goal = observation["observation"].astype(np.float64), observation["desired_goal"].astype(np.float64)
    position, velocity = state[:, :2], state[:, 2:]
    cell, goal_cell = cell_of(maze, position), cell_of(maze, goal)
    following = table[cell[:, 0], cell[:, 1], goal_cell[:, 0], goal_cell[:, 1]]
    arrived = np.all(cell == goal_cell, axis=1)
    # y is across where the row stays, x where the column stays.
    across = np.where(following[:, 0] == cell[:, 0], 1, 0)
    off = np.abs(position - centre(maze, cell))[np.arange(len(cell)), across] > _CORNER
    target = np.where(off[:, None], centre(maze, cell), centre(maze, following))
    target = np.where(arrived[:, None], goal, target)
    way = target - position
    distance = np.linalg.norm(way, axis=1, keepdims=True)
    wanted = way / np.maximum(distance, 1e-6) * np.minimum(_SPEED, _SLOWING * distance)
    action = (wanted - velocity) / _PUSH
    if rng is not None:
      action = action + noise * rng.standard_normal(action.shape)
    return np.clip(action, -1, 1).astype(np.float32)

  return act


def goals(maze: Maze, rng: np.random.Generator, count: int) -> np.ndarray:
  """float64 ``[count, 2]``: goals as the task draws them."""
  where = cells(maze, "g") if any("g" in row for row in maze.rows) else cells(maze)
  chosen = centre(maze, where[rng.integers(len(where), size=count)])
  return chosen + rng.uniform(-NOISE, NOISE, chosen.shape) * CELL


def relabel(episode: Episode, goal: np.ndarray) -> Episode:
  """The episode as one of the task with another goal: paid, and ended, where it comes upon it."""
  reached = np.linalg.norm(episode.observation["achieved_goal"][1:].astype(np.float64) - goal, axis=1) <= REACHED
  length = int(np.argmax(reached)) + 1 if reached.any() else len(reached)
  observation = {key: x[: length + 1] for key, x in episode.observation.items()}
  observation["desired_goal"] = np.broadcast_to(goal.astype(np.float32), observation["desired_goal"].shape).copy()
  return Episode(observation, episode.action[:length], reached[:length].astype(np.float32), bool(reached.any()))

"""Point mazes: the maps are EnvPool's, the controller knows the way, and no recorded walk does."""

import numpy as np
import pytest

from experiments.demos import datasets, maze, policy
from ilx import data
from ilx.evaluation import environments, matching, rollout
from ilx.evaluation.trajectories import Episode

SMALL = maze.Maze("", "", ("11111", "1r011", "11011", "1g001", "11111"), 10, 5, 1)
MAZES = pytest.mark.parametrize("name", maze.MAZES)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  """The medium maze's dataset, of a few hundred walks."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(datasets, "STEPS_PER_ROUND", 6000)
    return datasets.build("pointmaze-medium", tmp_path_factory.mktemp("root"), rounds=1)


def test_squares_and_positions():
  np.testing.assert_array_equal(maze.centre(SMALL, np.array([[1, 1], [2, 2], [3, 3]])), [[-1, 1], [0, 0], [1, -1]])
  positions = np.array([[-1.4, 1.4], [-0.6, 0.6], [0.4, -0.4], [1.0, -0.9]])
  np.testing.assert_array_equal(maze.cell_of(SMALL, positions), [[1, 1], [1, 1], [2, 2], [3, 3]])


def test_distances_go_around_walls():
  np.testing.assert_array_equal(
    maze.distances(SMALL, (3, 1)),
    [[-1, -1, -1, -1, -1], [-1, 4, 3, -1, -1], [-1, -1, 2, -1, -1], [-1, 0, 1, 2, -1], [-1, -1, -1, -1, -1]],
  )


def _resets(env_id, count, **env_kwargs):
  """The first observations of ``count`` times 20 episodes; a simulator takes some 30 MB."""
  env = environments.make(env_id, 20, seed=0, **env_kwargs)
  found = [env.reset()[0] for _ in range(count)]
  return {key: np.concatenate([observation[key] for observation in found]) for key in found[0]}


@MAZES
def test_maps_are_those_of_envpool(name):
  task = maze.MAZES[name]

  def found(positions):
    return set(map(tuple, maze.cell_of(task, positions)))

  scored = _resets(task.env_id, 5, position_noise_range=0.0, **task.env_kwargs)
  assert found(scored["achieved_goal"]) == set(map(tuple, maze.cells(task, "r")))
  assert found(scored["desired_goal"]) == set(map(tuple, maze.cells(task, "g")))
  recorded = _resets(task.recorded, 25, position_noise_range=0.0, **task.recorded_kwargs)
  assert found(recorded["achieved_goal"]) == found(recorded["desired_goal"]) == set(map(tuple, maze.cells(task)))
  # Without noise all are in the middle of their squares.
  for positions in (scored["achieved_goal"], recorded["desired_goal"]):
    np.testing.assert_allclose(maze.centre(task, maze.cell_of(task, positions)), positions, atol=1e-6)


@MAZES
def test_labels_are_drawn_as_the_task_draws_its_goals(name):
  task = maze.MAZES[name]
  theirs = _resets(task.env_id, 30, **task.env_kwargs)["desired_goal"]
  ours = maze.goals(task, np.random.default_rng(0), 600)

  def shares(goals):
    off = goals - maze.centre(task, maze.cell_of(task, goals))
    assert 0.2 < np.abs(off).max() <= maze.NOISE * maze.CELL
    cell = maze.cell_of(task, goals)
    return np.array([np.mean(np.all(cell == goal, axis=1)) for goal in maze.cells(task, "g")])

  np.testing.assert_allclose(shares(ours), shares(theirs), atol=0.1)
  assert shares(ours).sum() == pytest.approx(1)


@MAZES
def test_controller_is_the_expert_that_the_references_name(name):
  task = maze.MAZES[name]
  player = policy.player(maze.controller(task, 0.0), environments.spec(task.env_id).action)
  result = rollout.evaluate(player, (), task.env_id, episodes=50, seed=3, env_kwargs=task.env_kwargs)
  assert result.returns.min() == 1.0
  assert result.lengths.max() < task.max_episode_steps
  reference = datasets.reference(task.env_id)
  assert reference["expert_return"] == 1.0
  assert reference["random_return"] < 0.25


def test_relabelled_episode_ends_where_it_comes_upon_the_goal():
  path = np.stack([np.arange(6.0), np.zeros(6)], axis=1).astype(np.float32)
  observation = {"observation": np.tile(path, 2), "achieved_goal": path, "desired_goal": np.full_like(path, 9)}
  walk = Episode(observation, np.arange(10, dtype=np.float32).reshape(5, 2), np.ones(5, np.float32), False)

  solved = maze.relabel(walk, np.array([3.0, 0.4]))
  np.testing.assert_array_equal(solved.reward, [0, 0, 1])
  np.testing.assert_array_equal(solved.action, walk.action[:3])
  np.testing.assert_array_equal(solved.observation["achieved_goal"], path[:4])
  np.testing.assert_array_equal(solved.observation["desired_goal"], np.tile(np.float32([3.0, 0.4]), (4, 1)))
  assert solved.is_terminal

  missed = maze.relabel(walk, np.array([3.0, 0.5]))
  np.testing.assert_array_equal(missed.reward, np.zeros(5))
  assert len(missed.observation["observation"]) == 6
  assert not missed.is_terminal
  # The start does not count: the task pays after a step.
  assert len(maze.relabel(walk, np.array([0.0, 0.0])).reward) == 5


def test_no_recorded_walk_solves_the_task(built):
  task, episodes = maze.MAZES["pointmaze-medium"], data.load(built)
  returns, lengths = data.returns(episodes), data.lengths(episodes)
  first, last = episodes.starts[:-1], episodes.starts[1:] - 1
  position, goal = episodes.observation["achieved_goal"], episodes.observation["desired_goal"]
  start = maze.cell_of(task, position[first].astype(np.float64))
  goal_cell = maze.cell_of(task, goal[first].astype(np.float64))
  squares = np.array([maze.distances(task, tuple(g))[tuple(s)] for s, g in zip(start, goal_cell, strict=True)])
  (home,) = maze.cells(task, "r")
  shortest = min(maze.distances(task, tuple(g))[tuple(home)] for g in maze.cells(task, "g"))
  assert squares[returns == 1].max() < shortest
  assert not returns[np.all(start == home, axis=1)].any()
  # They begin everywhere, and some come upon the goal.
  assert len(set(map(tuple, start))) == len(maze.cells(task))
  assert 0.02 < returns.mean() < 0.2
  # Paid once, on arrival, which alone ends a walk before its time.
  np.testing.assert_array_equal(episodes.is_terminal[last], returns == 1)
  np.testing.assert_array_equal(lengths[returns == 0], task.walk)
  distance = np.linalg.norm(position[last] - goal[last], axis=1)
  np.testing.assert_array_equal(distance <= maze.REACHED, returns == 1)


def test_behaviour_does_not_depend_on_the_label(built):
  """Else cloning it would solve the task: walks head for their label no more than for that of another walk."""
  episodes = data.load(built)
  goal = episodes.observation["desired_goal"][episodes.starts[:-1]]
  walk = np.searchsorted(episodes.starts, episodes.rows, side="right") - 1

  def towards(goals):
    way = goals[walk] - episodes.observation["achieved_goal"][episodes.rows]
    return np.mean(np.sum(way * episodes.observation["observation"][episodes.rows, 2:], axis=1))

  others = np.mean([towards(np.random.default_rng(seed).permutation(goal)) for seed in range(10)])
  assert towards(goal) == pytest.approx(others, abs=0.3)
  # It would show: they do head for where they end.
  ends = episodes.observation["achieved_goal"][episodes.starts[1:] - 1]
  assert towards(ends) > others + 0.5


def test_dataset_fits_its_task_and_says_how_to_make_it(built):
  task, metadata = maze.MAZES["pointmaze-medium"], data.read_info(built).metadata
  assert metadata["env_id"] == task.env_id
  assert metadata["env_kwargs"] == task.env_kwargs
  assert (metadata["random_return"], metadata["expert_return"]) == (
    datasets.reference(task.env_id)["random_return"],
    1.0,
  )
  episodes = data.load(built)
  assert metadata["data_return"] == pytest.approx(data.returns(episodes).mean())
  spec = environments.spec(metadata["env_id"], **metadata["env_kwargs"])
  matching.check_spec(data.spec(episodes, metadata), spec)


def test_same_bytes_every_time_also_after_a_kill(built, tmp_path, monkeypatch):
  monkeypatch.setattr(datasets, "STEPS_PER_ROUND", 6000)
  add = data.Recorder.add

  def dying(recorder, episode):
    if recorder.num_episodes == 70:
      raise KeyboardInterrupt
    add(recorder, episode)

  with monkeypatch.context() as patch:
    patch.setattr(data.Recorder, "add", dying)
    with pytest.raises(KeyboardInterrupt):
      datasets.build("pointmaze-medium", tmp_path, rounds=1)
  again = datasets.build("pointmaze-medium", tmp_path, rounds=1)
  for file in built.iterdir():
    assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_recording_of_another_maze_is_refused(built, monkeypatch):
  monkeypatch.setitem(maze.MAZES, "pointmaze-medium", maze.MAZES["pointmaze-medium"]._replace(walk=16))
  with pytest.raises(ValueError, match="remove it"):
    datasets.build("pointmaze-medium", built.parents[1])

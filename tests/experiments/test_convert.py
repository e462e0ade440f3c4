import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import ilx.data

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def run(*args):
  command = [sys.executable, "-m", "experiments.convert", *map(str, args)]
  return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def path(tmp_path):
  """Two episodes of Pendulum-v1's sizes, 200 and 3 steps, with actions out of its bounds of 2."""
  rng = np.random.default_rng(0)
  np.savez(
    tmp_path / "toy.npz",
    obs=rng.normal(size=(205, 3)),
    acts=np.append(np.zeros((201, 1)), [[5.0], [-2.5]], axis=0),
    rews=np.append(np.zeros(200), [1.0, 2.0, 3.0]),
    terminal=np.array([True, True]),
    indices=np.array([200]),
    meta=np.array(json.dumps({"env_id": "Pendulum-v1"})),
  )
  return tmp_path / "toy.npz"


def test_the_task_gives_bounds_and_time_limit(path, tmp_path):
  done = run(f"--npz={path}", f"--root={tmp_path / 'data'}", "--name=toys", "--expert_return=-150")
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [
    "episodes    2, 203 steps",
    "return      3 mean, 0 to 6",
    "ends        1 of the task, 1 by a time limit or a cut",
    "left out    0 last actions whose next observation was not recorded",
    "actions     2 out of bounds, clipped",
    f"written to  {tmp_path / 'data' / 'toys' / '1.0.0'}",
  ]
  assert "warning" not in done.stderr
  info = ilx.data.read_info(tmp_path / "data" / "toys" / "1.0.0")
  assert info.metadata["action_high"] == [2.0]
  assert info.metadata["expert_return"] == -150.0
  assert ilx.data.load(info.directory).action.max() == 2.0


def test_a_task_of_other_sizes(path, tmp_path):
  done = run(f"--npz={path}", f"--root={tmp_path / 'data'}", "--env_id=HalfCheetah-v4")
  assert done.returncode == 1
  assert done.stderr.strip().endswith("array 'acts' has 1 numbers an action; the environment takes 6")
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "data").exists()


def test_observations_that_the_task_does_not_show_are_warned_of(path, tmp_path):
  done = run(f"--npz={path}", f"--root={tmp_path / 'data'}", "--env_id=MountainCarContinuous-v0")
  assert done.returncode == 0, done.stderr
  assert "warning: The dataset does not fit MountainCarContinuous-v0: observation is float of shape (3,)" in done.stderr


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--npz=/nowhere.npz", "/nowhere.npz: no such file"),
    ("--env_id=Pendulum-v9", "did you mean 'Pendulum-v1'"),
    ("--env_kwargs=[]", "--env_kwargs: expected a JSON object"),
  ],
)
def test_errors_are_one_sentence(path, tmp_path, flag, message):
  done = run(f"--npz={path}", f"--root={tmp_path / 'data'}", flag)
  assert done.returncode == 1
  assert "Traceback" not in done.stderr
  errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
  assert len(errors) == 1
  assert message in errors[0]

import json
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest

import ilx.data
from experiments.data import __main__ as tool
from experiments.data import problems, sources, validate

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def path(tmp_path):
  """Two episodes of Pendulum-v1's sizes, 200 and 3 steps, with actions out of its bounds of 2."""
  rng = np.random.default_rng(0)
  np.savez(
    tmp_path / "toy.npz",
    obs=rng.normal(size=(205, 3)),
    acts=np.append(rng.uniform(-1, 1, size=(201, 1)), [[5.0], [-2.5]], axis=0),
    rews=np.append(np.zeros(200), [1.0, 2.0, 3.0]),
    terminal=np.array([True, True]),
    indices=np.array([200]),
    meta=np.array(json.dumps({"env_id": "Pendulum-v1"})),
  )
  return tmp_path / "toy.npz"


@pytest.fixture
def d4rl(tmp_path):
  """Three episodes of 5 steps; the second one has a NaN."""
  rng = np.random.default_rng(0)
  observations = rng.normal(size=(15, 3)).astype(np.float32)
  observations[7] = np.nan
  ends = np.arange(15) % 5 == 4
  with h5py.File(tmp_path / "robot-v0.hdf5", "w") as file:
    file["observations"] = observations
    file["next_observations"] = np.append(observations[1:], observations[:1], axis=0)
    file["actions"] = rng.uniform(-1, 1, size=(15, 2)).astype(np.float32)
    file["rewards"] = np.ones(15, np.float32)
    file["terminals"] = ends
    file["timeouts"] = np.zeros(15, bool)
  return tmp_path / "robot-v0.hdf5"


def run(capsys, *args):
  code = tool.main(["convert", *map(str, args)])
  captured = capsys.readouterr()
  return code, captured.out, captured.err


def test_the_task_gives_bounds_and_time_limit(path, tmp_path, capsys):
  folder = tmp_path / "data" / "toys" / "1.0.0"
  code, out, err = run(capsys, path, f"--root={tmp_path / 'data'}", "--name=toys", "--expert_return=-150")
  assert code == 0, err
  assert out.splitlines() == [
    "recording   2 episodes, 203 steps, return 3 as recorded",
    "left out    0 last actions whose next observation was not recorded",
    "actions     2 out of bounds, clipped",
    "episodes    2, 203 steps",
    "return      3 mean, 0 to 6",
    "ends        1 of the task, 1 by a time limit or a cut",
    f"written to  {folder}",
    "",
    f"{folder}: 2 episodes, 205 steps: 0 errors, 0 warnings",
  ]
  assert "warning" not in err
  info = ilx.data.read_info(folder)
  assert info.metadata["action_high"] == [2.0]
  assert info.metadata["expert_return"] == -150.0
  assert ilx.data.load(folder).action.max() == 2.0


def test_a_time_limit_where_actions_are_repeated(tmp_path, capsys):
  """200 steps are 50 actions."""
  np.savez(
    tmp_path / "repeated.npz",
    obs=np.zeros((82, 4), np.float32),
    acts=np.zeros(80, np.int32),
    rews=np.ones(80),
    terminal=np.array([True, True]),
    indices=np.array([50]),
    meta=np.array(json.dumps({"env_id": "CartPole-v1"})),
  )
  option = '--env_kwargs={"max_episode_steps": 200, "action_repeat": 4}'
  code, out, err = run(capsys, tmp_path / "repeated.npz", f"--root={tmp_path / 'data'}", option)
  assert code == 0, err
  assert "ends        1 of the task, 1 by a time limit or a cut" in out


def test_a_task_of_other_sizes(path, tmp_path, capsys):
  code, _, err = run(capsys, path, f"--root={tmp_path / 'data'}", "--env_id=HalfCheetah-v4")
  assert code == 2
  assert err.strip().endswith("array 'acts' has 1 numbers an action; the environment takes 6")
  assert not (tmp_path / "data").exists()


def test_observations_that_the_task_does_not_show_are_warned_of(path, tmp_path, capsys):
  code, _, err = run(capsys, path, f"--root={tmp_path / 'data'}", "--env_id=MountainCarContinuous-v0")
  assert code == 0, err
  assert "warning: The dataset does not fit MountainCarContinuous-v0: observation is float of shape (3,)" in err


def test_single_frames_of_a_task_that_stacks_them(tmp_path, capsys):
  np.savez(
    tmp_path / "frames.npz",
    obs=np.zeros((4, 84, 84), np.uint8),
    acts=np.array([0, 1, 2]),
    rews=np.zeros(3),
    terminal=np.array([True]),
    indices=np.array([], int),
    meta=np.array(json.dumps({"env_id": "Pong-v5"})),
  )
  code, out, err = run(capsys, tmp_path / "frames.npz", f"--root={tmp_path / 'data'}")
  assert code == 0, err
  assert "if Pong-v5 shows the last 4 frames at once: train with --config.frame_stack=4" in out
  assert "does not fit" not in err


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (["/nowhere.npz"], "/nowhere.npz: no such file"),
    (["--env_id=Pendulum-v9"], "did you mean 'Pendulum-v1'"),
    (["--env_kwargs=[]"], "--env_kwargs: expected a JSON object"),
    (["--mapping=nowhere.yaml", "--format=npz"], "--mapping does not apply to --format=npz"),
    (["--format=rosbag"], "rosbag"),
    (["--unknown"], "Unknown command line flag 'unknown'"),
    (["second"], "convert takes SOURCE, got"),
  ],
)
def test_errors_are_one_sentence(path, tmp_path, capsys, args, message):
  given = args if args[0].startswith("/") else [path, *args]
  code, _, err = run(capsys, *given, f"--root={tmp_path / 'data'}")
  assert code == 2
  assert err.startswith("error: ")
  assert message in err


def test_as_a_command(path, tmp_path):
  command = [
    sys.executable,
    "-m",
    "experiments.data",
    "convert",
    str(path),
    f"--root={tmp_path / 'data'}",
    "--env_id=X",
  ]
  done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
  assert done.returncode == 2
  assert "Traceback" not in done.stderr
  assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_a_damaged_episode_stops_the_conversion_or_is_left_out(d4rl, tmp_path, capsys):
  root = tmp_path / "data"
  flags = ["--name=robot", f"--root={root}", "--option=cuts=terminals", "--option=next_observations=false"]
  code, _, err = run(capsys, d4rl, *flags)
  assert code == 2
  assert "NaN" in err
  code, out, err = run(capsys, d4rl, *flags, "--skip_damaged", "--env_id=Robot-v0")
  assert code == 0, err
  assert "episodes    2, 10 steps\n" in out
  assert "ends        2 of the task, 0 by a time limit or a cut\n" in out
  assert "skipped     1 damaged; the first: episode 1: " in out
  assert ilx.data.read_info(root / "robot" / "1.0.0").metadata["env_id"] == "Robot-v0"


def test_a_recording_that_changed_is_not_gone_on_with(d4rl, tmp_path, capsys):
  root = tmp_path / "data"
  flags = ["--name=robot", f"--root={root}", "--option=cuts=terminals", "--option=next_observations=false"]
  assert run(capsys, d4rl, *flags)[0] == 2  # the second episode is damaged
  with h5py.File(d4rl, "r+") as file:
    file["observations"][7] = 0
  code, _, err = run(capsys, d4rl, *flags)
  assert code == 2
  assert "holds an unfinished conversion, since when " in err
  assert "robot-v0.hdf5 has changed" in err


def test_what_is_there_already_names_the_flags(d4rl, path, tmp_path, capsys):
  for _ in range(2):
    _, _, err = run(capsys, path, f"--root={tmp_path / 'data'}")
  assert "1.0.0 is already there; remove it, or give another --name or --version" in err
  flags = ["--name=robot", f"--root={tmp_path / 'data'}", "--option=cuts=terminals", "--skip_damaged"]
  assert run(capsys, d4rl, *flags)[0] == 0
  for more in ([], ["--runner=beam"]):
    code, _, err = run(capsys, d4rl, *flags, *more)
    assert code == 2
    assert "1.0.0 is already there; remove it, or give another --name or --version" in err


def test_the_val_file_of_ogbench_is_an_input_too(tmp_path):
  for name in ("cube-v0.npz", "cube-v0-val.npz"):
    (tmp_path / name).touch()
  path = str(tmp_path / "cube-v0.npz")
  assert [file.name for file in sources.inputs(path, "ogbench")] == ["cube-v0.npz", "cube-v0-val.npz"]
  assert [file.name for file in sources.inputs(path, "d4rl")] == ["cube-v0.npz"]


def test_unknown_options_list_the_known(d4rl, tmp_path, capsys):
  code, _, err = run(capsys, d4rl, f"--root={tmp_path / 'data'}", "--option=fps=3")
  assert code == 2
  assert "--option=fps: --format=d4rl has no such option; there are: clip, cuts, dataset" in err
  assert run(capsys, d4rl, "--option=fps")[2] == "error: --option=fps: expected KEY=VALUE\n"
  assert "--clip does not apply to --format=d4rl" in run(capsys, d4rl, "--noclip")[2]


def test_beam_writes_the_same_bytes(d4rl, tmp_path, capsys):
  flags = ["--name=robot", "--skip_damaged", "--option=cuts=terminals", "--novalidate"]
  assert run(capsys, d4rl, f"--root={tmp_path / 'a'}", *flags)[0] == 0
  code, out, err = run(capsys, d4rl, f"--root={tmp_path / 'b'}", *flags, "--runner=beam")
  assert code == 0, err
  assert f"written to  {tmp_path / 'b' / 'robot' / '1.0.0'}" in out
  first, second = (sorted((tmp_path / side / "robot" / "1.0.0").glob("*")) for side in "ab")
  assert [file.name for file in first] == [file.name for file in second]
  assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_the_exit_code_tells_of_errors_that_the_validation_found(path, tmp_path, capsys, monkeypatch):
  real = validate.validate

  def worse(directory):
    found = real(directory)
    found.problems.add(problems.ERROR, "flag", "something is wrong")
    return found

  monkeypatch.setattr(validate, "validate", worse)
  code, out, _ = run(capsys, path, f"--root={tmp_path / 'data'}")
  assert code == 1
  assert "error: something is wrong" in out


def test_keys_of_a_mapping_that_fit_no_record_are_warned_of(tmp_path, capsys):
  (tmp_path / "logs").mkdir()
  rows = "".join(f"{i},key,jump,{i % 2}\n{i},stick,x,{i}\n" for i in range(5))
  (tmp_path / "logs" / "a.csv").write_text("t,type,name,value\n" + rows)
  pad = {"path": "{episode}.csv", "time": "t"}
  stick, jump = {"column": "value", "where": {"type": "stick"}}, {"type": "key", "name": "jmup"}
  mapping = {
    "events": {"pad": pad},
    "clock": {"fps": 1},
    "observation": {"x": stick},
    "action": [stick, {"column": "value", "kind": "button", "where": jump}],
  }
  (tmp_path / "mapping.json").write_text(json.dumps(mapping))
  for more in ([], ["--runner=beam"]):
    flags = [f"--mapping={tmp_path / 'mapping.json'}", f"--root={tmp_path / 'data'}", f"--name=game{len(more)}", *more]
    code, out, err = run(capsys, tmp_path / "logs", *flags)
    assert code == 0, err
    assert "episodes    1, 4 steps" in out
    assert [line for line in err.splitlines() if line.startswith("warning")] == [
      "warning: logs: action[1].where: no record of any recording has 'jmup' in its column 'name' "
      "(did you mean 'jump'?); there are 'jump'"
    ]
  jump["name"] = "jump"
  (tmp_path / "mapping.json").write_text(json.dumps(mapping))
  code, _, err = run(capsys, tmp_path / "logs", *flags[:2], "--name=whole")
  assert code == 0 and "warning" not in err


def test_options():
  assert sources.parse_options(['cameras=["top"]', "tolerance=0.5", "done=ignore", "a=b=c"]) == {
    "cameras": ("top",),
    "tolerance": 0.5,
    "done": "ignore",
    "a": "b=c",
  }


def hdf5(path, *names):
  with h5py.File(path, "w") as file:
    for name in names:
      file[name] = np.zeros(3)
  return path


def test_formats_are_told_apart(tmp_path, path, d4rl):
  assert sources.detect(path) == "npz"
  assert sources.detect(d4rl) == "d4rl"
  assert sources.detect(hdf5(tmp_path / "a.hdf5", "data/demo_0/actions")) == "robomimic"
  assert sources.detect(hdf5(tmp_path / "b.hdf5", "episode_0/actions")) == "minari"
  np.savez(tmp_path / "cube.npz", observations=np.zeros(3), actions=np.zeros(3), terminals=np.zeros(3))
  assert sources.detect(tmp_path / "cube.npz") == "ogbench"
  np.savez(
    tmp_path / "flat.npz", observations=np.zeros(3), actions=np.zeros(3), terminals=np.zeros(3), rewards=np.zeros(3)
  )
  assert sources.detect(tmp_path / "flat.npz") == "npz"
  (tmp_path / "lerobot" / "meta").mkdir(parents=True)
  (tmp_path / "lerobot" / "meta" / "info.json").write_text("{}")
  assert sources.detect(tmp_path / "lerobot") == "lerobot"
  (tmp_path / "minari" / "data").mkdir(parents=True)
  hdf5(tmp_path / "minari" / "data" / "main_data.hdf5", "episode_0/actions")
  assert sources.detect(tmp_path / "minari") == "minari"
  for kind in ("arrow", "parquet"):
    (tmp_path / kind / "data" / "0").mkdir(parents=True)
    (tmp_path / kind / "data" / "metadata.json").write_text(json.dumps({"data_format": kind}))
    assert sources.detect(tmp_path / kind) == sources.detect(tmp_path / kind / "data") == "minari"
  assert sources.detect(tmp_path, "mapping.yaml") == "logs"


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda folder: folder / "nothing", "no such file or folder"),
    (lambda folder: folder, "for game logs give --mapping"),
    (lambda folder: hdf5(folder / "x.hdf5", "foo"), "HDF5, but neither D4RL, Minari nor robomimic; it has foo"),
    (lambda folder: folder / "x.txt", "neither HDF5 nor npz"),
    (lambda folder: folder / "cut.hdf5", "is damaged"),
  ],
)
def test_what_is_no_recording(tmp_path, make, message):
  (tmp_path / "x.txt").write_text("hello")
  whole = hdf5(tmp_path / "whole.hdf5", "observations").read_bytes()
  (tmp_path / "cut.hdf5").write_bytes(whole[:200])
  with pytest.raises((ValueError, OSError), match=message):
    sources.detect(make(tmp_path))


def test_every_format_opens():
  import importlib

  for name in sources.MODULES:
    assert callable(importlib.import_module(f"ilx.data.convert.{name}").open), name


def test_demonstrations_by_others(shared_data, tmp_path, capsys):
  code, out, err = run(capsys, shared_data / "demos" / "imitation_pendulum.npz", f"--root={tmp_path}")
  assert code == 0, err
  assert "episodes    56, 11,200 steps\n" in out
  assert "return      -189 mean" in out

"""Sweeps on this machine: what is run, what is left alone, what goes on, what is told."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from experiments.launch import __main__ as launch
from experiments.launch import local
from experiments.launch.progress import last_step

ROOT = pathlib.Path(__file__).resolve().parents[3]
HERE = pathlib.Path(__file__).parent
BC = f"--config={ROOT / 'experiments/configs/bc.py'}"
# A launcher whose runs are made by fake_main.
LAUNCHER = """
import sys
from experiments.launch import __main__ as launch, local
local.MODULE = "fake_main"
sys.exit(launch.main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def fake(monkeypatch):
  monkeypatch.setattr(local, "MODULE", "fake_main")
  monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{HERE}")
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def words(folder, *more, steps=3):
  return ["local", BC, f"--config.steps={steps}", f"--workdir={folder}", *more]


def starts(folder):
  """At which step each process of a run began."""
  return [int(line) for line in (folder / "starts").read_text().split()]


def contents(folder):
  return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def totals(folder):
  return {row["name"]: row["result"]["return_mean"] for row in json.loads((folder / "table.json").read_text())["runs"]}


def test_a_sweep_is_run_and_run_again_left_alone(tmp_path, capsys):
  grid = ("--grid=config.seed=0,1", "--grid=config.batch_size=8,16", "--jobs=2")
  assert launch.main(words(tmp_path, *grid)) == 0
  output = capsys.readouterr().out
  assert "4 runs, 0 of them finished" in output
  assert "[4/4]" in output
  lines = (tmp_path / "table.md").read_text().splitlines()
  assert lines[0].startswith("| batch_size | seeds | return | 95 % interval | normalised |")
  assert [line.split("|")[1:4] for line in lines[2:4]] == [[" 8 ", " 2 ", " 14,930 "], [" 16 ", " 2 ", " 14,930 "]]
  assert "| seed | batch_size | return |" in (tmp_path / "table.md").read_text()
  cores = {(tmp_path / f"{path.name}.log").read_text().split(" and")[0] for path in tmp_path.iterdir() if path.is_dir()}
  assert len(cores) == min(2, len(os.sched_getaffinity(0))), "every job has cores of its own"
  before = contents(tmp_path)
  assert launch.main(words(tmp_path, *grid)) == 0
  assert "4 runs, 4 of them finished" in capsys.readouterr().out
  after = contents(tmp_path)
  assert after == before


def test_failures_are_listed_and_tried_again(tmp_path, capsys):
  (tmp_path / "runs.txt").write_text("--config.dataset=good\n--config.dataset=broken\n")
  command = words(tmp_path / "sweep", f"--list={tmp_path / 'runs.txt'}")
  assert launch.main(command) == 1
  output, errors = capsys.readouterr()
  log = tmp_path / "sweep" / "dataset=broken.log"
  listed = f"dataset=broken: exit status 1: error: the data are broken; see {log}"
  assert errors.splitlines() == ["error: 1 of 2 runs failed:", listed]
  assert "broken  " in output and "failed" in output
  (tmp_path / "runs.txt").write_text("--config.dataset=good\n--config.dataset=mended\n")
  assert launch.main(command) == 0
  assert starts(tmp_path / "sweep" / "dataset=good") == [0], "what is finished is not run again"


def test_killed_midway_it_goes_on_and_ends_the_same(tmp_path, capsys):
  grid = ("--grid=config.seed=0,1", "--jobs=2")
  assert launch.main(words(tmp_path / "whole", *grid, steps=60)) == 0
  folder = tmp_path / "killed"
  launcher = _start(words(folder, *grid, steps=60), pause=0.1)
  _wait_for(folder / "seed=0" / "checkpoints" / "2", folder / "seed=1" / "checkpoints" / "2")
  children = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
  launcher.kill()
  launcher.communicate()
  # What it left running holds the folder: a second launcher must not start the same runs beside it.
  assert launch.main(words(folder, *grid, steps=60)) == 2
  assert "another launcher works here, or runs that it left" in capsys.readouterr().err
  for child in children:
    os.kill(int(child), signal.SIGKILL)
  _wait_until_gone(children)
  assert launch.main(words(folder, *grid, steps=60)) == 0
  assert totals(folder) == totals(tmp_path / "whole")
  for name in ("seed=0", "seed=1"):
    first, again = starts(folder / name)
    assert first == 0 and again >= 2


def test_a_signal_lets_runs_save_and_the_same_command_goes_on(tmp_path, capsys):
  grid = ("--grid=config.seed=0,1",)
  launcher = _start(words(tmp_path, *grid, steps=40), pause=0.05)
  _wait_for(tmp_path / "seed=0" / "checkpoints" / "2")
  launcher.send_signal(signal.SIGTERM)
  output, errors = launcher.communicate()
  assert launcher.returncode == 128 + signal.SIGTERM
  assert errors == "stopped by SIGTERM; 2 of 2 are not finished\nThe same command goes on from there.\n"
  assert "of 40 updates" in output and "not started" in output
  assert not (tmp_path / "seed=1").exists()
  assert launch.main(words(tmp_path, *grid, steps=40)) == 0
  assert "2 runs, 0 of them finished" in capsys.readouterr().out
  assert starts(tmp_path / "seed=0")[1] >= 2


def test_a_dry_run_prints_commands_and_touches_nothing(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("something was started"))
  command = words(tmp_path / "sweep", "--grid=config.where='a > 1','b'", "--jobs=2", "--dry_run")
  assert launch.main(command) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "# 2 runs, 2 at a time"
  assert lines[3] == "# where=a_1: new"
  module = f"{sys.executable} -m fake_main {BC} --config.steps=3"
  assert lines[4] == f"{module} '--config.where=a > 1' --workdir={tmp_path / 'sweep' / 'where=a_1'}"
  assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (["--config.agent.hiden=(3,)"], "no field 'hiden'; did you mean 'hidden'"),
    (["--grid=config.sed=1,2"], "no field 'sed'; did you mean 'seed'"),
    (["--job=2"], "no flag --job; did you mean --jobs"),
    (["--jobs=0"], "--jobs=0"),
    (["--list=nowhere.txt"], "--list=nowhere.txt cannot be read: No such file"),
    (["--list=/bin/ls"], "--list=/bin/ls cannot be read"),
    (["--jobs=2", "--gpus_per_job=9"], "there are 0"),
    (["7"], "unexpected '7'"),
    (["--explain_placement"], "--explain_placement is no flag for a sweep: it would train nothing"),
    (["--grid=explain_placement=true"], "--explain_placement is no flag for a sweep"),
    (["--distributed=10.0.0.1:1234,2,0"], "--distributed is no flag for a sweep: the launcher tells"),
  ],
)
def test_nothing_is_started_where_a_flag_is_wrong(tmp_path, capsys, more, message):
  assert launch.main(words(tmp_path / "sweep", *more)) == 2
  errors = capsys.readouterr().err
  assert errors.startswith("error: ") and message in errors
  assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("command", ["slurm", "k8s"])
def test_other_launchers_tell_processes_of_each_other_themselves(tmp_path, capsys, command):
  (tmp_path / "runs.txt").write_text("--distributed=auto")
  given = [f"--workdir={tmp_path / 'sweep'}", f"--list={tmp_path / 'runs.txt'}", "--nodes=2", "--dry_run"]
  assert launch.main([command, BC, *given]) == 2
  assert "error: --distributed is no flag for a sweep" in capsys.readouterr().err


def test_a_sweep_must_have_a_folder(capsys):
  assert launch.main(["local", BC]) == 2
  assert "--workdir" in capsys.readouterr().err


@pytest.mark.parametrize("command", launch.COMMANDS)
def test_help_has_the_flags_and_an_example(capsys, command):
  assert launch.main([command, "--help"]) == 0
  output = capsys.readouterr().out
  assert f"python -m experiments.launch {command} " in output
  assert "--workdir\n" in output


@pytest.mark.parametrize("size", [10, 5_000, 100_000])
def test_how_far_a_run_is_however_long_its_rows_are(tmp_path, size):
  log = tmp_path / "log.jsonl"
  assert last_step(log) == 0
  row = {"step": 1, "losses": "x" * size}
  log.write_text("")
  assert last_step(log) == 0
  log.write_text(json.dumps(row)[:-2])
  assert last_step(log) == 0, "it is being written"
  log.write_text("".join(json.dumps({**row, "step": step}) + "\n" for step in (5, 10)) + json.dumps(row)[:-2])
  assert last_step(log) == 10
  log.write_text(json.dumps({**row, "step": 7}) + "\nnothing\n[]\n")
  assert last_step(log) == 7


def test_the_tool_lists_its_commands(capsys):
  assert launch.main(["--help"]) == 0
  assert "  slurm      Submits a sweep to Slurm" in capsys.readouterr().out
  assert launch.main([]) == 2
  assert launch.main(["locale"]) == 2
  assert "no command 'locale'" in capsys.readouterr().err


def _start(arguments, pause=0.0):
  return subprocess.Popen(
    [sys.executable, "-c", LAUNCHER, *arguments],
    env={**os.environ, "FAKE_PAUSE": str(pause)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _wait_for(*paths):
  deadline = time.monotonic() + 60
  while not all(path.exists() for path in paths):
    assert time.monotonic() < deadline, f"none of {paths}"
    time.sleep(0.01)


def _wait_until_gone(children):
  """Or at least dead, where nobody has collected it."""

  def alive(child):
    try:
      return pathlib.Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
      return False

  deadline = time.monotonic() + 60
  while any(map(alive, children)):
    assert time.monotonic() < deadline
    time.sleep(0.01)

"""What the README shows is run as it stands."""

import os
import re
import shlex
import subprocess
import sys

import documented
import pytest
from documented import ROOT

import ilx
from experiments.demos import datasets

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  datasets.build("cartpole-expert", folder, rounds=1)
  return folder


def _run(code, root, cwd):
  environment = {**os.environ, "ILX_DATA_DIR": str(root), "JAX_PLATFORMS": "cpu"}
  done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return done.stdout


def _blocks():
  return [block.code for block in documented.blocks(README, "python")]


def test_an_agent_in_a_plain_loop(root, tmp_path):
  code = _blocks()[0]
  output = _run(code, root, tmp_path)
  mean = float(re.search(r"'mean': ([\d.]+)", output)[1])
  assert mean > 400, "cloned CartPole experts reach 500"


def test_recording_ones_own_data(root, tmp_path):
  output = _run(_blocks()[1] + "\nprint(episodes.num_episodes, episodes.num_transitions)", root, tmp_path)
  assert output.split() == ["2", "400"]


def test_ones_own_game_in_five_minutes(tmp_path, monkeypatch):
  """From videos and JSON lines to a policy, by the README's mapping and commands."""
  monkeypatch.syspath_prepend(ROOT / "tests" / "data" / "convert" / "fixtures")
  import game

  game.write_game(tmp_path, episodes=5, steps=12)
  section = re.search(r"## Your own data in five minutes\n(.*?)\n## ", README, re.DOTALL)[1]
  (tmp_path / "mapping.yaml").write_text(documented.blocks(section, "yaml")[0].code)
  commands = re.findall(r"^    python -m ((?:.*\\\n)*.*)$", section, re.MULTILINE)
  assert len(commands) == 4
  environment = {**os.environ, "ILX_DATA_DIR": str(tmp_path / "data"), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  for command in [*commands, f'experiments.data query my-game "{_query()}"']:
    arguments = shlex.split(command.replace("\\\n", " "))
    if arguments[0] == "experiments.main":
      arguments[1] = arguments[1].replace("=", f"={ROOT}/")
      arguments += ["--config.steps=20", "--config.agent.hidden=(8,)", "--workdir=run"]
    program = [sys.executable, "-m", *arguments]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
  assert (tmp_path / "run" / "report.html").exists() and (tmp_path / "run" / "result.json").exists()
  assert ilx.data.load(tmp_path / "data" / "my-game").num_episodes == 5


def _query() -> str:
  return re.search(r'query my-game "(.*?)"', README)[1]


def test_paths_and_commands_exist():
  for path in re.findall(r"\]\(([\w./]+)\)", README):
    assert (ROOT / path).exists(), path
  for module in set(re.findall(r"python -m (experiments[\w.]*)", README)):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module

"""What the README shows is run as it stands."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from experiments.demos import datasets

ROOT = pathlib.Path(__file__).resolve().parents[1]
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
  return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_an_agent_in_a_plain_loop(root, tmp_path):
  code = _blocks()[0]
  output = _run(code, root, tmp_path)
  mean = float(re.search(r"'mean': ([\d.]+)", output)[1])
  assert mean > 400, "cloned CartPole experts reach 500"


def test_recording_ones_own_data(root, tmp_path):
  output = _run(_blocks()[1] + "\nprint(episodes.num_episodes, episodes.num_transitions)", root, tmp_path)
  assert output.split() == ["3", "600"]


def test_paths_and_commands_exist():
  for path in re.findall(r"\]\(([\w./]+)\)", README):
    assert (ROOT / path).exists(), path
  for module in set(re.findall(r"python -m (experiments[\w.]*)", README)):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module

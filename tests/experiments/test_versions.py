"""Runs keep to the versions of their datasets that they began with."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

import ilx
from experiments import choosing, export, run, trained, versions
from experiments.configs import bc
from experiments.demos import datasets
from ilx.data import rlds
from ilx.parallel import hosts
from ilx.training import logs


def _record(root, version, name="game", metadata=None):
  """Episodes whose observations tell by their size which version they are of."""
  rng = np.random.default_rng(0)
  about = {"env_id": "CartPole-v1", "expert_return": 500.0, "random_return": 20.0} | (metadata or {})
  with ilx.data.Recorder(root, name=name, version=version, metadata=about) as recorder:
    for length in (20, 25, 30):
      observation = rng.normal(size=(length + 1, 4)).astype(np.float32) * (1 + int(version[-1]))
      action = (observation[:-1, 2] > 0).astype(int)
      recorder.add(ilx.data.episode(observation, action, np.ones(length), terminal=True))
  return recorder.path


def _config(dataset="game", **changes):
  config = bc.get_config()
  config.update(dataset=dataset, split="train", steps=10, batch_size=16, log_every=5, checkpoint_every=5)
  config.agent.update(hidden=(8,), schedule="constant")
  config.evaluation.update(every=0, episodes=2, final_episodes=2, video=False)
  config.update_from_flattened_dict(changes)
  return config


def _params(workdir):
  with warnings.catch_warnings(action="ignore"):
    return jax.tree.map(np.asarray, trained.load(workdir).params)


def _made(root):
  """A dataset of two versions, and a run of ten updates."""
  for version in ("1.0.0", "1.0.1"):
    _record(root / "data", version)
  with warnings.catch_warnings(action="error", category=UserWarning):
    run.run(_config(), root / "run")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  root = tmp_path_factory.mktemp("made")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("ILX_DATA_DIR", str(root / "data"))
    _made(root)
  return root


@pytest.fixture
def place(made, tmp_path, monkeypatch):
  """A copy of the dataset and the run."""
  shutil.copytree(made, tmp_path, dirs_exist_ok=True)
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path / "data"))
  return tmp_path


def test_a_run_records_its_version(place):
  assert json.loads((place / "run/datasets.json").read_text())["game"]["version"] == "1.0.1"
  assert json.loads((place / "run/config.json").read_text())["dataset"] == "game", "it is what was asked for"
  assert json.loads((place / "run/result.json").read_text())["dataset_versions"] == {"game": "1.0.1"}
  assert "game/1.0.1" in (place / "run/report.html").read_text()


def test_it_goes_on_with_it_bit_for_bit(place):
  shutil.copytree(place / "run", place / "undisturbed")
  run.run(_config(steps=20), place / "undisturbed")
  _record(place / "data", "1.0.2")
  before = (place / "run/datasets.json").read_bytes()
  with pytest.warns(UserWarning, match=r"game: version 1.0.1 is used, with which the run began; there is 1.0.2, too"):
    result = run.run(_config(steps=20), place / "run")
  assert result["dataset_versions"] == {"game": "1.0.1"} and (place / "run/datasets.json").read_bytes() == before
  jax.tree.map(np.testing.assert_array_equal, _params(place / "run"), _params(place / "undisturbed"))
  with pytest.raises(
    ValueError, match=r"holds a run of another config \(config.dataset: 'game' there, 'game/1.0.2' now"
  ):
    run.run(_config("game/1.0.2", steps=20), place / "run")
  new = run.run(_config(), place / "new")
  assert new["dataset_versions"] == {"game": "1.0.2"}


def test_evaluations_and_exports_are_of_it(place):
  expected = trained.load(place / "run").task.data.spec.statistics
  _record(place / "data", "1.0.2")
  with pytest.warns(UserWarning, match="there is 1.0.2, too"):
    folder = export.export(place / "run", place / "policy", platforms=("cpu",))
  assert ilx.export.load(folder).spec["agent"]["dataset_versions"] == {"game": "1.0.1"}
  with pytest.warns(UserWarning, match="there is 1.0.2, too"):
    found = trained.load(place / "run").task.data.spec.statistics
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  command = [sys.executable, "-m", "experiments.evaluate", f"--workdir={place / 'run'}", "--episodes=2", "--json"]
  done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout)["dataset_versions"] == {"game": "1.0.1"}
  assert "warning: game: version 1.0.1 is used" in done.stderr


def test_a_version_that_is_gone_is_named(place):
  _record(place / "data", "1.0.2")
  shutil.rmtree(place / "data/game/1.0.1")
  message = (
    r"config.dataset: .*/game has no version '1\.0\.1'; there: 1\.0\.0, 1\.0\.2, and the run began with version "
    r"1.0.1 \(datasets.json in its folder says so\); put that version back, or train anew"
  )
  for again in (lambda: run.run(_config(steps=20), place / "run"), lambda: trained.load(place / "run")):
    with pytest.raises(FileNotFoundError, match=message):
      again()


def test_files_that_changed_under_the_same_version_are_warned_of(place):
  for path in (place / "data/game/1.0.1").glob("*.*"):
    os.utime(path, ns=(0, 0))
  with warnings.catch_warnings(action="error", category=UserWarning):
    trained.load(place / "run")  # as of a copy
  shutil.rmtree(place / "data/game/1.0.1")
  _record(place / "data", "1.0.1", metadata={"expert_return": 400.0})
  with pytest.warns(UserWarning, match=r"game/1.0.1 changed since the run began, under the same version"):
    trained.load(place / "run")


def test_a_run_that_is_older_than_the_record_goes_by_the_newest(place):
  (place / "run/datasets.json").unlink()
  _record(place / "data", "1.0.2")
  assert trained.load(place / "run").task.data.versions["game"].version == "1.0.2"
  with warnings.catch_warnings(action="error", category=UserWarning):
    result = run.run(_config(steps=20), place / "run")
  assert result["dataset_versions"] is None and not (place / "run/datasets.json").exists()
  assert "game/1.0.2" not in (place / "run/report.html").read_text()


def test_what_saved_nothing_begins_anew(place):
  shutil.rmtree(place / "run/checkpoints")
  (place / "run/result.json").unlink()
  _record(place / "data", "1.0.2")
  assert run.run(_config(), place / "run")["dataset_versions"] == {"game": "1.0.2"}


def test_every_part_of_a_mixture_is_recorded(place):
  _record(place / "data", "2.0.0", name="other")
  text = f"game=0.7, {place / 'data/other'}=0.3"
  changes = {"env_id": "none", "heldout": "train[:1]", "split": "train[1:]"}
  run.run(_config(text, **changes), place / "mixed")
  for name, version in (("game", "1.0.2"), ("other", "2.0.1")):
    _record(place / "data", version, name=name)
  with pytest.warns(UserWarning, match="with which the run began") as warned:
    result = run.run(_config(text, steps=20, **changes), place / "mixed")
  assert result["dataset_versions"] == {"game": "1.0.1", str(place / "data/other"): "2.0.0"}
  assert sum("with which the run began" in str(one.message) for one in warned) == 2
  assert f"game/1.0.1=0.7,{place / 'data/other'}/2.0.0=0.3" in (place / "mixed/report.html").read_text()


def test_another_process_that_began_the_run_meanwhile_is_told(place, monkeypatch):
  shutil.move(place / "run", place / "begun")
  load = run.load_task

  def slow(*arguments):
    task = load(*arguments)
    shutil.copytree(place / "begun", place / "run")
    return task

  monkeypatch.setattr(run, "load_task", slow)
  with pytest.raises(ValueError, match=r"another process began the run in .* meanwhile; give the command again"):
    run.run(_config(), place / "run")


def test_a_built_in_dataset_of_an_earlier_version_is_not_built(tmp_path, monkeypatch):
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path))
  earlier = versions.of(rlds.read_info(_record(tmp_path, "0.9.0", name="cartpole-expert")))
  with pytest.warns(UserWarning, match=f"version 0.9.0 is used, .* there is {datasets.VERSION}, too"):
    (part,) = choosing.parts(_config("cartpole-expert"), {"cartpole-expert": earlier})
  assert part.info.version == "0.9.0" and not (tmp_path / "cartpole-expert" / datasets.VERSION).exists()


def test_a_folder_that_is_no_version_tells_its_own(tmp_path):
  shutil.copytree(_record(tmp_path, "1.0.3"), tmp_path / "mine")
  info = rlds.read_info(tmp_path / "mine")
  assert versions.of(info).version == "1.0.3"
  with warnings.catch_warnings(action="error", category=UserWarning):
    (part,) = choosing.parts(_config(str(tmp_path / "mine")), {str(tmp_path / "mine"): versions.of(info)})
  assert part.info.directory == tmp_path / "mine"


def test_processes_that_found_different_versions_all_end(monkeypatch):
  found = {"game": versions.Version("1.0.1", "0" * 16)}
  versions.check_agreed(found)
  monkeypatch.setattr(hosts, "gather", lambda x: np.stack([x, x + 1]))
  with pytest.raises(ValueError, match=r"the processes found different versions \(this one game 1.0.1\)"):
    versions.check_agreed(found)


@pytest.mark.parametrize("content", ["[", "[]", '{"game": "1.0.1"}', '{"game": {"version": "1.0.1"}}'])
def test_a_damaged_record_is_named(tmp_path, content):
  assert versions.read(tmp_path) == {}
  (tmp_path / "datasets.json").write_text(content)
  with pytest.raises(ValueError, match=r"datasets.json is damaged \(.*\); put it back, or remove it"):
    versions.read(tmp_path)
  logs.write_json(tmp_path / "result.json", {})
  with pytest.raises(ValueError, match=r"datasets.json is damaged"):
    run.run(_config(), tmp_path)

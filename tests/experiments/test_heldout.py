"""Held-out episodes of the run's own dataset and of another one: in a run, and by the command that compares again."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import ilx
from experiments import run, task, trained, versions
from experiments.configs import bc
from ilx.evaluation.fidelity import fidelity

ROOT = pathlib.Path(__file__).parents[2]
KEYS = ["left", "right", "jump"]


def _record(root, name, *, seed=0, size=4, names=KEYS, episodes=6):
  """Three buttons that follow from the observation, and a stick."""
  rng = np.random.default_rng(seed)
  metadata = {"action_names": {"keys": names}, "action_low": {"stick": [-1.0]}, "action_high": {"stick": [1.0]}}
  with ilx.data.Recorder(root, name=name, metadata=metadata) as recorder:
    for length in range(20, 20 + episodes):
      seen = rng.normal(size=(length + 1, size)).astype(np.float32)
      action = {"keys": seen[:-1, :3] > 0, "stick": np.tanh(seen[:-1, :1])}
      recorder.add(ilx.data.episode(seen, action, np.zeros(length), terminal=True))
  return recorder.path


@pytest.fixture(scope="module")
def monday(tmp_path_factory):
  return _record(tmp_path_factory.mktemp("data"), "monday")


@pytest.fixture(scope="module")
def tuesday(tmp_path_factory):
  return _record(tmp_path_factory.mktemp("data"), "tuesday", seed=1)


def _config(dataset, **changes):
  config = bc.get_config()
  config.update(dataset=str(dataset), split="train[:4]", env_id="none", steps=20, batch_size=16, log_every=10)
  config.update(checkpoint_every=10)
  config.agent.update(hidden=(8,), learning_rate=1e-2)
  config.update_from_flattened_dict({"evaluation.video": False, **changes})
  return config


@pytest.fixture(scope="module")
def ended(monday, tmp_path_factory):
  """A run of two seeds, and its result."""
  workdir = tmp_path_factory.mktemp("runs") / "bc"
  run.run(_config(monday, heldout="train[4:]", seeds=2), workdir)
  return workdir, json.loads((workdir / "result.json").read_text())


def _compare(*flags):
  command = [sys.executable, "-m", "experiments.heldout", *map(str, flags)]
  return subprocess.run(command, cwd=ROOT, text=True, capture_output=True)


def test_the_command_finds_what_the_run_found(ended):
  workdir, result = ended
  told = _compare(f"--workdir={workdir}", "--json")
  assert told.returncode == 0, told.stderr
  found = json.loads(told.stdout)
  assert found == json.loads((workdir / "heldout.json").read_text())
  assert found["heldout"] == result["heldout"] and found["step"] == 20
  assert found["per_seed"] == [{key: seed[key] for key in ("seed", "heldout")} for seed in result["per_seed"]]
  assert [choice["name"] for choice in found["heldout"]["parts"]["keys"]["choices"]] == KEYS

  earlier = _compare(f"--workdir={workdir}", "--json", "--step=10", f"--output={workdir / 'earlier.json'}")
  assert json.loads(earlier.stdout)["step"] == 10
  assert json.loads(earlier.stdout)["heldout"] != found["heldout"]
  assert json.loads((workdir / "heldout.json").read_text()) == found


def test_another_dataset(ended, tuesday):
  workdir, _ = ended
  told = _compare(f"--workdir={workdir}", f"--dataset={tuesday}", "--split=train")
  assert told.returncode == 0, told.stderr
  assert "135 transitions of 6 held-out episodes (train of tuesday/1.0.0)" in told.stdout
  assert "keys: accuracy" in told.stdout and "stick: variance explained" in told.stdout
  found = json.loads((workdir / "heldout.json").read_text())
  assert found["heldout"]["dataset"] == str(tuesday)
  assert found["dataset_versions"][str(tuesday)] == "1.0.0"

  made = trained.load(workdir)
  episodes = ilx.data.load(tuesday)
  expected = [
    fidelity(made.agent, params, episodes, action=made.task.data.spec.action, clip=False).parts["stick"]
    for params in made.params
  ]
  shown = found["heldout"]["parts"]["stick"]["mean_absolute_error"]
  assert shown == pytest.approx(np.mean([one.scores["mean_absolute_error"] for one in expected]), rel=1e-6)


def test_a_run_may_hold_out_another_dataset(monday, tuesday, tmp_path):
  config = _config(monday, split="train", heldout="train[1:]", heldout_dataset=str(tuesday))
  result = run.run(config, tmp_path / "run")
  assert result["heldout"]["dataset"] == str(tuesday) and result["heldout"]["episodes"] == 5
  assert set(versions.read(tmp_path / "run")) == {str(monday), str(tuesday)}
  report = (tmp_path / "run" / "report.html").read_text()
  assert "115 transitions of 5 held-out episodes (train[1:] of tuesday/1.0.0)" in report
  alone = run.run(_config(monday, split="train"), tmp_path / "alone")
  assert alone["loss"] == result["loss"], "what is held out changes nothing that is learnt"


def test_the_same_dataset_by_another_name_is_seen_to_overlap(monday, recwarn):
  data = task.load(_config(monday, heldout="train[3:]", heldout_dataset=str(monday / "."))).data
  assert data.heldout.keep.tolist() == [True] * 3 and data.names == data.heldout.names == {"keys": KEYS}
  assert "1 of 3 held-out episodes are among those learnt from" in str(recwarn.pop(UserWarning).message)


def test_several_datasets_count_alike(monday, tuesday):
  data = task.load(_config(monday, heldout="train[4:]", heldout_dataset=f"{monday},{tuesday}")).data
  assert data.heldout.episodes.num_episodes == 4
  expected = [ilx.data.load(path, split="train[4:]").action["stick"] for path in (monday, tuesday)]
  np.testing.assert_array_equal(data.heldout.episodes.action["stick"], np.concatenate(expected))


def test_other_labels_of_buttons_are_taken_for_the_same_with_a_warning(monday, tmp_path):
  other = _record(tmp_path, "labelled", names=["left", "right", "up"])
  with pytest.warns(UserWarning, match="different action_names"):
    data = task.load(_config(monday, heldout="train", heldout_dataset=str(other))).data
  assert data.heldout.names == {} and data.names == {"keys": KEYS}


@pytest.mark.parametrize(
  ("other", "changes", "message"),
  [
    ({}, {"heldout": ""}, r"config.heldout_dataset: say which of its episodes, such as --config.heldout=train"),
    ({}, {"heldout": "val"}, r"config.heldout: .*other.*no split 'val'"),
    ({"size": 5}, {}, r"(?s)config.heldout_dataset: the datasets differ:\n  observation: .*\[4\].*\[5\]"),
    ({"names": KEYS[::-1]}, {}, r"config.heldout_dataset: .*action_names.*(?s:.)*left, right, jump.*jump, right, left"),
    ({}, {"heldout_dataset": "{}=0.5"}, r"config.heldout_dataset='.*': all of them count; leave the shares out"),
    ({}, {"heldout_dataset": "nowhere"}, r"config.heldout_dataset: .*nowhere"),
    ({}, {"heldout_dataset": "{},"}, r"config.heldout_dataset='.*,': a name is missing"),
  ],
)
def test_wrong_fields_are_named(monday, tmp_path, other, changes, message):
  path = _record(tmp_path, "other", **other)
  fields = {"heldout": "train", "heldout_dataset": "{}", **changes}
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    task.load(_config(monday, **{name: value.replace("{}", str(path)) for name, value in fields.items()}))


def test_mistakes_of_the_command_are_told_in_a_line(ended, monday, tmp_path):
  workdir, _ = ended
  shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("heldout.json"))
  config = json.loads((tmp_path / "run" / "config.json").read_text())
  (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"heldout": ""}))
  for flags, message in (
    ([f"--workdir={tmp_path / 'run'}"], "holds nothing out; say which episodes with --split"),
    ([f"--workdir={tmp_path}"], "holds no run"),
    ([f"--workdir={workdir}", "--split=val"], "config.heldout: "),
    ([f"--workdir={workdir}", "--step=7"], "7"),
  ):
    told = _compare(*flags)
    assert told.returncode == 1 and message in told.stderr and "Traceback" not in told.stderr, told.stderr
    assert not (tmp_path / "run" / "heldout.json").exists()

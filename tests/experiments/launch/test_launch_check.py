"""What is wrong with a sweep is found before anything starts."""

import pytest
from absl import flags

from experiments.launch import check, sweep
from ilx.training import logs

BC = "--config=experiments/configs/bc.py"


def runs(*grid, common=(BC,)):
  return sweep.expand(common, grid, None)


def folder_of(one, root, steps=None):
  """What a run leaves that made ``steps`` updates in all, or none yet."""
  path = root / one.name
  (path / "checkpoints" / "5").mkdir(parents=True)
  logs.write_json(path / "config.json", check.config_of(one.flags).to_dict())
  if steps is not None:
    logs.write_json(path / "result.json", {"steps": steps})
    (path / "report.html").touch()
  return path


def test_a_config_is_the_one_that_the_run_will_have():
  config = check.config_of([BC, "--config.steps=7", "--config.agent.hidden=(3, 4)", "--config.split=train[:2]"])
  assert (config.steps, config.agent.hidden, config.split, config.agent.name) == (7, (3, 4), "train[:2]", "bc")
  assert check.config_of([BC]).steps == 50_000, "one parse must not leave its fields to the next"
  check.config_of([BC, "--workdir=elsewhere"])
  assert "workdir" not in flags.FLAGS or flags.FLAGS["workdir"].value != "elsewhere", (
    "nor change the flags of this process"
  )


@pytest.mark.parametrize(
  ("word", "message"),
  [
    ("--config.agent.lerning_rate=1", "no field 'lerning_rate'; did you mean 'learning_rate'"),
    ("--config.steps=many", "--config.steps=many"),
    ("--seed=1", "no flag --seed; did you mean --config.seed"),
    ("--job=2", "no flag --job; did you mean --jobs"),
    ("--zzzzz=2", "no flag --zzzzz$"),
  ],
)
def test_wrong_flags_are_named_with_the_nearest(word, message):
  with pytest.raises(ValueError, match=message):
    check.config_of([BC, word], known=["jobs"])


def test_a_config_file_must_be_there():
  with pytest.raises(ValueError, match=r"--config must name a config file"):
    check.config_of(["--config.seed=1"])
  with pytest.raises(ValueError, match=r"--config cannot be loaded: .*nothing\.py"):
    check.config_of(["--config=nothing.py"])


def test_the_run_at_fault_is_named():
  with pytest.raises(ValueError, match=r"^seed=x: .*--config.seed=x"):
    check.check(runs("config.seed=0,x"), None)


def test_two_runs_of_one_config_are_refused():
  with pytest.raises(ValueError, match=r"'learning_rate=1e-3' and 'learning_rate=0.001' have the same config"):
    check.check(runs("config.agent.learning_rate=1e-3,0.001"), None)


def test_how_far_a_run_is(tmp_path):
  four = runs("config.seed=0,1,2,3", common=(BC, "--config.steps=10"))
  folder_of(four[0], tmp_path, steps=10)
  folder_of(four[1], tmp_path)
  folder_of(four[2], tmp_path, steps=5)
  states = [one.state for one in check.check(four, tmp_path)]
  assert states == [check.FINISHED, check.INTERRUPTED, check.INTERRUPTED, check.NEW]
  assert {one.state for one in check.check(four, None)} == {check.NEW}


def test_a_run_that_was_stopped_before_its_report_is_not_finished(tmp_path):
  (one,) = runs("config.seed=0", common=(BC, "--config.steps=10"))
  (folder_of(one, tmp_path, steps=10) / "report.html").unlink()
  (found,) = check.check([one], tmp_path)
  assert found.state == check.INTERRUPTED


def test_a_folder_of_another_config_is_refused(tmp_path):
  (one,) = runs("config.seed=0")
  folder_of(one, tmp_path, steps=50_000)
  with pytest.raises(ValueError, match=r"seed=0 holds a run of another config .*config.batch_size: 256 there, 32 now"):
    check.check(runs("config.seed=0", common=(BC, "--config.batch_size=32")), tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_a_damaged_result_is_named(tmp_path, text):
  (one,) = runs("config.seed=0")
  (folder_of(one, tmp_path) / "result.json").write_text(text)
  with pytest.raises(ValueError, match=r"result.json cannot be read"):
    check.check([one], tmp_path)

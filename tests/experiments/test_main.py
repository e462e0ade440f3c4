"""The whole path: data, training, scores, report; killed, resumed, fed with bad input."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import ilx
from experiments import agents, main, run
from experiments.configs import bc
from experiments.demos import datasets
from experiments.launch import check
from ilx.data import example, rlds, shards
from ilx.training import logs
from ilx.training.checkpoint import Checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 3_000
QUICK_TO_COMPILE = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")  # what tests/conftest.py sets


@pytest.fixture(scope="session")
def cartpole(tmp_path_factory) -> pathlib.Path:
  return datasets.build("cartpole-expert", tmp_path_factory.mktemp("data"), rounds=1)


def _config(dataset, /, **changes):
  config = bc.get_config()
  config.update(
    dataset=str(dataset), split="train[:5]", steps=STEPS, batch_size=32, log_every=100, checkpoint_every=500
  )
  config.agent.update(hidden=(16,), learning_rate=3e-3)
  config.evaluation.update(every=1_000, episodes=4, final_episodes=10, video=False)
  config.update_from_flattened_dict(changes)
  return config


def _command(dataset, workdir, /, **changes):
  """The command line that gives ``_config(dataset, **changes)``."""
  default, wanted = bc.get_config(), _config(dataset, **changes)
  flags = []
  for name, value in {**_flat(wanted)}.items():
    if value != _flat(default)[name]:
      flags.append(f"--config.{name}={value}")
  config = f"--config={ROOT / 'experiments/configs/bc.py'}"
  return [sys.executable, "-m", "experiments.main", config, f"--workdir={workdir}", *flags]


def _flat(config):
  return run.flat(config.to_dict())


def _environment(devices: int = 1):
  """Of a user, whose programs are optimised as those of other tests are not: they, too, must resume bit for bit."""
  user = {name: value for name, value in os.environ.items() if name not in QUICK_TO_COMPILE}
  return user | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(ROOT)}


def _start(command, devices=1, stderr=subprocess.PIPE):
  return subprocess.Popen(
    command, cwd=ROOT, env=_environment(devices), stdout=subprocess.PIPE, stderr=stderr, text=True
  )


def _final_params(dataset, workdir):
  config = _config(dataset)
  task = run.load_task(config)
  agent = agents.make(config.agent, task.data.spec, config.steps)
  data = jax.device_put(task.data.train)
  like = jax.jit(agent.init)(jax.random.key(0), agent.view.sample(jax.random.key(0), data, 32))
  with Checkpoints(workdir / "checkpoints") as checkpoints:
    assert checkpoints.newest() == STEPS
    return jax.tree.map(np.asarray, checkpoints.restore(STEPS, like).params)


@pytest.fixture(scope="session")
def reference(cartpole, tmp_path_factory):
  """A run that was never stopped: (workdir, output of the command)."""
  workdir = tmp_path_factory.mktemp("reference") / "run"
  process = _start(_command(cartpole, workdir))
  output, errors = process.communicate()
  assert process.returncode == 0, errors
  return workdir, output, errors


def test_a_run_leaves_what_it_promises(reference):
  workdir, output, errors = reference
  result = json.loads((workdir / "result.json").read_text())
  promised = "env_id episodes return_mean return_std return_ci95 normalized_score expert_return random_return steps"
  promised += " updates_per_second seconds seed versions git_commit"
  assert set(promised.split()) <= set(result)
  assert result["env_id"] == "CartPole-v1"
  assert result["episodes"] == len(result["returns"]) == 10
  assert result["return_mean"] == pytest.approx(np.mean(result["returns"]))
  assert result["steps"] == STEPS
  low, high = result["return_ci95"]
  assert low <= result["return_mean"] <= high
  score = 100 * (result["return_mean"] - result["random_return"]) / (result["expert_return"] - result["random_return"])
  assert result["normalized_score"] == pytest.approx(score)
  assert result["return_mean"] > 150, "five expert episodes teach far more than a random policy's 22"
  assert json.loads((workdir / "config.json").read_text())["steps"] == STEPS
  rows = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows if "train/loss" in row] == list(range(100, STEPS + 1, 100))
  assert [row["step"] for row in rows if "eval/return_mean" in row] == [1_000, 2_000, 3_000]
  assert list((workdir / "tensorboard").iterdir())
  assert "<html" in (workdir / "report.html").read_text()
  assert "policy" in output
  assert "random policy" in output
  assert "Traceback" not in errors


def test_killed_at_three_random_points_it_ends_the_same_bit_for_bit(cartpole, reference, tmp_path):
  workdir = tmp_path / "run"
  rng = np.random.default_rng()
  for _ in range(3):
    process = _start(_command(cartpole, workdir))
    # A kill may come at any moment from the first checkpoint on, so that every process makes progress.
    before = _newest(workdir)
    while process.poll() is None and _newest(workdir) == before:
      time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 0.4))
    process.send_signal(signal.SIGKILL)
    process.communicate()
  process = _start(_command(cartpole, workdir))
  assert process.communicate() and process.returncode == 0
  jax.tree.map(np.testing.assert_array_equal, _final_params(cartpole, workdir), _final_params(cartpole, reference[0]))
  ended, expected = (json.loads((w / "result.json").read_text()) for w in (workdir, reference[0]))
  assert ended["returns"] == expected["returns"]
  timing = ("seconds", "updates_per_second")
  rows = [
    [{k: v for k, v in row.items() if k not in timing} for row in logs.read_jsonl(w / "log.jsonl")]
    for w in (workdir, reference[0])
  ]
  assert rows[0] == rows[1]


def _newest(workdir):
  """Updates made by the newest checkpoint that is complete: one without a manifest does not count."""
  complete = (path.parent.name for path in (workdir / "checkpoints").glob("*/manifest.json"))
  return max((int(name) for name in complete if name.isdigit()), default=0)


def test_a_signal_saves_says_so_and_leaves(cartpole, tmp_path):
  process = _start(_command(cartpole, tmp_path / "run", steps=1_000_000, checkpoint_every=1_000_000))
  while not (tmp_path / "run" / "log.jsonl").exists() or not (tmp_path / "run" / "log.jsonl").read_text():
    time.sleep(0.05)
    assert process.poll() is None, process.communicate()[1]
  process.send_signal(signal.SIGTERM)
  _, errors = process.communicate()
  assert process.returncode == 128 + signal.SIGTERM
  assert "stopped by SIGTERM" in errors
  assert "same command goes on" in errors
  assert _newest(tmp_path / "run") > 0


def test_eight_devices_end_like_one_up_to_rounding(cartpole, reference, tmp_path):
  # Rounding has 3,000 updates to grow in, to 0.004 where this was measured; other seeds differ by 1.
  process = _start(_command(cartpole, tmp_path / "run"), devices=8)
  _, errors = process.communicate()
  assert process.returncode == 0, errors
  eight, one = (_final_params(cartpole, w) for w in (tmp_path / "run", reference[0]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.03), eight, one)
  result = json.loads((tmp_path / "run" / "result.json").read_text())
  assert len(result["devices"]) == 8


# Bad input: an error that names what and where, and nothing lost.


def _copy(dataset, tmp_path):
  return pathlib.Path(shutil.copytree(dataset, tmp_path / "copy" / "1.0.0"))


def _shard(folder):
  return next(path for path in sorted(folder.iterdir()) if "array_record" in path.name)


def _truncate(folder):
  _shard(folder).write_bytes(_shard(folder).read_bytes()[:-1000])
  return _shard(folder).name


def _flip(folder):
  content = bytearray(_shard(folder).read_bytes())
  content[len(content) // 3] ^= 0x10
  _shard(folder).write_bytes(content)
  return _shard(folder).name


def _remove(folder):
  name = _shard(folder).name
  _shard(folder).unlink()
  return name


@pytest.mark.parametrize("damage", [_truncate, _flip, _remove])
def test_damaged_datasets_are_named(cartpole, tmp_path, damage):
  folder = _copy(cartpole, tmp_path)
  name = damage(folder)
  with pytest.raises((ValueError, FileNotFoundError), match=name):
    run.run(_config(folder, split="train"), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def _record(root, observation_size=4, actions=None):
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(root, name="made-up", metadata={"env_id": "CartPole-v1"}) as recorder:
    for _ in range(2):
      action = rng.integers(2, size=10) if actions is None else rng.uniform(-1, 1, (10, actions))
      observation = rng.normal(size=(11, observation_size))
      recorder.add(ilx.data.episode(observation, action, np.ones(10), terminal=True))
  return recorder.path


def _with_nan(root):
  """A dataset such as other writers make: the recorder refuses NaN."""
  folder = _record(root)
  records = [example.parse(record) for _, record in rlds.read_records(ilx.data.read_info(folder), "train")]
  for record in records:
    record["steps/observation"] = np.where(np.arange(44) == 21, np.nan, record["steps/observation"])
  shard = _shard(folder)
  shard.unlink()
  shards.write_array_record(shard, [example.serialize(record) for record in records])
  return folder


def test_data_that_do_not_fit_the_environment_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r"CartPole-v1.*action"):
    run.run(_config(_record(tmp_path / "a", actions=3), split="train"), tmp_path / "run")
  with pytest.raises(ValueError, match=r"CartPole-v1.*observation"):
    run.run(_config(_record(tmp_path / "b", observation_size=5), split="train"), tmp_path / "run")
  folder = _record(tmp_path / "c", actions=3)
  with pytest.raises(ValueError, match=r"HalfCheetah-v5.*"):
    run.run(_config(folder, split="train", env_id="HalfCheetah-v5"), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_discrete_data_may_lack_an_action_of_the_environment(tmp_path):
  with ilx.data.Recorder(tmp_path, name="lazy", metadata={"env_id": "CartPole-v1"}) as recorder:
    recorder.add(ilx.data.episode(np.zeros((11, 4)), np.zeros(10, np.int64), np.ones(10), terminal=True))
  assert run.load_task(_config(recorder.path, split="train")).data.spec.action == ilx.Discrete(2)


def test_nan_in_the_data_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"episode 0.*observation.*step 5"):
    run.run(_config(_with_nan(tmp_path), split="train"), tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("changes", "error", "message"),
  [
    ({"env_id": "CartPoel-v1"}, ValueError, r"CartPoel-v1.*CartPole-v1"),
    ({"dataset": "cartpole-expret"}, FileNotFoundError, r"config.dataset.*cartpole-expret.*cartpole-expert"),
    ({"dataset": "hopper-exprt"}, FileNotFoundError, r"most like it: hopper-expert"),
    ({"dataset": "hopper-medium-v2"}, FileNotFoundError, r"most like it: hopper-medium,"),
    ({"frame_stack": 4}, ValueError, r"config.frame_stack=4 is for environments that give stacks of frames"),
    ({"steps": -5}, ValueError, r"config.steps=-5 must be at least 1"),
    ({"batch_size": 0}, ValueError, r"config.batch_size=0 must be at least 1"),
    ({"dataset": "/nowhere/at/all"}, FileNotFoundError, r"config.dataset.*/nowhere/at/all"),
    ({"split": "trian"}, ValueError, r"trian.*train"),
    ({"split": "train[:10000]"}, ValueError, r"config.split: .*'train\[:10000\]' reaches beyond the \d+ episodes"),
    ({"agent.name": "bcc"}, ValueError, r"config.agent.name: no 'bcc'; did you mean 'bc'"),
    ({"agent.head": "tanh_gaussian"}, ValueError, r"does not fit the actions"),
    ({"agent.schedule": "cosin"}, ValueError, r"config.agent.schedule.*did you mean 'cosine'"),
    ({"env_kwargs": "[1]"}, ValueError, r"config.env_kwargs must be a JSON object"),
    ({"batch_size": 33}, ValueError, r"batch_size=33 does not divide among 8 devices; use 32 or 40"),
  ],
)
def test_wrong_fields_are_named(cartpole, tmp_path, changes, error, message):
  with pytest.raises(error, match=message):
    run.run(_config(cartpole, **changes), tmp_path / "run")


@pytest.mark.parametrize("changes", [{"on_nonfinite": "ignore"}, {"log_every": 0}, {"seed": -1}, {"strategy": "ddp"}])
def test_what_training_refuses_leaves_no_folder(cartpole, tmp_path, changes):
  with pytest.raises(ValueError, match=next(iter(changes))):
    run.run(_config(cartpole, **changes), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_bad_input_leaves_an_earlier_run_and_the_dataset_as_they_were(cartpole, tmp_path):
  folder, workdir = _copy(cartpole, tmp_path), tmp_path / "run"
  run.run(_config(folder, split="train", steps=200, checkpoint_every=100), workdir)
  name = _flip(folder)
  before = _contents(tmp_path)
  with pytest.raises(ValueError, match=name):
    run.run(_config(folder, split="train", steps=200, checkpoint_every=100), workdir)
  assert _contents(tmp_path) == before


def _contents(folder):
  """Of all files but locks, which are empty and stay."""
  files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock")
  return {path: path.read_bytes() for path in files}


def test_the_command_fails_with_one_line_and_an_exit_code(cartpole, tmp_path):
  damaged = _copy(cartpole, tmp_path)
  shard = _truncate(damaged)
  for command, code, message in (
    (_command(damaged, tmp_path / "run", split="train"), 1, shard),
    (_command(_with_nan(tmp_path / "nan"), tmp_path / "run", split="train"), 1, "observation"),
    (_command(_record(tmp_path / "size", actions=3), tmp_path / "run", split="train"), 1, "action"),
    (_command(cartpole, tmp_path / "run", **{"evaluation.final_episodes": 0}), 1, "config.evaluation.final_episodes=0"),
    (_command(cartpole, tmp_path / "run", env_id="CartPoel-v1"), 1, "CartPole-v1"),
    ([*_command(cartpole, tmp_path / "run"), "--config.agent.hiden=(2,)"], 2, "did you mean 'hidden'"),
    ([*_command(cartpole, tmp_path / "run"), "--config.agent.optimizer=sgd"], 2, "no field 'optimizer', nor one of a"),
    ([*_command(cartpole, tmp_path / "run"), "--wrokdir=x"], 2, "workdir"),
    ([sys.executable, "-m", "experiments.main", f"--config={bc.__file__}:foo"], 2, "takes 0 positional arguments"),
  ):
    process = _start(command)
    _, errors = process.communicate()
    assert process.returncode == code
    assert message in errors
    assert "Traceback" not in errors
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flags", [("--json",), ("--quiet",), ("--json", "--quiet")])
def test_output_for_scripts(cartpole, reference, flags):
  """Of a run that is done already: its result again, on standard output as asked for; no word but that if quiet."""
  workdir = reference[0]
  process = _start([*_command(cartpole, workdir), *flags])
  output, errors = process.communicate()
  assert process.returncode == 0, errors
  if "--json" in flags:
    there = json.loads((workdir / "result.json").read_text())
    assert {k: v for k, v in json.loads(output).items() if k != "command"} == {
      k: v for k, v in there.items() if k != "command"
    }
  else:
    assert not output
  assert ("run folder" in errors) == ("--quiet" not in flags)


def test_a_run_folder_of_another_config_is_left_alone(cartpole, reference):
  workdir = reference[0]
  before = (workdir / "result.json").read_bytes()
  with pytest.raises(
    ValueError, match=r"holds a run of another config \(config.agent.hidden: \[16\] there, \[8\] now\)"
  ):
    run.run(_config(cartpole, **{"agent.hidden": (8,)}), workdir)
  assert (workdir / "result.json").read_bytes() == before


def test_a_run_that_is_older_than_a_field_goes_on(cartpole, tmp_path):
  """It did as the field's default does."""
  (tmp_path / "result.json").write_text("{}")
  config = _config(cartpole)
  old = config.to_dict()
  del old["seeds"], old["agent"]["encoder"]
  logs.write_json(tmp_path / "config.json", old)
  run.check_config(config, tmp_path)
  with pytest.raises(ValueError, match=r"\(config.agent.encoder: 'auto' there, 'flat' now\)"):
    run.check_config(_config(cartpole, **{"agent.encoder": "flat"}), tmp_path)
  (tmp_path / "config.json").write_text('{"steps": 1')
  with pytest.raises(ValueError, match=r"config\.json is no config of a run .* choose another --workdir"):
    run.check_config(config, tmp_path)


def test_a_signal_before_the_report_is_no_end(cartpole, tmp_path, monkeypatch):
  config = _config(cartpole, steps=2, **{"evaluation.final_episodes": 2})

  def stopped(workdir):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

  with monkeypatch.context() as patch:
    patch.setattr(run, "write_report", stopped)
    with pytest.raises(ilx.training.Interrupted, match="all is learnt, but the report is not written") as found:
      run.run(config, tmp_path)
  assert found.value.signal == signal.SIGTERM
  before = json.loads((tmp_path / "result.json").read_text())
  assert not (tmp_path / "report.html").exists()
  run.run(config, tmp_path)
  assert (tmp_path / "report.html").exists()
  after = json.loads((tmp_path / "result.json").read_text())
  assert after | {"seconds": None} == before | {"seconds": None}


def test_of_a_field_that_is_set_twice_the_last_counts():
  words = ["main", "--config=a.py", "--config.agent.hidden=(32,)", "--config.steps=3", "--config.agent.hidden=(64,)"]
  assert main.last_of_each(words) == [*words[:2], *words[3:]]
  config = check.config_of(main.last_of_each(["", f"--config={bc.__file__}", *words[2:]])[1:])
  assert config.agent.hidden == (64,)
  assert main.last_of_each(["--config.a", "(1,)", "--config.b", "2", "--config.a=(3,)"]) == [
    "--config.b",
    "2",
    "--config.a=(3,)",
  ]
  assert main.last_of_each(["--config.a=(1,)", "--config.a", "(3,)"]) == ["--config.a", "(3,)"]
  assert main.last_of_each(["--config.video", "--config.a=1"]) == ["--config.video", "--config.a=1"]
  # Words of values are no flags.
  assert main.last_of_each(["--x", "config.a=1", "--config.a=2"]) == ["--x", "config.a=1", "--config.a=2"]


def test_a_video_of_fewer_updates_does_not_stay(cartpole, tmp_path):
  changes, video = {"agent.schedule": "constant", "evaluation.final_episodes": 2}, tmp_path / "episode.mp4"
  run.run(_config(cartpole, steps=2, **changes), tmp_path)
  video.write_bytes(b"of two updates")
  run.run(_config(cartpole, steps=2, **changes), tmp_path)
  assert video.exists()
  run.run(_config(cartpole, steps=4, **changes), tmp_path)
  assert not video.exists()


def test_a_mistake_corrected_is_no_other_run(cartpole, tmp_path):
  with pytest.raises(ValueError, match="batch_size=33"):
    run.run(_config(cartpole, batch_size=33), tmp_path)
  run.check_config(_config(cartpole), tmp_path)


def test_a_full_disk_is_said_and_leaves_earlier_checkpoints(cartpole, tmp_path):
  disk = tmp_path / "disk"
  disk.mkdir()
  mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
  if mounted.returncode:
    pytest.skip("mounting a small file system needs root")
  try:
    with open(tmp_path / "errors", "w+") as errors:
      process = _start(_command(cartpole, disk / "run", steps=200_000), stderr=errors)
      while _newest(disk / "run") < 500 and process.poll() is None:
        time.sleep(0.02)
      with open(disk / "filler", "wb", buffering=0) as filler:
        while process.poll() is None:
          try:
            filler.write(b"0" * 4096)
          except OSError:
            time.sleep(0.02)
    said = (tmp_path / "errors").read_text()
    assert process.returncode == 1, said
    # Whatever was being written: the log or the checkpoint. Threads of tensorstore may have had their say before.
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert str(disk / "run") in errors[0]
    assert "the disk is full" in errors[0] or "No space left" in errors[0]
    assert "experiments/main.py" not in said, said
    newest = _newest(disk / "run")
    assert newest >= 500
    (disk / "filler").unlink()
    process = _start(_command(cartpole, disk / "run", steps=200_000))
    while _newest(disk / "run") <= newest and process.poll() is None:
      time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert _newest(disk / "run") > newest, "did not go on from the checkpoint"
  finally:
    subprocess.run(["umount", "-l", str(disk)], check=True)

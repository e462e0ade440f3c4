import json
import pathlib
import subprocess

import numpy as np
import pytest

import ilx
from experiments.configs import bc as defaults
from experiments.results import bc, table
from experiments.results.recordings import DEMONSTRATIONS, OFFLINE, Recording
from ilx.data.convert import npz
from ilx.training import logs

EPISODES = 4
PENDULUM = Recording("Toy_Pendulum", updates=80, reference=-210.0, reference_std=3.0)
CARTPOLE = Recording("toy_cartpole", updates=40, reference=None, max_episode_steps=2, note="Short.")
COMMAND = ["-m", "experiments.results.bc", "--demos=demos here"]


@pytest.fixture
def demos(tmp_path):
  """Pendulum-v1: 250 and 3 steps of -1 and -2 a step, its limit being 200; CartPole-v1: twice 2 steps of 1."""
  folder = tmp_path / "demos"
  folder.mkdir()
  np.savez(
    folder / "Toy_Pendulum.npz",
    obs=np.random.default_rng(0).normal(size=(255, 3)),
    acts=np.zeros((253, 1)),
    rews=np.repeat([-1.0, -2.0], [250, 3]),
    terminal=np.array([True, True]),
    indices=np.array([250]),
    meta=np.array(json.dumps({"env_id": "Pendulum-v1", "env_kwargs": {"max_episode_steps": 250}})),
  )
  np.savez(
    folder / "toy_cartpole.npz",
    obs=np.zeros((6, 4)),
    acts=np.zeros(4, np.int64),
    rews=np.ones(4),
    terminal=np.array([True, True]),
    indices=np.array([2]),
    meta=np.array(json.dumps({"env_id": "CartPole-v1"})),
  )
  return folder


class Fake:
  """Stands for the two commands: converts in this process, and makes up runs."""

  def __init__(self, fail_at=None):
    self.calls, self.fail_at = [], fail_at

  def __call__(self, command, variables):
    converts = command[1:3] == ["experiments.data", "convert"]
    given = dict(word.removeprefix("--").split("=", 1) for word in command[4 if converts else 2 :])
    self.calls.append(("convert" if converts else "main", given.get("name") or pathlib.Path(given["workdir"]).name))
    if len(self.calls) == self.fail_at:
      raise subprocess.CalledProcessError(1, ["python", *command])
    if converts:
      limit = int(given.get("max_episode_steps", 250))
      npz.convert(command[3], variables["ILX_DATA_DIR"], name=given["name"], max_episode_steps=limit)
    else:
      make_run(given)


def make_run(given):
  """Seed s of a dataset returns 100 s - 1, 100 s + 1, ... in the end, and half of its mean before."""
  config = defaults.get_config()
  fields = {name.removeprefix("config."): value for name, value in given.items() if name.startswith("config.")}
  for name, value in fields.items():
    *path, last = name.split(".")
    parent = config
    for part in path:
      parent = parent[part]
    parent[last] = value == "True" if isinstance(parent[last], bool) else type(parent[last])(value)
  seed, steps = config.seed, config.steps
  folder = pathlib.Path(given["workdir"])
  (folder / "checkpoints" / str(steps)).mkdir(parents=True)
  logs.write_json(folder / "config.json", config.to_dict())
  every = config.evaluation.every
  rows = [{"step": i * every, "seconds": 30.0 * i, "eval/return_mean": 50.0 * seed} for i in range(1, 4)]
  rows += [{"step": 2 * every + 1, "seconds": 1.0}, {"step": steps, "seconds": 120.0, "eval/return_mean": 100.0 * seed}]
  (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  pendulum = config.dataset == "toy_pendulum"
  result = {
    "env_id": "Pendulum-v1" if pendulum else "CartPole-v1",
    "env_kwargs": {},
    "returns": [100.0 * seed + (-1.0) ** (i + 1) for i in range(EPISODES)],
    "data_episodes": 2,
    "data_transitions": 253,
    "random_return": -1203.0,
    "steps": steps,
    "seconds": 120.0,
    "seed": seed,
    "devices": ["cpu: cpu"],
    "versions": {"python": "3.11.1", "envpool": "1.2.5"},
    "git_commit": f"abc{seed}",
  }
  logs.write_json(folder / "result.json", result)


def produce(demos, workdir, execute, recordings=(PENDULUM, CARTPOLE), seeds=3):
  return bc.produce({recording: demos for recording in recordings}, workdir, seeds, execute, COMMAND)


def cells(page, name, heads=table.HEADS):
  """The row of a dataset in the first table of the page that has it."""
  line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
  return dict(zip(heads, (cell.strip() for cell in line.strip("|").split("|")), strict=True))


def test_the_page(demos, tmp_path):
  fake = Fake()
  page = produce(demos, tmp_path / "work", fake)
  assert fake.calls == [
    ("convert", "toy_pendulum"),
    *(("main", f"toy_pendulum-seed{seed}") for seed in range(3)),
    ("convert", "toy_cartpole"),
    *(("main", f"toy_cartpole-seed{seed}") for seed in range(3)),
  ]
  row = cells(page, "toy_pendulum")
  returns = np.array([[100.0 * s - 1, 100.0 * s + 1] * 2 for s in range(3)])
  low, high = ilx.evaluation.summary(returns)["mean_ci95"]
  assert -1 <= low < 30 and 170 < high <= 201  # luck of seeds counts: episodes alone would give about 99 to 101
  minus = "\N{MINUS SIGN}"
  assert row["**return**"] == "**100**"
  assert row["95 % interval"] == f"{low:.0f} to {high:.0f}".replace("-", minus)
  assert row["each seed"] == "0, 100, 200"
  assert row["updates"] == "80" and row["episodes"] == "2" and row["transitions"] == "253"
  assert row["demonstrations"] == f"{minus}128 ({minus}103 within the time limit)"  # -250 and -6; -200 and -6
  assert row["reference clone"] == f"{minus}210 ± 3"
  assert row["normalised"] == "118.5"  # (100 + 1203) / (-103 + 1203)
  assert row["minutes"] == "2.0"
  assert "| `toy_pendulum` | 50 | 50 | 50 | 100 |" in page


def test_what_is_not_known_is_a_dash(demos, tmp_path):
  row = cells(produce(demos, tmp_path / "work", Fake()), "toy_cartpole")
  assert row["reference clone"] == "\N{EN DASH}"
  assert row["normalised"] == "\N{EN DASH}"  # recorded with a shorter time limit
  assert row["demonstrations"] == "2"


def test_the_page_has_notes_commands_and_versions(demos, tmp_path):
  page = produce(demos, tmp_path / "work", Fake())
  assert "* `toy_cartpole`: Short." in page
  assert "python -m experiments.results.bc '--demos=demos here'" in page
  assert f"export ILX_DATA_DIR={tmp_path / 'work' / 'data'}" in page
  assert (
    f"python -m experiments.data convert {demos / 'toy_cartpole.npz'} --name=toy_cartpole --max_episode_steps=2" in page
  )
  assert "--config=experiments/configs/bc.py --config.dataset=toy_pendulum --config.split=train" in page
  assert "| envpool | 1.2.5 |" in page
  assert "| commit | abc0, abc1, abc2 |" in page


def test_an_interrupted_command_goes_on(demos, tmp_path):
  whole = produce(demos, tmp_path / "whole", Fake())
  with pytest.raises(subprocess.CalledProcessError):
    produce(demos, tmp_path / "work", Fake(fail_at=3))  # the second seed of the first dataset
  again = Fake()
  page = produce(demos, tmp_path / "work", again)
  assert again.calls[:2] == [("main", "toy_pendulum-seed1"), ("main", "toy_pendulum-seed2")]
  assert len(again.calls) == 2 + 1 + 3
  assert page == whole.replace(str(tmp_path / "whole"), str(tmp_path / "work"))
  done = Fake()
  assert produce(demos, tmp_path / "work", done) == page
  assert done.calls == []


def test_a_run_without_its_result_is_run_again(demos, tmp_path):
  produce(demos, tmp_path / "work", Fake(), [CARTPOLE])
  assert bc.finished(tmp_path / "work", CARTPOLE, 1)
  (tmp_path / "work" / "toy_cartpole-seed1" / "where.json").unlink()
  assert not bc.finished(tmp_path / "work", CARTPOLE, 1)
  (tmp_path / "work" / "toy_cartpole-seed0" / "checkpoints" / "40").rmdir()
  assert not bc.finished(tmp_path / "work", CARTPOLE, 0)
  assert bc.finished(tmp_path / "work", CARTPOLE, 2)
  assert not bc.finished(tmp_path / "work", CARTPOLE, 7)


def test_a_run_of_another_config_is_refused_before_anything_runs(demos, tmp_path):
  produce(demos, tmp_path / "work", Fake(), [CARTPOLE])
  fake = Fake()
  with pytest.raises(
    ValueError, match=r"toy_cartpole-seed0 holds a run of another config .*config.steps: 40 there, 44 now"
  ):
    produce(demos, tmp_path / "work", fake, [PENDULUM, CARTPOLE._replace(updates=44)])
  assert fake.calls == []


def test_missing_recordings_are_named_together(demos, tmp_path):
  fake = Fake()
  absent = [PENDULUM._replace(file="one"), CARTPOLE, PENDULUM._replace(file="two")]
  with pytest.raises(FileNotFoundError, match=r"one\.npz, .*two\.npz"):
    produce(demos, tmp_path / "work", fake, absent)
  assert fake.calls == []


def test_commands_differ_in_the_dataset_and_the_seed_alone():
  one, two = (bc.train_command(r._replace(updates=100), pathlib.Path("w"), 0) for r in DEMONSTRATIONS[:2])
  differing = [(a, b) for a, b in zip(one, two, strict=True) if a != b]
  assert [a.split("=")[0] for a, _ in differing] == ["--config.dataset", "--workdir"]


def test_the_recordings_are_there(shared_data):
  assert all((shared_data / "demos" / f"{r.file}.npz").exists() for r in DEMONSTRATIONS)
  assert all((shared_data / "offline" / f"{r.file}.npz").exists() for r in OFFLINE)

"""Replays of training runs: the file's coarse numbers, what the run is cut into, and the datasets made of it."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.demos import datasets, export, policy, replay
from ilx import data

NAME = "cartpole-medium-replay"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  return datasets.build(NAME, tmp_path_factory.mktemp("root"), rounds=2)


def _weights(seed):
  rng = np.random.default_rng(seed)
  return {
    "torso/Dense_0/kernel": rng.normal(size=(5, 7)).astype(np.float32) * 10 ** np.arange(-3.0, 4.0, dtype=np.float32),
    "torso/Dense_0/bias": rng.normal(size=7).astype(np.float32),
  }


def test_matrices_come_back_within_half_a_step_of_their_column(tmp_path):
  policies = [_weights(seed) for seed in range(3)]
  policies[0]["torso/Dense_0/kernel"][:, 0] = 0.0
  replay.write(tmp_path / f"{replay.name('toy')}.npz", [replay.quantise(p) for p in policies], {"env_steps": [1, 2, 3]})
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(policy, "WEIGHTS", tmp_path)
    loaded = replay.load("toy")
  assert loaded.metadata == {"env_steps": [1, 2, 3]}
  for before, after in zip(policies, loaded.snapshots, strict=True):
    assert before.keys() == after.keys()
    kernel = before["torso/Dense_0/kernel"]
    assert after["torso/Dense_0/kernel"].dtype == np.float32
    error = np.abs(after["torso/Dense_0/kernel"] - kernel)
    assert np.all(error <= np.abs(kernel).max(axis=0) / 127 * 0.501)
    assert error.max() > 0
    np.testing.assert_allclose(after["torso/Dense_0/bias"], before["torso/Dense_0/bias"], rtol=1e-3)


def test_snapshots_are_chosen_evenly_between_random_and_medium():
  assert replay.choose([400, 100, 300, 200], 100, 400) == [200, 300]
  chosen = replay.choose(range(0, 1001, 50), 0, 1000)
  assert len(chosen) == replay.MAX_SNAPSHOTS
  assert (chosen[0], chosen[-1]) == (50, 950)
  assert np.ptp(np.diff(chosen)) <= 50


def test_policy_changes_half_way_between_snapshots():
  assert replay.boundaries([20, 40, 100], random_steps=10) == [0, 10, 30, 70, 100]
  assert replay.boundaries([20, 40, 100], random_steps=0) == [0, 10, 30, 70, 100]
  assert replay.boundaries([30, 40, 100], random_steps=0) == [0, 15, 35, 70, 100]


@pytest.mark.parametrize("env", datasets.ENVIRONMENTS)
def test_shipped_replays_lead_from_random_to_medium(env):
  medium = policy.load(f"{env}-medium")
  reference = datasets.reference(datasets.ENVIRONMENTS[env])
  first, *between, last = replay.segments(env, reference["random_length"])
  assert first.weights is None
  assert sum(segment.env_steps for segment in (first, *between, last)) == medium.metadata["env_steps"]
  assert 2 <= len(between) <= replay.MAX_SNAPSHOTS
  assert min(segment.env_steps for segment in between) > 0
  np.testing.assert_array_equal(last.weights["head/" + _output(env)], medium.weights["head/" + _output(env)])
  returns = np.array(replay.load(env).metadata["returns"])
  # Better than random, and better at the end than at the start.
  assert returns.max() > reference["random_return"]
  assert returns[-1] > returns[0]


def _output(env):
  return "logits/kernel" if env in ("cartpole", "lunarlander") else "mean/kernel"


def test_dataset_is_the_run_in_its_order(built):
  episodes, metadata = data.load(built), data.read_info(built).metadata
  returns, lengths = data.returns(episodes), data.lengths(episodes)
  run_steps = policy.load("cartpole-medium").metadata["env_steps"]
  assert lengths.sum() == pytest.approx(run_steps / 2, rel=0.1)  # two rounds of four are half of it
  assert metadata["policy"] == ["cartpole-medium", NAME]
  assert sorted(metadata["weights"]) == ["cartpole-medium", NAME]
  reference = datasets.reference("CartPole-v1")
  parts = replay.segments("cartpole", reference["random_length"])
  stretch = np.searchsorted(np.cumsum([part.env_steps / 2 for part in parts]), np.cumsum(lengths) - lengths / 2)
  means = [returns[stretch == i].mean() for i in range(len(parts))]
  assert means == sorted(means)
  assert means[0] == pytest.approx(reference["random_return"], rel=0.2)
  assert means[-1] > 3 * means[0]
  # The start is random: both actions as often, whatever the pole does.
  first = episodes.rows[: int(lengths[stretch == 0].sum())]
  tilt = episodes.observation[first, 2] > 0
  assert abs(episodes.action[first][tilt].mean() - episodes.action[first][~tilt].mean()) < 0.1


def test_killed_build_goes_on(built, tmp_path, monkeypatch):
  add = data.Recorder.add
  killed_at = data.load(built).num_episodes - 3

  def dying(recorder, episode):
    if recorder.num_episodes == killed_at:
      raise KeyboardInterrupt
    add(recorder, episode)

  with monkeypatch.context() as patch:
    patch.setattr(data.Recorder, "add", dying)
    with pytest.raises(KeyboardInterrupt):
      datasets.build(NAME, tmp_path, rounds=2)
  played, segment = [], datasets._segment
  monkeypatch.setattr(datasets, "_segment", lambda name, i, *rest: (played.append(i), segment(name, i, *rest))[1])
  again = datasets.build(NAME, tmp_path, rounds=2)
  assert played == [3]  # the last of random, two snapshots and medium
  for file in built.iterdir():
    assert (again / file.name).read_bytes() == file.read_bytes(), file.name


@dataclasses.dataclass
class _Run:
  """A folder as experiments.demos.train leaves it, that ended at the shipped CartPole medium."""

  folder: object
  run: dict

  @property
  def steps(self):
    return sorted(int(file.stem) for file in self.folder.glob("*.npz"))


@pytest.fixture
def run(tmp_path):
  medium = policy.load("cartpole-medium")
  for steps in (1000, 2000, medium.metadata["env_steps"], 900_000):
    noise = 0.0 if steps == medium.metadata["env_steps"] else 0.1
    weights = {key: x + np.float32(noise) for key, x in medium.weights.items()}
    policy.write_npz(tmp_path / f"{steps:09d}.npz", weights)
  described = {key: medium.metadata[key] for key in ("command", "env_id", "seed", "envpool")}
  (tmp_path / "run.json").write_text(json.dumps(described))
  return _Run(tmp_path, described)


def test_export_keeps_what_led_to_medium(run, tmp_path, monkeypatch):
  shipped = policy.WEIGHTS
  (tmp_path / "weights").mkdir()
  (tmp_path / "weights" / "cartpole-medium.npz").write_bytes((shipped / "cartpole-medium.npz").read_bytes())
  monkeypatch.setattr(policy, "WEIGHTS", tmp_path / "weights")
  export.export_replay(run.folder, run.run, run.steps)
  loaded = replay.load("cartpole")
  assert loaded.metadata["env_steps"] == [1000, 2000]
  assert loaded.metadata["random_steps"] == 0
  assert len(loaded.metadata["lengths"]) == len(loaded.snapshots) == 2
  assert min(loaded.metadata["lengths"]) >= 8


def test_export_refuses_another_run(run, tmp_path, monkeypatch):
  monkeypatch.setattr(replay, "write", None)
  (file,) = tmp_path.glob("*32768.npz")
  with np.load(file) as arrays:
    other = {key: arrays[key] + np.float32(0.01) for key in arrays.files}
  policy.write_npz(file, other)
  with pytest.raises(ValueError, match="is not cartpole-medium"):
    export.export_replay(run.folder, run.run, run.steps)
  file.unlink()
  with pytest.raises(ValueError, match="is not cartpole-medium"):
    export.export_replay(run.folder, run.run, run.steps)

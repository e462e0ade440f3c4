"""Built-in datasets: the same bytes every time, resumable, and told apart."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments.demos import datasets, finished, maze
from ilx import data

NAME = "cartpole-medium-expert"
SMALL = "datasets.STEPS_PER_ROUND = 1"  # one episode for every environment


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  monkeypatch.setattr(datasets, "STEPS_PER_ROUND", 1)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(datasets, "STEPS_PER_ROUND", 1)
    return datasets.build(NAME, tmp_path_factory.mktemp("root"), rounds=2)


def _bytes(folder):
  return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_content_and_metadata(built):
  episodes = data.load(built)
  metadata = data.read_info(built).metadata
  assert episodes.num_episodes == 2 * 2 * datasets.NUM_ENVS
  assert metadata["data_return"] == pytest.approx(data.returns(episodes).mean())
  assert metadata["data_return_std"] == pytest.approx(data.returns(episodes).std())
  reference = datasets.reference("CartPole-v1")
  expected = {
    "env_id": "CartPole-v1",
    "env_kwargs": {},
    "num_actions": 2,
    "policy": ["cartpole-medium", "cartpole-expert"],
    "seed": datasets.SEED,
    "expert_return": reference["expert_return"],
    "random_return": reference["random_return"],
  }
  assert metadata.items() >= expected.items()
  # CartPole pays 1 for every step, and ends by itself only before its time limit of 500.
  lengths = data.lengths(episodes)
  np.testing.assert_array_equal(data.returns(episodes), lengths)
  np.testing.assert_array_equal(episodes.is_terminal[episodes.starts[1:] - 1], lengths < 500)
  # The two policies are shuffled together: the better one is not all in one part.
  quarters = np.array_split(lengths, 4)
  assert all(np.mean(part > np.median(lengths)) > 0.2 for part in quarters)


def test_continuous_actions_and_their_bounds(tmp_path):
  folder = datasets.build("hopper-random", tmp_path, rounds=1)
  metadata, episodes = data.read_info(folder).metadata, data.load(folder)
  assert (metadata["action_low"], metadata["action_high"]) == ([-1.0] * 3, [1.0] * 3)
  assert metadata["weights"] == {}
  actions = episodes.action[episodes.rows]
  assert actions.dtype == np.float32
  assert np.abs(actions).max() <= 1
  np.testing.assert_allclose(actions.std(axis=0), np.sqrt(1 / 3), atol=0.1)


def test_two_processes_with_other_devices_and_threads_build_the_same_bytes_at_once(built, tmp_path):
  code = f"from experiments.demos import datasets; {SMALL}; datasets.build({NAME!r}, {str(tmp_path)!r}, rounds=2)"
  flags = "--xla_force_host_platform_device_count=4 --xla_cpu_multi_thread_eigen=false"
  environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
  processes = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
  assert [process.wait(timeout=120) for process in processes] == [0, 0]
  assert _bytes(tmp_path / NAME / datasets.VERSION) == _bytes(built)


class _Killed(BaseException):
  pass


@pytest.mark.parametrize("killed_at", [0, 60, 99])
def test_killed_build_goes_on(built, tmp_path, monkeypatch, killed_at):
  add, played = data.Recorder.add, []

  def dying(recorder, episode):
    if recorder.num_episodes == killed_at:
      raise _Killed
    add(recorder, episode)

  with monkeypatch.context() as patch:
    patch.setattr(data.Recorder, "add", dying)
    with pytest.raises(_Killed):
      datasets.build(NAME, tmp_path, rounds=2)
  assert not (tmp_path / NAME / datasets.VERSION).exists()
  play = datasets._play
  monkeypatch.setattr(datasets, "_play", lambda *args: (played.append(args[2]), play(*args))[1])
  assert _bytes(datasets.build(NAME, tmp_path, rounds=2)) == _bytes(built)
  assert sorted(set(played)) == ([0, 1] if killed_at < 50 else [1])


@pytest.mark.parametrize("torn", ["", "[1.0, 2"])
def test_torn_list_of_finished_rounds_is_played_again(built, tmp_path, monkeypatch, torn):
  def dying(self, returns):
    raise _Killed

  with monkeypatch.context() as patch:
    patch.setattr(finished.Finished, "add", dying)
    with pytest.raises(_Killed):
      datasets.build(NAME, tmp_path, rounds=2)
  (tmp_path / NAME / f"{datasets.VERSION}.incomplete" / "returns.jsonl").write_text(torn)
  assert _bytes(datasets.build(NAME, tmp_path, rounds=2)) == _bytes(built)


def test_existing_dataset_is_left_alone(built, monkeypatch):
  monkeypatch.setattr(datasets, "_play", None)
  assert datasets.build(NAME, built.parents[1]) == built


def test_recording_of_other_policies_is_refused(built, tmp_path):
  folder = tmp_path / NAME / datasets.VERSION
  folder.mkdir(parents=True)
  for name, content in _bytes(built).items():
    (folder / name).write_bytes(content)
  metadata = json.loads((folder / "metadata.json").read_text())
  metadata["weights"]["cartpole-expert"] += 1
  (folder / "metadata.json").write_text(json.dumps(metadata))
  with pytest.raises(ValueError, match=r"other policies.*remove it"):
    datasets.build(NAME, tmp_path)


def test_unknown_name_gets_the_nearest():
  with pytest.raises(ValueError, match=r"'halfcheeta-expert'.*halfcheetah-expert"):
    datasets.build("halfcheeta-expert")


def test_references_cover_all_environments():
  references = json.loads(datasets.REFERENCES.read_text())
  assert list(references) == [*datasets.ENVIRONMENTS.values(), *(task.env_id for task in maze.MAZES.values())]
  for reference in references.values():
    assert reference["random_return"] < reference["expert_return"]
    assert reference["episodes"] == 100
    assert reference["random_length"] >= 1


def test_an_environment_without_references_is_told_how_to_get_them():
  with pytest.raises(ValueError, match=r"references.json has no Ant-v5.*experiments.demos.summarise"):
    datasets.reference("Ant-v5")

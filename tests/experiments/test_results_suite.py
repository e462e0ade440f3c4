"""The table of results: what is run, what is kept, what the page says."""

import concurrent.futures
import errno
import json
import pathlib
import subprocess
import types

import pytest

from experiments.results import __main__ as command
from experiments.results import archive, bc, page, runs, suite
from ilx.training import logs

TASK = suite.TASKS["hopper-medium"]


def run(agent="bc", seeds=(0,), steps=40):
  return runs.Run(agent, TASK, seeds, steps)


class Trainings:
  """Stands for `subprocess.Popen`: leaves the folder that a training run leaves."""

  def __init__(self, fail=()):
    self.calls, self.fail = [], fail

  def __call__(self, words, stdout, **others):
    folder = pathlib.Path(next(word for word in words if word.startswith("--workdir=")).removeprefix("--workdir="))
    self.calls.append(folder.name)
    if folder.name in self.fail:
      stdout.write("error: the disk is full\n")
      return types.SimpleNamespace(returncode=1, poll=lambda: 1)
    given = dict(word.removeprefix("--config.").split("=", 1) for word in words if word.startswith("--config."))
    name = next(word for word in words if word.startswith("--config=")).rpartition("/")[2].removesuffix(".py")
    this = run(
      name, steps=int(given["steps"]), seeds=tuple(int(given["seed"]) + i for i in range(int(given.get("seeds", 1))))
    )
    config = runs.importlib.import_module(f"experiments.configs.{name}").get_config()
    config.update_from_flattened_dict(runs.overrides(this))
    folder.mkdir(parents=True)
    logs.write_json(folder / "config.json", config.to_dict())
    per_seed = [{"seed": seed, "returns": [100.0 + seed, 102.0 + seed]} for seed in this.seeds]
    result = {
      "env_id": "Hopper-v5",
      "random_return": 0.0,
      "expert_return": 200.0,
      "data_return": 50.0,
      "data_episodes": 7,
      "data_transitions": 700,
      "steps": this.steps,
      "seconds": 60.0,
      "updates_per_second": 12.0,
      "versions": {"jax": "0.10.2"},
      "devices": ["cpu: cpu"],
      "git_commit": "0123456789abcdef",
      **per_seed[0],
      **({"per_seed": per_seed} if len(per_seed) > 1 else {}),
    }
    logs.write_json(folder / "result.json", result)
    names = [f"eval/return_mean/seed{seed}" for seed in this.seeds] if len(per_seed) > 1 else ["eval/return_mean"]
    rows = [{"step": step, **dict.fromkeys(names, float(step))} for step in (10, 40)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return types.SimpleNamespace(returncode=0, poll=lambda: 0)


@pytest.fixture
def trainings(monkeypatch):
  found = Trainings()
  monkeypatch.setattr(subprocess, "Popen", found)
  return found


def test_what_is_finished_is_kept_and_not_missing(tmp_path, trainings):
  folder = tmp_path / "archive"
  assert runs.missing(run(seeds=(0, 1)), folder) == (0, 1)
  assert runs.finish([run(), run(seeds=(1,))], tmp_path / "runs", folder, jobs=2) == []
  assert sorted(trainings.calls) == ["bc-hopper-medium-40-seed0", "bc-hopper-medium-40-seed1"]
  assert runs.missing(run(seeds=(0, 1, 2)), folder) == (2,)
  first, second = archive.read(folder, "bc", "hopper-medium")
  assert (first["seed"], second["seed"]) == (0, 1)
  assert second["returns"] == [101.0, 103.0]
  assert first["curve"] == [[10, 10.0], [40, 40.0]]
  assert first["config"]["steps"] == 40 and "seed" not in first["config"]


def test_runs_that_end_together_are_all_kept(tmp_path):
  def add(seed):
    archive.add(tmp_path, "bc", "hopper-medium", [{"seed": seed, "steps": 1, "config": {}}])

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(add, range(64)))
  assert [entry["seed"] for entry in archive.read(tmp_path, "bc", "hopper-medium")] == list(range(64))


def test_another_config_is_missing(tmp_path, trainings):
  runs.finish([run()], tmp_path / "runs", tmp_path / "archive", jobs=1)
  assert runs.missing(run(steps=80), tmp_path / "archive") == (0,)


def test_seeds_of_one_program_are_entries_of_their_own(tmp_path, trainings):
  runs.finish([run(seeds=(0, 1, 2))], tmp_path / "runs", tmp_path / "archive", jobs=1)
  entries = archive.read(tmp_path / "archive", "bc", "hopper-medium")
  assert [entry["seed"] for entry in entries] == [0, 1, 2]
  assert [entry["returns"][0] for entry in entries] == [100.0, 101.0, 102.0]
  assert [entry["seconds"] for entry in entries] == [20.0] * 3
  assert runs.missing(run(seeds=(1,)), tmp_path / "archive") == ()


@pytest.mark.parametrize(
  ("seeds", "found"),
  [((), []), ((0, 1, 2), [(0, 1, 2)]), ((0, 2), [(0,), (2,)]), ((1, 2, 4, 7, 8), [(1, 2), (4,), (7, 8)])],
)
def test_a_program_trains_seeds_that_follow_each_other(seeds, found):
  assert runs.stretches(seeds) == found


def test_a_cell_is_of_one_config(tmp_path, trainings):
  """Of several the one with most seeds; of as many the one with most updates."""
  folder = tmp_path / "archive"
  runs.finish([run(seeds=(seed,)) for seed in range(3)], tmp_path / "runs", folder, jobs=1)
  runs.finish([run(steps=80)], tmp_path / "runs", folder, jobs=1)

  def seeds():
    return [(entry["seed"], entry["steps"]) for entry in archive.alike(archive.read(folder, "bc", "hopper-medium"))]

  # A trial takes nothing from what was there.
  assert seeds() == [(0, 40), (1, 40), (2, 40)] and len(archive.read(folder, "bc", "hopper-medium")) == 4
  assert "(3 seeds)" in page.page(folder, "x")
  runs.finish([run(seeds=(1, 2), steps=80)], tmp_path / "runs", folder, jobs=1)
  assert seeds() == [(0, 80), (1, 80), (2, 80)]
  older = {"seed": 0, "steps": 1, "config": {"a": 1}}
  newer = {"seed": 1, "steps": 1, "config": {"a": 1, "b": 2}}
  assert archive.alike([older, newer]) == [older, newer] and archive.alike([]) == []


def test_one_seed_a_task_has_no_aggregates(tmp_path, trainings):
  every = [runs.Run("bc", suite.TASKS[f"{env}-medium"], (0,), 40) for env in suite.ENVIRONMENTS]
  runs.finish(every, tmp_path / "runs", tmp_path / "archive", jobs=1)
  assert "Over the tasks" not in page.page(tmp_path / "archive", "x")


def test_a_failed_run_is_told_and_the_others_go_on(tmp_path, trainings):
  trainings.fail = ("bc-hopper-medium-40-seed0",)
  failures = runs.finish([run(), run(seeds=(1,))], tmp_path / "runs", tmp_path / "archive", jobs=1)
  assert len(failures) == 1 and "seed0: exit status 1: error: the disk is full" in failures[0]
  assert runs.missing(run(seeds=(0, 1)), tmp_path / "archive") == (0,)


def test_the_page_has_scores_returns_and_aggregates(tmp_path, trainings):
  folder = tmp_path / "archive"
  runs.finish([run(seeds=(seed,)) for seed in range(5)], tmp_path / "runs", folder, jobs=1)
  text = page.page(folder, "python -m this")
  lines = [line for line in text.splitlines() if line.startswith("| `hopper-medium`")]
  # Returns 100 to 104 and 102 to 106, of 200.
  assert lines[0].startswith("| `hopper-medium` | 25.0 | **51.5** [5")
  assert "| `hopper-medium` | 50 | 103.0 |" in lines[1] or "| 50 | 103 |" in lines[1]
  assert "| 5, 20 |" in lines[2]
  assert "40; 1.0 min" in lines[3]
  assert "python -m this" in text and "0123456789ab" in text


def test_means_over_tasks_are_of_what_the_agents_share(tmp_path, trainings):
  """Neither an agent with one task nor a task with fewer seeds takes tasks away from the others."""
  folder, tasks = tmp_path / "archive", [suite.TASKS[f"{env}-medium"] for env in suite.ENVIRONMENTS]
  every = [runs.Run(agent, task, (seed,), 40) for agent in ("bc", "iql") for task in tasks for seed in (0, 1)]
  unfinished = runs.Run("iql", tasks[2], (1,), 40)
  others = [run for run in every if run != unfinished] + [runs.Run("rebrac", tasks[0], (seed,), 40) for seed in (0, 1)]
  assert runs.finish(others, tmp_path / "runs", folder, jobs=1) == []
  text = page.page(folder, "python -m this").partition("## Normalised scores")[0]
  assert "Over the 2 tasks that all these agents have with 2 seeds (halfcheetah-medium, hopper-medium)" in text
  assert "| bc |" in text and "| iql |" in text and "rebrac" not in text
  runs.finish([runs.Run("bc", tasks[0], (2,), 40)], tmp_path / "runs", folder, jobs=1)  # a seed more of one
  assert page.page(folder, "python -m this").partition("## Normalised scores")[0] == text


def test_an_agent_with_few_tasks_takes_none_from_the_others(tmp_path, trainings):
  names = [f"{env}-{quality}" for quality in ("medium", "expert") for env in suite.ENVIRONMENTS]
  every = [runs.Run("bc", suite.TASKS[name], (seed,), 40) for name in names for seed in (0, 1)]
  few = [runs.Run("dt", suite.TASKS[name], (seed,), 40) for name in names[:2] for seed in (0, 1)]
  assert runs.finish(every + few, tmp_path / "runs", tmp_path / "archive", jobs=1) == []
  text = page.page(tmp_path / "archive", "x").partition("## Normalised scores")[0]
  assert "Over the 6 tasks" in text and "| dt |" not in text


def test_agents_that_cannot_act_there_are_left_out():
  agents = [agent for agent, _ in suite.cells(("bc", "td3_bc", "iql"), ("lunarlander-medium-expert",))]
  assert agents == ["bc", "iql"]


@pytest.mark.parametrize(
  ("agents", "datasets", "message"),
  [(("iq",), ("hopper-medium",), "--agents: no 'iq'"), (("bc",), ("x",), "--datasets")],
)
def test_unknown_names_are_refused(agents, datasets, message):
  with pytest.raises(ValueError, match=message):
    suite.cells(agents, datasets)


def cut(path, text, **others):
  """Stands for `pathlib.Path.write_text` on a disk that fills up."""
  path.write_bytes(text[: len(text) // 2].encode())
  raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("module", [command, bc])
def test_a_full_disk_leaves_the_page_there_was(tmp_path, monkeypatch, module):
  output = tmp_path / "page.md"
  output.write_text("earlier")
  given = {"output": output, "workdir": tmp_path, "archive": tmp_path, "agents": ["bc"], "datasets": [TASK.dataset]}
  given |= {"seeds": 1, "seeds_per_run": 1, "steps": 4, "transformer_steps": 4, "page_only": True}
  monkeypatch.setattr(module, "FLAGS", types.SimpleNamespace(**given, demos=".", offline=None, recordings=None))
  monkeypatch.setattr(page, "page", lambda *_: "a new page")
  monkeypatch.setattr(bc, "produce", lambda *_: "a new page")
  monkeypatch.setattr(pathlib.Path, "write_text", cut)
  with pytest.raises(SystemExit):
    module.main()
  assert output.read_text() == "earlier"
  assert [path.name for path in tmp_path.iterdir()] == ["page.md"]

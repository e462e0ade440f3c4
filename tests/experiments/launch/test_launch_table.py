"""The table of results: of a real sweep, and of made-up runs."""

import json
import pathlib

import numpy as np
import pytest

import ilx
from experiments import markdown
from experiments.launch import __main__ as launch
from experiments.launch import results, table
from experiments.launch.results import Row
from ilx.training import logs

ROOT = pathlib.Path(__file__).resolve().parents[3]
BC = f"--config={ROOT / 'experiments/configs/bc.py'}"


@pytest.fixture
def dataset(tmp_path):
  rng = np.random.default_rng(0)
  with ilx.data.Recorder(tmp_path / "data", name="made-up", metadata={"env_id": "CartPole-v1"}) as recorder:
    for _ in range(4):
      observation = rng.normal(size=(11, 4))
      recorder.add(ilx.data.episode(observation, rng.integers(2, size=10), np.ones(10), terminal=True))
  return recorder.path


def test_a_real_sweep_from_data_to_table(dataset, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  given = {"dataset": dataset, "split": "train", "steps": 40, "batch_size": 8, "agent.hidden": "(4,)"}
  given |= {"log_every": 20, "checkpoint_every": 20, "evaluation.every": 40, "evaluation.episodes": 2}
  given |= {"evaluation.final_episodes": 4, "evaluation.video": False}
  flags = [f"--config.{name}={value}" for name, value in given.items()]
  command = ["local", BC, *flags, "--grid=config.seed=0,1", "--jobs=2", f"--workdir={tmp_path / 'sweep'}"]
  assert launch.main(command) == 0, capsys.readouterr()
  rows = json.loads((tmp_path / "sweep" / "table.json").read_text())
  found = [json.loads((tmp_path / "sweep" / f"seed={seed}" / "result.json").read_text()) for seed in (0, 1)]
  assert [row["result"]["return_mean"] for row in rows["runs"]] == [result["return_mean"] for result in found]
  (both,) = rows["over_seeds"]
  expected = ilx.evaluation.summary([result["returns"] for result in found])
  assert both["result"]["return_mean"] == expected["mean"]
  assert both["result"]["return_ci95"] == list(expected["mean_ci95"])
  before = (tmp_path / "sweep" / "table.md").read_text()
  capsys.readouterr()
  assert launch.main(["table", f"--workdir={tmp_path / 'sweep'}"]) == 0
  assert (tmp_path / "sweep" / "table.md").read_text() == before, "the folders alone tell the same"
  report = tmp_path / "sweep" / "seed=1" / "report.html"
  report.unlink()  # as where a run is stopped while its video is drawn
  assert launch.main(command) == 0
  assert "2 runs, 1 of them finished" in capsys.readouterr().out
  after = (tmp_path / "sweep" / "table.md").read_text()
  assert report.exists() and without_minutes(after) == without_minutes(before)
  assert launch.main(command) == 0
  assert "2 runs, 2 of them finished" in capsys.readouterr().out


def without_minutes(page):
  """The cells of a page's tables but the minutes: a last evaluation that is made again adds its own."""
  tables = [[line.split("|") for line in table.splitlines()] for table in page.split("\n\n")]
  place = [[cell.strip() for cell in table[0]].index("minutes") for table in tables]
  return [[row[:i] + row[i + 1 :] for row in table] for table, i in zip(tables, place, strict=True)]


def made_up(folder, name, config, returns=None, **result):
  path = folder / name
  path.mkdir(parents=True)
  logs.write_json(path / "config.json", {"steps": 10, "evaluation": {"video": name == "a"}, **config})
  if returns is not None:
    result = {"return_mean": np.mean(returns), "return_ci95": [min(returns), max(returns)], "returns": returns} | result
    result = {"random_return": 0.0, "expert_return": 100.0, "normalized_score": np.mean(returns)} | result
  if result:
    logs.write_json(path / "result.json", {"steps": 10, "seconds": 90.0, **result})
    (path / "report.html").touch()
  return path


def test_any_folder_of_runs_has_a_table_of_what_they_differ_in(tmp_path, capsys):
  made_up(tmp_path, "a", {"seed": 0, "agent": {"hidden": [3, 4]}}, [10.0, 20.0])
  made_up(tmp_path, "b", {"seed": 1, "agent": {"hidden": [3, 4]}}, [30.0, 40.0])
  made_up(tmp_path, "c", {"seed": 0, "agent": {"hidden": [5]}}, [0.5, 1.5])
  path = made_up(tmp_path, "d", {"seed": 1, "agent": {"hidden": [5]}})
  (path / "log.jsonl").write_text('{"step": 4}\n{"step": 6}\n{"ste')
  (tmp_path / "empty").mkdir()
  assert launch.main(["table", f"--workdir={tmp_path}"]) == 0
  over, single = (tmp_path / "table.md").read_text().split("\n\n")
  assert [line.replace(" ", "") for line in over.splitlines()] == [
    "|hidden|seeds|return|95%interval|normalised|minutes|",
    "|---|---:|---:|---:|---:|---:|",
    "|[3,4]|2|25|12to38|25.0|1.5|".replace("12to38", _interval([[10.0, 20.0], [30.0, 40.0]])),
  ]
  lines = [line.replace(" ", "") for line in single.splitlines()]
  assert lines[0] == "|run|seed|hidden|return|95%interval|normalised|minutes|state|"
  assert lines[2] == "|a|0|[3,4]|15|10to20|15.0|1.5||"
  assert lines[5] == "|d|1|[5]|||||6of10updates|"
  assert "10 to 20" in capsys.readouterr().out


def _interval(returns):
  return "to".join(f"{edge:.0f}" for edge in ilx.evaluation.summary(returns)["mean_ci95"])


def test_a_result_of_fewer_updates_than_asked_for_is_not_finished(tmp_path):
  made_up(tmp_path, "a", {"steps": 20}, [1.0, 2.0])
  (row,) = results.read(tmp_path, {"a": {}})
  assert (row.state, row.result) == ("not started", {})


def test_runs_that_differ_in_how_they_were_kept_go_together(tmp_path):
  """Or in a field that is younger than one of them."""
  for seed, keeps in enumerate(({}, {"keep_every": 0}, {"keep_every": 50, "keep": 9, "data_timeout": 1.0})):
    made_up(tmp_path, str(seed), {"seed": seed, "agent": {"name": "bc"}, **keeps}, [10.0 * seed, 10.0 * seed])
  (both,) = results.over_seeds(results.read(tmp_path))
  assert both.result["runs"] == 3 and both.result["return_mean"] == 10.0 and both.fields == {}


def test_failures_are_rows(tmp_path):
  path = made_up(tmp_path, "a", {})
  (path / "log.jsonl").write_text('{"step": 4}\n')
  logs.write_json(path / "diverged.json", {"step": 5})
  (tmp_path / "a.log").write_text("FloatingPointError")
  (tmp_path / "b.log").write_text("error: no dataset")
  assert [(row.name, row.state) for row in results.read(tmp_path)] == [
    ("a", "diverged at update 5 of 10"),
    ("b", "failed, or not begun"),
  ]


def test_runs_without_play_show_their_loss_and_likeness():
  rows = [
    Row("a", {"seed": 0}, "finished", {"return_mean": None, "loss": 0.25, "seconds": 6.0}),
    Row("b", {"seed": 1}, "finished", {"return_mean": None, "loss": 0.5, "heldout": {"accuracy": 0.5}, "seconds": 6.0}),
  ]
  assert results.over_seeds(rows) == []
  heads, lines = table.cells(rows)
  assert heads == ["run", "seed", "loss", "minutes", "accuracy"]
  assert {cell for line in lines for cell in line} >= {"0.25", "0.5", "50.0 %"}


def test_several_seeds_of_one_run_count_each(tmp_path):
  several = {"per_seed": [{"seed": s, "returns": [1.0 + s, 3.0 + s]} for s in (0, 1)], "return_mean": 2.5}
  shared = {"random_return": None, "expert_return": 10.0, "seconds": 1.0, "return_ci95": [1, 4]}
  single = {"returns": [5.0, 7.0], "return_mean": 6.0}
  rows = [
    Row("a", {"seed": 0}, "finished", several | shared),
    Row("b", {"seed": 5}, "finished", single | shared),
  ]
  (both,) = results.over_seeds(rows)
  assert both.result["return_mean"] == np.mean([1, 3, 2, 4, 5, 7])
  assert both.result["normalized_score"] is None
  assert both.result["runs"] == 3


def _unplayed(accuracy, error, seed=None):
  parts = {"keys": {"accuracy": accuracy, "commonest_share": 0.5}, "stick": {"mean_absolute_error": error}}
  about = {"return_mean": None, "returns": None, "heldout": {"split": "val", "episodes": 2, "parts": parts}}
  return about if seed is None else about | {"seed": seed}


def test_a_sweep_without_an_environment_has_a_row_for_each_learning_rate(tmp_path, capsys):
  accuracies = {1e-4: [0.5, 0.6, 0.7], 3e-4: [0.8, 0.9, 0.9]}
  for rate, found in accuracies.items():
    for seed, accuracy in enumerate(found):
      config = {"seed": seed, "agent": {"learning_rate": rate}}
      made_up(tmp_path, f"seed={seed},rate={rate}", config, **_unplayed(accuracy, 0.25 * (seed + 1)))
  assert launch.main(["table", f"--workdir={tmp_path}"]) == 0
  over, _ = (tmp_path / "table.md").read_text().split("\n\n")
  heads, under, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in over.splitlines()]
  assert heads == [
    *("learning_rate", "seeds", "keys: accuracy", "keys: commonest action alone", "stick: mean absolute error"),
    "minutes",
  ]
  assert set(under) == {"---:"}, "numbers"
  low, high = ilx.evaluation.summary(accuracies[1e-4])["mean_ci95"]
  assert lines[0][:3] == ["0.0001", "3", f"60.0 % ({100 * low:.1f} % to {100 * high:.1f} %)"]
  assert lines[1][:2] == ["0.0003", "3"] and lines[1][2].startswith("86.7 % (") and lines[1][3] == "50.0 %"
  first = json.loads((tmp_path / "table.json").read_text())["over_seeds"][0]["result"]
  keys = first["heldout"]["parts"]["keys"]
  assert keys == {"accuracy": pytest.approx(0.6), "accuracy_ci95": [low, high], "commonest_share": 0.5}
  assert (first["heldout"]["split"], first["heldout"]["episodes"], first["runs"]) == ("val", 2, 3)
  assert "return_mean" not in first
  capsys.readouterr()


def test_a_run_of_several_seeds_is_a_row_over_the_seeds():
  shared = {"random_return": 0.0, "expert_return": 10.0, "seconds": 6.0}
  played = {"per_seed": [{"seed": s, "returns": [1.0 + s, 3.0 + s]} for s in (0, 1)], "return_mean": 2.5} | shared
  unplayed = {"per_seed": [_unplayed(accuracy, 1.0, seed) for seed, accuracy in enumerate((0.5, 0.75))]}
  rows = [
    Row("a", {"agent.name": "bc"}, "finished", played),
    Row("b", {"agent.name": "iql"}, "finished", unplayed | {"seconds": 6.0}),
    Row("c", {"agent.name": "dt"}, "finished", {"seed": 0, "returns": [1.0, 2.0]} | shared),
  ]
  first, second = results.over_seeds(rows)
  assert (first.fields, first.result["runs"], first.result["return_mean"]) == ({"agent.name": "bc"}, 2, 2.5)
  assert first.result["return_ci95"] == list(ilx.evaluation.summary([[1.0, 3.0], [2.0, 4.0]])["mean_ci95"])
  assert second.result["runs"] == 2 and second.result["heldout"]["parts"]["keys"]["accuracy"] == 0.625


def test_what_one_seed_does_not_know_is_not_averaged():
  known = {"accuracy": 0.5, "log_likelihood": -1.0}
  rows = [
    Row("a", {"seed": 0}, "finished", {"heldout": known}),
    Row("b", {"seed": 1}, "finished", {"heldout": {"accuracy": 1.0, "log_likelihood": None}}),
    Row("c", {"seed": 2}, "finished", {"heldout": {"accuracy": "?"}}),
    Row("d", {"seed": 0}, "finished", {"heldout": {"accuracy": 0.0}}),
  ]
  (both,) = results.over_seeds(rows)
  assert both.result["runs"] == 2 and both.result["heldout"]["accuracy"] == 0.75
  assert "log_likelihood" not in both.result["heldout"]


def test_a_seed_that_several_runs_have_counts_once():
  def result(*seeds):
    several = [{"seed": seed, "returns": [1.0 + seed, 3.0 + seed]} for seed in seeds]
    return {"per_seed": several, "return_mean": 2.5, "random_return": 0.0, "expert_return": 10.0, "seconds": 1.0}

  rows = [Row("a", {"seed": 0}, "finished", result(0, 1)), Row("b", {"seed": 1}, "finished", result(1, 2))]
  (both,) = results.over_seeds(rows)
  assert both.result["runs"] == 3 and both.result["return_mean"] == np.mean([1, 3, 2, 4, 3, 5])
  assert both.result["normalized_score"] == pytest.approx(30.0)


def test_seeds_of_different_numbers_of_episodes_count_alike():
  rows = [
    Row("a", {"seed": 0}, "finished", {"returns": [1.0, 1.0, 1.0], "return_mean": 1.0}),
    Row("b", {"seed": 1}, "finished", {"returns": [4.0], "return_mean": 4.0}),
  ]
  (both,) = results.over_seeds(rows)
  assert both.result["return_mean"] == 2.5 and both.result["seconds"] is None


def test_runs_played_in_different_environments_are_apart(tmp_path, capsys):
  """Their configs are the same: the dataset names the environment, and was built anew between two runs."""
  played = [{"env_id": "Hopper-v4"}] * 2 + [{"env_id": "Hopper-v5", "env_kwargs": {"frame_skip": 2}}] * 2
  for seed, (place, more) in enumerate(zip(played, (0, 0, 40, 60), strict=True)):
    made_up(tmp_path, f"seed={seed}", {"seed": seed}, [10.0 + more, 20.0 + more], expert_return=100.0 + more, **place)
  made_up(tmp_path, "seed=4", {"seed": 4})
  assert launch.main(["table", f"--workdir={tmp_path}"]) == 0
  over, single = (tmp_path / "table.md").read_text().split("\n\n")
  cells = [[cell.strip() for cell in line.split("|")[1:4]] for line in over.splitlines()]
  assert cells[0] == ["played in", "seeds", "return"]
  assert cells[2:] == [["Hopper-v4", "2", "15"], ['Hopper-v5 {"frame_skip": 2}', "2", "65"]]
  assert [line.split("|")[2].strip() for line in single.splitlines()[2:]] == [
    *["Hopper-v4"] * 2,
    *[cells[3][0]] * 2,
    "",
  ]
  capsys.readouterr()


def test_runs_that_learnt_from_different_versions_are_apart(tmp_path):
  for seed, version in enumerate(["1.0.0", "1.0.1", "1.0.1"]):
    about = {"dataset": "game", "dataset_versions": {"game": version}}
    made_up(tmp_path, f"seed={seed}", {"seed": seed}, [10.0 * seed] * 2, **about)
  rows = results.read(tmp_path)
  assert [row.fields["learnt from"] for row in rows] == ["game/1.0.0", "game/1.0.1", "game/1.0.1"]
  (both,) = results.over_seeds(rows)
  assert both.fields == {"learnt from": "game/1.0.1"} and both.result["return_mean"] == 15.0


@pytest.mark.parametrize(
  ("name", "text", "state"),
  [
    ("config.json", "[]", "cannot be read: config.json"),
    ("config.json", "{", "cannot be read: config.json"),
    ("result.json", "[1]", "cannot be read: result.json"),
    ("result.json", '{"steps": ', "cannot be read: result.json"),
    ("diverged.json", "7", "cannot be read: diverged.json"),
    ("config.json", '{"steps": null, "seed": 1}', "4 updates"),
    ("config.json", '{"steps": 10, "seed": [1], "agent": "bc"}', ""),
    ("config.json", '{"steps": 10, "seed": 1, "agent": {"name": ["bc"]}}', ""),
  ],
)
def test_one_damaged_run_does_not_lose_the_table(tmp_path, capsys, name, text, state):
  for seed in range(3):
    made_up(tmp_path, f"run{seed}", {"seed": seed}, [10.0, 20.0])
  (tmp_path / "run1" / "log.jsonl").write_text('{"step": 4}\n')
  (tmp_path / "run1" / name).write_text(text)
  assert launch.main(["table", f"--workdir={tmp_path}"]) == 0
  rows = {row["name"]: row for row in json.loads((tmp_path / "table.json").read_text())["runs"]}
  assert rows.keys() == {"run0", "run1", "run2"}
  assert rows["run1"]["state"] == state or (state == "" and rows["run1"]["state"] == "finished")
  assert rows["run0"]["state"] == rows["run2"]["state"] == "finished"
  output = capsys.readouterr().out
  assert "run1" in output and state in output


@pytest.mark.parametrize(
  "result",
  [
    {"return_ci95": None},
    {"return_ci95": ["a", 2]},
    {"return_mean": "much"},
    {"return_mean": None},
    {"returns": 7},
    {"returns": [None]},
    {"per_seed": [7]},
    {"per_seed": [{"returns": [1.0]}, {"seed": 3}]},
    {"normalized_score": [], "random_return": "?", "seconds": "long", "loss": {}, "heldout": {"accuracy": "good"}},
  ],
)
def test_a_result_of_wrong_values_does_not_lose_the_table(tmp_path, result):
  for seed in range(3):
    made_up(tmp_path, f"run{seed}", {"seed": seed}, [10.0, 20.0])
  path = tmp_path / "run1" / "result.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **result}))
  assert launch.main(["table", f"--workdir={tmp_path}"]) == 0
  lines = (tmp_path / "table.md").read_text().splitlines()
  assert sum(line.startswith("| run") for line in lines) == 4
  assert "10 to 20" in lines[-1]


def test_a_run_without_its_report_says_so_and_keeps_its_score(tmp_path):
  (made_up(tmp_path, "a", {"seed": 0}, [1.0, 2.0]) / "report.html").unlink()
  (row,) = results.read(tmp_path)
  assert row.state == "no report yet" and row.result["return_mean"] == 1.5


def test_rows_of_runs_that_are_no_sweep_begin_with_the_run_and_its_agent():
  rows = [
    Row(f"{agent}-hopper-seed{seed}", {"seed": seed, "agent.name": agent}, "finished", {"loss": 1.0})
    for agent in ("bc", "iql")
    for seed in (0, 1)
  ]
  heads, lines = table.cells(rows)
  assert heads == ["run", "agent", "seed", "loss"] and lines[2][:3] == ["iql-hopper-seed0", "iql", "0"]


def test_rows_of_a_sweep_begin_with_their_fields_unless_these_are_equal():
  rows = [Row(f"seed={seed}", {"seed": seed}, "finished", {"loss": 1.0}) for seed in (0, 1)]
  assert table.cells(rows)[0] == ["seed", "loss"]
  assert table.cells([*rows, rows[0]._replace(name="seed=0,old")])[0] == ["run", "seed", "loss"]
  # A run that failed before it had a config.
  heads, lines = table.cells([*rows, Row("seed=2", {}, "failed, or not begun", {})])
  assert heads == ["run", "seed", "loss", "state"] and lines[2][0] == "seed=2"


def test_cells_with_bars_stay_cells():
  assert markdown.table(["a|b"], [["x|y"]]).splitlines() == ["| a\\|b |", "| --- |", "| x\\|y |"]


def test_a_folder_without_runs_is_said(tmp_path, capsys):
  assert launch.main(["table", f"--workdir={tmp_path}"]) == 2
  assert "holds no runs" in capsys.readouterr().err

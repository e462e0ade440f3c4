"""The numbers of the page of results, by hand; how it is made is tested in test_results_suite.py."""

import numpy as np
import pytest

from experiments.results import builtin, page, suite


def _cell(agent, dataset, returns, random=10.0, expert=110.0):
  entries = [
    {"seed": seed, "returns": own, "random_return": random, "expert_return": expert, "steps": 4}
    for seed, own in enumerate(returns)
  ]
  return page.Cell(agent, suite.TASKS[dataset], entries)


def test_aggregates_over_tasks():
  first, second = "hopper-medium", "walker2d-medium"
  cells = [
    _cell("bc", first, [[20, 40], [60, 60]]),
    _cell("bc", second, [[10, 210], [10, 10]]),
    _cell("iql", first, [[100, 100], [110, 110]]),
    _cell("iql", second, [[210, 210], [60, 60]]),
  ]
  # Seeds' scores: bc 20 and 50, 100 and 0; iql 90 and 100, 200 and 50.
  lines = page._aggregates(cells, ["bc", "iql"]).splitlines()
  rows = {
    line.split()[1]: [cell.split("**")[1] for cell in line.split("|") if "**" in cell] for line in lines if "**" in line
  }
  assert rows == {"bc": ["35.0", "42.5", "57.5"], "iql": ["95.0", "110.0", "15.0", "0.88"]}


def test_groups_of_tasks_stay_apart():
  names = ["hopper-medium", "walker2d-medium", *suite.MAZES]
  text = page._aggregates([_cell("bc", name, [[20], [60]]) for name in names], ["bc"])
  assert text.count("Over the 2 tasks") == 2 and "Over the tasks: mazes" in text


def test_recordings_of_others_have_an_expert_of_their_own():
  name = "halfcheetah-v4_medium"
  cell = _cell("bc", name, [[0.0]], random=-280.0, expert=None)
  np.testing.assert_allclose(cell.normalized([-280.0, suite.TASKS[name].expert_return]), [0.0, 100.0])


def test_intervals_are_over_seeds():
  cell = _cell("bc", "hopper-medium", [[10.0] * 50, [110.0] * 50, [210.0] * 50])
  assert page._score(cell) == "**100.0** [0.0, 200.0] (3 seeds)"


def test_returns_minutes_and_curves():
  cell = _cell("bc", "hopper-medium", [[0.0, 0.0, 30.0]] * 3)
  assert page._return(cell) == "10"  # the mean
  for entry, seconds, last in zip(cell.entries, (60, 120, 6000), (30.0, 30.0, 90.0), strict=True):
    entry |= {"seconds": seconds, "curve": [[2, 10.0], [4, last]]}
  assert page._cost(cell) == "4; 2.0 min"  # the median
  assert page._curve(cell) == "0, 40"
  cell.entries[0]["curve"] = [[4, 30.0]]
  assert page._curve(cell) == page.NONE


def test_the_row_of_built_in_data():
  def run(seed, returns):
    return {
      "env_id": "Hopper-v5", "returns": returns, "return_mean": float(np.mean(returns)), "seconds": 90.0, "seed": seed,
      "data_return": 80.0, "expert_return": 120.0, "random_return": 20.0,
    }  # fmt: skip

  row = builtin._row("hopper-expert", [run(0, [20.0] * 40), run(1, [100.0] * 40), run(2, [120.0] * 40)])
  assert row[2:4] == ["**80**", "20 to 120"] and row[-2] == "**60.0**"


@pytest.mark.parametrize("env", ["halfcheetah", "hopper"])
def test_recordings_of_one_environment_have_one_expert(env):
  assert len({task.expert_return for name, task in suite.TASKS.items() if name.startswith(f"{env}-v4")}) == 1

import io
import pathlib

import pytest
from report_pages import CONTINUOUS, DISCRETE, UNPLAYED
from rich.console import Console

from experiments.report import details, run
from experiments.summary import terminal_table

RESULT = {
  "agent": "bc",
  "dataset": "hopper-expert",
  "env_id": "Hopper-v5",
  "seed": 3,
  "episodes": 100,
  "return_mean": 2849.4,
  "return_ci95": [2711.6, 2962.0],
  "expert_return": 3510.0,
  "data_return": 3490.0,
  "random_return": -18.0,
  "steps": 40000,
  "seconds": 134.2,
  "updates_per_second": 2143.2,
}


def printed(result, **console) -> str:
  file = io.StringIO()
  terminal_table(result, Console(file=file, **console))
  return file.getvalue()


def _page(result) -> str:
  return details.result_table(run.Run(pathlib.Path("run"), {}, result, {}, 0, None, 0, {}))


def test_plain_text_where_there_is_no_terminal():
  assert printed(RESULT) == (
    "BC on hopper-expert, Hopper-v5, seed 3\n"
    "               return   95 % interval  normalised  episodes\n"
    "policy          2,849  2,712 to 2,962        81.3       100\n"
    "expert          3,510                       100.0\n"
    "data            3,490                        99.4\n"
    "random policy     -18                         0.0\n"
    "40,000 updates in 2 min 14 s, 2,143 updates a second\n"
  )


def test_success_is_told_where_it_is_known():
  before = printed(RESULT).splitlines()
  assert printed(RESULT | {"success_rate": None}).splitlines() == before
  assert printed(RESULT | {"success_rate": 0.4304}).splitlines() == [
    *before[:-1],
    "success in 43.0 % of the episodes",
    before[-1],
  ]
  assert "Success" in _page(RESULT | {"success_rate": 0.4304}) and "Success" not in _page(RESULT)


def test_the_return_that_was_asked_for_is_told():
  before = printed(RESULT).splitlines()
  asked = RESULT | {"target_return": 3073.79}
  assert printed(asked).splitlines() == [*before[:-1], "asked for a return of 3,074", before[-1]]
  assert "a return of 3,074" in _page(asked) and "Asked" not in _page(RESULT)


def test_terminal_has_the_same_numbers_in_colour():
  text = printed(RESULT, force_terminal=True, width=100)
  assert "\x1b[" in text
  for words in ("BC on hopper-expert", "2,712 to 2,962", "81.3", "-18", "2 min 14 s"):
    assert words in text


def test_seeds_stand_under_the_policy():
  of_seed = {"episodes": 100, "return_ci95": [2711.6, 2962.0], "expert_return": 3510.0, "random_return": -18.0}
  seeds = [{**of_seed, "seed": 3, "return_mean": 2840.0}, {**of_seed, "seed": 4, "return_mean": 2858.8}]
  assert printed({**RESULT, "seeds": 2, "per_seed": seeds}).splitlines() == [
    "BC on hopper-expert, Hopper-v5, seeds 3 to 4",
    "               return   95 % interval  normalised  episodes",
    "policy          2,849  2,712 to 2,962        81.3       200",
    "  seed 3        2,840  2,712 to 2,962        81.0       100",
    "  seed 4        2,859  2,712 to 2,962        81.5       100",
    "expert          3,510                       100.0",
    "data            3,490                        99.4",
    "random policy     -18                         0.0",
    "40,000 updates of each of 2 seeds in 2 min 14 s, 2,143 of each a second",
  ]


@pytest.mark.parametrize("terminal", [False, True])
def test_unknown_references(terminal):
  text = printed({"return_mean": -0.31, "dataset": "[bold]mine"}, force_terminal=terminal, width=100)
  assert text.count("unknown") == 4
  assert "-0.31" in text
  assert "[bold]mine" in text


def test_held_out_actions_follow_the_returns():
  text = printed({**RESULT, "heldout": CONTINUOUS})
  assert text.splitlines()[5:] == [
    "random policy     -18                         0.0",
    "held-out actions",
    "mean absolute error      0.0375",
    "root mean squared error    0.05",
    "variance explained       87.5 %",
    "40,000 updates in 2 min 14 s, 2,143 updates a second",
  ]


@pytest.mark.parametrize("terminal", [False, True])
def test_without_an_environment_returns_are_not_mentioned(terminal):
  text = printed({**RESULT, **UNPLAYED, "heldout": DISCRETE}, force_terminal=terminal, width=100)
  assert "BC on hopper-expert, seed 3" in text
  assert "75.0 %" in text
  assert "return" not in text and "unknown" not in text
  nothing = printed({**RESULT, **UNPLAYED, "heldout": None}, force_terminal=terminal, width=100)
  assert "Nothing was scored" in nothing and "0.125" in nothing


def test_a_mixture_is_named_by_its_parts():
  assert "BC on hopper and mine/1.0.0," in printed({**RESULT, "dataset": "hopper=0.7,/data/mine/1.0.0=0.3"})


def test_long_names_do_not_fold_plain_lines():
  text = printed({**RESULT, "dataset": "d" * 200})
  assert len(text.splitlines()) == 7

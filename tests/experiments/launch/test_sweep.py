"""Which runs a grid and a list make, and what they are called."""

import pytest

from experiments.launch import sweep

BC = "--config=experiments/configs/bc.py"


def names(*arguments):
  return [run.name for run in sweep.expand(*arguments)]


def test_every_point_of_a_grid_is_a_run_and_the_last_entry_varies_fastest():
  grid = ["config.seed=0,1,2", "config.agent.learning_rate=1e-4,3e-4"]
  runs = sweep.expand([BC, "--config.steps=7"], grid, None)
  assert [(run.swept["config.seed"], run.swept["config.agent.learning_rate"]) for run in runs] == [
    (seed, rate) for seed in "012" for rate in ("1e-4", "3e-4")
  ]
  assert runs[3].name == "seed=1,learning_rate=3e-4"
  assert runs[3].flags == (BC, "--config.steps=7", "--config.seed=1", "--config.agent.learning_rate=3e-4")


def test_lines_of_a_list_are_runs_and_comments_are_not():
  lines = ["# two agents", "", f"{BC} --config.where='a > 1'  # why", "--config=experiments/configs/iql.py"]
  runs = sweep.expand(["--config.seed=3"], [], lines)
  assert [run.name for run in runs] == ["bc,where=a_1", "iql"]
  assert runs[0].flags == (BC, "--config.seed=3", "--config.where=a > 1")


def test_every_line_is_run_at_every_point():
  assert names([BC], ["config.seed=0,1"], ["--config.steps=5", "--config.steps=6"]) == [
    "steps=5,seed=0",
    "steps=5,seed=1",
    "steps=6,seed=0",
    "steps=6,seed=1",
  ]


def test_a_single_run_is_named_after_its_config():
  assert names([BC], [], None) == ["bc"]


def test_the_config_file_comes_before_its_fields():
  (run,) = sweep.expand(["--config.seed=1"], [f"{BC[2:]}"], None)
  assert run.flags == (BC, "--config.seed=1")


def test_a_switch_has_no_value():
  (run,) = sweep.expand([BC], [], ["--noconfig.evaluation.video"])
  assert run.flags == (BC, "--noconfig.evaluation.video")
  assert run.name == "video"


@pytest.mark.parametrize(
  ("text", "values"),
  [
    ("1,2", ["1", "2"]),
    ("(64, 64),(256, 256)", ["(64, 64)", "(256, 256)"]),
    ('[1,{"a": (2,3)}],x', ['[1,{"a": (2,3)}]', "x"]),
    ("'a=0.7,b=0.3','c'", ["a=0.7,b=0.3", "c"]),
    ("train[:5],''", ["train[:5]", ""]),
  ],
)
def test_commas_in_brackets_and_quotes_do_not_separate(text, values):
  assert sweep.split(text) == values


def test_fields_whose_last_parts_are_alike_are_named_in_full():
  grid = ["config.evaluation.every=1,2", "config.log.every=3", "config.seed=0"]
  assert names([BC], grid, None)[1] == "config.evaluation.every=2,config.log.every=3,seed=0"


def test_names_are_good_for_folders():
  (name,) = names([BC], ["config.dataset='/data/../a b/$(x)*'"], None)
  assert name == "dataset=_x_"
  (long,) = names([BC], [f"config.where='{'x' * 200}'"], None)
  assert len(long) == 120
  (other,) = names([BC], [f"config.where='{'x' * 201}'"], None)
  assert other != long and other[:100] == long[:100]


def test_datasets_of_one_version_are_told_apart():
  assert names([BC], ["config.dataset=/a/x/1.0.0,/a/y/1.0.0/,z"], None) == [
    "dataset=x_1.0.0",
    "dataset=y_1.0.0",
    "dataset=z",
  ]
  mixtures = "config.dataset='/a/x/1.0.0=0.7,/b/y=0.3','/a/z/1.0.0=0.7,/b/y=0.3'"
  assert names([BC], [mixtures], None) == ["dataset=x_1.0.0=0.7,y=0.3", "dataset=z_1.0.0=0.7,y=0.3"]


@pytest.mark.parametrize(
  ("common", "grid", "lines", "message"),
  [
    ([BC], ["config.seed=0,0"], None, "several runs would be named 'seed=0'"),
    ([BC], ["config.dataset=/x/a,/y/a"], None, "several runs would be named 'dataset=a'"),
    ([BC], [], ["--config.seed=0", "--config.seed=0"], "several runs would be named"),
    ([BC, "--config.seed=1"], ["config.seed=0,1"], None, "--config.seed is set twice"),
    ([BC], ["config.seed=0"], ["--config.seed=1"], "--config.seed is set twice"),
    ([BC, BC], [], None, "--config is set twice"),
    ([BC], [], ["--config.seed=0 --config.seed=1"], "--list: .*--config.seed is set twice"),
    ([BC], ["config.seed"], None, "must be FLAG=VALUE"),
    ([BC], ["config.seed=1,,2"], None, "an empty value"),
    ([BC], ["config.agent.hidden=(1,2"], None, r"\) is missing"),
    ([BC], ["config.where='a"], None, "' is missing"),
    ([BC], [], ["# nothing"], "--list: the file has no line"),
    ([BC], [], ["--config.where='a"], "--list: .*No closing quotation"),
    ([BC], [], ["config.seed=1"], "--list: .*unexpected 'config.seed=1'"),
    ([BC, "3"], [], None, "unexpected '3'"),
    ([BC], ["workdir=a,b"], None, "--workdir .* cannot be swept"),
    ([BC], [], ["--workdir=x"], "--workdir .* cannot be swept"),
  ],
)
def test_what_makes_no_sweep_is_refused(common, grid, lines, message):
  with pytest.raises(ValueError, match=message):
    sweep.expand(common, grid, lines)

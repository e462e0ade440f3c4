import base64
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from chromium import Browser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_pages import (
  ATTACK,
  CONFIG,
  CONTINUOUS,
  DISCRETE,
  RESULT,
  UNPLAYED,
  Page,
  assert_self_contained,
  make,
  record,
)

import ilx
from experiments.report import run
from experiments.report.compare import drawing, fields, groups, over_tasks, progress, scores, videos
from experiments.report.compare.page import write_comparison


def _config(agent="made_up", seed=0, dataset="halfcheetah-expert", **changes):
  return {**CONFIG, "agent": {**CONFIG["agent"], "name": agent}, "seed": seed, "dataset": dataset, **changes}


def _make(folder, seed=0, shift=0.0, finished=True, log=None, **config):
  """A run whose returns are ``shift`` and 100 times its seed above those of RESULT, and whose curve is so, too."""
  add = shift + 100 * seed
  folder.parent.mkdir(exist_ok=True)
  result = {**RESULT, "seed": seed, "returns": [x + add for x in RESULT["returns"]]}
  result["return_mean"] = float(np.mean(result["returns"]))
  rows = [
    {"step": s, "seconds": 36.0 * s, "train/loss": 1.0, "eval/return_mean": s + add} for s in (100, 200, 300, 400)
  ]
  return make(folder, _config(seed=seed, **config), result if finished else None, rows if log is None else log)


def _groups(*folders):
  return groups.of([run.read(folder, with_video=False) for folder in folders])


def _source(tmp_path, *folders):
  return write_comparison(folders, tmp_path / "compare.html")[0].read_text(encoding="utf-8")


def _page(tmp_path, *folders):
  source = _source(tmp_path, *folders)
  assert_self_contained(source)
  return Page(source)


def _sweep(tmp_path, seeds=(0, 1, 2)):
  for seed in seeds:
    _make(tmp_path / "sweep" / f"a-seed{seed}", seed)
    _make(tmp_path / "sweep" / f"b-seed{seed}", seed, shift=-3000.0, agent="other")
  return tmp_path / "sweep"


def test_runs_that_differ_in_the_seed_alone_are_one_row(tmp_path):
  content = _page(tmp_path, _sweep(tmp_path))
  assert "made_up and other on halfcheetah-expert 1 task · 2 settings · 6 runs" in content.text
  returns = np.array([RESULT["returns"]]) + 100 * np.arange(3)[:, None]
  low, high = ilx.evaluation.summary(returns)["mean_ci95"]
  # Of three seeds of four episodes; the expert's return is 9512, the random one -281; each took 4 hours.
  normalized = [100 * (value + 281) / 9793 for value in (returns.mean(), low, high)]
  row = (
    f"made_up halfcheetah-expert HalfCheetah-v5 3 4 {returns.mean():,.0f} {low:,.0f} to {high:,.0f} "
    f"{normalized[0]:.1f} {normalized[1]:.1f} to {normalized[2]:.1f} 12.0 400 finished"
  )
  assert row in content.text
  assert "With fewer than 10 seeds such intervals are too narrow." in content.text
  best = "Highest mean return: made_up, 9,512; then other, 6,512. "
  assert f"{best}With 3 seeds that may be chance: train at least 5 of each." in content.text
  assert content.count("path", "few") == 0
  assert content.count("path", "curve") == 4  # two over the updates, two profiles
  assert {"curve g0", "curve g1", "band g0", "band g1"} <= {a.get("class") for t, a in content.elements if t == "path"}
  assert "other, update 400: −2,500, 95 % interval −2,600 to −2,400, 3 of 3 seeds" in content.text  # noqa: RUF001


def test_of_enough_seeds_intervals_are_compared(tmp_path):
  content = _page(tmp_path, _sweep(tmp_path, seeds=range(5)))
  assert "Their 95 % intervals do not overlap." in content.text


def test_the_curve_is_of_the_seeds(tmp_path):
  (group,) = _groups(*[_make(tmp_path / str(seed), seed) for seed in range(3)])
  points = scores.curve(group, scores.RETURN)
  assert [(p.step, p.mean, p.count) for p in points] == [(s, s + 100.0, 3) for s in (100, 200, 300, 400)]
  assert points[0].band == ilx.evaluation.summary([100.0, 200.0, 300.0], resamples=2000)["mean_ci95"]


def test_a_run_of_several_seeds_counts_as_several(tmp_path):
  log = [{"step": 400, "eval/return_mean": 5.0, "eval/return_ci95": [0.0, 9.0]}]
  log[0] |= {f"eval/return_mean/seed{seed}": 4.0 + seed for seed in range(3)}
  part = {key: RESULT[key] for key in ("episodes", "return_ci95", "expert_return", "random_return")}
  result = {**RESULT, "returns": None, "return_mean": 20.0, "seeds": 3}
  result["per_seed"] = [
    {**part, "seed": s, "return_mean": 10.0 * (s + 1), "returns": [10.0 * (s + 1)] * 4} for s in range(3)
  ]
  many = make(tmp_path / "many", _config(seeds=3), result, log)
  (group,) = _groups(many, _make(tmp_path / "one", 3, shift=-9712.0))
  assert scores.seeds(group) == 4
  assert [(p.mean, p.count) for p in scores.curve(group, scores.RETURN) if p.step == 400] == [
    ((4 + 5 + 6 - 9012) / 4, 4)
  ]
  assert scores.returns(group).mean == pytest.approx((10 + 20 + 30 + 0) / 4)
  assert len(scores.normalized(group)) == 4


def test_one_seed_has_the_interval_over_its_episodes(tmp_path):
  log = [{"step": s, "eval/return_mean": 2.0, "eval/return_ci95": [1.0, 4.0]} for s in (100, 400)]
  (group,) = _groups(_make(tmp_path / "a", log=log))
  assert scores.curve(group, scores.RETURN)[0] == (100, 2.0, (1.0, 4.0), 1)
  assert scores.returns(group) == (9412.0, (9301.0, 9498.0))
  assert "Bands: 95 % interval over the episodes." in _page(tmp_path, tmp_path / "a").text


def test_an_interval_that_is_alone_is_a_line():
  one = drawing.lines([drawing.Line("g0", [(0, 1.0, (0.5, 2.0), True), (9, 2.0, None, False)])], [], "")
  assert one.count('class="whisker"') == 1 and 'class="band' not in one
  two = drawing.lines([drawing.Line("g0", [(0, 1.0, (0.5, 2.0), True), (9, 2.0, (1.0, 3.0), True)])], [], "")
  assert "whisker" not in two and two.count('class="band g0"') == 1


def test_runs_older_than_a_field_are_of_the_same_group(tmp_path):
  """They count as having the default, which is said; another value is another group."""
  old = {**CONFIG, "agent": {"name": "bc"}}
  folders = [
    make(tmp_path / "old", old),
    make(tmp_path / "new", {**old, "seed": 1, "agent": {"name": "bc", "ema": 0.0}, "strategy": "jit"}),
    make(tmp_path / "ema", {**old, "agent": {"name": "bc", "ema": 0.5}}),
  ]
  found = _groups(*folders)
  assert [(group.method, len(group.runs)) for group in found] == [("BC, ema=0.0", 2), ("BC, ema=0.5", 1)]
  assert "agent.ema" in fields.assumed(found[0].runs[0]) and "agent.ema" not in fields.assumed(found[0].runs[1])
  text = _page(tmp_path, *folders).text
  assert "Older than some fields, which count as having their defaults: 3 runs" in text


def test_the_same_seed_twice_is_no_second_seed(tmp_path):
  before, after = ([_make(tmp_path / name / str(s), s) for s in (0, 1)] for name in ("before", "after"))
  found = _groups(*before, *after)
  assert [(g.method, [r.folder for r in g.runs]) for g in found] == [
    ("made_up (before)", before),
    ("made_up (after)", after),
  ]
  twins = _groups(before[0], _make(tmp_path / "before" / "again", 0))
  assert [group.method for group in twins] == ["made_up (0)", "made_up (again)"]
  assert "1 run " in _page(tmp_path, before[0], before[0]).text


def _played(folder, env_id, env_kwargs=None):
  path = folder / "result.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), "env_id": env_id, "env_kwargs": env_kwargs or {}}))
  return folder


def test_runs_of_one_config_in_different_environments_are_not_seeds_of_one_method(tmp_path):
  """Such as before and after the dataset, which names the environment, was built anew."""
  four, five, options = (
    _played(_make(tmp_path / f"run{seed}", seed), *where)
    for seed, where in enumerate([("Hopper-v4",), ("Hopper-v5",), ("Hopper-v5", {"frame_skip": 2})])
  )
  late = _make(tmp_path / "late", 3, finished=False, log=[{"step": 100, "train/loss": 1.0}])
  other = _played(_make(tmp_path / "other", 0, agent="other"), "Hopper-v5")
  found = _groups(four, five, options, late, other)
  assert [(group.method, group.task, group.env_id) for group in found] == [
    ("made_up", "halfcheetah-expert, played in Hopper-v4", "Hopper-v4"),
    ("made_up", "halfcheetah-expert, played in Hopper-v5", "Hopper-v5"),
    ("other", "halfcheetah-expert, played in Hopper-v5", "Hopper-v5"),
    ("made_up", 'halfcheetah-expert, played in Hopper-v5 {"frame_skip": 2}', "Hopper-v5"),
    ("made_up", "halfcheetah-expert, environment not known yet", ""),
  ]
  text = _page(tmp_path, four, five, options, late, other).text
  assert "played in Hopper-v4" in text and "environment not known yet" in text
  (both,) = _groups(five, late)
  assert both.task == "halfcheetah-expert" and len(both.runs) == 2, (
    "it is taken for one more seed while nothing speaks against it"
  )


def _learnt_from(folder, version):
  version = {"version": version, "fingerprint": "0" * 16}
  (folder / "datasets.json").write_text(json.dumps({"halfcheetah-expert": version}))
  return folder


def test_runs_of_different_versions_of_a_dataset_are_not_seeds_of_one_method(tmp_path):
  first = _learnt_from(_make(tmp_path / "first", 0), "1.0.0")
  second = _learnt_from(_make(tmp_path / "second", 1), "1.0.1")
  going = _learnt_from(_make(tmp_path / "going", 2, finished=False), "1.0.1")
  old = _make(tmp_path / "old", 3)
  (both,) = _groups(second, going)
  assert both.task == "halfcheetah-expert" and len(both.runs) == 2
  assert "1.0.1" not in _page(tmp_path, second, going).text, "it is no difference"
  assert len(_groups(first, old)) == 1, "nothing speaks against it"
  found = _groups(first, second, going, old)
  assert [(group.method, group.task, len(group.runs)) for group in found] == [
    ("made_up", "halfcheetah-expert/1.0.0", 1),
    ("made_up", "halfcheetah-expert/1.0.1", 2),
    ("made_up", "halfcheetah-expert", 1),
  ]
  assert "halfcheetah-expert/1.0.1" in _page(tmp_path, first, second).text


def test_versions_of_the_environments_package_are_told(tmp_path):
  folders = [_make(tmp_path / str(seed), seed) for seed in (0, 1)]
  for folder, version in zip(folders, ("1.1.1", "1.2.5"), strict=True):
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "versions": {"envpool": version}}))
  assert "HalfCheetah-v5, EnvPool 1.1.1 and 1.2.5" in _page(tmp_path, *folders).text


def test_names_say_what_tells_runs_of_an_agent_apart(tmp_path):
  folders = [_make(tmp_path / f"{x}-{task}", batch=x, dataset=task) for x in (8, 16) for task in ("a/1.0.0", "b/1.0.0")]
  found = _groups(*folders)
  assert [(g.method, g.task, g.place) for g in found] == [
    ("made_up, batch=8", "a/1.0.0", 0),
    ("made_up, batch=16", "a/1.0.0", 1),
    ("made_up, batch=8", "b/1.0.0", 0),
    ("made_up, batch=16", "b/1.0.0", 1),
  ]
  folders = [_make(tmp_path / f"c{y}", dataset="c", x=x, y=y) for x, y in ((0, 0), (0, 1), (1, 2))]
  assert [group.method for group in _groups(*folders)] == ["made_up, y=0", "made_up, y=1", "made_up, y=2"]
  many = [_make(tmp_path / f"many{x}", **{f"field{i}": 0 for i in range(9)}, last=x) for x in (0, 1)]
  many += [_make(tmp_path / "many2", **{f"field{i}": 1 for i in range(9)}, last=0)]
  names = [group.method for group in _groups(*many)]
  assert len(set(names)) == 3 and max(map(len, names)) < 60


def test_unfinished_runs_are_shown_as_such_and_not_scored(tmp_path):
  rows = [{"step": 100, "seconds": 9.0, "train/loss": 1.0}]
  first, second = _make(tmp_path / "a", 0), _make(tmp_path / "b", 1, finished=False, log=rows)
  (group,) = _groups(first, second)
  assert scores.returns(group).mean == 9412.0
  content = _page(tmp_path, first, second)
  text = content.text
  assert content.count("path", "few") == 1 and content.count("path", "curve") == 1
  for words in (
    "2 runs · 1 of them not finished",
    "No evaluation in the log (yet): b.",
    "1 of 2 4 9,412",
    "1 of 2 runs finished b: at update 100 of 400",
    "Dotted: not all seeds are there.",
  ):
    assert words in text, words
  (second / "diverged.json").write_text('{"step": 120}')
  assert progress.state(run.read(second)) == "diverged at update 120 of 400"
  # More updates were asked for since the result.
  longer = make(tmp_path / "c", _config(steps=800))
  assert progress.state(run.read(longer)) == "at update 400 of 800" and not progress.parts(run.read(longer))


def test_nothing_is_finished(tmp_path):
  text = _page(tmp_path, _make(tmp_path / "a", finished=False, log=[{"step": 100, "train/loss": 1.0}])).text
  assert "Nothing was evaluated (yet)." in text or "No run of this task is finished and scored yet." in text
  assert "0 of 1" in text and "not finished a: at update 100 of 400" in text


def test_only_what_differs_is_in_the_table(tmp_path):
  a = _make(tmp_path / "a", 0, batch_size=32, where=None)
  b = _make(tmp_path / "b", 3, batch_size=64)
  (b / "result.json").write_text(
    json.dumps({**RESULT, "versions": {"jax": "0.11.2"}, "git_commit": "f" * 40 + "-dirty"})
  )
  text = _page(tmp_path, a, b).text
  differs = text[text.index("What differs") : text.index("The same in all runs")]
  assert (
    "seed 0 3 batch_size 32 64 Made with commit b2c66081d2f3 ffffffffffff (with changes) jax 0.10.0 0.11.2" in differs
  )
  assert "learning_rate" not in differs and "where" not in differs
  assert "agent.learning_rate 0.0003" in text[text.index("The same in all runs") :]
  same = _page(tmp_path, a, _make(tmp_path / "c", 1, batch_size=32)).text
  assert "Field made_up seed 0, 1 " in same


def test_videos_one_of_every_group_and_no_more_than_a_page_holds(tmp_path, monkeypatch):
  folders = [_make(tmp_path / name, seed, agent=name[0]) for name, seed in (("a0", 0), ("a1", 1), ("b0", 0), ("c0", 0))]
  for folder in folders[:3]:
    record(folder / "episode.mp4")
  content = _page(tmp_path, *folders)
  shown = [a for t, a in content.elements if t == "video"]
  assert [base64.b64decode(a["src"].split(",")[1]) for a in shown] == [
    (folders[i] / "episode.mp4").read_bytes() for i in (0, 2)
  ]
  assert "1 other video in the folders of the other seeds" in content.text
  assert "No video of C on halfcheetah-expert." in content.text
  monkeypatch.setattr(videos, "MAX_BYTES", (folders[0] / "episode.mp4").stat().st_size + 1)
  content = _page(tmp_path, *folders)
  assert content.count("video") == 1
  assert f"open {folders[2] / 'episode.mp4'}." in content.text
  monkeypatch.setattr(run, "MAX_VIDEO_BYTES", 10)
  assert "this page may embed; open it from the run folder." in _page(tmp_path, *folders).text


def test_statistics_over_tasks(tmp_path):
  for task in ("one", "two"):
    for seed in (0, 1):
      _make(tmp_path / "s" / f"a{task}{seed}", seed, dataset=task)
      _make(tmp_path / "s" / f"b{task}{seed}", seed, dataset=task, agent="other", shift=-4896.5)
  _make(tmp_path / "s" / "conly", 0, dataset="one", agent="third")
  text = _page(tmp_path, tmp_path / "s").text
  # Returns of 9412 and 9512, normalised; the others 50 lower: by pairs always worse.
  one, two = 100 * 9693 / 9793, 100.0
  assert "Over 2 tasks" in text
  assert re.search(rf"made_up 4 {(one + two) / 2:.1f} [\d.]+ to [\d.]+ {(one + two) / 2:.1f}", text)
  assert "made_up 1.00 1.00 to 1.00 — other".replace(" — ", " ") in text
  assert "Left out, so that all have the same tasks, or for want of a normalised score: third on one." in text
  assert "Performance profiles" in text


def test_one_seed_a_task_has_no_intervals(tmp_path):
  for task in ("one", "two"):
    _make(tmp_path / "s" / f"a{task}", 0, dataset=task)
    _make(tmp_path / "s" / f"b{task}", 0, dataset=task, agent="other", shift=-4896.5)
  text = _page(tmp_path, tmp_path / "s").text
  assert "One seed a task: no intervals." in text and "bands: 95 %" not in text
  assert "made_up 1.00 other" in text.replace(" — ", " ")
  _make(tmp_path / "s" / "more", 1, dataset="one")
  text = _page(tmp_path, tmp_path / "s").text
  assert "What has one seed does not widen them: they are too narrow." in text and "bands: 95 %" in text


def test_the_most_that_is_complete_is_compared():
  assert over_tasks._complete({("a", "x"): 1, ("a", "y"): 1, ("b", "x"): 1, ("c", "x"): 1}) == (["a", "b", "c"], ["x"])
  assert over_tasks._complete({("a", "x"): 1, ("b", "y"): 1}) == (["a"], ["x"])
  assert over_tasks._complete({(m, t): 1 for m in "ab" for t in "xy"} | {("c", "x"): 1}) == (["a", "b"], ["x", "y"])


def test_without_an_environment(tmp_path):
  log = [{"step": 100 * i, "eval/heldout_mean_absolute_error": 0.15 / i} for i in range(1, 5)]
  result = {**RESULT, **UNPLAYED, "heldout": CONTINUOUS}
  folders = [make(tmp_path / str(s), _config(seed=s, env_id="none"), {**result, "seed": s}, log) for s in (0, 1)]
  text = _page(tmp_path, *folders).text
  for words in (
    "Mean absolute error on held-out actions",
    "halfcheetah-expert no environment 2",
    "0.0375 0.0375 to 0.0375",
  ):
    assert words in text, words
  for words in ("Mean return 9", "Episodes None", "No evaluation", "Normalised:"):
    assert words not in text


def test_success_is_shown_where_it_is_known(tmp_path):
  folder = _make(tmp_path / "a")
  assert "Success" not in _page(tmp_path, folder).text
  (folder / "result.json").write_text(json.dumps({**RESULT, "success_rate": 0.875}))
  assert "Success" in _page(tmp_path, folder).text and "87.5 %" in _page(tmp_path, folder).text


def test_what_comes_from_files_is_escaped(tmp_path):
  config = _config(ATTACK, ATTACK, ATTACK, **{ATTACK: ATTACK, "env_id": ATTACK, "env_kwargs": ATTACK})
  result = {**RESULT, "versions": {ATTACK: ATTACK, "envpool": ATTACK}, "git_commit": ATTACK, "env_id": ATTACK}
  a = make(tmp_path / "a", config, {**result, "env_kwargs": {ATTACK: ATTACK}, "devices": [ATTACK]})
  b = make(tmp_path / "<script>alert(1)<", {**config, ATTACK: "other"}, None, [{"step": 1, "train/loss": 1.0}])
  for folder in (a, b):
    record(folder / "episode.mp4")
  source = _source(tmp_path, a, b)
  assert_self_contained(source)
  assert "<script" not in source and "<img" not in source
  assert "<script>alert(1)</script>" in Page(source).text


def test_errors_name_what_is_wrong_and_leave_the_page_there_is(tmp_path):
  good, output = _make(tmp_path / "good"), tmp_path / "compare.html"
  output.write_text("earlier")
  (tmp_path / "empty").mkdir()
  no_config, no_log = make(tmp_path / "x", config=None), make(tmp_path / "y", log=None)
  damaged = make(tmp_path / "z")
  (damaged / "config.json").write_text("[")
  for bad, problem in (
    (tmp_path / "nowhere", "nowhere: no such folder"),
    (tmp_path / "empty", "empty: holds no runs"),
    (no_config, r"x: no config\.json here"),
    (no_log, r"y: no log\.jsonl here"),
    (damaged, r"z/config\.json: not valid JSON"),
    (tmp_path, r"x: no config\.json here"),
  ):
    with pytest.raises((FileNotFoundError, ValueError), match=problem):
      write_comparison([good, bad], output)
  with pytest.raises(ValueError, match=r"--output=.*config\.json: must end in \.html"):
    write_comparison([good], good / "config.json")
  with pytest.raises(NotADirectoryError, match="--output"):
    write_comparison([good], tmp_path / "no" / "compare.html")
  assert output.read_text() == "earlier"
  assert not list(tmp_path.glob("*.tmp"))


def test_runs_in_a_folder_that_have_not_begun_are_shown(tmp_path):
  _make(tmp_path / "sweep" / "a")
  make(tmp_path / "sweep" / "deeper", _config("late"), None, None)
  make(tmp_path / "sweep" / "a" / "checkpoints")  # what is in a run folder is no run
  text = _page(tmp_path, tmp_path / "sweep").text
  assert "2 runs · 1 of them not finished" in text and "deeper: not begun" in text


def test_groups_without_an_environment_have_their_likeness_for_programs(tmp_path):
  config = {**CONFIG, "env_id": "none"}
  folders = [
    make(tmp_path / str(seed), {**config, "seed": seed}, {**RESULT, **UNPLAYED, "heldout": about})
    for seed, about in enumerate((DISCRETE, {**DISCRETE, "accuracy": 0.25}))
  ]
  (group,) = _groups(*folders)
  told = json.loads(json.dumps(scores.as_json(group)))
  assert told["return_mean"] is None
  assert told["heldout"] == {
    **{"split": "train[90%:]", "episodes": 3, "transitions": 120, "commonest_share": 0.625},
    **{"accuracy": 0.5, "accuracy_ci95": list(scores.heldout(group, "", "accuracy").band)},
    **{"balanced_accuracy": 0.5, "balanced_accuracy_ci95": [0.5, 0.5]},
  }
  (alone,) = _groups(folders[0])
  assert scores.as_json(alone)["heldout"]["accuracy"] == 0.75
  assert "accuracy_ci95" not in scores.as_json(alone)["heldout"]
  (played,) = _groups(_make(tmp_path / "played"))
  assert scores.as_json(played)["heldout"] is None


def test_command_line(tmp_path):
  def report(*words):
    command = [sys.executable, "-m", "experiments.report", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)

  a, b, output = _make(tmp_path / "a"), _make(tmp_path / "b", 1), tmp_path / "both.html"
  both = report(a, b, f"--output={output}")
  assert (both.returncode, both.stdout, both.stderr) == (0, f"{output}\n", "") and output.exists()
  told = report(a, b, f"--output={output}", "--json")
  found = json.loads(told.stdout)
  assert found["output"] == str(output) and len(found["groups"]) == 1
  group = found["groups"][0]
  assert (group["seeds"], group["return_mean"], group["runs"][str(a)]) == (2, 9462.0, "finished")
  one = report(a)
  assert one.stdout == f"{a / 'report.html'}\n"
  for words, code, problem in (
    ((a, f"--workdir={b}"), 2, "not both"),
    ((), 2, "name one or more run folders"),
    ((a, "--output=x.html"), 1, "leave the flag out"),
    ((a, tmp_path / "c"), 1, "error: "),
    ((a, "--outptu=x.html"), 2, "unknown flag --outptu; did you mean --output?"),
  ):
    ended = report(*words)
    assert ended.returncode == code and problem in ended.stderr and "Traceback" not in ended.stderr


JSON = (
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
)
REALISTIC = st.floats(-1e12, 1e12) | st.integers(0, 3) | st.lists(st.floats(-1e6, 1e6), max_size=3)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_run_folders_make_a_valid_page(tmp_path, data):
  value = JSON | REALISTIC
  result = st.fixed_dictionaries({}, optional={**{key: value for key in RESULT}, "heldout": value, "seeds": value})
  part = st.fixed_dictionaries({}, optional={key: value for key in RESULT})
  keys = ("train/loss", "eval/return_mean", "eval/return_ci95", "eval/return_mean/seed1", "eval/heldout_accuracy")
  row = st.fixed_dictionaries({"step": st.integers(0, 10**7)}, optional={key: value for key in keys})
  config = st.fixed_dictionaries({}, optional={**{key: value for key in CONFIG}, "seeds": value, "env_id": value})
  folders = []
  for name in ("a", "b", "c"):
    own = data.draw(result | st.just(RESULT)) | data.draw(
      st.fixed_dictionaries({}, optional={"per_seed": st.lists(part)})
    )
    folders.append(make(tmp_path / name, data.draw(config), own, data.draw(st.lists(row, max_size=4))))
  source = _source(tmp_path, *folders)
  assert_self_contained(source)
  for _, attributes in Page(source).elements:
    for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "d"):
      assert not re.search("nan|inf|e[+-]", attributes.get(name) or "")


def test_chromium_shows_it_without_scrolling_sideways(tmp_path):
  sweep = _sweep(tmp_path)
  record(sweep / "a-seed0" / "episode.mp4")
  _make(sweep / f"long-{'name' * 10}", dataset=f"/data/{'somewhere' * 5}/x", agent="n" * 60, note="w" * 200)
  write_comparison([sweep], tmp_path / "compare.html")
  with Browser(tmp_path / "profile") as browser:
    for width, dark in ((1280, False), (390, False), (390, True)):
      seen = browser.look(tmp_path / "compare.html", width, dark)
      assert seen.complaints == []
      assert seen.width <= seen.window == width
      assert len(seen.picture) > 50_000

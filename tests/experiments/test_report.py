import base64
import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report_pages import (
  ATTACK,
  BUTTONS,
  CONFIG,
  CONTINUOUS,
  DISCRETE,
  LOG,
  RESULT,
  UNPLAYED,
  Page,
  assert_self_contained,
  make,
  page,
  record,
)

from experiments.report import details, facts, run, write_report


def test_whole_run(tmp_path):
  folder = make(tmp_path)
  record(folder / "episode.mp4")
  path = write_report(folder)
  assert path == folder / "report.html"
  assert not list(folder.glob("*.tmp"))
  source = path.read_text(encoding="utf-8")
  assert "http:" not in source
  assert "https:" not in source
  assert "//" not in re.sub(r"base64,[^\"]*", "", source)
  assert_self_contained(source)
  content = Page(source)
  for words in ("BC on halfcheetah-expert", "9,412", "95 % interval 9,301 to 9,498", "2 min 14 s", "jax", "256"):
    assert words in content.text
  # (9412 + 281) / (9512 + 281)
  assert "99.0" in content.text
  assert "100 (1.1 %) below the expert's, which its 95 % interval excludes." in content.text
  assert content.count("circle", "dot") == 4
  assert content.count("path", "band") == 1
  assert content.count("path", "curve") == 2
  assert {"policy", "expert", "data", "random"} <= {a.get("class") for t, a in content.elements if t == "tr"}
  charts = [a for t, a in content.elements if t == "svg" and a.get("role") == "img"]
  assert len(charts) == 3
  assert all(a["aria-label"] for a in charts)
  assert "Mean return 2,000 at 100 updates, 8,000 at 400; best 8,000" in [a["aria-label"] for a in charts]
  config = next(i for i, w in enumerate(content.words) if w == "Config")
  assert "agent.learning_rate" in content.words[config:]
  assert all("open" not in a for t, a in content.elements if t == "details")


def test_the_datasets_version_is_told(tmp_path):
  assert "1.0.1" not in page(make(tmp_path)).text
  version = {"version": "1.0.1", "fingerprint": "0" * 16}
  (tmp_path / "datasets.json").write_text(json.dumps({RESULT["dataset"]: version}))
  assert "Dataset halfcheetah-expert/1.0.1 Episodes" in page(tmp_path).text
  (tmp_path / "datasets.json").write_text("[")
  with pytest.raises(ValueError, match=r"datasets.json is damaged \(.*\); put it back, or remove it"):
    page(tmp_path)


@pytest.mark.parametrize(
  ("dataset", "versions", "found"),
  [
    ("game", {"game": "1.0.1"}, "game/1.0.1"),
    ("game", {}, "game"),
    ("game/1.0.1", {"game/1.0.1": "1.0.1"}, "game/1.0.1"),
    ("a=0.7, b=0.3", {"a": "1.0.0", "b": "2.0.0"}, "a/1.0.0=0.7,b/2.0.0=0.3"),
    ("a,b/1.0.0", {"a": "1.2.0", "b/1.0.0": "1.0.0"}, "a/1.2.0,b/1.0.0"),
    ("/data/a,b=c", {"/data/a,b=c": "1.0.0"}, "/data/a,b=c/1.0.0"),
  ],
)
def test_words_on_data_with_versions(dataset, versions, found):
  assert facts.versioned(dataset, versions) == found


def test_run_without_an_environment(tmp_path):
  log = [{"step": 100 * i, "train/loss": 1 / i, "eval/heldout_mean_absolute_error": 0.15 / i} for i in range(1, 5)]
  content = page(make(tmp_path, result={**RESULT, **UNPLAYED, "heldout": CONTINUOUS}, log=log))
  for words in (
    "off by 0.0375 on average over 2,500 transitions of 10 held-out episodes (val) and explain 87.5 %",
    "Mean absolute error 0.0375 on held-out actions",
    "Every dimension",
    "mapped into memory",
  ):
    assert words in content.text
  for words in ("Return", "Normalised", "No video", "Random"):
    assert words not in content.text.split("Reproduce")[0]
  labels = [a["aria-label"] for t, a in content.elements if t == "svg" and a.get("role") == "img"]
  assert "Mean absolute error 0.15 at 100 updates, 0.0375 at 400" in labels
  # The second dimension never varies.
  assert "0.05 0.064 0 none" in content.text


def test_what_is_worse_than_the_mean_is_said(tmp_path):
  content = page(make(tmp_path, result={**RESULT, **UNPLAYED, "heldout": {**CONTINUOUS, "explained": -0.5}}))
  assert "(val), which is worse than always the mean action." in content.text
  assert "no environment · 400 updates" in content.text


def test_held_out_actions_stand_beside_returns(tmp_path):
  content = page(make(tmp_path, result={**RESULT, "heldout": DISCRETE}))
  for words in ("Return beside the references", "Held-out actions", "Accuracy 75.0 %", "Every action", "45 10.0 %"):
    assert words in content.text


def test_every_button_is_told(tmp_path):
  """A policy that never presses one is as accurate as the button is rare."""
  content = page(make(tmp_path, result={**RESULT, **UNPLAYED, "heldout": BUTTONS}))
  for words in (
    "choices are those made in 87.5 % of 120 transitions of 3 held-out episodes (val), on average; "
    "always the commonest of each would be right in 85.0 %.",
    "Every button",
    "Pressed in the data Recall of presses Accuracy Mean recall of actions Commonest action alone",
    "w 10.0 % 0.0 % 90.0 % 50.0 % 90.0 %",
    "<b> 0.0 % – 100.0 % 100.0 % 100.0 %",  # noqa: RUF001
    "space 35.0 % 40.0 % 72.5 % 60.0 % 65.0 %",
  ):
    assert words in content.text


def test_choices_among_more_than_two_have_no_presses(tmp_path):
  weapon = {"accuracy": 0.5, "commonest_share": 0.4, "actions": {"count": [4, 3, 3], "recall": [0.5, 0.5, 0.5]}}
  told = {"parts": {"pad": {**BUTTONS, "choices": [weapon, BUTTONS["choices"][0]]}}}
  content = page(make(tmp_path, result={**RESULT, **UNPLAYED, "heldout": told}))
  assert "Every choice of pad" in content.text
  assert "0 – – 50.0 % – 40.0 % 1 10.0 %" in content.text, "numbers, where one has no name"  # noqa: RUF001


@pytest.mark.parametrize(
  ("about", "names"),
  [
    (CONTINUOUS, ["stick <x>", "stick y"]),
    (CONTINUOUS, ["x"]),
    (CONTINUOUS, 7),
    (DISCRETE, ["sword", "bow", "axe"]),
    (DISCRETE, ["sword", "bow", 3]),
  ],
)
def test_names_of_dimensions_and_actions_are_shown_where_they_fit(tmp_path, about, names):
  key = "dimensions" if "dimensions" in about else "actions"
  told = {**about, key: about[key] | {"names": names}}
  content = page(make(tmp_path, result={**RESULT, **UNPLAYED, "heldout": told}))
  rows = 2 if key == "dimensions" else 3
  fits = isinstance(names, list) and [type(name) for name in names] == [str] * rows
  first = "0.025 0.03 0.5 90.0 %" if key == "dimensions" else "75 90.0 %"
  assert f"{names[0] if fits else 0} {first}" in content.text


def test_nothing_scored(tmp_path):
  content = page(make(tmp_path, result={**RESULT, **UNPLAYED, "heldout": None}, log=[{"step": 1, "train/loss": 0.125}]))
  assert (
    "Nothing was scored: there is no environment, and no episode was held out. The loss came to 0.125." in content.text
  )
  assert "Held-out" not in content.text
  unfinished = page(make(tmp_path / "b", {**CONFIG, "env_id": "none"}, None, [{"step": 1, "train/loss": 0.125}]))
  assert "Return" not in unfinished.text


def test_video_is_embedded_with_a_poster(tmp_path):
  folder = make(tmp_path)
  record(folder / "episode.mp4")
  video = next(a for t, a in page(folder).elements if t == "video")
  assert base64.b64decode(video["src"].split(",")[1]) == (folder / "episode.mp4").read_bytes()
  assert base64.b64decode(video["poster"].split(",")[1])[:2] == b"\xff\xd8"
  assert "HalfCheetah-v5" in video["aria-label"]
  assert "autoplay" not in video


def test_policy_allows_the_style_sheet_only(tmp_path):
  source = write_report(make(tmp_path)).read_text(encoding="utf-8")
  policy = next(a["content"] for t, a in Page(source).elements if t == "meta" and a.get("http-equiv"))
  style = source[source.index("<style>") + len("<style>") : source.index("</style>")]
  digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
  assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; media-src data:"


def test_values_of_users_are_escaped(tmp_path):
  config = {"agent": {"name": ATTACK, ATTACK: ATTACK}, "dataset": ATTACK, "seed": ATTACK, "list": [ATTACK]}
  result = {
    **RESULT,
    "versions": {ATTACK: ATTACK},
    "git_commit": ATTACK,
    "env_id": ATTACK,
    "agent": ATTACK,
    "dataset": ATTACK,
    "seed": ATTACK,
  }
  folder = make(tmp_path, config, result, [*LOG, {"step": 500, f"train/{ATTACK}": 1.0}])
  record(folder / "episode.mp4")
  source = write_report(folder).read_text(encoding="utf-8")
  assert "<script" not in source
  assert "<img" not in source
  assert_self_contained(source)
  assert "<script>alert(1)</script>" in Page(source).text


def test_command_reproduces_the_config(tmp_path):
  config = {**CONFIG, "note": "it's $HOME; rm -rf"}
  words = shlex.split(details.command(run.read(make(tmp_path, config))).replace("\\\n", " "))
  assert words == [
    "python",
    "-m",
    "experiments.main",
    "--config=experiments/configs/bc.py",
    "--config.agent.name=bc",
    "--config.agent.hidden_sizes=(256, 256)",
    "--config.agent.learning_rate=0.0003",
    "--config.dataset=halfcheetah-expert",
    "--config.steps=400",
    "--config.seed=0",
    "--config.note=it's $HOME; rm -rf",
    "--workdir=runs/reproduced",
  ]


def test_the_command_of_an_agent_of_ones_own_is_known_where_it_was_recorded(tmp_path):
  assert details.command(run.read(make(tmp_path, {**CONFIG, "agent": {"name": "mine:awac"}}))) == ""


def test_versions_are_beside_the_command(tmp_path):
  folder = make(tmp_path)
  assert "It learnt from" not in page(folder).text
  (folder / "datasets.json").write_text('{"halfcheetah-expert": {"version": "1.0.1", "fingerprint": "0"}}')
  assert "It learnt from halfcheetah-expert/1.0.1; where there are newer versions" in page(folder).text


def test_recorded_command_goes_to_another_folder(tmp_path):
  given = [
    "/usr/bin/python3",
    "-m",
    "experiments.main",
    "--workdir",
    "runs/a b",
    "--config=c.py",
    "--config.note=a --b",
  ]
  for recorded in (given, [*given[:3], "--workdir=runs/x", *given[5:]]):
    folder = make(tmp_path, result={**RESULT, "command": recorded, "git_commit": "abc123-dirty"})
    line = details.command(run.read(folder))
    assert (
      line == "python -m experiments.main --config=c.py \\\n  '--config.note=a --b' \\\n  --workdir=runs/reproduced"
    )
    content = page(folder)
    assert "git checkout abc123 python" in content.text
    assert "The code had changes that are not in this commit." in content.text


def test_command_line(tmp_path):
  command = [sys.executable, "-m", "experiments.report"]
  done = subprocess.run([*command, f"--workdir={make(tmp_path)}"], capture_output=True, text=True)
  assert done.stdout == f"{tmp_path / 'report.html'}\n"
  failed = subprocess.run([*command, "--workdir=/nowhere"], capture_output=True, text=True)
  assert failed.returncode == 1
  assert failed.stderr == "error: /nowhere: no such run folder; name the folder of a run\n"


JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
  lambda leaves: st.lists(leaves, max_size=3) | st.dictionaries(st.text(max_size=8), leaves, max_size=3),
  max_leaves=6,
)
REALISTIC = st.floats(-1e12, 1e12) | st.sampled_from([0.0, 1e-12, 500.0, -281.0]) | st.lists(st.floats(-1e6, 1e6))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_run_folder_makes_a_valid_page(tmp_path, data):
  value = JSON | REALISTIC
  held = st.fixed_dictionaries({}, optional={key: value for key in [*CONTINUOUS, *DISCRETE, *BUTTONS]})
  fields = {**{key: value for key in RESULT}, "heldout": held | JSON}
  seed = st.fixed_dictionaries({}, optional={**fields, "loss": value})
  fields |= {"seeds": st.integers(-1, 3) | value, "per_seed": st.lists(seed | JSON, max_size=3) | JSON}
  result = data.draw(st.fixed_dictionaries({}, optional=fields))
  keys = ["train/loss", "eval/return_mean", "eval/return_ci95", "train/other"]
  keys += ["eval/heldout_accuracy", "eval/heldout_mean_absolute_error", "train/loss/seed0", "eval/return_mean/seed-1"]
  keys += ["eval/heldout_accuracy/seed2", "train/loss/seed"]
  row = st.fixed_dictionaries({"step": st.integers(0, 10**7)}, optional={key: value for key in keys})
  config = data.draw(st.fixed_dictionaries({}, optional={key: value for key in CONFIG}))
  source = write_report(make(tmp_path, config, result, data.draw(st.lists(row, max_size=5)))).read_text("utf-8")
  assert_self_contained(source)
  for _, attributes in Page(source).elements:
    for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "d"):
      assert not re.search("nan|inf|e[+-]", attributes.get(name) or "")


def test_chromium_renders_the_page(tmp_path):
  chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
  if not chromium:
    pytest.skip("no Chromium on this machine")
  folder = make(tmp_path)
  record(folder / "episode.mp4")
  flags = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
  ]
  flags += ["--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
  done = subprocess.run(
    [
      chromium,
      *flags,
      "--window-size=1280,2400",
      f"--screenshot={tmp_path / 'page.png'}",
      write_report(folder).as_uri(),
    ],
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert (tmp_path / "page.png").stat().st_size > 50_000
  assert "Content Security Policy" not in done.stderr
  assert "CONSOLE" not in done.stderr

import base64
import hashlib
import html.parser
import json
import math
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.report import axes, charts, details, run, write_report

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
VOID = {"meta", "link", "img", "br"}

CONFIG = {
  "agent": {"name": "bc", "hidden_sizes": [256, 256], "learning_rate": 3e-4, "schedule": None},
  "dataset": "halfcheetah-expert",
  "steps": 400,
  "seed": 0,
}
RESULT = {
  "env_id": "HalfCheetah-v5",
  "episodes": 4,
  "return_mean": 9412.0,
  "return_std": 110.0,
  "return_ci95": [9301.0, 9498.0],
  "return_iqm": 9420.0,
  "return_iqm_ci95": [9300.0, 9500.0],
  "normalized_score": 99.0,
  "expert_return": 9512.0,
  "data_return": 9480.0,
  "random_return": -281.0,
  "returns": [9300.0, 9400.0, 9450.0, 9498.0],
  "lengths": [1000, 1000, 1000, 1000],
  "steps": 400,
  "updates_per_second": 2143.2,
  "seconds": 134.2,
  "seed": 0,
  "versions": {"jax": "0.10.0"},
  "git_commit": "b2c66081d2f3",
  "agent": "bc",
  "dataset": "halfcheetah-expert",
}
LOG = [
  {"step": 100 * i, "train/loss": 0.5 / i, "eval/return_mean": 2000.0 * i, "eval/return_ci95": [1900.0 * i, 2100.0 * i]}
  for i in range(1, 5)
]


class Page(html.parser.HTMLParser):
  """Elements of a page; fails on tags that are not closed in order."""

  def __init__(self, source: str):
    super().__init__()
    self.elements: list[tuple[str, dict[str, str | None]]] = []
    self.words: list[str] = []
    self._open: list[str] = []
    self.feed(source)
    self.close()
    assert not self._open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in VOID:
      self._open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    if "style" not in self._open:
      self.words.append(data)

  @property
  def text(self) -> str:
    return re.sub(r"\s+", " ", " ".join(self.words))

  def count(self, tag: str, kind: str | None = None) -> int:
    return sum(t == tag and (kind is None or kind in (a.get("class") or "").split()) for t, a in self.elements)


def make(folder: pathlib.Path, config=CONFIG, result=RESULT, log=LOG) -> pathlib.Path:
  folder.mkdir(exist_ok=True)
  for name, value in (("config.json", config), ("result.json", result)):
    if value is not None:
      (folder / name).write_text(json.dumps(value))
  if log is not None:
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
  return folder


def page(folder: pathlib.Path) -> Page:
  return Page(write_report(folder).read_text(encoding="utf-8"))


def record(path: pathlib.Path) -> None:
  with av.open(str(path), "w") as container:
    stream = container.add_stream("h264", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for i in range(5):
      frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * i, np.uint8), format="rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def assert_self_contained(source: str) -> None:
  for tag, attributes in Page(source).elements:
    assert tag not in {"script", "iframe", "object", "embed", "form", "base"}
    for name, value in attributes.items():
      assert not name.startswith("on")
      # The page's own policy refuses style attributes.
      assert name != "style"
      if name in {"src", "href", "poster", "srcset", "data", "action", "xlink:href"}:
        assert value.startswith("data:")
  style = source[source.index("<style>") : source.index("</style>")]
  assert "url(" not in style
  assert "@import" not in style


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


@pytest.mark.parametrize(
  ("change", "sentence"),
  [
    ({"expert_return": None}, "Not known for this run: the return of the expert."),
    ({"expert_return": None, "data_return": None, "random_return": None}, "nothing to be measured against"),
    ({"random_return": None}, "needs the expert's and the random return"),
    ({"expert_return": 10**400}, "Not known for this run: the return of the expert."),
    ({"git_commit": "\udc80"}, "git checkout"),
    ({"expert_return": math.nan}, "Not known for this run: the return of the expert."),
    ({"return_mean": 9512.0}, "The policy's mean return equals the expert's."),
    ({"return_ci95": [9301.0, 9600.0]}, "which its 95 % interval includes."),
    ({"return_ci95": None}, "95 % interval not recorded"),
    ({"return_mean": -300.0}, "no better than a random policy"),
    ({"returns": [500.0] * 4}, "All 4 episodes returned 500."),
    ({"returns": [1.0, math.nan, 3.0, 4.0]}, "1 returns are not finite and are left out."),
    ({"returns": None}, "The returns of the episodes are not recorded."),
    ({"lengths": [1000] * 4}, "All 4 episodes are 1,000 steps long."),
    ({"lengths": [10, 20, 30, 60]}, "from 10 to 60, mean 30.0."),
    ({"steps": 300}, "The run stopped at update 300 of 400."),
    ({"seconds": None, "updates_per_second": None}, "speed not recorded"),
  ],
)
def test_what_is_missing_or_odd_is_said(tmp_path, change, sentence):
  assert sentence in page(make(tmp_path, result={**RESULT, **change})).text


def test_references_far_from_the_returns_do_not_squeeze_the_histogram(tmp_path):
  content = page(make(tmp_path))
  assert "Random (−281) is off to the left." in content.text  # noqa: RUF001
  assert "Expert (9,512) is off" not in content.text


def test_no_video(tmp_path):
  assert "No video was recorded." in page(make(tmp_path)).text


def test_damaged_video(tmp_path):
  folder = make(tmp_path)
  (folder / "episode.mp4").write_bytes(b"not a video")
  content = page(folder)
  assert "the file is damaged" in content.text
  assert content.count("video") == 0


def test_huge_video_is_not_embedded(tmp_path, monkeypatch):
  folder = make(tmp_path)
  record(folder / "episode.mp4")
  monkeypatch.setattr(run, "MAX_VIDEO_BYTES", 100)
  content = page(folder)
  assert "open it from the run folder" in content.text
  assert content.count("video") == 0


def test_one_evaluation(tmp_path):
  content = page(make(tmp_path, log=LOG[:1]))
  assert "One evaluation only" in content.text
  assert content.count("line", "whisker") == 1
  assert content.count("path", "band") == 0


def test_losses_that_are_not_finite_leave_gaps(tmp_path):
  log = [{"step": i, "train/loss": None if i in (3, 4) else 1.0 + i} for i in range(1, 8)]
  content = page(make(tmp_path, log=log))
  assert "Not finite at 2 of 7 logged steps, first at update 3." in content.text
  assert content.count("path", "curve") == 2
  never = page(make(tmp_path, log=[{"step": 1, "train/loss": None}]))
  assert "train/loss was never finite." in never.text


def test_damaged_and_repeated_log_lines(tmp_path):
  folder = make(tmp_path)
  with open(folder / "log.jsonl", "a") as file:
    file.write('{"step": 400, "train/loss": 7.0}\n[1]\n{"step": 500, "train/lo')
  series, broken = run.read_log(folder / "log.jsonl")
  assert broken == 2
  assert series["train/loss"] == run.Series([100, 200, 300, 400], [0.5, 0.25, 0.5 / 3, 7.0])
  assert "2 damaged line(s) of log.jsonl" in page(folder).text


def test_unfinished_run(tmp_path):
  content = page(make(tmp_path, result=None))
  assert "This run has no result yet" in content.text
  assert content.count("path", "curve") == 2


def test_result_alone(tmp_path):
  content = page(make(tmp_path, config=None, log=None))
  for sentence in ("No evaluation was logged", "No training loss was logged", "the command is not known"):
    assert sentence in content.text


def test_long_logs_keep_their_spikes(tmp_path):
  log = [{"step": i, "train/loss": 5.0 if i == 7777 else 1.0} for i in range(1, 20001)]
  source = write_report(make(tmp_path, log=log)).read_text()
  assert len(source) < 60_000
  curve = re.search(r'class="curve"[^>]* d="M([^"]*)"', source).group(1)
  heights = sorted({float(point.split()[1]) for point in curve.split("L")})
  # The spike alone is near the top, all else near the bottom; each has a margin of 5 % of the range.
  assert heights == pytest.approx([5 / 1.1, 100 - 5 / 1.1], abs=0.02)
  assert sum(float(point.split()[1]) < 50 for point in curve.split("L")) == 1
  assert curve.count("L") < 700


def test_axes():
  axis = axes.tight(-100, 300, count=4)
  assert axis.ticks == [(-100, "−100"), (0, "0"), (100, "100"), (200, "200"), (300, "300")]  # noqa: RUF001
  assert [axis.percent(v) for v in (-100, 0, 300)] == [0, 25, 100]
  assert [label for _, label in axes.tight(0, 1.2e6, count=4).ticks] == ["0", "0.5M", "1.0M"]
  assert [label for _, label in axes.tight(0, 40_000, count=4).ticks] == ["0", "10k", "20k", "30k", "40k"]
  log = axes.logarithmic([0.02, 0.5])
  assert [label for _, label in log.ticks] == ["0.01", "0.1", "1"]
  assert log.percent(0.1) == pytest.approx(50)


def test_bins():
  assert charts.bins([500.0, 500.0]) == [490, 510]
  edges = charts.bins([float(i) for i in range(101)])
  assert np.allclose(edges, np.arange(0, 101, 20))
  skewed = charts.bins([0.0, *[1000.0 + 0.01 * i for i in range(99)]])
  assert len(skewed) - 1 <= 30


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


def test_errors_name_the_file(tmp_path):
  with pytest.raises(FileNotFoundError, match="no such run folder"):
    write_report(tmp_path / "absent")
  with pytest.raises(FileNotFoundError, match=r"no config\.json, log\.jsonl or result\.json"):
    write_report(tmp_path)
  folder = make(tmp_path)
  (folder / "report.html").write_text("earlier")
  (folder / "result.json").write_text('{"env_id": ')
  with pytest.raises(ValueError, match=r"result\.json: not valid JSON"):
    write_report(folder)
  (folder / "result.json").write_text("[]")
  with pytest.raises(ValueError, match=r"result\.json: must hold a JSON object, got list"):
    write_report(folder)
  assert (folder / "report.html").read_text() == "earlier"


def test_command_line(tmp_path):
  command = [sys.executable, "-m", "experiments.report"]
  done = subprocess.run([*command, f"--workdir={make(tmp_path)}"], capture_output=True, text=True)
  assert done.stdout == f"{tmp_path / 'report.html'}\n"
  failed = subprocess.run([*command, "--workdir=/nowhere"], capture_output=True, text=True)
  assert failed.returncode == 1
  assert failed.stderr == "error: /nowhere: no such run folder; --workdir must name the folder of a run\n"


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
  result = data.draw(st.fixed_dictionaries({}, optional={key: value for key in RESULT}))
  keys = ["train/loss", "eval/return_mean", "eval/return_ci95", "train/other"]
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

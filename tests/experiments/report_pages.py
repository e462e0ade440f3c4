"""Run folders to report on, and a reader of the pages."""

import html.parser
import json
import pathlib
import re

import av
import numpy as np

from experiments.report import write_report

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
# Of runs without an environment: what was compared with held-out actions, continuous and discrete.
UNPLAYED = {key: None for key in RESULT if "return" in key or key in ("env_id", "episodes", "lengths")}
UNPLAYED |= {"normalized_score": None, "loss": 0.125, "tier": "mapped"}
CONTINUOUS = {
  "split": "val",
  "episodes": 10,
  "transitions": 2500,
  "mean_absolute_error": 0.0375,
  "root_mean_squared_error": 0.05,
  "explained": 0.875,
  "dimensions": {
    "mean_absolute_error": [0.025, 0.05],
    "root_mean_squared_error": [0.03, 0.064],
    "explained": [0.9, None],
    "std": [0.5, 0.0],
  },
}
DISCRETE = {
  "split": "train[90%:]",
  "episodes": 3,
  "transitions": 120,
  "accuracy": 0.75,
  "balanced_accuracy": 0.5,
  "commonest_share": 0.625,
  "actions": {"count": [75, 45, 0], "recall": [0.9, 0.1, None]},
}
# Of three buttons: one pressed in a tenth of the steps and never by the policy, one never pressed, one without a name.
BUTTONS = {
  "split": "val",
  "episodes": 3,
  "transitions": 120,
  "accuracy": 0.875,
  "balanced_accuracy": 0.7,
  "all_right": 0.6,
  "commonest_share": 0.85,
  "choices": [
    {
      "name": name,
      "accuracy": accuracy,
      "balanced_accuracy": balanced,
      "commonest_share": max(count) / 120,
      "actions": {"count": count, "recall": recall},
    }
    for name, accuracy, balanced, count, recall in (
      ("w", 0.9, 0.5, [108, 12], [1.0, 0.0]),
      ("<b>", 1.0, 1.0, [120, 0], [1.0, None]),
      ("space", 0.725, 0.6, [78, 42], [0.8, 0.4]),
    )
  ],
}
# Of a run of three seeds.
SEEDS = {key: value for key, value in RESULT.items() if key not in ("returns", "lengths")}
SEEDS |= {"seed": 4, "seeds": 3, "return_ci95": [9000.0, 9800.0]}
SEEDS["per_seed"] = [
  {
    "seed": 4 + i,
    "episodes": 4,
    "return_mean": 9312.0 + 100 * i,
    "return_ci95": [9300.0 + 100 * i, 9400.0 + 100 * i],
    "expert_return": 9512.0,
    "random_return": -281.0,
    "returns": [9300.0 + 100 * i, 9312.0 + 100 * i, 9320.0 + 100 * i, 9316.0 + 100 * i],
    "lengths": [1000, 1000, 1000, 900 + i],
    "heldout": CONTINUOUS | {"mean_absolute_error": 0.0125 * (i + 1)},
    "loss": 0.25 + i,
  }
  for i in range(3)
]
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

"""Actions of several parts: described, validated and cleaned."""

import json
import pathlib
import sys

import numpy as np
import pytest
from robots import FLAG, Feature, episode, with_fields, write

from experiments.data import __main__ as tool
from experiments.data.describe import describe
from experiments.data.validate import validate
from ilx.data import rlds

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from report_pages import ATTACK, Page, assert_self_contained

FOUND = with_fields(
  action={
    "stick": Feature("tensor", (2,), np.dtype(np.float32)),
    "jump": FLAG,
    "weapon": Feature("tensor", (), np.dtype(np.int32)),
  }
)
BOUNDS = {"action_low": {"stick": [-1, -1]}, "action_high": {"stick": [1, 1]}, "num_actions": {"weapon": 3}}


def parted(seed, idle=0):
  """A record that stands still for its first ``idle`` transitions, with the third weapon in hand."""
  record = episode(seed, 8)
  stick = record.pop("steps/action")
  place = np.arange(9)
  record |= {"steps/action/stick": stick, "steps/action/jump": place % 2 == 1, "steps/action/weapon": place % 3}
  if idle:
    for name in ("observation/state", "observation/image", "action/stick", "action/jump", "action/weapon"):
      record[f"steps/{name}"][:idle] = [record[f"steps/{name}"][idle]] * idle
    record["steps/reward"][:idle] = 0
    record["steps/action/weapon"][: idle + 1] = 2
    record["steps/action/stick"][: idle + 1] = record["steps/action/jump"][: idle + 1] = 0
  return record


def test_good_parts_have_no_problems(tmp_path):
  directory = write(tmp_path, {"train": [[parted(0), parted(1)]]}, metadata=BOUNDS, found=FOUND)
  assert validate(directory).problems.kept == []
  card, _ = describe(directory)
  assert [name for name in card["numbers"] if "action" in name] == [
    f"steps/action/{n}" for n in ("jump", "stick", "weapon")
  ]
  assert card["numbers"]["steps/action/stick"]["outside_bounds"] == [0, 0]
  assert not [entry for entry in card["findings"] if entry["field"].startswith("steps/action")]


def test_parts_out_of_their_bounds(tmp_path):
  records = [parted(0), parted(1)]
  records[1]["steps/action/stick"][2] = [0, 1.5]
  records[1]["steps/action/weapon"][5] = 3
  records[1]["steps/action/weapon"][8] = 9  # carries no meaning
  directory = write(tmp_path, {"train": [records]}, metadata=BOUNDS, found=FOUND)
  assert [(p.level, p.kind, p.record, p.step, p.field, p.message) for p in validate(directory).problems.kept] == [
    ("warning", "action out of bounds", 1, 2, "steps/action/stick", "dimension 1 is 1.5, outside [-1, 1]"),
    ("error", "action out of bounds", 1, 5, "steps/action/weapon", "3, outside [0, 2]"),
  ]
  card, _ = describe(directory)
  assert card["numbers"]["steps/action/stick"]["outside_bounds"] == [0, 1]
  told = [(e["level"], e["field"]) for e in card["findings"] if "metadata's bounds" in e["message"]]
  assert sorted(told) == [("warning", "steps/action/stick"), ("warning", "steps/action/weapon")]


def test_a_part_that_never_changes(tmp_path):
  records = [parted(0), parted(1)]
  for record in records:
    record["steps/action/jump"][:8] = False
    record["steps/action/stick"][:, 1] = 0.5
  directory = write(tmp_path, {"train": [records]}, metadata=BOUNDS, found=FOUND)
  assert [(p.level, p.kind, p.field, p.message) for p in validate(directory).problems.kept] == [
    ("warning", "constant action", "steps/action/jump", "it is always 0"),
    ("warning", "constant action", "steps/action/stick", "dimension 1 is always 0.5"),
  ]
  constant = [e["level"] for e in describe(directory)[0]["findings"] if "always" in e["message"]]
  assert constant == ["warning", "warning"]


@pytest.mark.parametrize(
  ("metadata", "message"),
  [
    (
      {"action_low": {"stick": [-1, 1]}, "action_high": {"stick": [1, -1]}},
      "stick: action_low 1 is not below action_h",
    ),
    ({"action_low": {"stick": [-1, -1]}}, "stick: action_low, action_high or num_actions in metadata.json are no bou"),
    ({"num_actions": {"weapon": 0}}, "weapon: num_actions is 0; there must be one at least"),
    ({"num_actions": {"weapon": "many"}}, "weapon: action_low, action_high or num_actions in metadata.json are no b"),
    ({"num_actions": 3}, "the action has several parts: action_low, action_high and num_actions must be dicts of th"),
    ({"num_actions": 3, "action_low": {"stick": [0]}}, "the action has several parts: "),
    (
      {"action_low": {"stick": [-1]}, "action_high": {"stick": [1]}},
      "metadata.json bounds 1 dimensions, the action has",
    ),
  ],
)
def test_bounds_that_do_not_fit_the_parts(tmp_path, metadata, message):
  directory = write(tmp_path, {"train": [[parted(0)]]}, metadata=metadata, found=FOUND)
  (problem,) = validate(directory).problems.kept
  assert (problem.level, problem.kind) == ("error", "metadata")
  assert message in problem.message


def test_parts_are_trimmed_and_clipped(tmp_path):
  record = parted(0, idle=3)
  record["steps/action/stick"][5] = [3, -2]
  old = write(tmp_path / "old", {"train": [[record, parted(1)]]}, metadata=BOUNDS, found=FOUND)
  assert tool.main(["clean", str(old), f"--root={tmp_path / 'new'}", "--drop_idle_start", "--clip_actions"]) == 0
  new = tmp_path / "new" / "robots-clean" / "1.0.0"
  (_, _, first), (_, _, second) = rlds.read_episodes(rlds.read_info(new), "train")
  action = first["steps"]["action"]
  np.testing.assert_array_equal(action["stick"], np.clip(record["steps/action/stick"][3:], -1, 1))
  assert action["stick"].dtype == np.float32 and action["jump"].dtype == bool
  np.testing.assert_array_equal(action["weapon"], record["steps/action/weapon"][3:])
  assert len(second["steps"]["reward"]) == 9
  log = [json.loads(line) for line in (new / "clean.jsonl").read_text().splitlines()]
  assert [(e["episode"], e["what"], e.get("values", e.get("steps"))) for e in log] == [
    (0, "trimmed", 3),
    (0, "clipped", 2),
  ]


def test_parts_without_bounds_to_clip_to(tmp_path, capsys):
  metadata = {"num_actions": {"weapon": 3}}
  old = write(tmp_path / "old", {"train": [[parted(0)]]}, metadata=metadata, found=FOUND)
  assert tool.main(["clean", str(old), f"--root={tmp_path / 'new'}", "--clip_actions"]) == 2
  assert "metadata.json gives no action_low and action_high to clip actions to" in capsys.readouterr().err


NAMES = {"stick": ["left", ATTACK], "jump": ["jump"], "weapon": ["sword", "\x1b[31mbow", "axe"]}


def test_names_are_shown(tmp_path, capsys):
  metadata = {**BOUNDS, "action_names": NAMES}
  directory = write(tmp_path, {"train": [[parted(0), parted(1)]]}, metadata=metadata, found=FOUND)
  assert tool.main(["describe", str(directory), f"--html={tmp_path / 'page.html'}"]) == 0
  out = capsys.readouterr().out
  lines = [line.split() for line in out.splitlines()]
  for row in (
    ["0", "left"],
    ["1", ATTACK.split()[0]],
    ["0", "jump"],
    ["action/weapon", "share"],
    ["2", "axe", "25", "%"],
  ):
    assert row in [line[: len(row)] for line in lines]
  assert "\x1b" not in out and "1 \\x1b[31mbow  38 %" in " ".join(out.split(" ")).replace("   ", "  ")
  source = (tmp_path / "page.html").read_text()
  assert_self_contained(source)
  content = Page(source).text
  assert f"Dimension 1 {ATTACK}" in content and "2 axe 25 %" in content and "jump: 0 to 1" in content
  numbers = describe(directory)[0]["numbers"]
  assert numbers["steps/action/weapon"]["choices"] == {"names": NAMES["weapon"], "share": [0.375, 0.375, 0.25]}
  assert "names" not in numbers["steps/observation/state"]


@pytest.mark.parametrize(
  "names",
  [7, ["a", "b"], {"stick": ["a"], "weapon": ["a", "b"]}, {"stick": [1, 2], "weapon": {"a": 1}, "other": ["x"]}],
)
def test_names_that_do_not_fit_change_nothing(tmp_path, capsys, names):
  printed = []
  for metadata in (BOUNDS, {**BOUNDS, "action_names": names}):
    directory = write(tmp_path / str(len(printed)), {"train": [[parted(0)]]}, metadata=metadata, found=FOUND)
    assert tool.main(["describe", str(directory), "--nopage"]) == 0
    out = capsys.readouterr().out.replace(str(directory), "")
    printed.append([line for line in out.splitlines() if not line.startswith("action_names")])
  assert printed[0] == printed[1]

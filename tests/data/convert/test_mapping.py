import json
import re
import textwrap

import pytest
import yaml

from ilx.data.convert import mapping as mapping_module
from ilx.data.convert import mapping_file
from ilx.data.convert.mapping import Clock, Field

SMALL = {
  "frames": {"screen": {"path": "{episode}.mp4"}},
  "events": {"pad": {"path": "{episode}.jsonl"}},
  "action": {"column": "stick"},
}
TIMED = SMALL | {"events": {"pad": {"path": "{episode}.jsonl", "time": "t"}, "mouse": {"path": "{episode}.csv"}}}


def changed(base, path, value):
  """A copy with the value at "a.b" set."""
  copy = json.loads(json.dumps(base))
  *folders, leaf = path.split(".")
  node = copy
  for folder in folders:
    node = node.setdefault(folder, {})
  node[leaf] = value
  return copy


def test_defaults_are_filled_in():
  found = mapping_file.read(SMALL | {"reward": {"column": "score"}, "terminal": {"column": "done"}})
  assert found.action == (Field(source="pad", column="stick", align="hold"),)
  assert found.reward == Field(source="pad", column="score", align="sum")
  assert found.terminal == Field(source="pad", column="done", kind="button", align="any")
  assert found.clock == Clock(source="screen")
  assert mapping_file.read(SMALL).terminal is False


def test_files_and_dicts_say_the_same(tmp_path):
  (tmp_path / "a.yaml").write_text(yaml.safe_dump(SMALL))
  (tmp_path / "a.json").write_text(json.dumps(SMALL))
  assert mapping_file.read(tmp_path / "a.yaml") == mapping_file.read(tmp_path / "a.json") == mapping_file.read(SMALL)


def test_the_examples_of_the_documentation_are_mappings(tmp_path):
  blocks = re.findall(r"::\n\n((?:  .*\n|\n)+)", mapping_module.__doc__)
  assert len(blocks) == 3
  for block in blocks:
    (tmp_path / "a.yaml").write_text(textwrap.dedent(block))
    found = mapping_file.read(tmp_path / "a.yaml")
    assert found.action
  assert found.clock == Clock(source="screen", skip=4, segment=1000)
  assert found.action[0].where == (("key", ("w",)),)


PARTS = {
  "stick": [{"column": "x"}, {"column": "y"}],
  "jump": {"column": "jump", "kind": "button"},
  "weapon": {"column": "weapon", "kind": "category", "vocabulary": ["sword", "bow"]},
}


def test_an_action_may_have_parts():
  found = mapping_file.read(SMALL | {"action": PARTS})
  assert {name: len(fields) for name, fields in found.action.items()} == {"stick": 2, "jump": 1, "weapon": 1}
  assert found.action["jump"] == (Field(source="pad", column="jump", kind="button", align="hold"),)
  assert [key for key, _ in found.fields()] == [
    "action.stick[0]",
    "action.stick[1]",
    "action.jump[0]",
    "action.weapon[0]",
  ]
  assert len(found.fields_of("pad")) == 4
  # Fields' keys are no parts.
  whole = mapping_file.read(SMALL | {"action": {"column": "x", "where": {"a": "b"}, "kind": "button"}})
  assert whole.action == (Field(source="pad", column="x", where=(("a", ("b",)),), kind="button", align="hold"),)


@pytest.mark.parametrize("name", ["my.episode.stick", "episode", "column2", "left stick", "1"])
def test_parts_may_have_any_name_without_a_slash(name):
  found = mapping_file.read(SMALL | {"action": {name: {"column": "x"}}})
  assert found.action == {name: (Field(source="pad", column="x", align="hold"),)}


def test_a_file_may_be_called_after_an_episode(tmp_path):
  path = tmp_path / "one.episode.yaml"
  path.write_text(yaml.safe_dump(SMALL | {"reward": {"column": "r", "align": "hold"}}))
  found = mapping_file.read(path)
  assert found.action[0].align == found.reward.align == "hold" and found.action[0].take is None


ERRORS = [
  ("frame", {}, r"mapping: unknown key 'frame' \(did you mean 'frames'\?\)"),
  ("frames.screen.rezise", [1, 2], r"mapping\.frames\.screen: unknown key 'rezise' \(did you mean 'resize'\?\)"),
  ("frames.screen.resize", [0, 2], r"mapping\.frames\.screen: resize is \[0, 2\]"),
  ("frames.screen.resize", "64x64", r"mapping\.frames\.screen\.resize: is '64x64'; expected a list of pixels"),
  ("frames.screen.channels", 4, r"frames\.screen\.channels: is 4; expected one of 1, 3"),
  ("frames.screen.fps", 0, r"frames\.screen\.fps: is 0; expected a number above 0"),
  ("frames.screen", "a.mp4", r"frames\.screen: is 'a\.mp4'; expected keys among path, crop"),
  ("frames.screen", {}, r"frames\.screen: key 'path' is missing"),
  ("events.pad.format", "jsn", r"events\.pad\.format: is 'jsn'; .*did you mean 'json'"),
  ("events.pad.unit", "ms", r"events\.pad: unit, offset, rate, relative and check are about times; name their column"),
  ("events.pad.rate", 0.995, r"events\.pad: unit, offset, rate, relative and check are about times"),
  ("events.pad.rate", 0, r"events\.pad\.rate: is 0; expected a number above 0"),
  ("events.pad.delimiter", "ab", r"events\.pad\.delimiter: is 'ab'; expected one character"),
  ("events.pad.encoding", "utf-9", r"events\.pad\.encoding: is 'utf-9'; expected an encoding"),
  ("events.pad.offset", 10**400, r"events\.pad\.offset: is 10+\.\.\.0+; expected a number"),
  ("events", {}, r"mapping\.events: is missing; actions come from"),
  ("action", [], r"mapping\.action: is \[\]; expected keys among from"),
  ("action", {"colum": "x"}, r"mapping\.action: unknown key 'colum' \(did you mean 'column'\?\)"),
  ("action", [{"column": "x"}, {"kind": "button"}], r"mapping\.action\[1\]: give either 'column' or 'columns'"),
  ("action", {"column": "x", "columns": ["y"]}, "give either 'column' or 'columns'"),
  (
    "action",
    {"column": "x", "from": "pda"},
    r"action\[0\]\.from: no events 'pda' \(did you mean 'pad'\?\); there are pad",
  ),
  ("action", {"column": "x", "kind": "text"}, r"action\[0\]: an action is no text"),
  ("action", {"column": "x", "kind": "category"}, "categories need it"),
  ("action", {"column": "x", "vocabulary": ["a"]}, "'vocabulary' lists the values of a category"),
  ("action", {"column": "x", "kind": "category", "vocabulary": ["a", "a"]}, "names one thing twice"),
  ("action", [{"column": "x", "kind": "category", "vocabulary": ["a"]}, {"column": "y"}], "is the only field"),
  ("action", {"column": "x", "kind": "category", "vocabulary": ["a"], "align": "sum"}, "cannot be aligned by 'sum'"),
  ("action", {"column": "x", "kind": "category", "vocabulary": ["a"], "fill": "b"}, "'fill' is 'b', which is not in"),
  ("action", {"column": "x", "align": "any"}, "align 'any' is for buttons; set 'kind: button'"),
  ("action", {"column": "x", "align": "sum", "fill": 1}, r"action\[0\]\.fill: is for 'hold' and 'press'"),
  ("action", {"column": "x", "fill": "a"}, "'fill' is 'a'; expected a number"),
  ("action", {"column": "x", "missing": "skip"}, r"action\.missing: is 'skip'; expected one of 'error', 'forward'"),
  ("action", {"column": "x", "pressed": ["a"]}, "'pressed' is for buttons"),
  ("action", {"column": "x", "take": "last"}, r"action\[0\]\.take: is for fields of 'episode'"),
  ("action", {"column": "x", "where": {"a": []}}, r"action\.where\.a: is \[\]"),
  ("action", {"columns": [True]}, r"columns: is \[True\]; YAML reads on and yes as true"),
  ("action", {"column": False}, r"action\.column: is False; expected a text; YAML reads .* no as false: put them in"),
  ("action", {}, r"mapping\.action: give either 'column' or 'columns'"),
  ("action", {"stick": []}, r"mapping\.action\.stick: is empty; a part is a field or a list of fields"),
  ("action", {"stick": {}}, r"mapping\.action\.stick: give either 'column' or 'columns'"),
  ("action", {"stick": None}, r"mapping\.action\.stick: is None; expected keys among from, column"),
  ("action", {"stick": "x"}, r"mapping\.action: unknown key 'stick'; there are from, column"),
  ("action", PARTS | {"roll": "r"}, r"mapping\.action\.roll: is 'r'; expected keys among from, column"),
  ("action", {"a/b": {"column": "x"}}, r"mapping\.action: 'a/b' is no name; names are texts without '/'"),
  ("action", PARTS | {"": {"column": "x"}}, r"mapping\.action: '' is no name"),
  ("action", PARTS | {"kind": {"column": "x"}}, r"mapping\.action: 'kind' is a key of fields; give the part another"),
  ("action", PARTS | {"column": "x"}, r"mapping\.action: 'column' is a key of fields"),
  ("action", {"stick": {"colum": "x"}}, r"action\.stick: unknown key 'colum' \(did you mean 'column'\?\)"),
  ("action", {"stick": [{"column": "x"}, {"kind": "button"}]}, r"mapping\.action\.stick\[1\]: give either 'column'"),
  ("action", {"hand": {"stick": {"column": "x"}}}, r"mapping\.action\.hand: unknown key 'stick'"),
  ("action", {"a": {"column": "x", "from": "pda"}}, r"action\.a\[0\]\.from: no events 'pda' \(did you mean 'pad'\?\)"),
  ("action", {"a": {"column": "x", "kind": "text"}}, r"action\.a\[0\]: an action is no text"),
  ("action", {"a": {"column": "x", "take": "last"}}, r"action\.a\[0\]\.take: is for fields of 'episode'"),
  (
    "action",
    {"a": [{"column": "x"}, PARTS["weapon"]]},
    r"action\.a\[1\]: a category or integer is no dimension of a v",
  ),
  ("action", {"a": [PARTS["weapon"], PARTS["jump"]]}, r"action\.a\[0\]: .*; make it a part of its own"),
  (
    "action",
    {"a": [PARTS["jump"], {"column": "x", "dtype": "int32"}]},
    r"action\.a\[1\]: .*; make it a part of its own",
  ),
  ("reward", {"column": "x", "kind": "text"}, r"reward: a reward is a number, no text"),
  ("terminal", "yes", r"mapping\.terminal: is 'yes'; expected keys among"),
  ("terminal", {"column": "x", "kind": "number"}, r"terminal: is true or false, so its kind is 'button'"),
  ("observation", {"screen": {"column": "x"}}, r"observation\.screen: there are frames of that name"),
  ("observation", {"a/b": {"column": "x"}}, r"mapping\.observation: 'a/b' is no name"),
  ("steps", {"reward": {"column": "x"}}, r"steps\.reward: is a field that every step has"),
  ("episode", {"success": {"column": "x"}}, r"episode\.success: is filled in already"),
  ("episode", {"a": {"column": "x", "kind": "text", "take": "mean"}}, r"episode\.a\.take: is 'mean'; of a text only"),
  ("episode", {"a": {"column": "x", "align": "sum"}}, r"episode\.a\.align: the episode's metadata are of all records"),
  ("clock.from", "sceen", r"clock\.from: no frames or events 'sceen' \(did you mean 'screen'\?\)"),
  ("clock.skip", 0, r"clock\.skip: is 0; expected a whole number from 1 on"),
  ("clock.skip", True, r"clock\.skip: is True"),
  ("clock.fps", 5, r"clock\.fps: is for a table of events with times"),
  ("clock.segment", 1.5, r"clock\.segment: is 1\.5"),
  ("splits", {"val": "s9"}, r"splits\.val: is 's9'; expected a list of texts"),
  ("metadata", [1], r"metadata: is \[1\]; expected keys and values"),
  ("metadata", {"x": float("inf")}, r"metadata: Out of range float"),
  ("events.screen", {"path": "x.csv"}, r"events\.screen: there are frames of that name"),
]


@pytest.mark.parametrize(("path", "value", "message"), ERRORS, ids=[f"{p}-{i}" for i, (p, *_) in enumerate(ERRORS)])
def test_mistakes_name_the_key(path, value, message):
  with pytest.raises(ValueError, match=message):
    mapping_file.read(changed(SMALL, path, value))


@pytest.mark.parametrize(
  ("metadata", "message"),
  [
    (
      {"action_low": [-1, -1]},
      r"metadata\.action_low: is \[-1, -1\]; the action has parts, give each its own: stick, j",
    ),
    (
      {"num_actions": {"wepon": 3}},
      r"metadata\.num_actions: the action has no part 'wepon' \(did you mean 'weapon'\?\)",
    ),
  ],
)
def test_bounds_must_be_those_of_the_parts(metadata, message):
  with pytest.raises(ValueError, match=message):
    mapping_file.read(SMALL | {"action": PARTS, "metadata": metadata})
  assert mapping_file.read(SMALL | {"metadata": metadata}).metadata == metadata


def test_true_and_false_in_a_where_stay_what_they_are(tmp_path):
  (tmp_path / "a.yaml").write_text('{a: on, b: [no, "no", 1]}')
  found = mapping_file.read(
    SMALL | {"action": {"column": "x", "where": yaml.safe_load((tmp_path / "a.yaml").read_text())}}
  )
  assert found.action[0].where == (("a", (True,)), ("b", (False, "no", "1")))


def test_the_table_must_be_named_where_there_are_several():
  with pytest.raises(ValueError, match=r"action\[0\]\.from: is missing; there are several events: pad, mouse"):
    mapping_file.read(TIMED)


def test_something_must_be_seen():
  with pytest.raises(ValueError, match=r"mapping\.observation: is missing, and so is 'frames'"):
    mapping_file.read({key: value for key, value in SMALL.items() if key != "frames"})
  with pytest.raises(ValueError, match="mapping: key 'action' is missing"):
    mapping_file.read({key: value for key, value in SMALL.items() if key != "action"})


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("a.yaml", "a: [", "no YAML: "),
    ("a.yaml", "a: !!python/name:os.system x", "no YAML: could not determine a constructor"),
    ("a.json", "{", "no JSON: "),
    ("a.yaml", "", "is None; expected keys among"),
    ("a.json", "[]", r"is \[\]; expected keys among"),
    ("a.yaml", "[" * 5000, "no YAML: "),
  ],
)
def test_files_that_are_no_mapping_are_named(tmp_path, name, text, message):
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=rf"{re.escape(name)}: {message}"):
    mapping_file.read(tmp_path / name)
  with pytest.raises(FileNotFoundError, match="no mapping file"):
    mapping_file.read(tmp_path / "none.yaml")


def test_aliases_are_refused(tmp_path):
  levels = "".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
  path = tmp_path / "a.yaml"
  path.write_text(yaml.safe_dump(SMALL) + "metadata:\n  a0: &a0 [x]\n" + levels)
  with pytest.raises(ValueError, match=r"a\.yaml: no YAML: has an alias"):
    mapping_file.read(path)


def test_large_files_are_no_mapping(tmp_path):
  with (tmp_path / "a.yaml").open("wb") as file:
    file.truncate(20 << 30)
  with pytest.raises(ValueError, match=r"a\.yaml: is larger than 16 MiB"):
    mapping_file.read(tmp_path / "a.yaml")

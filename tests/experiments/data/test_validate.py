import dataclasses
import json
import zlib

import ml_dtypes
import numpy as np
import pytest
import robots
from robots import FEATURES, NUMBER, ODD, Feature, Sequence, episode, shard, unlike, with_fields, write

from experiments.data import __main__ as tool
from experiments.data.validate import validate
from ilx import data

FORMATS = ("array_record", "tfrecord")


def found(directory, **options):
  result = validate(directory, **options)
  return [(p.level, p.kind, p.file, p.record, p.episode, p.step, p.field) for p in result.problems.kept], result


def spoilt(tmp_path, change, **options):
  """Problems of a dataset of three episodes, of which the second one was changed."""
  records = [episode(seed) for seed in range(3)]
  change(records[1])
  return validate(write(tmp_path, {"train": [records]}, **options)).problems.kept


def test_a_good_dataset_has_no_problems(tmp_path, capsys):
  directory = write(tmp_path, {"train": [[episode(0), episode(1)], [episode(2)]], "val": [[episode(3)]]})
  assert tool.main(["validate", str(directory), "--strict"]) == 0
  assert capsys.readouterr().out == f"{directory}: 4 episodes, 28 steps: 0 errors, 0 warnings\n"


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_flipped_byte_hides_no_other_record(tmp_path, file_format):
  records = [episode(seed) for seed in range(5)]
  records[4]["steps/observation/state"][2, 1] = np.nan
  directory = write(tmp_path, {"train": [records[:3], records[3:]]}, file_format=file_format)
  path = shard(directory)
  content = bytearray(path.read_bytes())
  # In a picture of the second record: noise, which no compression has touched.
  place = content.index(records[1]["steps/observation/image"][3][60:100])
  content[place] ^= 1
  path.write_bytes(content)
  problems, result = found(directory)
  other = shard(directory, 1).name
  assert [(level, kind, file, record, number) for level, kind, file, record, number, _, _ in problems] == [
    ("error", "damaged record", path.name, 1, 1),
    ("error", "not finite", other, 1, 4),
  ]
  assert result.episodes == 4


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_truncated_shard(tmp_path, file_format):
  records = [episode(seed) for seed in range(5)]
  records[4]["steps/discount"][1] = 2.0
  directory = write(tmp_path, {"train": [records[:3], records[3:]]}, file_format=file_format)
  path = shard(directory)
  path.write_bytes(path.read_bytes()[:-3000])
  problems, _ = found(directory)
  assert {entry[2] for entry in problems if entry[0] == "error"} == {path.name, shard(directory, 1).name}
  assert ("error", "range", shard(directory, 1).name, 1, 4, 1, "steps/discount") in problems
  assert any(entry[1] == "file" and entry[2] == path.name for entry in problems)


def test_a_missing_shard_and_a_stray_one(tmp_path):
  directory = write(tmp_path, {"train": [[episode(0)], [episode(1)]]})
  shard(directory, 1).rename(directory / "robots-train.array_record-00007-of-00008")
  problems, result = found(directory)
  assert [(level, kind, file) for level, kind, file, *_ in problems] == [
    ("error", "file", "robots-train.array_record-00001-of-00002"),
    ("warning", "file", "robots-train.array_record-00007-of-00008"),
  ]
  assert "missing" in result.problems.kept[0].message
  assert result.episodes == 1


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("claimed", ["1", "3"])
def test_wrong_shard_lengths(tmp_path, file_format, claimed):
  directory = write(tmp_path, {"train": [[episode(0), episode(1)]]}, file_format=file_format)
  path = directory / "dataset_info.json"
  path.write_text(path.read_text().replace('["2"]', f'["{claimed}"]'))
  problems, result = found(directory)
  assert [entry[:3] for entry in problems] == [("error", "file", shard(directory).name)]
  assert result.problems.kept[0].message == f"2 records where dataset_info.json says {claimed}"
  assert result.episodes == 2


def test_no_record_file(tmp_path):
  directory = write(tmp_path, {"train": [[episode(0)], [episode(1)]]})
  shard(directory).write_bytes(b"not a record file at all" * 10)
  problems, result = found(directory)
  assert problems[0][:3] == ("error", "file", shard(directory).name)
  assert result.episodes == 1


def replace_feature(name, **changes):
  steps = dict(FEATURES["steps"].feature)
  steps[name] = dataclasses.replace(steps[name], **changes)
  return FEATURES | {"steps": Sequence(steps)}


@pytest.mark.parametrize(
  ("feature", "message"),
  [
    ({"dtype": np.dtype(np.int32)}, "stored as float32 numbers where features.json says int32 [2]"),
    ({"shape": (3,)}, "14 values where 7 steps of float32 [3] have 21"),
    ({"encoding": "zlib"}, "stored as float32 numbers where features.json says float32 [2] zlib"),
  ],
)
def test_wrong_types_and_shapes(tmp_path, feature, message):
  directory = write(tmp_path, {"train": [[episode(0)]]}, found=replace_feature("action", **feature), metadata={})
  problems, result = found(directory)
  assert problems == [("error", "type or shape", shard(directory).name, 0, 0, None, "steps/action")]
  assert result.problems.kept[0].message == message


def set_at(field, step, value):
  def change(record):
    record[f"steps/{field}"][step] = value

  return change


@pytest.mark.parametrize(
  ("change", "level", "kind", "field", "step", "message"),
  [
    (set_at("is_first", 3, True), "error", "flag", "is_first", 3, "first of 7 steps"),
    (set_at("is_last", 2, True), "error", "flag", "is_last", 2, "last of 7 steps"),
    (set_at("is_terminal", 0, True), "error", "flag", "is_terminal", 0, "one record must be one episode"),
    (set_at("observation/state", (4, 2), np.nan), "error", "not finite", "observation/state", 4, "NaN in dimension 2"),
    (set_at("reward", 1, -np.inf), "error", "not finite", "reward", 1, "inf"),
    (set_at("reward", 6, np.nan), "error", "not finite", "reward", 6, "but ilx.data.load refuses it there too"),
    (set_at("discount", 2, 1.5), "error", "range", "discount", 2, "1.5 is not in [0, 1]"),
    (
      set_at("action", (5, 1), 3.0),
      "warning",
      "action out of bounds",
      "action",
      5,
      "dimension 1 is 3, outside [-1, 1]",
    ),
    (set_at("observation/image", 2, b"nothing"), "error", "picture", "observation/image", 2, "cannot be decoded"),
    (set_at("language_instruction", 6, b"\xff"), "error", "text", "language_instruction", 6, "no UTF-8"),
  ],
)
def test_one_thing_wrong_in_the_second_episode(tmp_path, change, level, kind, field, step, message):
  (problem,) = spoilt(tmp_path, change)
  assert problem[:2] == (level, kind)
  assert (problem.record, problem.episode, problem.split, problem.step) == (1, 1, "train", step)
  assert problem.field == f"steps/{field}"
  assert message in problem.message


def test_pictures(tmp_path):
  def cut(record):
    pictures = record["steps/observation/image"]
    pictures[1] = pictures[1][:-40]
    pictures[5] = robots.png(np.zeros((16, 21, 3), np.uint8))

  problems = spoilt(tmp_path, cut)
  assert [(problem.kind, problem.step) for problem in problems] == [("picture", 1), ("picture", 5)]
  assert "16 x 21 where features.json says (16, 20, 3)" in problems[1].message


def test_missing_and_unknown_fields(tmp_path):
  def rename(record):
    record["steps/observation/states"] = record.pop("steps/observation/state")

  problems = spoilt(tmp_path, rename)
  assert [(problem.level, problem.kind, problem.field) for problem in problems] == [
    ("error", "missing field", "steps/observation/state"),
    ("warning", "unknown field", "steps/observation/states"),
  ]


def test_all_problems_of_one_episode_are_told(tmp_path):
  def spoil(record):
    record["steps/reward"] = record["steps/reward"][:-1]
    record["steps/is_first"][4] = True
    record["steps/language_instruction"] = [b" "] * 7

  problems = spoilt(tmp_path, spoil)
  assert [(problem.kind, problem.field) for problem in problems] == [
    ("type or shape", "steps/reward"),
    ("empty text", "steps/language_instruction"),
    ("flag", "steps/is_first"),
  ]


def test_an_empty_episode_and_one_without_a_transition(tmp_path):
  empty = {name: [] if isinstance(value, list) else value[:0] for name, value in episode(0).items()}
  problems = validate(write(tmp_path, {"train": [[empty, episode(1, length=0), episode(2)]]})).problems.kept
  assert [(problem.level, problem.kind, problem.record) for problem in problems] == [
    ("error", "empty", 0),
    ("warning", "short", 1),
  ]


def test_an_empty_record_is_no_episode(tmp_path):
  result = validate(write(tmp_path, {"train": [[episode(0), {}, episode(1)]]}))
  assert [(problem.kind, problem.record) for problem in result.problems.kept] == [("empty", 1)]
  assert (result.episodes, result.steps) == (2, 14)


@pytest.mark.parametrize("name", ["is_first", "is_last"])
def test_episodes_that_lack_a_flag_which_others_have(tmp_path, name):
  records = [episode(seed) for seed in range(10)]
  for index in (1, 4, 5, 6, 7, 8, 9):
    records[index][f"steps/{name}"][:] = False
  result = validate(write(tmp_path, {"train": [records[:4]], "val": [records[4:7]], "test": [records[7:]]}), most=5)
  problems = result.problems
  assert [(p.level, p.kind, p.field, p.split, p.record) for p in problems.kept] == [
    ("error", "flag", f"steps/{name}", "train", 1),
    *(("warning", "flag", f"steps/{name}", "val", index) for index in range(3)),
    *(("warning", "flag", f"steps/{name}", "test", index) for index in range(2)),
  ]
  assert "where 3 of 4 episodes of the split have it true" in problems.kept[0].message
  assert "is the record a part cut from an episode?" in problems.kept[1].message
  assert (problems.total("error"), problems.total("warning")) == (1, 6)


def test_discounts_that_do_not_end_with_the_task(tmp_path):
  records = [episode(0), episode(1), episode(2, terminal=False), episode(3)]
  records[1]["steps/discount"][:] = records[3]["steps/discount"][:] = 0.99
  (problem,) = validate(write(tmp_path, {"train": [records]})).problems.kept
  assert problem[:2] == ("warning", "discount")
  assert (problem.record, problem.step, problem.field) == (1, 5, "steps/discount")
  assert "in 2 of 3 episodes" in problem.message


@pytest.mark.parametrize(
  ("metadata", "message"),
  [
    ({"action_low": [-1, 1], "action_high": [1, -1]}, "action_low 1 is not below action_high -1 in dimension 1"),
    ({"action_low": [-1, -1], "action_high": [1, float("nan")]}, "is not below action_high nan in dimension 1"),
    ({"num_actions": 0}, "num_actions is 0"),
  ],
)
def test_bounds_that_are_none(tmp_path, metadata, message):
  (problem,) = validate(write(tmp_path, {"train": [[episode(0)]]}, metadata=metadata)).problems.kept
  assert (problem.level, problem.kind, problem.file) == ("error", "metadata", "metadata.json")
  assert message in problem.message


@pytest.mark.parametrize("metadata", [{"num_actions": [2, 3]}, {"num_actions": {"a": 2}, "action_low": {"b": [0]}}])
def test_bounds_of_several_choices_and_parts_are_no_problem(tmp_path, metadata):
  directory = write(tmp_path, {"train": [[episode(0)]]}, metadata=metadata)
  assert not [one for one in validate(directory).problems.kept if one.kind == "metadata"]


def test_metadata_that_are_of_other_episodes(tmp_path):
  right = {"num_episodes": 2, "num_transitions": 13, "data_return": 6.5, "data_return_std": 0.5}
  wrong = {"num_episodes": 7, "num_transitions": 1, "data_return": 999.0, "data_return_std": "small"}
  splits = {"train": [[episode(0)]], "val": [[episode(1, length=7)]]}
  assert validate(write(tmp_path / "right", splits, metadata=right)).problems.kept == []
  directory = write(tmp_path / "wrong", splits, metadata=wrong)
  problems = validate(directory).problems.kept
  assert {problem[:2] for problem in problems} == {("warning", "metadata")}
  assert [problem.message for problem in problems] == [
    "num_episodes is 7, but the episodes give 2",
    "num_transitions is 1, but the episodes give 13",
    "data_return is 999.0, but the episodes give 6.5",
    "data_return_std is 'small', no number",
  ]
  # Of a part of the episodes nothing is said there.
  assert validate(directory, "val").problems.kept == []


def test_discrete_actions(tmp_path):
  records = []
  for seed in range(2):
    record = episode(seed)
    record["steps/action"] = np.array([0, 1, 2, 0, 1, 4 if seed else 2, 9])
    records.append(record)
  found = replace_feature("action", shape=(), dtype=np.dtype(np.int64))
  directory = write(tmp_path, {"train": [records]}, found=found, metadata={"num_actions": 3})
  (problem,) = validate(directory).problems.kept
  assert (problem.level, problem.record, problem.step, problem.message) == ("error", 1, 5, "4, outside [0, 2]")


def test_bounds_of_another_size(tmp_path):
  directory = write(tmp_path, {"train": [[episode(0)]]}, metadata={"action_low": [-1], "action_high": [1]})
  (problem,) = validate(directory).problems.kept
  assert (problem.level, problem.kind) == ("error", "metadata")


def test_what_shows_over_all_episodes(tmp_path):
  records = [episode(seed, terminal=False) for seed in (0, 1, 0)]
  for record in records:
    record["steps/action"][:-1, 1] = 0.25  # the last one carries no meaning
    record["steps/reward"][:-1] = 0
    record["steps/is_last"][:] = False
  problems = validate(write(tmp_path, {"train": [records]})).problems.kept
  assert all(problem.level == "warning" for problem in problems)
  assert sorted((problem.field or "", problem.message) for problem in problems) == [
    ("", "1 of 3 episodes repeat an earlier one"),
    ("steps/action", "dimension 1 is always 0.25"),
    ("steps/is_last", "never true in any episode"),
    ("steps/is_terminal", "never true in any episode"),
    ("steps/reward", "always 0"),
  ]


def test_many_problems_are_counted(tmp_path, capsys):
  records = [episode(seed) for seed in range(7)]
  for record in records:
    record["steps/observation/state"][0, 0] = np.inf
  directory = write(tmp_path, {"train": [records]})
  report = tmp_path / "report.json"
  assert tool.main(["validate", str(directory), "--most=3", f"--json={report}"]) == 1
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == (
    "error: robots-train.array_record-00000-of-00001, record 0, episode 0 of train, step 0, "
    "field 'steps/observation/state': inf in dimension 0"
  )
  assert lines[3] == "error: 4 more of not finite in field 'steps/observation/state'"
  assert lines[4].endswith("7 episodes, 49 steps: 7 errors, 0 warnings")
  content = json.loads(report.read_text())
  assert (content["errors"], len(content["problems"])) == (7, 3)
  assert content["problems"][2]["record"] == 2
  assert content["left_out"][0]["count"] == 4


def test_the_report_is_checked_before_the_work_and_written_whole(tmp_path, capsys, monkeypatch):
  directory = str(write(tmp_path, {"train": [[episode(0)]]}))
  assert tool.main(["validate", directory, f"--json={tmp_path / 'no' / 'report.json'}"]) == 2
  captured = capsys.readouterr()
  assert "--json: " in captured.err
  assert "there is no folder" in captured.err
  assert captured.out == ""
  report = tmp_path / "report.json"
  report.write_text("old")

  def full(self, target):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr("pathlib.Path.replace", full)
  assert tool.main(["validate", directory, f"--json={report}"]) == 2
  assert report.read_text() == "old"
  assert [path.name for path in tmp_path.glob("report*")] == ["report.json"]


def test_splits_are_names(tmp_path, capsys):
  directory = str(write(tmp_path, {"train": [[episode(0)]]}))
  for command in ("validate", "clean"):
    assert tool.main([command, directory, "--split=train[:10%]"]) == 2
    assert "no split 'train[:10%]'; --split takes the name of one: train" in capsys.readouterr().err


def test_what_is_wrong_does_not_steer_the_terminal(tmp_path, capsys):
  def spoil(record):
    record["steps/\x1b[31mred"] = record["steps/reward"]

  spoilt(tmp_path, spoil)
  assert tool.main(["validate", str(tmp_path / "robots")]) == 0
  assert "\\x1b[31mred" in (out := capsys.readouterr().out)
  assert "\x1b" not in out


def test_exit_codes(tmp_path, capsys):
  def outside(record):
    record["steps/action"][0] = 2

  spoilt(tmp_path, outside)
  assert tool.main(["validate", str(tmp_path / "robots")]) == 0
  assert tool.main(["validate", str(tmp_path / "robots"), "--strict"]) == 1
  assert tool.main(["validate", str(tmp_path / "nowhere")]) == 2
  assert tool.main(["validate", str(tmp_path / "robots"), "--split=test"]) == 2
  assert tool.main(["validate", str(tmp_path / "robots"), "--no_such_flag"]) == 2
  assert "Traceback" not in capsys.readouterr().err


def test_bridge(shared_data):
  problems, result = found(shared_data / "rlds" / "bridge_dataset")
  assert (result.episodes, result.steps) == (50, 500)
  assert [(entry[0], entry[-1]) for entry in problems] == [
    ("warning", "steps/is_terminal"),
    ("warning", "steps/is_last"),
    ("warning", "steps/reward"),
    ("warning", None),
  ]


def test_fields_of_varying_shape_and_optional_ones(tmp_path):
  points = {"points": Sequence(NUMBER), "map": Feature("tensor", (None, None), np.dtype(np.float32), "bytes")}
  hint = {"hint": dataclasses.replace(NUMBER, optional=True)}
  found = FEATURES | {"steps": Sequence(FEATURES["steps"].feature | points | hint)}
  records = []
  for seed in range(4):
    record = episode(seed)
    record["steps/points/ragged_flat_values"] = np.arange(3, dtype=np.float32)
    record["steps/points/ragged_row_lengths_0"] = np.array([0, 1, 2, 0, 0, 0, 0])
    record["steps/map/shape"] = np.array([[1, 2]] * 7)
    record["steps/map/value"] = [np.ones(2, np.float32).tobytes()] * 7
    records.append(record)
  records[1]["steps/points/ragged_row_lengths_0"][4] = 9
  records[2]["steps/points/ragged_row_lengths_0"] = np.array([1, 2])
  del records[3]["steps/map/value"]
  problems = validate(write(tmp_path, {"train": [records]}, found=found)).problems.kept
  assert [(problem.level, problem.record, problem.field) for problem in problems] == [
    ("error", 1, "steps/points"),
    ("error", 2, "steps/points"),
    ("error", 3, "steps/map"),
  ]
  assert problems[1].message == "2 values in 7 steps"


@pytest.mark.parametrize("kind", ODD)
def test_episodes_that_differ_in_any_field_repeat_none(tmp_path, kind):
  records = unlike(ODD[kind])
  directory = write(tmp_path, {"train": [records]}, found=with_fields(extra=ODD[kind]))
  assert [str(problem) for problem in validate(directory).problems.kept] == []
  directory = write(tmp_path / "same", {"train": [records[:1] * 2]}, found=with_fields(extra=ODD[kind]))
  assert [problem.kind for problem in validate(directory).problems.kept] == ["duplicates"]


def cut(stored):
  return [zlib.compress(row.tobytes())[:-3] for row in stored]


def with_one(dtype, value):
  """Seven steps of three numbers, of which one is ``value``; as bytes, which hold all 64 bits."""
  content = np.zeros((7, 3), dtype)
  content[2, 1] = value
  return [row.tobytes() for row in content]


@pytest.mark.parametrize(
  ("dtype", "encoding", "stored", "message"),
  [
    ("float32", "zlib", cut(np.zeros((7, 3), np.float32)), "its compressed bytes are cut short"),
    (ml_dtypes.bfloat16, "none", np.full((7, 3), np.nan, np.float32), "NaN in dimension 0; 21 values in this episode"),
    (ml_dtypes.bfloat16, "bytes", with_one(ml_dtypes.bfloat16, np.inf), "inf in dimension 1"),
    ("float64", "bytes", with_one(np.float64, -1e300), "-1e+300 is beyond float32, as which ilx.data.load holds it"),
    ("int64", "bytes", with_one(np.int64, 2**40), f"{2**40} is beyond int32, as which ilx.data.load holds it"),
    ("uint32", "bytes", with_one(np.uint32, 2**31), f"{2**31} is beyond int32, as which ilx.data.load holds it"),
  ],
)
def test_what_cannot_be_loaded_is_an_error(tmp_path, dtype, encoding, stored, message):
  observation = Feature("tensor", (3,), np.dtype(dtype), encoding)
  record = {name: value for name, value in episode(0).items() if not name.startswith("steps/observation")}
  record["steps/observation"] = stored
  directory = write(tmp_path, {"train": [[record]]}, found=with_fields(observation=observation))
  (problem,) = validate(directory).problems.kept
  assert (problem.level, problem.field, problem.message) == ("error", "steps/observation", message)
  with pytest.raises(ValueError, match="observation"):
    data.load(directory)


@pytest.mark.parametrize(("dtype", "value"), [("int64", 2**40), ("uint64", 2**63 + 5)])
def test_numbers_that_can_be_read_but_not_loaded_are_a_warning(tmp_path, dtype, value):
  record = episode(0)
  record["steps/time"] = np.full(7, value, dtype).astype(np.int64)
  found = with_fields(time=Feature("tensor", (), np.dtype(dtype)))
  (problem,) = validate(write(tmp_path, {"train": [[record]]}, found=found)).problems.kept
  message = f"{value} is beyond int32, as which ilx.data.load holds it"
  assert (problem.level, problem.field, problem.message) == ("warning", "steps/time", message)


@pytest.mark.parametrize("kind", ["ragged", "any shape", "optional"])
def test_what_is_not_finite_is_found_in_fields_of_any_kind(tmp_path, kind):
  record = unlike(ODD[kind])[0]
  name = "steps/extra/ragged_flat_values" if kind == "ragged" else "steps/extra"
  record[name][[3, 5]] = np.nan
  directory = write(tmp_path, {"train": [[record]]}, found=with_fields(extra=ODD[kind]))
  (problem,) = validate(directory).problems.kept
  assert (problem.field, problem.step, problem.message) == (
    "steps/extra",
    3,
    "NaN or inf; in 2 steps of this episode",
  )


def test_ends_of_the_task_are_counted_once_an_episode(tmp_path):
  records = [episode(0), episode(1, terminal=False)]
  records[0]["steps/is_terminal"][2:] = True
  assert validate(write(tmp_path, {"train": [records]})).terminals == 1

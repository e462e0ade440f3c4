import json
import pickle

import numpy as np
import pytest
import robots
from robots import FEATURES, NUMBER, ODD, Feature, Sequence, episode, shard, unlike, with_fields, write

from experiments.data import __main__ as tool
from experiments.data import clean
from experiments.data.rules import Rules
from experiments.data.trimmed import Trimmed
from ilx.data import rlds


def idle_start(seed, idle, length=8, end=0):
  """An episode that stands still for its first ``idle`` and last ``end`` transitions."""
  record = episode(seed, length)
  state, action = record["steps/observation/state"], record["steps/action"]
  pictures = record["steps/observation/image"]
  state[:idle], action[:idle] = state[idle], 0
  pictures[:idle] = [pictures[idle]] * idle
  record["steps/reward"][:idle] = 0
  if end:
    state[-end:], action[-end - 1 :] = state[-end - 1], 0
    pictures[-end:] = [pictures[-end - 1]] * end
    record["steps/reward"][-end - 1 :] = 0
  return record


def steps(directory, split="train"):
  return [found["steps"] for _, _, found in rlds.read_episodes(rlds.read_info(directory), split)]


def log(directory):
  return [json.loads(line) for line in (directory / "clean.jsonl").read_text().splitlines()]


def run(tmp_path, records, *flags, code=0, **options):
  """The cleaned dataset's folder."""
  old = write(tmp_path / "old", records if isinstance(records, dict) else {"train": [records]}, **options)
  assert tool.main(["clean", str(old), f"--root={tmp_path / 'new'}", *flags]) == code
  return tmp_path / "new" / "robots-clean" / "1.0.0"


def test_nothing_to_do_keeps_all(tmp_path, capsys):
  records = [episode(seed) for seed in range(3)]
  new = run(tmp_path, {"train": [records[:2]], "val": [records[2:]]})
  assert log(new) == []
  assert capsys.readouterr().out.splitlines()[:3] == [
    "             before  after  change",
    "episodes          3      3      +0",
    "transitions      18     18      +0",
  ]
  info = rlds.read_info(new)
  assert {name: split.num_episodes for name, split in info.splits.items()} == {"train": 2, "val": 1}
  for record, found in zip(records, [*steps(new), *steps(new, "val")], strict=True):
    np.testing.assert_array_equal(found["observation"]["state"], record["steps/observation/state"])
    pictures = found["observation"]["image"]
    assert [pictures.encoded(i) for i in range(7)] == record["steps/observation/image"]
    assert found["language_instruction"][0] == record["steps/language_instruction"][0].decode()
    assert found["is_terminal"].tolist() == [False] * 6 + [True]
  metadata = [found["episode_metadata"] for _, _, found in rlds.read_episodes(info)]
  assert [(bool(m["success"]), m["operator"]) for m in metadata] == [(True, "person 0"), (False, "person 1")]


def test_idle_starts_are_dropped(tmp_path):
  records = [idle_start(0, 3), episode(1), idle_start(2, 8, length=8)]
  # Standing still later on is part of the episode.
  records[0]["steps/observation/state"][6] = records[0]["steps/observation/state"][5]
  records[0]["steps/action"][5] = 0
  new = run(tmp_path, records, "--drop_idle_start")
  first, second = steps(new)
  # Transitions 0 to 2 led nowhere: the episode begins where something happens.
  np.testing.assert_array_equal(first["observation"]["state"], records[0]["steps/observation/state"][3:])
  np.testing.assert_array_equal(first["action"], records[0]["steps/action"][3:])
  assert first["is_first"].tolist() == [True] + [False] * 5
  assert first["is_last"].tolist() == [False] * 5 + [True]
  assert len(second["reward"]) == 7
  assert [(entry["episode"], entry["what"], entry["why"]) for entry in log(new)] == [
    (0, "trimmed", "idle start"),
    (2, "dropped", "0 transitions after 8 idle steps were dropped; at least 1"),
  ]
  metadata = rlds.read_info(new).metadata
  assert metadata["cleaned"]["rules"] == {"drop_idle_start": True}
  assert metadata["cleaned"]["transitions"] == {"before": 22, "after": 11}
  assert metadata["cleaned"]["dropped"] == {"short": 1}
  assert (metadata["env_id"], metadata["data_return"]) == ("Robot-v0", 5.5)


def test_idle_ends_are_dropped_but_not_what_they_earned(tmp_path):
  records = [idle_start(0, 0, end=3), idle_start(1, 0, end=3)]
  records[1]["steps/reward"][-3] = 7.0
  first, second = steps(run(tmp_path, records, "--drop_idle_end"))
  assert len(first["reward"]) == 9 - 3
  np.testing.assert_array_equal(first["observation"]["state"], records[0]["steps/observation/state"][:6])
  assert first["is_terminal"].tolist() == [False] * 5 + [True]
  assert first["is_last"].tolist() == [False] * 5 + [True]
  # The last but one idle transition earned 7; only those behind it go.
  assert second["reward"].tolist()[-2] == 7.0


def test_idle_within_a_tolerance(tmp_path):
  record = idle_start(0, 4)
  record["steps/observation/state"][:5] += np.arange(5)[:, None].astype(np.float32) * 1e-4
  old = write(tmp_path, {"train": [[record]]})
  for tolerance, left in ((0.0, 9), (1e-3, 5)):
    _, plan = clean.clean(str(old), Rules(drop_idle_start=True, idle_tolerance=tolerance), dry_run=True)
    assert plan.kept[0].stop - plan.kept[0].start == left


def test_an_idle_start_ends_at_the_first_reward(tmp_path):
  record = idle_start(0, 5)
  record["steps/reward"][2] = 5.0
  (found,) = steps(run(tmp_path, [record], "--drop_idle_start"))
  np.testing.assert_array_equal(found["reward"], record["steps/reward"][2:])


def held(change):
  """A key that is held for 6 of 8 transitions, with a meter that stands still; ``change`` gets the pictures."""
  record = idle_start(0, 6)
  record["steps/action"][:6] = [1, 0]
  change(record["steps/observation/image"])
  return record


@pytest.mark.parametrize(
  ("flags", "moving", "left"),
  [([], True, 9), ([], False, 3), (["--idle_ignore=observation/image"], True, 3)],
)
def test_what_changes_in_pictures_only_is_not_idle(tmp_path, flags, moving, left):
  pictures = episode(1, 8)["steps/observation/image"]
  record = held(lambda found: found.__setitem__(slice(None), pictures) if moving else None)
  (found,) = steps(run(tmp_path, [record], "--drop_idle_start", *flags))
  assert len(found["reward"]) == left


@pytest.mark.parametrize(
  ("ignored", "message"),
  [
    ("observation/camera", "no field 'observation/camera' of the observation; there: observation/image"),
    ("action", "no field 'action' of the observation"),
    ("observation", "leaves nothing of the observation"),
  ],
)
def test_fields_that_idle_steps_cannot_ignore(tmp_path, capsys, ignored, message):
  run(tmp_path, [episode(0)], "--drop_idle_end", f"--idle_ignore={ignored}", code=2)
  assert message in capsys.readouterr().err


def test_idle_steps_cannot_be_told_by_what_cannot_be_compared(tmp_path, capsys):
  observation = FEATURES["steps"].feature["observation"] | {"points": Sequence(NUMBER)}
  found = FEATURES | {"steps": Sequence(FEATURES["steps"].feature | {"observation": observation})}
  run(tmp_path, [episode(0)], "--drop_idle_start", code=2, found=found)
  assert "give --idle_ignore=observation/points" in capsys.readouterr().err


def test_idle_steps_cannot_be_told_by_actions_that_cannot_be_compared(tmp_path, capsys):
  move = FEATURES["steps"].feature["action"]
  record = idle_start(0, 3)
  record["steps/action/move"] = record.pop("steps/action")
  record["steps/action/points/ragged_flat_values"] = np.arange(9, dtype=np.float32)
  record["steps/action/points/ragged_row_lengths_0"] = np.ones(9, np.int64)
  found = with_fields(action={"move": move, "points": Sequence(NUMBER)})
  run(tmp_path, [record], "--drop_idle_end", code=2, found=found, metadata={})
  assert "field 'steps/action/points' (sequence of float32) cannot be compared" in capsys.readouterr().err


def test_texts_in_the_action_make_no_idle_steps(tmp_path):
  record = idle_start(0, 3)
  record["steps/action/move"] = record.pop("steps/action")
  record["steps/action/say"] = [b"%d" % step for step in range(9)]
  found = with_fields(action={"move": FEATURES["steps"].feature["action"], "say": robots.TEXT})
  old = write(tmp_path, {"train": [[record]]}, found=found, metadata={})
  _, plan = clean.clean(str(old), Rules(drop_idle_start=True), dry_run=True)
  assert (plan.kept[0].start, plan.kept[0].stop) == (0, 9)


def test_an_idle_end_hands_its_discount_on(tmp_path):
  record = idle_start(0, 0, end=3)
  record["steps/discount"][-2] = 0
  (found,) = steps(run(tmp_path, [record], "--drop_idle_end"))
  assert found["is_terminal"].tolist() == [False] * 5 + [True]
  assert found["discount"].tolist() == [1, 1, 1, 1, 0, 1]


def test_of_duplicates_the_first_good_one_stays(tmp_path):
  records = [episode(1), episode(1), episode(1)]
  records[1]["episode_metadata/success"][:] = records[2]["episode_metadata/success"][:] = True
  new = run(tmp_path, records, "--drop_duplicates", "--success_key=success")
  assert len(steps(new)) == 1
  assert [(entry["episode"], entry["rule"]) for entry in log(new)] == [(0, "failed"), (2, "duplicate")]


def test_an_episode_of_a_file_that_is_left_out_has_no_duplicates(tmp_path):
  old = write(tmp_path / "old", {"train": [[episode(0), episode(1)], [episode(0)]]}, file_format="tfrecord")
  path = shard(old)
  content = bytearray(path.read_bytes())
  content[int.from_bytes(content[:8], "little") + 16] ^= 1
  path.write_bytes(content)
  _, plan = clean.clean(str(old), Rules(drop_duplicates=True, skip_damaged=True), dry_run=True)
  assert [kept.episode for kept in plan.kept] == [2]


@pytest.mark.parametrize("kind", ODD)
def test_episodes_that_differ_in_any_field_are_no_duplicates(tmp_path, kind):
  old = write(tmp_path, {"train": [unlike(ODD[kind])]}, found=with_fields(extra=ODD[kind]))
  _, plan = clean.clean(str(old), Rules(drop_duplicates=True, drop_fields=("extra",)), dry_run=True)
  assert [kept.episode for kept in plan.kept] == [0, 1]
  old = write(tmp_path / "same", {"train": [unlike(ODD[kind])[:1] * 2]}, found=with_fields(extra=ODD[kind]))
  _, plan = clean.clean(str(old), Rules(drop_duplicates=True, drop_fields=("extra",)), dry_run=True)
  assert [kept.episode for kept in plan.kept] == [0]


def test_duplicates_are_found_in_all_splits(tmp_path):
  again = episode(0)
  again["episode_metadata/operator"] = [b"someone else"]
  new = run(
    tmp_path, {"train": [[episode(0), episode(1)], [episode(0)]], "val": [[again, episode(3)]]}, "--drop_duplicates"
  )
  info = rlds.read_info(new)
  assert {name: split.num_episodes for name, split in info.splits.items()} == {"train": 2, "val": 1}
  assert [(e["split"], e["episode"], e["record"]) for e in log(new)] == [("train", 2, 0), ("val", 0, 0)]


@pytest.mark.parametrize(
  ("flags", "kept"),
  [
    (["--min_length=6"], [1, 2]),
    (["--min_return=6"], [1, 2]),
    (["--max_return=6"], [0, 1]),
    (["--success_key=success"], [0, 2]),
    (["--where=operator = 'person 1'"], [1]),
    (["--where=episode_return > 4 AND success", "--min_length=7"], [2]),
  ],
)
def test_episodes_by_what_they_are(tmp_path, flags, kept):
  # The last one is longer and returns 7.
  records = [episode(0, length=5), episode(1, length=6), episode(2, length=7)]
  new = run(tmp_path, records, *flags)
  found = steps(new)
  assert [len(each["reward"]) - 6 for each in found] == kept
  assert sorted(entry["episode"] for entry in log(new)) == sorted({0, 1, 2} - set(kept))


def test_conditions_see_one_table_of_all_splits(tmp_path):
  new = run(
    tmp_path,
    {"train": [[episode(0, 3), episode(1, 9)]], "val": [[episode(2, 8), episode(3, 4)]]},
    "--where=return_rank <= 2",
  )
  assert [len(found["reward"]) - 1 for found in [*steps(new), *steps(new, "val")]] == [9, 8]


def test_actions_are_clipped(tmp_path):
  record = episode(0)
  record["steps/action"][2] = [3, -0.5]
  record["steps/action"][4] = [-2, 2]
  new = run(tmp_path, [record, episode(1)], "--clip_actions")
  found = steps(new)[0]["action"]
  np.testing.assert_array_equal(found, np.clip(record["steps/action"], -1, 1))
  assert [(entry["episode"], entry["what"], entry["values"]) for entry in log(new)] == [(0, "clipped", 3)]


def test_fields(tmp_path):
  records = [episode(0), episode(1)]
  new = run(tmp_path, records, "--drop_fields=observation/image,episode_metadata/operator", "--cast=reward=float32")
  info = rlds.read_info(new)
  assert set(info.features["steps"].feature["observation"]) == {"state"}
  assert set(info.features["episode_metadata"]) == {"success"}
  kept = tool.main(["clean", str(new), f"--root={tmp_path}", "--name=few", "--keep_fields=observation"])
  assert kept == 0
  info = rlds.read_info(tmp_path / "few" / "1.0.0")
  assert "language_instruction" not in info.features["steps"].feature
  assert "episode_metadata" not in info.features


def test_casts(tmp_path, capsys):
  record = episode(0)
  record["steps/observation/state"][:] = np.arange(21).reshape(7, 3)
  new = run(tmp_path, [record], "--cast=observation/state=uint8")
  found = steps(new)[0]["observation"]["state"]
  assert (found.dtype, found[2].tolist()) == (np.uint8, [6, 7, 8])
  old = str(tmp_path / "old" / "robots")
  for flag, message in (
    ("--cast=action=int32", "'action' has values that int32 cannot hold"),
    ("--cast=language_instruction=uint8", "'language_instruction' holds no numbers"),
    ("--cast=nothing=uint8", "no field 'nothing'"),
    ("--cast=action=float16", "expected FIELD=DTYPE"),
  ):
    assert tool.main(["clean", old, f"--root={tmp_path / 'other'}", flag]) == 2
    assert message in capsys.readouterr().err
    # What failed is not in the way of other rules.
    assert not list(tmp_path.glob("other/*/*"))


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--name=robots", "--root={old}"], "is the dataset itself"),
    (["--min_return=100"], "no episode is left (2 return)"),
    (["--drop_fields=reward"], "RLDS needs the field 'steps/reward'"),
    (["--drop_fields=observation"], "no field of the observation is left"),
    (["--keep_fields=obs"], "no field 'obs'; there: episode_metadata/operator"),
    (["--success_key=won"], "episodes have no metadata 'won'; there: operator, success"),
    (["--where=won"], "SQL: "),
    (["--split=test"], "no split 'test'"),
    (["--idle_tolerance=nan", "--drop_idle_end"], "--idle_tolerance: expected a number"),
    (["--min_return=nan"], "--min_return: expected a number"),
    (["--max_return=inf"], "--max_return: expected a number"),
  ],
)
def test_what_cannot_be_done_is_refused(tmp_path, capsys, flags, message):
  old = write(tmp_path / "old", {"train": [[episode(0), episode(1)]]})
  flags = [flag.format(old=tmp_path / "old") for flag in flags]
  assert tool.main(["clean", str(old), f"--root={tmp_path / 'new'}", *flags]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / "new").exists()


def test_a_dataset_is_never_written_over(tmp_path, capsys):
  run(tmp_path, [episode(0)])
  assert tool.main(["clean", str(tmp_path / "old" / "robots"), f"--root={tmp_path / 'new'}"]) == 2
  assert "is already there" in capsys.readouterr().err


def test_no_bounds_to_clip_to(tmp_path, capsys):
  run(tmp_path, [episode(0)], "--clip_actions", code=2, metadata={})
  assert "no action_low and action_high" in capsys.readouterr().err


def test_bounds_the_wrong_way_round_are_none_to_clip_to(tmp_path, capsys):
  metadata = {"action_low": [1, -1], "action_high": [-1, 1]}
  run(tmp_path, [episode(0)], "--clip_actions", code=2, metadata=metadata)
  assert "action_low in metadata.json is not below action_high" in capsys.readouterr().err


def test_damage_is_an_error_or_left_out(tmp_path, capsys):
  records = [episode(seed) for seed in range(6)]
  old = write(tmp_path / "old", {"train": [records[:3], records[3:5], records[5:]]})
  path = shard(old)
  content = bytearray(path.read_bytes())
  content[content.index(records[1]["steps/observation/image"][3][60:100])] ^= 1
  path.write_bytes(content)
  flags = [str(old), f"--root={tmp_path / 'new'}"]
  assert tool.main(["clean", *flags]) == 2
  assert f"{path}, record 1: damaged" in capsys.readouterr().err
  shard(old, 1).unlink()
  assert tool.main(["clean", *flags, "--skip_damaged"]) == 0
  new = tmp_path / "new" / "robots-clean" / "1.0.0"
  states = [found["observation"]["state"] for found in steps(new)]
  for state, seed in zip(states, (0, 2, 5), strict=True):
    np.testing.assert_array_equal(state, records[seed]["steps/observation/state"])
  assert [(entry.get("episode"), entry["rule"]) for entry in log(new)] == [(1, "damaged"), (None, "damaged")]


def spoil(name, step, value):
  def change(record):
    record[f"steps/{name}"][step] = value

  return change


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (spoil("action", 2, np.nan), "field 'action' is NaN or inf in float32 at step 2"),
    (spoil("action", 6, np.nan), "field 'action' is NaN or inf in float32 at step 6"),
    (spoil("reward", 2, np.nan), "field 'steps/reward' is NaN or inf"),
    (spoil("observation/state", 0, np.inf), "field 'observation/state' is NaN or inf in float32 at step 0"),
    (spoil("is_terminal", 3, True), "field 'is_terminal' is true before the last step"),
    (spoil("count", 3, 2**40), "field 'count' has integers outside int32"),
    (spoil("observation/image", 1, b"no picture"), "step 1: the picture is neither PNG nor JPEG; expected png"),
  ],
)
def test_what_cannot_be_written_is_damaged(tmp_path, capsys, change, words):
  records = [episode(seed) | {"steps/count": np.arange(7)} for seed in range(3)]
  change(records[1])
  count = Feature("tensor", (), np.dtype(np.int64))
  flags = ["--min_return=5", "--dry_run"]
  run(tmp_path, records, *flags, code=2, found=with_fields(count=count))
  error = capsys.readouterr().err
  assert "record 1: " in error
  assert f"{words}; to leave out what is damaged, give --skip_damaged" in error
  flags = ["clean", str(tmp_path / "old" / "robots"), f"--root={tmp_path / 'new'}", "--min_return=5", "--skip_damaged"]
  assert tool.main([*flags, "--dry_run"]) == 0
  dry = capsys.readouterr().out.splitlines()
  assert tool.main(flags) == 0
  assert capsys.readouterr().out.splitlines()[:-1] == dry[:-1]
  new = tmp_path / "new" / "robots-clean" / "1.0.0"
  (entry,) = log(new)
  assert (entry["episode"], entry["rule"]) == (1, "damaged")
  assert entry["why"].endswith(words)
  assert rlds.read_info(new).metadata["cleaned"]["transitions"] == {"before": 18, "after": 12}


def test_damage_in_what_goes_anyway_is_none(tmp_path):
  records = [episode(seed) | {"steps/extra": np.ones(7, np.float32)} for seed in range(2)]
  records[0]["steps/extra"][2] = np.nan
  records[1]["steps/action"][2] = np.nan
  records[1]["steps/reward"][:] = 0
  found = with_fields(extra=NUMBER)
  new = run(tmp_path, records, "--drop_fields=extra", "--min_return=1", found=found)
  assert [(entry["episode"], entry["rule"]) for entry in log(new)] == [(1, "return")]


def test_all_damaged(tmp_path, capsys):
  record = episode(0)
  record["steps/action"][2] = np.nan
  run(tmp_path, [record], "--skip_damaged", code=2)
  assert "no episode is left (1 damaged; the first: field 'action' is NaN or inf" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--skip_damaged"]])
def test_fields_that_some_episodes_lack_are_no_damage(tmp_path, capsys, flags):
  records = [episode(0) | {"steps/extra": np.ones(7, np.float32)}, episode(1)]
  found = with_fields(extra=ODD["optional"])
  run(tmp_path, records, "--dry_run", *flags, code=2, found=found)
  error = capsys.readouterr().err
  assert "record 1: field 'extra' is absent" in error
  assert "to write the others, give --drop_fields" in error


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_conditions_on_what_is_left_of_damage(tmp_path, file_format):
  lengths = (3, 4, 5, 6, 7, 8)
  records = [episode(seed, length) for seed, length in enumerate(lengths)]
  old = write(tmp_path / "old", {"train": [records[:4], records[4:5]], "val": [records[5:]]}, file_format=file_format)
  path = shard(old)
  content = bytearray(path.read_bytes())
  content[content.index(records[1]["steps/observation/image"][3][60:100])] ^= 1
  path.write_bytes(content)
  shard(old, 1).unlink()
  flags = [str(old), f"--root={tmp_path / 'new'}", "--where=length > 3 AND return_rank < 3"]
  assert tool.main(["clean", *flags]) == 2
  assert tool.main(["clean", *flags, "--skip_damaged"]) == 0
  new = tmp_path / "new" / "robots-clean" / "1.0.0"
  # Of lengths 3, 5, 6 and 8, which are left, the two that return most.
  assert [len(found["reward"]) - 1 for split in ("train", "val") for found in steps(new, split)] == [6, 8]
  assert [(entry.get("episode"), entry["rule"]) for entry in log(new)] == [
    (0, "where"),
    (1, "damaged"),
    (2, "where"),
    (None, "damaged"),
  ]


def test_conditions_on_a_file_with_fewer_records_than_promised(tmp_path):
  old = write(tmp_path / "old", {"train": [[episode(0, 3), episode(1, 4)], [episode(2, 5)]]})
  info = json.loads((old / "dataset_info.json").read_text())
  info["splits"][0]["shardLengths"] = ["3", "1"]
  (old / "dataset_info.json").write_text(json.dumps(info))
  _, plan = clean.clean(str(old), Rules(where="length > 3", skip_damaged=True), dry_run=True)
  assert [(kept.file.name[-14:-9], kept.record) for kept in plan.kept] == [("00000", 1), ("00001", 0)]


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--name=../../esc", "--name '../../esc' does not match"),
    ("--version=../x", "--version '../x' does not match"),
    ("--name=/tmp/x", "--name '/tmp/x' does not match"),
  ],
)
def test_names_cannot_leave_the_root(tmp_path, capsys, flag, message):
  run(tmp_path, [episode(0)], flag, code=2)
  assert message in capsys.readouterr().err
  assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_two_at_once_publish_the_log_of_the_one_that_wrote(tmp_path, monkeypatch):
  old = write(tmp_path / "old", {"train": [[episode(seed) for seed in range(4)]]})
  read, others = Trimmed.__getitem__, []

  def meanwhile(self, index):
    if not others:
      others.append(index)
      with pytest.raises(RuntimeError):
        clean.clean(str(old), Rules(where="episode < 2"), root=str(tmp_path))
    return read(self, index)

  monkeypatch.setattr(Trimmed, "__getitem__", meanwhile)
  path, plan = clean.clean(str(old), Rules(where="episode > 0"), root=str(tmp_path))
  assert others
  assert [file.name for file in path.parent.iterdir()] == ["1.0.0"]
  assert log(path) == plan.log
  assert [entry["episode"] for entry in log(path)] == [0]


def test_a_file_that_cannot_be_addressed_is_left_out_whole(tmp_path):
  records = [episode(seed) for seed in range(4)]
  old = write(tmp_path / "old", {"train": [records[:3], records[3:]]}, file_format="tfrecord")
  path = shard(old)
  content = bytearray(path.read_bytes())
  # The length of the second record: nothing says where the third one starts.
  content[int.from_bytes(content[:8], "little") + 16] ^= 1
  path.write_bytes(content)
  assert tool.main(["clean", str(old), f"--root={tmp_path / 'new'}", "--skip_damaged"]) == 0
  new = tmp_path / "new" / "robots-clean" / "1.0.0"
  assert [len(found["reward"]) for found in steps(new)] == [7]
  assert [(entry.get("episode"), entry["rule"]) for entry in log(new)] == [(None, "damaged"), (0, "damaged")]
  assert rlds.read_info(new).metadata["cleaned"]["episodes"] == {"before": 2, "after": 1}


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
  records = [idle_start(seed, 1 + seed % 3) for seed in range(6)]
  old = write(tmp_path / "old", {"train": [records]})
  rules = Rules(drop_idle_start=True)
  expected, _ = clean.clean(str(old), rules, root=str(tmp_path / "whole"))
  reads, read = [], Trimmed.__getitem__

  def count(self, index):
    if len(reads) == 4:
      raise KeyboardInterrupt
    reads.append(index)
    return read(self, index)

  monkeypatch.setattr(Trimmed, "__getitem__", count)
  with pytest.raises(KeyboardInterrupt):
    clean.clean(str(old), rules, root=str(tmp_path / "cut"))
  reads.clear()
  assert [file.name for file in (tmp_path / "cut" / "robots-clean").iterdir()] == ["1.0.0.incomplete"]
  (tmp_path / "cut" / "robots-clean" / "1.0.0.clean-0.jsonl").touch()  # of a run that was killed
  path, _ = clean.clean(str(old), rules, root=str(tmp_path / "cut"))
  # The last one that was written is read again, to see that it is the same.
  assert reads == [3, 4, 5]
  assert [(file.name, file.read_bytes()) for file in sorted(path.iterdir())] == [
    (file.name, file.read_bytes()) for file in sorted(expected.iterdir())
  ]
  assert [file.name for file in path.parent.iterdir()] == ["1.0.0"]


def test_other_rules_do_not_go_on_with_an_unfinished_run(tmp_path, monkeypatch):
  old = write(tmp_path / "old", {"train": [[episode(seed) for seed in range(4)]]})
  read = Trimmed.__getitem__

  def fail(self, index):
    if index == 2:
      raise KeyboardInterrupt
    return read(self, index)

  monkeypatch.setattr(Trimmed, "__getitem__", fail)
  with pytest.raises(KeyboardInterrupt):
    clean.clean(str(old), Rules(), root=str(tmp_path))
  monkeypatch.undo()
  with pytest.raises(ValueError, match="unfinished"):
    clean.clean(str(old), Rules(min_length=2), root=str(tmp_path))


def test_a_dry_run_writes_nothing(tmp_path, capsys):
  run(tmp_path, [episode(0), episode(0)], "--drop_duplicates", "--dry_run")
  assert not (tmp_path / "new").exists()
  assert "dropped  duplicate  1" in capsys.readouterr().out


def test_sources_can_be_sent_to_other_processes(tmp_path):
  old = write(tmp_path, {"train": [[episode(0), episode(1)]]})
  _, plan = clean.clean(str(old), Rules(), dry_run=True)
  source = Trimmed(rlds.read_info(old), plan.kept, plan.files, Rules(), {}, "robots")
  there = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(there[1].steps["action"], source[1].steps["action"])


def test_records_without_discount_or_flags_at_their_ends(tmp_path):
  record = episode(0)
  del record["steps/discount"]
  record["steps/is_last"][:] = False
  steps_features = {name: feature for name, feature in FEATURES["steps"].feature.items() if name != "discount"}
  new = run(tmp_path, [record], found=FEATURES | {"steps": Sequence(steps_features)})
  (found,) = steps(new)
  assert found["discount"].tolist() == [1.0] * 7
  assert found["is_last"].tolist() == [False] * 6 + [True]


def test_bridge(shared_data, tmp_path):
  old = shared_data / "rlds" / "bridge_dataset"
  path, plan = clean.clean(
    str(old), Rules(drop_duplicates=True, drop_fields=("language_embedding",)), root=str(tmp_path), name="bridge"
  )
  assert (plan.before["episodes"], plan.after["episodes"]) == (50, 25)
  before, after = steps(rlds.resolve(old))[3], steps(path)[3]
  pictures = before["observation"]["image_0"], after["observation"]["image_0"]
  assert pictures[0].encoded(4) == pictures[1].encoded(4)
  assert after["language_instruction"].tolist() == before["language_instruction"].tolist()


def test_fields_of_varying_shape_can_only_be_left_out(tmp_path, capsys):
  found = FEATURES | {"steps": Sequence(FEATURES["steps"].feature | {"points": Sequence(NUMBER)})}
  record = episode(0)
  record["steps/points/ragged_flat_values"] = np.arange(3, dtype=np.float32)
  record["steps/points/ragged_row_lengths_0"] = np.array([0, 1, 2, 0, 0, 0, 0])
  new = run(tmp_path, [record], code=2, found=found)
  assert "leave it out by --drop_fields=points" in capsys.readouterr().err
  assert (
    tool.main(["clean", str(tmp_path / "old" / "robots"), f"--root={tmp_path / 'new'}", "--drop_fields=points"]) == 0
  )
  assert "points" not in steps(new)[0]

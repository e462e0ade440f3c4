"""What of a mapping fits no record of all recordings is told; what one recording lacks is not."""

import json

import pytest
from test_write import Stopped, stop_at

from ilx.data.convert import logs, tables, write

ACTION = {"column": "x"}


@pytest.fixture
def opened(tmp_path):
  """Opens recordings, each a list of records, with an action and what else a mapping says."""

  def make(recordings, action, **settings):
    for number, records in enumerate(recordings):
      text = "".join(json.dumps({"t": i, "x": i} | record) + "\n" for i, record in enumerate(records))
      (tmp_path / f"{number}.jsonl").write_text(text)
    mapping = {"events": {"pad": {"path": "{episode}.jsonl"}}, "observation": {"x": ACTION}, "action": action}
    return logs.open(tmp_path, mapping | settings)

  return make


KEYS = [{"key": "w"}, {"key": "a"}, {"key": "w"}]
QUIET = [{"key": "a"}, {"key": "a"}]


def button(**about):
  return {"column": "x", "kind": "button", "align": "any", **about}


def test_what_one_recording_lacks_is_usual(opened):
  assert opened([QUIET, KEYS, QUIET], [button(where={"key": "w"})]).doubts() == []
  assert opened([QUIET, KEYS], [button(where={"key": ["q", "w"]})]).doubts() == []
  whole = {"column": "key", "kind": "category", "vocabulary": ["a", "w"]}
  assert opened([QUIET, KEYS], whole).doubts() == []
  unarmed = {"column": "key", "kind": "category", "vocabulary": ["none", "a", "w"], "fill": "none"}
  assert opened([QUIET, KEYS], unarmed).doubts() == []
  assert opened([QUIET, KEYS], [{"column": "key", "kind": "button", "pressed": ["w", "q"]}]).doubts() == []


@pytest.mark.parametrize(
  ("action", "doubt"),
  [
    (
      [ACTION, button(where={"key": "W"})],
      "action[1].where: no record of any recording has 'W' in its column 'key'; there are 'a', 'w'",
    ),
    (
      {"move": ACTION, "jump": button(where={"x": 0, "kye": "w"})},
      "action.jump[0].where: no record of any recording has the column 'kye' (did you mean 'key'?); "
      "there are t, x, key",
    ),
    (
      {"column": "key", "kind": "category", "vocabulary": ["a", "s", "w", "d"]},
      "action[0].vocabulary: no record of any recording has 'd', 's' in its column 'key'",
    ),
    (
      [{"column": "key", "kind": "button", "vocabulary": ["a", "s", "w"]}],
      "action[0].vocabulary: no record of any recording has 's' in its column 'key'",
    ),
    (
      [{"column": "key", "kind": "button", "pressed": ["down"]}],
      "action[0].pressed: no record of any recording has one of these values in its column 'key'; there are 'a', 'w'",
    ),
  ],
)
def test_what_all_recordings_lack_is_told(opened, action, doubt):
  assert opened([QUIET, KEYS], action).doubts() == [doubt]


def test_a_table_is_read_once_and_once_more_for_what_is_told_of_a_column(opened, monkeypatch):
  source = opened([QUIET] * 50 + [KEYS], [button(where={"key": key}) for key in "wqrz"])
  read = []
  real = tables.records

  def counted(*given):
    for found in real(*given):
      read.append(found)
      yield found

  monkeypatch.setattr(tables, "records", counted)
  assert [doubt[:15] for doubt in source.doubts()] == [f"action[{i}].where" for i in (1, 2, 3)]
  assert len(read) <= 2 * (50 * len(QUIET) + len(KEYS)) + 3


def test_what_there_is_instead_is_told_without_spaces_around_it(opened):
  records = [{"key": " w"}, {"key": "a "}, {"key": " "}]
  (doubt,) = opened([records], [button(where={"key": "ww"})]).doubts()
  assert doubt.endswith("there are ' ', 'a', 'w'")


def test_a_table_that_chooses_nothing_is_told_once(opened):
  keys = {"path": "{episode}.jsonl", "time": "t", "where": {"key": "s"}}
  events = {"pad": {"path": "{episode}.jsonl"}, "keys": keys}
  settings = {"events": events, "observation": {"x": {"from": "pad", "column": "x"}}, "clock": {"from": "pad"}}
  source = opened([QUIET, KEYS], [button(**{"from": "keys", "where": {"key": "w"}})], **settings)
  assert source.doubts() == [
    "events.keys.where: no record of any recording has 's' in its column 'key'; there are 'a', 'w'"
  ]


def test_a_table_without_records_is_told(opened, tmp_path):
  (tmp_path / "keys.csv").write_text("t,key\n")
  events = {"pad": {"path": "{episode}.jsonl"}, "keys": {"path": "keys.csv", "time": "t"}}
  settings = {"events": events, "observation": {"x": {"from": "pad", "column": "x"}}, "clock": {"from": "pad"}}
  source = opened([KEYS], [button(**{"from": "keys", "column": "key", "where": {"key": "w"}})], **settings)
  assert source.doubts() == ["events.keys: no recording has a record"]


def test_damaged_files_are_passed_over(opened, tmp_path):
  source = opened([QUIET, QUIET, KEYS], [button(where={"key": "w"})])
  (tmp_path / "1.jsonl").write_text("{")
  assert source.doubts() == []


def test_a_conversion_warns_of_all_recordings_whichever_run_wrote_them(opened, tmp_path):
  source = opened([KEYS, QUIET, QUIET], [button(where={"key": "w"}), button(where={"key": "s"})])
  with pytest.raises(Stopped):
    write.write(source, tmp_path / "out", name="keys", progress=stop_at(1))
  with pytest.warns(UserWarning, match=r"action\[1\]\.where: no record of any recording has 's'") as told:
    write.write(source, tmp_path / "out", name="keys")
  assert len(told) == 1

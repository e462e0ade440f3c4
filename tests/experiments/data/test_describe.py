import json
import pathlib
import sys

import ml_dtypes
import numpy as np
import pytest
from robots import FEATURES, ODD, Sequence, episode, png, shard, unlike, with_fields, write

from experiments.data import __main__ as tool
from experiments.data import card as card_lib
from experiments.data import page, survey
from experiments.data.describe import describe, plain, show
from ilx.data import rlds
from ilx.data.features import Feature

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from report_pages import ATTACK, Page, assert_self_contained


def messages(card, level=None):
  return [f"{e['field']}: {e['message']}" for e in card["findings"] if level in (None, e["level"])]


@pytest.fixture
def directory(tmp_path):
  """Lengths 4, 5, 6 and 7, each transition worth 1; the last episode ended by a time limit."""
  records = [episode(seed, length=4 + seed, terminal=seed < 3) for seed in range(4)]
  return write(tmp_path, {"train": [records[:2], records[2:3]], "val": [records[3:]]})


def test_card(directory):
  card, _ = describe(directory)
  assert (card["name"], card["version"], card["file_format"]) == ("robots", "1.0.0", "array_record")
  assert card["splits"]["train"]["episodes"] == 3
  assert card["splits"]["train"]["shards"] == 2
  assert card["bytes"] == sum(path.stat().st_size for path in directory.glob("*.array_record*"))
  assert (card["read"]["episodes"], card["read"]["steps"], card["read"]["transitions"]) == (4, 26, 22)
  expected = {"mean": 5.5, "std": np.std([4, 5, 6, 7]), "min": 4, "q25": 4.75, "median": 5.5, "q75": 6.25, "max": 7}
  assert card["returns"] == pytest.approx(expected)
  assert card["lengths"] == pytest.approx(expected)
  assert card["ends"] == {"terminal": 3, "time_limit": 1, "flagged_last": 4}
  assert card["texts"]["steps/language_instruction"]["most_frequent"] == [["close it", 2], ["open the drawer", 2]]
  assert card["episode_metadata"]["episode_metadata/success"]["most_frequent"] == [[True, 2], [False, 2]]
  assert card["metadata"]["env_id"] == "Robot-v0"
  assert {"name": "steps/observation/image", "type": "png [16, 20, 3]"} in card["fields"]
  assert card["findings"] == []


def test_statistics_leave_out_actions_that_carry_no_meaning(directory):
  records = [episode(seed, length=4 + seed) for seed in range(4)]
  numbers = describe(directory)[0]["numbers"]
  for name, rows in (
    ("steps/action", np.concatenate([record["steps/action"][:-1] for record in records])),
    ("steps/observation/state", np.concatenate([record["steps/observation/state"] for record in records])),
  ):
    found = numbers[name]
    assert found["count"] == [len(rows)] * rows.shape[1]
    np.testing.assert_allclose(found["mean"], rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["std"], rows.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["median"], np.median(rows, axis=0), rtol=1e-5)
    assert found["max"] == rows.max(axis=0).tolist()
    for histogram in found["histograms"]:
      assert sum(histogram["counts"]) == len(rows)
      assert len(histogram["edges"]) == len(histogram["counts"]) + 1


def test_frames(directory):
  _, frames = describe(directory)
  found = [(frame.split, frame.episode, frame.step) for frame in frames["steps/observation/image"]]
  # Two episodes of each split, where there are two; first and last steps among six.
  assert found == [
    *(("train", 0, step) for step in range(5)),
    *(("train", 2, step) for step in (0, 1, 2, 4, 5, 6)),
    *(("val", 0, step) for step in (0, 1, 3, 4, 6, 7)),
  ]
  assert frames["steps/observation/image"][1].content == episode(0, length=4)["steps/observation/image"][1]


def test_a_part(directory):
  card, _ = describe(directory, "val")
  assert card["read"]["splits"] == {"val": {"episodes": 1, "steps": 8}}
  assert not card["read"]["whole"]
  assert describe(directory, "train[1:]+val")[0]["read"]["episodes"] == 3
  assert describe(directory, max_episodes=1)[0]["read"]["episodes"] == 2
  with pytest.raises(ValueError, match="test"):
    describe(directory, "test")


def test_findings(tmp_path):
  records = [episode(seed, length=300, terminal=False) for seed in range(3)]
  for record in records:
    action, state = record["steps/action"], record["steps/observation/state"]
    action[:, 0] = np.round(action[:, 0])
    action[:100, 1] = 1.0
    action[200, 1] = 5.0
    state[:, 0] = 3.0
    state[:, 1] = 0.0
    state[17, 1] = 1.0
    state[5, 2] = 1e6
    record["steps/reward"][:] = 0
    record["steps/is_last"][:] = False
  card, _ = describe(write(tmp_path, {"train": [records]}))
  assert messages(card, "warning") == [
    "steps/is_last: never true: the episodes were cut out of longer ones, or the flags are not set",
    "steps/reward: always 0: returns say nothing",
    "steps/action: dimension 1 of 2: up to 0.33 % of the values out of the metadata's bounds",
  ]
  assert sorted(messages(card, "note")) == [
    "steps/action: dimension 0 of 2: at most 3 different values: discretised?",
    "steps/is_terminal: never true: every episode ends by a time limit or a cut",
    "steps/observation/state: dimension 0 of 3: always 3",
    "steps/observation/state: dimension 1 of 3: nearly constant: one value in more than 99 % of the steps",
    "steps/observation/state: dimension 2 of 3: heavy tails: extremes ten times as far out as 98 % of the values",
  ]


def test_saturated_actions(tmp_path):
  record = episode(0, length=300)
  record["steps/action"][:100, 1] = 1.0
  card, _ = describe(write(tmp_path, {"train": [[record]]}))
  assert "steps/action: dimension 1 of 2: saturated: up to 33 % of the values at the minimum or maximum" in messages(
    card
  )


def test_nan_is_counted_and_left_out(tmp_path):
  record = episode(0, length=300)
  record["steps/observation/state"][3:5, 2] = np.nan
  card, frames = describe(write(tmp_path, {"train": [[record]]}))
  numbers = card["numbers"]["steps/observation/state"]
  assert numbers["not_finite"] == [0, 0, 2]
  assert numbers["mean"][2] == pytest.approx(np.nanmean(record["steps/observation/state"][:, 2]), rel=1e-5)
  assert "steps/observation/state: dimension 2 of 3: NaN or inf, 2 in all" in messages(card, "warning")
  json.dumps(plain(card), allow_nan=False)
  page.render(plain(card), frames)


def test_a_field_without_any_number(tmp_path):
  record = episode(0)
  record["steps/observation/state"][:] = np.nan
  card, frames = describe(write(tmp_path, {"train": [[record]]}))
  assert "No finite value." in Page(page.render(plain(card), frames)).text


def test_idle_and_repeated(tmp_path):
  records = [episode(seed, length=10) for seed in range(2)]
  for record in records:
    record["steps/observation/state"][:5] = 1.0
    record["steps/observation/image"][:5] = record["steps/observation/image"][:1] * 5
    record["steps/action"][:5] = 0.0
  card, _ = describe(write(tmp_path, {"train": [records], "val": [[records[1]]]}))
  # Transitions 0 to 3 of 10: the observation behind the fifth differs.
  assert card["idle"]["share"] == pytest.approx(0.4)
  assert np.array(card["idle"]["timeline"])[[0, 6, 8]].tolist() == [1, 1, 0]
  assert card["duplicates"]["episodes"] == pytest.approx(1 / 3)
  assert card["duplicates"]["shared"] == [{"split": "val", "other": "train", "share": 1.0}]
  assert ": 1 episode (33 %) repeats an earlier one" in messages(card)
  assert ": 100 % of the episodes of split val are in train too" in messages(card)
  assert ": 40 % of the steps are idle: the action does nothing" in messages(card, "warning")


def test_the_longest_stretch_of_one_action(tmp_path, capsys):
  records = [episode(seed, length=10) for seed in range(3)]
  records[2]["steps/action"][2:] = 0.5
  records[1]["steps/action"][:4] = 0.0
  directory = write(tmp_path, {"train": [records[:1]], "val": [records[1:]]})
  card, frames = describe(directory)
  assert card["same_action"] == {"steps": 8, "length": 10, "split": "val", "episode": 1, "share": 0.8}
  words = "at most 8 steps in a row, 80 % of episode 1 of val"
  assert f"One and the same action: {words}." in Page(page.render(plain(card), frames)).text
  assert tool.main(["describe", str(directory), "--nopage"]) == 0
  assert f"same action           {words}\n" in capsys.readouterr().out


def test_a_camera_that_shows_nothing(tmp_path):
  records = [episode(seed) for seed in range(3)]
  for record in records:
    record["steps/observation/image"] = [png(np.zeros((16, 20, 3), np.uint8))] * 7
  card, _ = describe(write(tmp_path, {"train": [records]}))
  assert "steps/observation/image: 95 % of the pictures repeat an earlier one" in messages(card)


def test_what_cannot_be_read_is_left_out_and_said(directory):
  path = shard(directory)
  path.write_bytes(path.read_bytes()[:-3000])
  card, _ = describe(directory)
  assert card["read"]["episodes"] < 4
  assert any("could not be read" in message and path.name in message for message in messages(card, "warning"))


def test_nothing_can_be_read(tmp_path):
  directory = write(tmp_path, {"train": [[episode(0)]]})
  shard(directory).unlink()
  with pytest.raises(ValueError, match="no episode could be read"):
    describe(directory)


def test_pixels_and_large_fields(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 255, (7, 40, 30, 3), np.uint8)
  record = episode(0) | {"steps/observation/pixels": [step.tobytes() for step in pixels]}
  record["steps/observation/grey"] = [step[..., 0].tobytes() for step in pixels]
  large = np.arange(7 * 2000, dtype=np.float32)
  record["steps/observation/large"] = large
  steps = FEATURES["steps"].feature
  observation = steps["observation"] | {
    "pixels": Feature("tensor", (40, 30, 3), np.dtype(np.uint8), "bytes"),
    "grey": Feature("tensor", (40, 30), np.dtype(np.uint8), "bytes"),
    "large": Feature("tensor", (2000,), np.dtype(np.float32)),
  }
  found = FEATURES | {"steps": Sequence(steps | {"observation": observation})}
  card, frames = describe(write(tmp_path, {"train": [[record]]}, found=found))
  numbers = card["numbers"]["steps/observation/large"]
  assert numbers["pooled"]
  assert (numbers["mean"], numbers["max"], numbers["count"]) == ([6999.5], [13999.0], [14000])
  assert card["numbers"]["steps/observation/pixels"]["mean"] == pytest.approx([pixels.mean()])
  assert len(frames["steps/observation/pixels"]) == 6
  assert len(frames["steps/observation/grey"]) == 6
  assert frames["steps/observation/pixels"][0].content.startswith(b"\xff\xd8")


def test_the_page(directory, tmp_path, capsys):
  target, numbers = tmp_path / "card.html", tmp_path / "card.json"
  assert tool.main(["describe", str(directory), f"--html={target}", f"--json={numbers}"]) == 0
  out = capsys.readouterr().out
  assert "read                  4 episodes, 26 steps, 22 transitions" in out
  assert f"page  {target}" in out
  source = target.read_text()
  assert_self_contained(source)
  content = Page(source)
  assert content.count("img") == 17
  for words in (
    "robots 1.0.0",
    "Robot-v0",
    "Nothing suspicious",
    "Return against length",
    "open the drawer",
    "Dimension 1",
  ):
    assert words in content.text
  assert json.loads(numbers.read_text())["read"]["episodes"] == 4


def test_the_page_is_optional(directory, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert tool.main(["describe", str(directory), "--nopage"]) == 0
  assert not list(tmp_path.glob("*.html"))
  assert tool.main(["describe", str(directory)]) == 0
  assert (tmp_path / "robots-1.0.0.html").is_file()


def test_data_cannot_put_markup_into_the_page(tmp_path):
  record = episode(0)
  record["steps/language_instruction"] = [ATTACK.encode()] * 7
  record["episode_metadata/operator"] = [ATTACK.encode()]
  directory = write(tmp_path, {"train": [[record]]}, metadata={"env_id": ATTACK, ATTACK: ATTACK})
  card, frames = describe(directory)
  source = page.render(plain(card), frames)
  assert_self_contained(source)
  assert "<script>" not in source


def test_memory_does_not_grow_with_the_data(tmp_path):
  """Nothing that is gathered holds more rows than its bound, whatever the number of episodes."""
  found = survey.Survey(rlds.read_info(write(tmp_path, {"train": [[episode(0)]]})))
  rows = np.random.default_rng(0)
  for _ in range(6):
    starts = np.arange(0, 20_001, 100)
    flags = np.zeros(20_000, bool)
    columns = {
      "steps/observation/state": rows.normal(size=(20_000, 3)).astype(np.float32),
      "steps/action": rows.normal(size=(20_000, 2)).astype(np.float32),
      "steps/reward": np.ones(20_000, np.float32),
      "steps/observation/image": [b""] * 20_000,
      **{f"steps/{name}": flags for name in ("is_first", "is_last", "is_terminal")},
    }
    found.add(survey.Chunk("train", columns, starts, np.zeros(len(starts) - 1, np.uint64), []))
  field = found.fields["steps/observation/state"]
  assert found.steps == 120_000
  assert sum(len(part) for part in field.sample._parts["values"]) <= 2 * survey._ROWS
  assert len(field.sample.columns()["values"]) == survey._ROWS


def test_bridge(shared_data, tmp_path):
  card, frames = describe(shared_data / "rlds" / "bridge_dataset")
  assert card["read"]["episodes"] == 50
  assert set(frames) == {f"steps/observation/image_{i}" for i in range(4)}
  found = messages(card, "warning")
  for words in ("steps/is_last: never true", "steps/reward: always 0", ": 25 episodes (50 %) repeat", ": 100 % of the"):
    assert any(message.startswith(words) for message in found), words
  target = page.write(tmp_path / "bridge.html", plain(card), frames)
  assert_self_contained(target.read_text())
  assert target.stat().st_size < 2_000_000


@pytest.mark.parametrize("arguments", [[], ["--help"], ["describe", "--help"], ["clean", "-h"], ["convert", "--help"]])
def test_help(arguments, capsys):
  assert tool.main(arguments) == (0 if arguments else 2)
  out = capsys.readouterr().out
  assert "python -m experiments.data" in out
  if arguments == ["describe", "--help"]:
    assert "--max_episodes\n      Only the first so many of each split." in out


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["describes"], "no command 'describes'; there are: describe, validate, clean, query, convert"),
    (["describe"], "describe takes DATASET, got nothing"),
    (["describe", "a", "b"], "describe takes DATASET, got 'a' 'b'"),
    (["describe", "nowhere-at-all"], "no dataset 'nowhere-at-all'"),
    (["describe", "x", "--max_episodes=0"], "max_episodes"),
  ],
)
def test_wrong_commands(arguments, message, capsys):
  assert tool.main(arguments) == 2
  assert message in capsys.readouterr().err


def test_booleans_and_classes(tmp_path):
  record = episode(0) | {"steps/done": np.arange(7) > 3, "steps/phase": np.array([0, 0, 1, 1, 2, 2, 2])}
  more = {
    "done": Feature("tensor", (), np.dtype(bool)),
    "phase": Feature("label", (), np.dtype(np.int64), num_classes=3),
  }
  found = FEATURES | {"steps": Sequence(FEATURES["steps"].feature | more)}
  card, _ = describe(write(tmp_path, {"train": [[record]]}, found=found))
  assert card["numbers"]["steps/done"]["mean"] == pytest.approx([3 / 7])
  assert card["numbers"]["steps/phase"]["histograms"][0] == {"edges": [-0.5, 0.5, 1.5, 2.5], "counts": [2, 2, 3]}


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (
      ["--html={tmp}/no/page.html"],
      "--html: {tmp}/no/page.html cannot be written: there is no folder {tmp}/no; --nopage",
    ),
    (["--html={tmp}"], "--html: {tmp} is a folder"),
    (["--json={tmp}/no/card.json"], "--json: {tmp}/no/card.json cannot be written"),
    (["--idle_tolerance=nan"], "--idle_tolerance: expected a number"),
  ],
)
def test_outputs_are_checked_before_the_work(directory, tmp_path, capsys, monkeypatch, flags, message):
  monkeypatch.setattr(survey, "survey", lambda *args, **options: pytest.fail("the work began"))
  assert tool.main(["describe", str(directory), *(flag.format(tmp=tmp_path) for flag in flags)]) == 2
  assert message.format(tmp=tmp_path) in capsys.readouterr().err


def test_a_read_only_folder_names_the_flags(directory, capsys, monkeypatch):
  monkeypatch.setattr("os.access", lambda path, mode: False)
  assert tool.main(["describe", str(directory)]) == 2
  err = capsys.readouterr().err
  assert err.startswith("error: --html: NAME-VERSION.html cannot be written: the folder ")
  assert err.endswith(" is read-only; --nopage leaves the page out\n")


def test_the_default_page_stays_in_the_folder(tmp_path, capsys, monkeypatch):
  directory = write(tmp_path / "data", {"train": [[episode(0)]]})
  content = json.loads((directory / "dataset_info.json").read_text())
  content["version"] = "../../1.0.0"
  (directory / "dataset_info.json").write_text(json.dumps(content))
  (tmp_path / "here" / "deep").mkdir(parents=True)
  monkeypatch.chdir(tmp_path / "here" / "deep")
  assert tool.main(["describe", str(directory)]) == 0
  assert [path.name for path in (tmp_path / "here" / "deep").iterdir()] == ["robots-.._.._1.0.0.html"]


def test_nothing_steers_the_terminal(tmp_path, capsys):
  record = episode(0)
  record["steps/language_instruction"] = [b"\x1b[31mred\x07"] * 7
  metadata = {"env_id": "\x1b]0;title\x07\u202e", "action_low": [-1, -1], "action_high": [1, 1]}
  directory = str(write(tmp_path, {"train": [[record]]}, metadata=metadata))
  assert tool.main(["describe", directory, "--nopage"]) == 0
  out = capsys.readouterr().out
  assert "\\x1b]0;title\\x07\\u202e" in out
  assert tool.main(["query", directory, "SELECT '\x1b[2J' AS \"\x1b[1m\""]) == 0
  out += capsys.readouterr().out
  assert tool.main(["query", directory, "SELECT \x1b[2J"]) == 2
  out += capsys.readouterr().err
  assert all(c.isprintable() or c == "\n" for c in out)


def histogram(values):
  return card_lib._histogram(np.asarray(values))


def test_histograms_of_whole_numbers():
  rng = np.random.default_rng(0)
  # A few lengths do not get a bin each.
  found = histogram(rng.integers(13, 50, 30))
  assert 3 <= len(found["counts"]) <= 10
  assert len(set(np.diff(found["edges"]))) == 1
  assert float(found["edges"][0] % 1) == 0.5
  # All bins of bytes are of 256's divisors, so that the last one is as wide as it looks.
  found = histogram(np.repeat(np.arange(256, dtype=np.uint8), 50))
  assert (found["edges"][0], found["edges"][-1]) == (-0.5, 255.5)
  assert len(set(found["counts"])) == 1
  # Few numbers have a bin each, whatever their number.
  assert histogram([0, 5, 11])["edges"] == [i - 0.5 for i in range(13)]
  assert sum(histogram([-70, -3, 9, 900])["counts"]) == 4


@pytest.mark.parametrize("kind", ODD)
def test_episodes_that_differ_in_any_field_are_not_counted_as_repeated(tmp_path, kind):
  records = unlike(ODD[kind])
  directory = write(tmp_path, {"train": [records[:1]], "val": [records[1:]]}, found=with_fields(extra=ODD[kind]))
  assert describe(directory)[0]["duplicates"]["episodes"] == 0
  assert describe(directory)[0]["duplicates"]["shared"] == []
  directory = write(tmp_path / "same", {"train": [records[:1] * 2]}, found=with_fields(extra=ODD[kind]))
  assert describe(directory)[0]["duplicates"]["episodes"] == 0.5


def test_what_cannot_be_looked_at_is_said(tmp_path):
  directory = write(tmp_path, {"train": [unlike(ODD["ragged"])]}, found=with_fields(extra=ODD["ragged"]))
  assert any("steps/extra: cannot be looked at step by step" in found for found in messages(describe(directory)[0]))


@pytest.mark.parametrize(
  ("dtype", "stored", "highest"),
  [("uint64", np.array([1, -5, 3, 0, 0, 0, 0]), 2.0**64), (ml_dtypes.bfloat16, np.arange(7, dtype=np.float32), 6)],
)
def test_numbers_that_are_stored_as_others(tmp_path, dtype, stored, highest):
  record = episode(0)
  record["steps/extra"] = stored
  found = with_fields(extra=Feature("tensor", (), np.dtype(dtype)))
  card, _ = describe(write(tmp_path, {"train": [[record]]}, found=found))
  assert card["unreadable"]["count"] == 0
  assert card["numbers"]["steps/extra"]["max"] == [highest]


def described(tmp_path, records, **options):
  """The card of a dataset that can be shown and written as a page."""
  card, frames = describe(write(tmp_path, {"train": [records]}, **options))
  show(card)
  page.write(tmp_path / "page.html", plain(card), frames)
  return card


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rewards_that_are_not_finite(tmp_path, value):
  records = [episode(seed, length=4 + seed) for seed in range(3)]
  records[0]["steps/reward"][1] = value
  card = described(tmp_path / "some", records)
  assert (card["returns"]["min"], card["returns"]["median"], card["returns"]["max"]) == (5, 5.5, 6)
  assert sum(card["histograms"]["return"]["counts"]) == 2
  assert card["points"] == [[5, 6], [5, 6]]
  assert "steps/reward: NaN or inf, 1 in all" in messages(card, "warning")
  card = described(tmp_path / "all", records[:1])
  assert (card["returns"], card["points"]) == (None, [[], []])


def test_episodes_of_one_step_only(tmp_path):
  card = described(tmp_path, [episode(seed, length=0) for seed in range(2)])
  assert ": some episodes have one step only, and so no transition" in messages(card, "warning")
  assert card["numbers"]["steps/action"]["count"] == [0, 0]


def test_a_field_without_numbers(tmp_path):
  record = episode(0) | {"steps/extra": np.zeros(0, np.float32)}
  card = described(tmp_path, [record], found=with_fields(extra=Feature("tensor", (0,), np.dtype(np.float32))))
  assert card["numbers"]["steps/extra"]["mean"] == []
  assert not [entry for entry in card["findings"] if entry["field"] == "steps/extra"]


def test_ends_are_counted_once_an_episode(tmp_path):
  records = [episode(0), episode(1, terminal=False)]
  records[0]["steps/is_terminal"] = np.array([0, 0, 0, 0, 0, 0, 7])
  records[1]["steps/is_terminal"] = np.zeros(7, np.int64)
  found = with_fields(is_terminal=Feature("tensor", (), np.dtype(np.int64)))
  card = described(tmp_path / "seven", records, found=found)
  assert card["ends"] == {"terminal": 1, "time_limit": 1, "flagged_last": 2}
  records[0]["steps/is_terminal"][2:] = 1
  card = described(tmp_path / "early", records, found=found)
  assert card["ends"] == {"terminal": 1, "time_limit": 1, "flagged_last": 2}
  assert "steps/is_terminal: true before an episode's last step: ilx.data.load refuses that" in messages(card)

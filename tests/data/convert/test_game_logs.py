import dataclasses
import importlib.util
import json
import pathlib
import pickle
from fractions import Fraction

import av
import jax
import numpy as np
import pytest
from PIL import Image
from test_events import FORMATS, write_events

import ilx
from ilx.data import rlds
from ilx.data.convert import frames, logs, video, write

_spec = importlib.util.spec_from_file_location("game", pathlib.Path(__file__).parent / "fixtures" / "game.py")
game = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(game)

FPS = 10
# What video codecs make of a grey.
NEAR = 6


def picture(frame, size):
  """The frame's number in two digits to the base of 16: the greys of its halves."""
  found = np.full((*size, 3), 16 + 14 * (frame % 16), np.uint8)
  found[:, size[1] // 2 :] = 16 + 14 * (frame // 16)
  return found


def write_frames(path, count, fps=FPS, size=(32, 32)):
  """A video, or a folder of pictures where the path has no ending."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pictures = [picture(frame, size) for frame in range(count)]
  if not path.suffix:
    path.mkdir()
    for i, pixels in enumerate(pictures):
      Image.fromarray(pixels).save(path / f"frame_{i}.png")
    return path
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=fps, options={"g": "8", "crf": "10"})
    stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
    for pixels in pictures:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
    container.mux(stream.encode())
  return path


def write_lines(path, records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(record) + "\n" for record in records))
  return path


def shown(steps, name="screen"):
  """The number of the frame that every step shows."""
  greys = np.asarray(steps["observation"][name])[..., 0].astype(float)
  half = greys.shape[2] // 2
  low, high = greys[:, :, 2 : half - 2].mean(axis=(1, 2)), greys[:, :, half + 2 : -2].mean(axis=(1, 2))
  return (np.round((low - 16) / 14) + 16 * np.round((high - 16) / 14)).astype(int).tolist()


BASE = {
  "frames": {"screen": {"path": "{episode}.mp4"}},
  "events": {"pad": {"path": "{episode}.jsonl"}},
  "action": {"column": "a"},
  "reward": {"column": "r"},
}


def mapping(**changes):
  return BASE | changes


def record(i, **more):
  return {"a": [i / 100, -i], "r": 2.0**i} | more


@pytest.fixture
def one(tmp_path):
  """Writes one recording of ``count`` frames and its records."""

  def make(records, count=5, **settings):
    write_frames(tmp_path / "s1.mp4", count)
    write_lines(tmp_path / "s1.jsonl", records)
    return logs.open(tmp_path, mapping(**settings))

  return make


def test_a_cut_recording_ends_with_its_last_frame(one):
  steps, metadata, split = one([record(i) for i in range(5)])[0]
  assert shown(steps) == [0, 1, 2, 3, 4]
  assert np.allclose(steps["action"], [[0, 0], [0.01, -1], [0.02, -2], [0.03, -3], [0, 0]])
  assert steps["action"].dtype == steps["reward"].dtype == np.float32
  assert steps["reward"].tolist() == [1, 2, 4, 8, 0]
  assert not steps["is_terminal"].any()
  assert steps["discount"].tolist() == [1, 1, 1, 1, 0]
  assert (metadata, split) == ({"episode": "s1"}, "train")


def test_what_lies_between_the_frames_loses_nothing(one):
  steps = one([record(i) for i in range(4)])[0].steps
  assert shown(steps) == [0, 1, 2, 3, 4]
  assert steps["reward"].tolist() == [1, 2, 4, 8, 0]
  steps = one([record(i) for i in range(4)], terminal=True)[0].steps
  assert shown(steps) == [0, 1, 2, 3, 4]
  assert steps["is_terminal"].tolist() == [False] * 4 + [True]


def test_an_end_in_the_last_step_repeats_the_last_frame(one):
  source = one([record(i, done=i == 4, hp=i) for i in range(5)], terminal={"column": "done"},
               observation={"hp": {"column": "hp"}})  # fmt: skip
  steps = source[0].steps
  assert shown(steps) == [0, 1, 2, 3, 4, 4]
  assert steps["observation"]["hp"].tolist() == [0, 1, 2, 3, 4, 4]
  assert steps["reward"].tolist() == [1, 2, 4, 8, 16, 0]
  assert steps["is_terminal"].tolist() == [False] * 5 + [True]
  assert steps["discount"].tolist() == [1, 1, 1, 1, 0, 0]


def test_an_end_that_the_last_frame_tells_after_the_last_action_repeats_nothing(tmp_path):
  write_frames(tmp_path / "s1.mp4", 5)
  write_lines(tmp_path / "s1.pad.jsonl", [record(i) for i in range(4)])
  write_lines(tmp_path / "s1.game.jsonl", [{"done": i == 4, "hp": i} for i in range(5)])
  events = {name: {"path": f"{{episode}}.{name}.jsonl"} for name in ("pad", "game")}
  fields = {"action": {"from": "pad", "column": "a"}, "reward": {"from": "pad", "column": "r"}}
  fields |= {"observation": {"hp": {"from": "game", "column": "hp"}}, "terminal": {"from": "game", "column": "done"}}
  steps = logs.open(tmp_path, mapping(events=events, **fields))[0].steps
  assert shown(steps) == steps["observation"]["hp"].tolist() == [0, 1, 2, 3, 4]
  assert steps["reward"].tolist() == [1, 2, 4, 8, 0]
  assert steps["is_terminal"].tolist() == [False] * 4 + [True]
  assert steps["discount"].tolist() == [1, 1, 1, 0, 0]


def test_an_end_in_the_step_before_has_its_last_frame(one):
  steps = one([record(i, done=i >= 3) for i in range(5)], terminal={"column": "done"})[0].steps
  assert shown(steps) == [0, 1, 2, 3, 4]
  assert steps["reward"].tolist() == [1, 2, 4, 8, 0]
  assert steps["is_terminal"].tolist() == [False] * 4 + [True]


def test_an_end_before_is_an_error_or_cuts(one):
  records = [record(i, done=i == 1) for i in range(5)]
  with pytest.raises(
    ValueError, match=r"s1\.jsonl: terminal is true at step 1 of 5, before the end; cut the recording"
  ):
    one(records, terminal={"column": "done"})[0]
  steps = one(records, terminal={"column": "done"}, clock={"after_end": "cut"})[0].steps
  assert shown(steps) == [0, 1, 2]
  assert steps["is_terminal"].tolist() == [False, False, True]
  assert steps["reward"].tolist() == [1, 2, 0]


def test_frames_are_skipped_and_what_happened_between_is_added_up(one):
  records = [record(i, jump=i in (1, 4)) for i in range(10)]
  action = [{"column": "a"}, {"column": "jump", "kind": "button", "align": "any"}]
  steps = one(records, 10, clock={"skip": 3}, action=action)[0].steps
  assert shown(steps) == [0, 3, 6, 9]
  assert steps["reward"].tolist() == [1 + 2 + 4, 8 + 16 + 32, 64 + 128 + 256, 0]
  assert np.allclose(steps["action"], [[0, 0, 1], [0.03, -3, 1], [0.06, -6, 0], [0, 0, 0]])


def test_events_at_their_own_times_are_aligned(one):
  # Frames at 0, 0.1, 0.2, 0.3, 0.4 s; the events' clock is a second behind.
  events = [(-1.0, 0, 1), (-0.95, 1, 2), (-0.9005, 2, 4), (-0.9, 3, 8), (-0.65, 4, 16), (-0.55, 5, 32)]
  records = [{"t": t, "a": a, "r": r} for t, a, r in events]
  about = {"pad": {"path": "{episode}.jsonl", "time": "t", "offset": 1.0}}
  steps = one(records, events=about)[0].steps
  assert steps["action"][:, 0].tolist() == [0, 3, 3, 3, 0]
  assert steps["reward"].tolist() == [1 + 2, 4 + 8, 0, 16, 0]  # 0.0995 s is 0.1 s, to the millisecond
  about["pad"] |= {"offset": 0.0, "relative": True}
  assert np.array_equal(one(records, events=about)[0].steps["reward"], steps["reward"])
  about["pad"] = {"path": "{episode}.jsonl", "time": "t", "check": False}
  steps = one(records, events=about)[0].steps
  assert steps["action"][:, 0].tolist() == [5, 5, 5, 5, 0]


def test_an_end_that_is_told_after_the_last_frame_is_an_end(one):
  about = {"pad": {"path": "{episode}.jsonl", "time": "t"}}
  records = [{"t": t, "a": 0, "r": 1, "over": t > 1} for t in (0, 0.1, 0.2, 1.2)]
  steps = one(records, events=about, terminal={"column": "over"})[0].steps
  assert shown(steps) == [0, 1, 2, 3, 4, 4]
  assert steps["is_terminal"][-1]
  assert steps["reward"].tolist() == [1, 1, 1, 0, 0, 0]


def test_clocks_that_have_nothing_in_common_are_refused(one):
  about = {"pad": {"path": "{episode}.jsonl", "time": "t"}}
  for start in (1.7e9, -1e4):
    records = [{"t": start + i, "a": 0, "r": 0} for i in range(5)]
    with pytest.raises(ValueError, match=r"s1\.jsonl \(events\.pad\): records from .* set 'offset', 'unit' or"):
      one(records, events=about)[0]


TIMED = {"pad": {"path": "{episode}.jsonl", "time": "t"}}


def test_a_log_that_stops_early_is_warned_of(one, recwarn):
  # 61 frames of half a second: 30 s of which the records cover 8.
  frames = {"screen": {"path": "{episode}.mp4", "fps": 2}}
  records = [{"t": i / 2, "a": i, "r": 1} for i in range(17)]
  told = r"recording s1: no record of an action in the last 22\.0 of 30\.0 s \(events\.pad\): did the log stop"
  irregular = [records[0], *records[8:]]
  with pytest.warns(UserWarning, match=told):
    steps = one(irregular, 61, frames=frames, events=TIMED)[0].steps
  assert steps["action"][:-1, 0].tolist() == [0] * 8 + list(range(8, 16)) + [16] * 44
  # What else the table has is no action; in segments it is told once.
  others = [{"t": i / 2, "r": 1} for i in range(61)]
  action = {"column": "a", "missing": "forward"}
  mixed = one([*irregular, *others[17:]], 61, frames=frames, events=TIMED, action=action, clock={"segment": 20})
  recwarn.clear()
  with pytest.warns(UserWarning, match=told) as found:
    _ = [mixed[i] for i in range(3)]
  assert len(found) == 1
  # What comes after the end is cut off, and whoever knows says so.
  done = [*irregular[:-1], irregular[-1] | {"done": True}]
  cut = {"terminal": {"column": "done", "missing": 0}, "clock": {"after_end": "cut"}}
  recwarn.clear()
  assert len(one(done, 61, frames=frames, events=TIMED, **cut)[0].steps["reward"]) == 18
  unchecked = {"pad": TIMED["pad"] | {"check": False}}
  assert len(one(irregular, 61, frames=frames, events=unchecked)[0].steps["reward"]) == 61
  assert not recwarn.list


def test_a_clock_that_drifts_is_brought_to_the_frames(one):
  # A record at every frame, by a clock that is 5 % too slow.
  records = [{"t": 0.95 * i / FPS, "a": i, "r": 1} for i in range(41)]
  pad = TIMED["pad"]
  assert one(records, 41, events=TIMED)[0].steps["action"][:, 0].tolist() != [*range(40), 0]
  assert one(records, 41, events={"pad": pad | {"rate": 0.95}})[0].steps["action"][:, 0].tolist() == [*range(40), 0]


def write_late(path, start, count=20):
  """A video whose frames, 20 a second, begin at ``start`` seconds."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=20, options={"g": "8", "crf": "10", "bf": "0"})
    stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
    for i in range(count):
      frame = av.VideoFrame.from_ndarray(picture(i, (32, 32)), format="rgb24")
      frame.pts, frame.time_base = round(start * 20) + i, Fraction(1, 20)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def test_frames_of_another_clock_must_be_shown_most_of_the_time(tmp_path):
  write_late(tmp_path / "s.mkv", 0)
  write_lines(tmp_path / "s.jsonl", [{"t": i * 50, "a": i, "r": 0} for i in range(20)])
  frames = {"screen": {"path": "{episode}.mkv"}}
  about = {"pad": {"path": "{episode}.jsonl", "time": "t"}}
  settings = {"events": about, "clock": {"from": "pad"}}
  with pytest.raises(ValueError, match=r"s\.mkv \(frames\.screen\): .*in a unit 1000 times smaller"):
    logs.open(tmp_path, mapping(frames=frames, **settings))[0]
  about["pad"]["unit"] = "ms"
  assert shown(logs.open(tmp_path, mapping(frames=frames, **settings))[0].steps) == list(range(20))
  frames["screen"]["check"] = False
  del about["pad"]["unit"]
  assert shown(logs.open(tmp_path, mapping(frames=frames, **settings))[0].steps) == [0] + [19] * 19


@pytest.mark.parametrize("name", ["s.mkv", "s.mp4", "s.ts"])
def test_a_videos_times_count_from_its_first_frame(tmp_path, name):
  write_late(tmp_path / name, 5.0)
  assert video.clock(tmp_path / name)[0] > 4
  write_lines(tmp_path / "s.jsonl", [{"t": i / 20, "a": i, "r": 0} for i in range(20)])
  about = {"pad": {"path": "{episode}.jsonl", "time": "t"}}
  frames = {"screen": {"path": "{episode}" + name[1:]}}
  steps = logs.open(tmp_path, mapping(events=about, frames=frames))[0].steps
  assert shown(steps) == list(range(20))
  assert steps["action"][:-1, 0].tolist() == list(range(19))
  frames["screen"]["offset"] = 0.25
  steps = logs.open(tmp_path, mapping(events=about, frames=frames))[0].steps
  assert steps["action"][:-1, 0].tolist() == [*range(5, 20), 19, 19, 19, 19]


def test_a_clock_in_another_unit_is_refused_unless_that_is_said_to_be_right(tmp_path):
  write_late(tmp_path / "s.mkv", 0)
  write_lines(tmp_path / "s.jsonl", [{"t": i * 50, "a": i, "r": 0} for i in range(20)])
  settings = {"frames": {"screen": {"path": "{episode}.mkv"}}}
  about = {"path": "{episode}.jsonl", "time": "t"}
  with pytest.raises(
    ValueError, match=r"s\.jsonl \(events\.pad\): .*only 1 of 20 .*in a unit 1000 times smaller.*'check: false'"
  ):
    logs.open(tmp_path, mapping(events={"pad": about}, **settings))[0]
  steps = logs.open(tmp_path, mapping(events={"pad": about | {"unit": "ms"}}, **settings))[0].steps
  assert steps["action"][:-1, 0].tolist() == list(range(19))
  steps = logs.open(tmp_path, mapping(events={"pad": about | {"check": False}}, **settings))[0].steps
  assert not steps["action"].any()


def test_the_frame_rate_can_be_given(one):
  records = [{"t": i, "a": i, "r": 1} for i in range(5)]
  about = {"pad": {"path": "{episode}.jsonl", "time": "t"}}
  frames = {"screen": {"path": "{episode}.mp4", "fps": 1, "offset": 1}}
  steps = one(records, events=about, frames=frames)[0].steps
  assert steps["action"][:, 0].tolist() == [1, 2, 3, 4, 0]
  assert shown(steps) == [0, 1, 2, 3, 4]


def test_a_long_recording_becomes_segments(one):
  records = [record(0) | {"a": i, "r": i, "done": i == 10, "say": f"s{i}"} for i in range(11)]
  settings = {
    "terminal": {"column": "done"},
    "steps": {"say": {"column": "say", "kind": "text"}},
    "success": {"column": "done"},
  }
  source = one(records, 11, clock={"segment": 4}, **settings)
  assert len(source) == 3
  episodes = [source[i] for i in (2, 0, 1)]
  episodes = [episodes[1], episodes[2], episodes[0]]
  assert [shown(e.steps) for e in episodes] == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10, 10]]
  assert [e.steps["action"][:-1, 0].tolist() for e in episodes] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
  assert [e.steps["reward"][:-1].tolist() for e in episodes] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
  assert [e.steps["is_terminal"][-1] for e in episodes] == [False, False, True]
  assert episodes[1].steps["say"] == ["s4", "s5", "s6", "s7", "s8"]
  assert [e.metadata for e in episodes] == [
    {"episode": "s1", "success": True, "segment": i, "segments": 3} for i in range(3)
  ]
  # Never a segment without an action.
  for length, counts in ((5, [5, 6]), (10, [11]), (100, [11])):
    source = one(records, 11, clock={"segment": length}, **settings)
    assert [len(source[i].steps["reward"]) - 1 for i in range(len(source))] == counts
  source = one(records, 11, clock={"segment": 5, "after_end": "cut"}, **settings)
  assert len(source) == 2


def test_segments_are_decoded_from_where_they_begin(tmp_path):
  write_frames(tmp_path / "s1.mp4", 100)
  write_lines(tmp_path / "s1.jsonl", [record(0) for _ in range(100)])
  source = logs.open(tmp_path, mapping(clock={"segment": 7, "skip": 2}))
  for index in (6, 0, 3):
    assert shown(source[index].steps) == list(range(14 * index, min(14 * index + 15, 100), 2))


@pytest.mark.parametrize("kind", FORMATS)
def test_all_formats_of_events_give_the_same_episodes(tmp_path, kind):
  write_frames(tmp_path / "s.mp4", 20)
  write_events(tmp_path / f"s.{kind}")
  source = logs.open(
    tmp_path,
    {
      "frames": {"screen": {"path": "{episode}.mp4", "resize": [8, 8]}},
      "events": {"pad": {"path": f"{{episode}}.{kind}", "time": "t"}},
      "observation": {"stick": {"column": "pad.stick"}},
      "action": {"column": "item", "kind": "category", "vocabulary": ["bow", "sword"]},
      "reward": {"column": "t"},
      "success": {"column": "pad.jump"},
      "steps": {"item": {"column": "item", "kind": "text"}},
      "episode": {"jumps": {"column": "pad.jump", "kind": "button", "take": "sum"}},
    },
  )
  steps, metadata, _ = source[0]
  # Records at 0, 0.25 and 1.5 s are at frames 0, 3 and 15.
  items = ["sword"] * 3 + ["bow"] * 12 + ["sword"] * 5
  assert steps["item"] == items
  assert steps["action"][:-1].tolist() == [int(item == "sword") for item in items[:-1]]
  assert steps["action"].dtype == np.int32
  sticks = [[0.5, -1.0]] * 3 + [[0.0, 0.25]] * 12 + [[1.0, 0.0]] * 5
  assert np.array_equal(steps["observation"]["stick"], np.array(sticks, np.float32))
  assert steps["reward"].tolist() == [0.0] * 2 + [0.25] + [0.0] * 12 + [1.5] + [0.0] * 4
  assert metadata == {"episode": "s", "jumps": 2.0, "success": True}
  assert source.metadata["num_actions"] == 2
  assert source.metadata["action_names"] == ["bow", "sword"]


@pytest.mark.parametrize(
  "look",
  [{"crop": [3, 2, 20, 12], "resize": [10, 6]}, {"resize": [16, 16], "channels": 1, "encoding": "png"}, {}],
)
@pytest.mark.parametrize("ending", ["", ".bmp"])
def test_a_picture_at_play_is_made_as_those_of_the_data_were(tmp_path, look, ending):
  shown = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), np.uint8)
  for i, pixels in enumerate(shown):
    Image.fromarray(pixels).save(tmp_path / f"s_{i}{ending or '.png'}")
  write_events(tmp_path / "s.jsonl")
  frames_of = {"path": "{episode}_*.*", "fps": 10, **look}
  pad = {"path": "{episode}.jsonl", "time": "t"}
  made = {"frames": {"screen": frames_of}, "events": {"pad": pad}, "action": {"column": "t"}}
  folder = write.write(logs.open(tmp_path, made), tmp_path / "data", name="game")
  episodes = ilx.data.load(folder)
  about = rlds.read_info(folder).metadata["mapping"]["frames"]["screen"]
  seen = [frames.as_seen(pixels, frames.look_of(about)) for pixels in shown]
  kept = not look and not ending
  np.testing.assert_array_equal(episodes.observation["screen"][:4], shown if kept else seen)


def test_videos_and_folders_of_pictures_show_the_same(tmp_path):
  write_frames(tmp_path / "v" / "s.mp4", 12)
  write_frames(tmp_path / "v" / "s.avi", 12)
  write_frames(tmp_path / "p" / "s", 12)
  write_lines(tmp_path / "s.jsonl", [record(i) for i in range(12)])
  found = []
  (tmp_path / "q").mkdir()
  for file in (tmp_path / "p" / "s").iterdir():
    (tmp_path / "q" / file.name.replace("frame", "s")).write_bytes(file.read_bytes())
  for path in ("v/{episode}.mp4", "v/{episode}.avi", "p/{episode}", "p/{episode}/frame_*.png", "q/{episode}_*.png"):
    found.append(logs.open(tmp_path, mapping(frames={"screen": {"path": path}}))[0].steps)
  assert [shown(steps) for steps in found] == [list(range(12))] * 5
  pictures = [np.asarray(steps["observation"]["screen"]).astype(int) for steps in found]
  assert max(np.abs(p - pictures[2]).max() for p in pictures) <= NEAR
  # Pictures that nothing changes are kept as they are, whatever their order by name.
  assert found[2]["observation"]["screen"].encoded(10) == (tmp_path / "p" / "s" / "frame_10.png").read_bytes()


def test_pictures_need_a_frame_rate_to_be_aligned_by_time(tmp_path):
  write_frames(tmp_path / "s1", 3)
  write_lines(tmp_path / "s1.jsonl", [{"t": i / 2, "a": i, "r": 0} for i in range(3)])
  settings = {"events": {"pad": {"path": "{episode}.jsonl", "time": "t"}}}
  with pytest.raises(ValueError, match=r"\(events\.pad\.time\): 'screen' has no times to align with; set fps"):
    logs.open(tmp_path, mapping(frames={"screen": {"path": "{episode}/*.png"}}, **settings))[0]
  frames = {"screen": {"path": "{episode}/*.png", "fps": 2}}
  assert logs.open(tmp_path, mapping(frames=frames, **settings))[0].steps["action"][:, 0].tolist() == [0, 1, 0]


def test_two_videos_of_one_recording_are_refused(tmp_path):
  write_frames(tmp_path / "s_1.mp4", 2)
  write_frames(tmp_path / "s_2.mp4", 2)
  write_lines(tmp_path / "s.jsonl", [record(i) for i in range(2)])
  with pytest.raises(ValueError, match=r"frames\.screen\.path: fits 2 videos of one recording: .*s_1\.mp4, .*s_2\.mp4"):
    logs.open(tmp_path, mapping(frames={"screen": {"path": "{episode}_*.mp4"}}))[0]


def test_several_cameras_are_aligned_by_time_or_number(tmp_path):
  write_frames(tmp_path / "s1.mp4", 9, fps=10)
  write_frames(tmp_path / "s1.mkv", 5, fps=5)
  write_lines(tmp_path / "s1.jsonl", [record(i) for i in range(9)])
  frames = {"screen": {"path": "{episode}.mp4"}, "map": {"path": "{episode}.mkv", "channels": 1}}
  steps = logs.open(tmp_path, mapping(frames=frames))[0].steps
  assert shown(steps) == list(range(9))
  assert shown(steps, "map") == [0, 0, 1, 1, 2, 2, 3, 3, 4]
  assert steps["observation"]["map"].shape == (9, 32, 32, 1)
  frames["map"]["offset"] = 5.0
  with pytest.raises(ValueError, match=r"s1\.mkv \(frames\.map\): begins at 5\.000 s, 'screen' at 0\.000 s"):
    logs.open(tmp_path, mapping(frames=frames))[0]
  (tmp_path / "s1.mkv").unlink()
  write_frames(tmp_path / "s1", 5)
  frames["map"] = {"path": "{episode}/*.png"}
  with pytest.raises(ValueError, match=r"\(frames\.map\): 5 frames where 'screen' has 9; set fps"):
    logs.open(tmp_path, mapping(frames=frames))[0]


def test_events_alone_are_a_dataset(tmp_path):
  rows = [f"{run},{t},{t * 10},{t}" for run in ("b2", "b10") for t in (0, 1, 2, 4)]
  (tmp_path / "all.csv").write_text("run,t,x,u\n" + "\n".join(rows) + "\n")
  settings = {
    "events": {"log": {"path": "all.csv", "episode": "run", "time": "t"}},
    "observation": {"x": {"columns": ["x"]}},
    "action": {"column": "u", "dtype": "int32"},
    "splits": {"val": ["b1*"]},
  }
  source = logs.open(tmp_path, settings)
  assert [source[i].metadata["episode"] for i in range(2)] == ["b2", "b10"]
  assert [source[i].split for i in range(2)] == ["train", "val"]
  steps = source[1].steps
  assert steps["observation"]["x"].tolist() == [[0], [10], [20], [40]]
  assert steps["action"].tolist() == [0, 1, 2, 0]
  assert source.metadata["reward"].startswith("filled with 0")
  # On a clock of its own.
  steps = logs.open(tmp_path, settings | {"clock": {"fps": 2}})[0].steps
  assert steps["observation"]["x"][:, 0].tolist() == [0, 0, 10, 10, 20, 20, 20, 20, 40]


def test_one_table_serves_many_videos(tmp_path):
  for name in ("1", "2"):
    write_frames(tmp_path / f"{name}.mp4", 3)
  (tmp_path / "all.csv").write_text(
    "run,a,r\n" + "".join(f"{run},{run * 10 + i},1\n" for i in range(3) for run in (2, 1))
  )
  source = logs.open(tmp_path, mapping(events={"pad": {"path": "all.csv", "episode": "run"}}))
  assert [source[i].steps["action"][:2, 0].tolist() for i in (1, 0)] == [[20, 21], [10, 11]]
  with pytest.raises(ValueError, match=r"all\.csv \(events\.pad\.episode\): no record of an episode '1'"):
    logs.open(tmp_path, mapping(events={"pad": {"path": "all.csv", "episode": "a"}}))[0]


def test_parts_of_paths_become_split_and_metadata(tmp_path):
  for split, player, episode in (
    ("train", "ann", "1"),
    ("val", "ben", "1"),
    ("train", "ann", "10"),
    ("train", "ann", "2"),
  ):
    write_frames(tmp_path / split / player / f"{episode}.mp4", 2)
    write_lines(tmp_path / split / player / f"{episode}.1.jsonl", [record(0)])
    write_lines(tmp_path / split / player / f"{episode}.10.jsonl", [])
    write_lines(tmp_path / split / player / f"{episode}.2.jsonl", [record(1)])
  source = logs.open(
    tmp_path,
    mapping(
      frames={"screen": {"path": "{split}/{player}/{episode}.mp4"}},
      events={"pad": {"path": "{split}/{player}/{episode}.*.jsonl"}},
    ),
  )
  found = [(source[i].split, source[i].metadata) for i in range(4)]
  expected = [("train", "ann", "1"), ("train", "ann", "2"), ("train", "ann", "10"), ("val", "ben", "1")]
  assert found == [(split, {"player": player, "episode": episode}) for split, player, episode in expected]


def test_files_must_go_together(tmp_path):
  write_frames(tmp_path / "a.mp4", 2)
  with pytest.raises(ValueError, match=r"events\.pad\.path: nothing in .* fits '\{episode\}\.jsonl'"):
    logs.open(tmp_path, mapping())
  write_lines(tmp_path / "b.jsonl", [])
  with pytest.raises(
    ValueError, match=r"a\.jsonl \(events\.pad\) is missing: no file for the recording \{'episode': 'a'\}"
  ):
    logs.open(tmp_path, mapping())
  write_lines(tmp_path / "a.jsonl", [])
  with pytest.raises(ValueError, match=r"events\.pad\.path: has the part \{run\}, which 'screen' lacks"):
    logs.open(tmp_path, mapping(events={"pad": {"path": "{run}.jsonl"}}))
  with pytest.raises(ValueError, match=r"frames\.screen\.path: is '\.\./x'; expected a path below"):
    logs.open(tmp_path, mapping(frames={"screen": {"path": "../x"}}))
  with pytest.raises(ValueError, match="different names such as"):
    logs.open(tmp_path, mapping(frames={"screen": {"path": "{a}{a}"}}))
  with pytest.raises(FileNotFoundError, match="no folder of recordings"):
    logs.open(tmp_path / "none", mapping())


def write_some_broken(folder):
  """Recordings 1 to 4: 1 and 4 are whole, 2 lacks its records and 3 its video."""
  for name in ("1", "2", "4"):
    write_frames(folder / f"{name}.mp4", 3)
  for name in ("1", "3", "4"):
    write_lines(folder / f"{name}.jsonl", [record(i) for i in range(3)])
  return folder


@pytest.mark.parametrize("clock", [{}, {"segment": 1}])
def test_recordings_that_lack_a_file_can_be_skipped(tmp_path, clock):
  source = logs.open(write_some_broken(tmp_path / "logs"), mapping(clock=clock))
  with pytest.raises(ValueError, match=r"logs/2\.jsonl \(events\.pad\) is missing: no file for .*'episode': '2'"):
    [source[index] for index in range(len(source))]
  with pytest.raises(ValueError, match=r"logs/3\.mp4 \(frames\.screen\) is missing: no file for .*'episode': '3'"):
    source[len(source) - 1]
  with pytest.raises(ValueError, match=r"2\.jsonl \(events\.pad\) is missing"):
    write.write(source, tmp_path / "out", name="stopped")
  path = write.write(source, tmp_path / "out", name="some", skip_damaged=True)
  assert rlds.load(path).num_episodes == 2 * (2 if clock else 1)


def test_a_damaged_video_does_not_stop_the_cutting_of_others(tmp_path):
  source = write_some_broken(tmp_path)
  (tmp_path / "4.mp4").write_bytes(b"")
  source = logs.open(tmp_path, mapping(clock={"segment": 1}))
  assert source[1].steps["reward"].tolist() == [2, 0]
  with pytest.raises(ValueError, match=r"4\.mp4: no video that can be read"):
    source[3]


def test_an_orphan_with_fewer_parts_names_the_path_that_is_missing(tmp_path):
  write_frames(tmp_path / "train" / "1.mp4", 2)
  for name in ("1", "2"):
    write_lines(tmp_path / f"{name}.jsonl", [record(0)])
  source = logs.open(tmp_path, mapping(frames={"screen": {"path": "{split}/{episode}.mp4"}}))
  assert source[0].split == "train"
  with pytest.raises(ValueError, match=r"/\{split\}/2\.mp4 \(frames\.screen\) is missing"):
    source[1]


@pytest.mark.parametrize("split", ["my split", "all", "é", "-x"])
def test_folders_that_cannot_be_splits_are_refused_when_opened(tmp_path, split):
  write_frames(tmp_path / split / "1.mp4", 2)
  write_lines(tmp_path / split / "1.jsonl", [record(0)])
  settings = {"frames": {"screen": {"path": "{split}/{episode}.mp4"}}}
  with pytest.raises(ValueError, match=rf"is in the split '{split}', which cannot be called so"):
    logs.open(tmp_path, mapping(events={"pad": {"path": "{split}/{episode}.jsonl"}}, **settings))


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path):
  write_frames(tmp_path / "in" / "1.mp4", 2)
  write_frames(tmp_path / "in" / "2", 2)
  write_lines(tmp_path / "out.jsonl", [record(0)])
  (tmp_path / "in" / "1.jsonl").symlink_to(tmp_path / "out.jsonl")
  with pytest.raises(ValueError, match=r"in/1\.jsonl: is or goes through a link that leads out of"):
    logs.open(tmp_path / "in", mapping())
  (tmp_path / "in" / "1.jsonl").unlink()
  (tmp_path / "in" / "logs").mkdir()
  write_lines(tmp_path / "in" / "logs" / "1.jsonl", [record(0)])
  (tmp_path / "in" / "1.jsonl").symlink_to(tmp_path / "in" / "logs" / "1.jsonl")
  (tmp_path / "link").symlink_to(tmp_path / "in")
  assert logs.open(tmp_path / "link", mapping())[0].steps["reward"].tolist() == [1, 0]
  write_lines(tmp_path / "in" / "2.jsonl", [record(0)])
  Image.fromarray(picture(5, (32, 32))).save(tmp_path / "out.png")
  (tmp_path / "in" / "2" / "frame_1.png").unlink()
  (tmp_path / "in" / "2" / "frame_1.png").symlink_to(tmp_path / "out.png")
  source = logs.open(tmp_path / "in", mapping(frames={"screen": {"path": "{episode}/*.png"}}))
  with pytest.raises(ValueError, match=r"frame_1\.png: is or goes through a link"):
    source[0]


def test_the_cost_of_an_episode_does_not_grow_with_their_number(one):
  source = one([record(i) for i in range(5)])

  class Never(str):
    def __repr__(self):
      raise AssertionError("another recording was looked at")

  others = tuple(source.recordings[0]._replace(name=Never(i)) for i in range(3))
  source = dataclasses.replace(source, recordings=source.recordings + others)
  assert source[0].steps["reward"].tolist() == [1, 2, 4, 8, 0]


def test_counts_must_fit(one):
  with pytest.raises(ValueError, match=r"s1\.jsonl \(events\.pad\): has no records"):
    one([])[0]
  for count in (3, 6):
    with pytest.raises(ValueError, match=rf"s1\.jsonl \(events\.pad\): {count} records where 'screen' has 5 frames"):
      one([record(i) for i in range(count)])[0]
  with pytest.raises(ValueError, match=r"\(observation\.hp\): has no record for the last of 5 frames"):
    one([record(i, hp=1) for i in range(4)], observation={"hp": {"column": "hp"}})[0]
  with pytest.raises(ValueError, match=r"s1\.mp4 \(screen\): 1 frames make 1 steps; an episode needs two"):
    one([record(0)], 1)[0]


def test_damage_names_the_file(one, tmp_path):
  records = [record(i) for i in range(5)]
  source = one(records)
  (tmp_path / "s1.mp4").write_bytes((tmp_path / "s1.mp4").read_bytes()[:400])
  with pytest.raises(ValueError, match=r"s1\.mp4: (no video that can be read|a damaged video)"):
    source[0]
  with pytest.raises(ValueError, match=r"s1\.jsonl, line 3: no column 'a'; there are r; set 'missing'"):
    one([*records[:2], {"r": 1.0}, *records[3:]])[0]
  assert one([*records[:2], {"r": 1.0}, *records[3:]], action={"column": "a", "missing": "forward"})[0].steps["action"][
    2
  ].tolist() == pytest.approx([0.01, -1])
  with pytest.raises(ValueError, match=r"s1\.jsonl \(steps\.n\): 0\.5 is no uint8"):
    one([record(i, n=i / 2) for i in range(5)], steps={"n": {"column": "n", "dtype": "uint8"}})[0]
  with pytest.raises(ValueError, match=r"s1\.jsonl \(reward\): 1e\+300 is no float32"):
    one([record(i) | {"r": 1e300 * (i == 2)} for i in range(5)])[0]
  write_frames(tmp_path / "p" / "s1", 5)
  (tmp_path / "p" / "s1" / "frame_3.png").write_bytes(b"\x89PNG\r\n\x1a\n")
  with pytest.raises(ValueError, match=r"frame_3\.png: no picture that can be read"):
    one(records, frames={"screen": {"path": "p/{episode}/*.png"}})[0]


def test_actions_and_their_names(one):
  keys = [["w", "q"], [], ["w", "space"], "space", ["a"]]
  records = [record(i, keys=keys[i], key="w" if i % 2 else "a", b=i % 2) for i in range(5)]
  source = one(records, action={"column": "keys", "kind": "button", "vocabulary": ["w", "a", "space"]})
  assert source[0].steps["action"].tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]]
  assert source.metadata["action_names"] == ["w", "a", "space"]
  assert source.metadata["action_low"] == [0, 0, 0]
  assert source.metadata["action_high"] == [1, 1, 1]
  chosen = {"column": "b", "kind": "button", "where": {"key": ["w", "a"], "down": [True, "x"]}}
  source = one([record | {"down": True} for record in records], action=[chosen])
  assert source.metadata["action_names"] == ["b w a true x"]
  assert source.metadata["mapping"]["action"][0]["where"] == [["key", ["w", "a"]], ["down", [True, "x"]]]
  assert source[0].steps["action"].tolist() == [[0], [1], [0], [1], [0]]
  source = one(
    records, action=[{"columns": ["b", "r"]}, {"column": "b", "kind": "button"}], metadata={"env_id": "X-v0"}
  )
  assert source[0].steps["action"][1].tolist() == [1, 2, 1]
  assert source.metadata["action_names"] == ["b", "r", "b"]
  assert "action_low" not in source.metadata
  assert source.metadata["env_id"] == "X-v0"
  assert json.loads(json.dumps(source.metadata))["mapping"]["clock"] == {"from": "screen"}


PARTS = {
  "stick": [{"column": "x"}, {"column": "y"}],
  "jump": {"column": "jump", "kind": "button"},
  "pad": {"column": "keys", "kind": "button", "vocabulary": ["w", "a"]},
  "weapon": {"column": "weapon", "kind": "category", "vocabulary": ["sword", "bow", "axe"]},
}


def played(i, **more):
  """A record of all that ``PARTS`` name, told apart by ``i``."""
  keys = [["w"], ["a", "q"], []][i % 3]
  return {
    "x": i / 100, "y": -i, "jump": i % 2 == 1, "keys": keys, "weapon": ["sword", "bow"][i // 2 % 2], "r": 2.0**i
  } | more  # fmt: skip


def test_an_action_of_several_parts(one):
  source = one([played(i) for i in range(5)], action=PARTS)
  action = source[0].steps["action"]
  assert {name: (part.dtype.name, part.shape) for name, part in action.items()} == {
    "stick": ("float32", (5, 2)), "jump": ("bool", (5,)), "pad": ("bool", (5, 2)), "weapon": ("int32", (5,)),
  }  # fmt: skip
  # What is done in a step, and 0 behind the last one.
  assert np.allclose(action["stick"], [[0, 0], [0.01, -1], [0.02, -2], [0.03, -3], [0, 0]])
  assert action["jump"].tolist() == [False, True, False, True, False]
  assert action["pad"].tolist() == [[1, 0], [0, 1], [0, 0], [1, 0], [0, 0]]
  assert action["weapon"].tolist() == [0, 0, 1, 1, 0]
  assert source.metadata["num_actions"] == {"weapon": 3}
  assert source.metadata["action_names"] == {"jump": ["jump"], "pad": ["w", "a"], "weapon": ["sword", "bow", "axe"]}
  assert "action_low" not in source.metadata
  assert json.loads(json.dumps(source.metadata))["mapping"]["action"]["jump"] == [
    {"from": "pad", "column": "jump", "kind": "button", "align": "hold"}
  ]
  assert pickle.loads(pickle.dumps(source))[0].steps["action"]["weapon"].tolist() == [0, 0, 1, 1, 0]


def test_parts_are_aligned_like_whole_actions(one):
  """Frames skipped, segments, records between the frames, and times of their own: as the one vector has it."""
  weapon = {"column": "n", "dtype": "int32"}
  vector = [*PARTS["stick"], {"column": "y", "align": "sum"}, PARTS["jump"] | {"align": "any"}, PARTS["pad"]]
  parts = {"move": vector[:3], "jump": vector[3], "pad": vector[4]}
  for settings in (
    {"clock": {"skip": 2}},
    {"clock": {"segment": 3}},
    {"clock": {"segment": 3}, "terminal": True},
    {"events": {"pad": {"path": "{episode}.jsonl", "time": "t"}}, "clock": {"skip": 3}},
  ):
    for records in (8, 9) if "events" not in settings else (9,):
      lines = [played(i, n=i % 3, t=i / FPS - 0.01) for i in range(records)]
      whole, apart = (one(lines, 9, action=action, **settings) for action in (vector, parts))
      chosen = one(lines, 9, action=weapon, **settings)
      several = one(lines, 9, action=parts | {"weapon": weapon}, **settings)
      assert len(whole) == len(apart) == len(several) == (3 if "segment" in settings["clock"] else 1)
      for i in range(len(whole)):
        expected, found = whole[i].steps, apart[i].steps["action"]
        together = np.concatenate([found["move"], found["jump"][:, None], found["pad"]], axis=1)
        assert np.array_equal(together, expected["action"])
        assert apart[i].steps["reward"].tolist() == expected["reward"].tolist()
        assert np.array_equal(several[i].steps["action"]["weapon"], chosen[i].steps["action"])
  assert several.metadata.get("num_actions") is None


def test_what_the_fields_of_a_part_make_of_it(one):
  records = [played(i, n=i % 3, keys=["w"]) for i in range(4)]
  button, weapon = PARTS["jump"], PARTS["weapon"]
  parts = {
    "buttons": {"columns": ["jump", "n"], "kind": "button"},
    "alone": {"columns": ["jump"], "kind": "button"},
    "counted": button | {"align": "sum"},
    "analogue": button | {"dtype": "float32"},
    "mixed": [{"column": "x"}, button],
    "choice": button | {"dtype": "int32"},
    "choices": [weapon, button | {"dtype": "int32"}],
    "small": {"column": "n", "dtype": "uint8"},
    "flag": {"column": "n", "dtype": "bool"},
  }
  source = one(records, 4, action=parts, metadata={"num_actions": {"small": 5}, "action_high": {"counted": [9]},
                                                   "action_low": {"counted": [0]}})  # fmt: skip
  action = source[0].steps["action"]
  assert {name: (part.dtype.name, part.shape[1:]) for name, part in action.items()} == {
    "buttons": ("bool", (2,)), "alone": ("bool", (1,)), "counted": ("float32", (1,)), "analogue": ("float32", (1,)),
    "mixed": ("float32", (2,)), "choice": ("int32", ()), "choices": ("int32", (2,)), "small": ("int32", ()),
    "flag": ("bool", ()),
  }  # fmt: skip
  assert action["buttons"].tolist() == [[0, 0], [1, 1], [0, 1], [0, 0]]
  assert action["choices"].tolist() == [[0, 0], [0, 1], [1, 0], [0, 0]]
  assert source.metadata["num_actions"] == {"choice": 2, "choices": [3, 2], "small": 5}
  assert source.metadata["action_low"] == {"analogue": [0], "counted": [0]}
  assert source.metadata["action_high"] == {"analogue": [1], "counted": [9]}
  assert source.metadata["action_names"]["choices"] == ["weapon", "jump"]
  assert source.metadata["action_names"]["choice"] == ["jump"]
  assert "mixed" not in source.metadata["action_names"]


def test_damage_in_a_part_names_it(one):
  records = [played(i) for i in range(5)]
  with pytest.raises(ValueError, match=r"s1\.jsonl, line 3: column 'weapon' is 'bwo'; not in the vocabulary \(did you"):
    one([*records[:2], played(2, weapon="bwo"), *records[3:]], action=PARTS)[0]
  with pytest.raises(ValueError, match=r"s1\.jsonl \(action\.n\[0\]\): 0\.5 is no int32"):
    one([played(i, n=i / 2) for i in range(5)], action={"n": {"column": "n", "dtype": "int32"}})[0]
  table = {"pad": {"path": "{episode}.jsonl", "time": "t"}}
  late = [played(i, t=i / FPS + 0.15) for i in range(5)]
  with pytest.raises(ValueError, match=r"s1\.jsonl \(action\.stick\[0\]\): step 0, at .*; set 'fill'"):
    one(late, action=PARTS, events=table)[0]


def test_parts_become_a_dataset_that_is_learnt_from(tmp_path):
  rng = np.random.default_rng(0)
  for name in ("a", "b"):
    rows = [
      [
        *rng.uniform(-1, 1, 2).round(3),
        rng.integers(2),
        ("sword", "bow")[rng.integers(2)],
        *rng.normal(size=2).round(3),
      ]
      for _ in range(40)
    ]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    (tmp_path / f"{name}.csv").write_text("stick_x,stick_y,jump,weapon,hp,speed\n" + text)
  settings = {
    "events": {"log": {"path": "{episode}.csv"}},
    "observation": {"state": {"columns": ["hp", "speed"]}},
    "action": {
      "stick": [{"column": "stick_x"}, {"column": "stick_y"}],
      "jump": {"column": "jump", "kind": "button"},
      "weapon": PARTS["weapon"],
    },
    "metadata": {"action_low": {"stick": [-2, -2]}, "action_high": {"stick": [2, 2]}},
  }
  source = logs.open(tmp_path, settings)
  path = write.write(source, tmp_path / "out", name="game")
  info, episodes = rlds.read_info(path), rlds.load(path)
  assert set(episodes.action) == {"stick", "jump", "weapon"}
  first = source[0].steps["action"]
  for name, part in episodes.action.items():
    assert part.dtype == first[name].dtype and np.array_equal(part[:40], first[name])
  spec = ilx.data.spec(episodes, info.metadata)
  assert (spec.action["stick"].low.tolist(), spec.action["stick"].high.tolist()) == ([-2, -2], [2, 2])
  assert spec.action["jump"] == ilx.Discrete(2)
  assert spec.action["weapon"] == ilx.Discrete(3)  # nobody has the axe
  agent = ilx.agents.bc(spec, hidden=(8,))
  batch = agent.view.sample(jax.random.key(0), agent.view.prepare(episodes), 16)
  state, metrics = jax.jit(agent.update)(agent.init(jax.random.key(1), batch), batch)
  assert metrics and all(np.isfinite(value) for value in metrics.values())
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params.network))
  step = ilx.Step(batch.observation, np.zeros(16, np.float32), np.ones(16, bool))
  action, _ = agent.act(state.params, agent.carry(16), step, None)
  assert {name: part.shape for name, part in action.items()} == {"stick": (16, 2), "jump": (16,), "weapon": (16,)}


def test_the_example_game_becomes_a_dataset(tmp_path):
  folder = game.write_game(tmp_path / "game", episodes=3, steps=12)
  source = logs.open(folder, folder / "game.yaml")
  assert (source.name, len(source)) == ("tiny-game", 3)
  path = write.write(source, tmp_path / "out")
  episodes = rlds.load(path)
  assert episodes.num_transitions == 12 + 11 + 12
  assert episodes.action.shape == (38, 3)
  first = [json.loads(line) for line in (folder / "sessions" / "0" / "pad.jsonl").read_text().splitlines()]
  assert np.allclose(episodes.action[:12, :2], [event["stick"] for event in first], atol=1e-6)
  assert episodes.action[:12, 2].tolist() == [float(event["jump"]) for event in first]
  assert np.allclose(episodes.observation["position"][:12], [event["position"] for event in first], atol=1e-6)
  assert episodes.reward[:12].tolist() == [event["points"] for event in first]
  assert np.flatnonzero(episodes.is_terminal).tolist() == [12, 37]
  # The square is where the event says.
  screens = np.asarray(episodes.observation["screen"])
  assert screens.shape == (38, 32, 32, 3)
  for step in range(12):
    y, x = np.argwhere(screens[step, :, :, 0] > 120).mean(axis=0)
    assert np.allclose([(x + 0.5) * 2 - 4, (y + 0.5) * 2 - 4], (np.array(first[step]["position"]) + 1) * 28, atol=1.6)
  assert game.write_game(tmp_path / "again", 1, 12)
  assert (tmp_path / "again/sessions/0/pad.jsonl").read_text() == (folder / "sessions/0/pad.jsonl").read_text()


def test_any_process_reads_any_episode(one):
  source = one([record(i) for i in range(5)], clock={"segment": 2})
  there = pickle.loads(pickle.dumps(source))
  assert np.array_equal(there[1].steps["action"], source[1].steps["action"])
  assert len(pickle.dumps(source)) < 5000


def test_a_file_that_changed_is_read_again(one, tmp_path):
  source = one([record(i) for i in range(5)], clock={"segment": 2})
  assert source[0].steps["reward"].tolist() == [1, 2, 0]
  write_lines(tmp_path / "s1.jsonl", [record(i + 1) for i in range(5)])
  assert source[0].steps["reward"].tolist() == [2, 4, 0]

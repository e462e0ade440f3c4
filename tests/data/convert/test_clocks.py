import numpy as np
import pytest

from ilx.data.convert import align, clocks
from ilx.data.convert.mapping import Field
from ilx.data.convert.tables import Table

# 100 s of 20 frames a second.
FRAMES = np.arange(2000) / 20
HELD, SUMMED = Field(column="a", align="hold"), Field(column="a", align="sum")


def check(at, field=HELD, frames=FRAMES, checked=True):
  at = np.asarray(at, np.float64)
  grid = align.grid(frames, len(frames), np.arange(len(frames)))
  clocks.check("pad", Table("a.jsonl", len(at), at, {}, checked), grid, frames, "screen", (field,))


JUMP = FRAMES + np.where(np.arange(2000) > 1200, 3600, 0)
PAUSE = FRAMES[(FRAMES < 50) | (FRAMES > 65)]


@pytest.mark.parametrize(
  ("at", "message"),
  [
    (FRAMES * 1000, r"only 3 of 2000 records are within .*'unit' .*in a unit 1000 times smaller.*'check: false'"),
    (FRAMES / 1000, r"cover 0\.1 % of the frames' time.*in a unit 1000 times larger"),
    (FRAMES + 3600, "nothing in common"),
    (FRAMES - 3600, "nothing in common"),
    (FRAMES + 60, r"only 80\d of 2000 records"),
    (FRAMES[:900], r"cover 4\d % of the frames' time"),
    (FRAMES[:10], r"cover 0\.45 % of"),  # few, but all at once
    (np.arange(5) * 1000, "only 1 of 5 records"),
    ([-20, -10], "nothing in common"),
    ([200], "nothing in common"),
    ([-4000], "nothing in common"),
    (JUMP, r"no record from 60\.000 to 3660\.050 s, where they come every 0\.05 s"),
    (PAUSE, r"no record from 49\.950 to 65\.050 s"),
  ],
)
def test_clocks_that_do_not_go_together_are_refused(at, message):
  with pytest.raises(ValueError, match=r"a\.jsonl \(events\.pad\): .*" + message):
    check(at)
  check(at, checked=False)


@pytest.mark.parametrize(
  "at",
  [
    FRAMES,
    FRAMES + 30,
    FRAMES - 30,
    FRAMES[FRAMES < 60],
    [],
    [-500],  # what was before
    [0, 3000],  # a start, and a result told late
    [50, 50.1, 50.2],
    [0, 0.1, 0.2, 4000],
    np.concatenate([FRAMES, [500]]),
    np.concatenate([[-500], FRAMES]),
    np.sort(np.random.default_rng(0).uniform(0, 5, 30)),  # keys, of which none was pressed later
    np.sort(np.concatenate([np.random.default_rng(0).exponential(0.1, 500), [70, 99]])),  # typed in a hurry
  ],
)
def test_events_now_and_then_are_not_refused(at):
  check(at)


def test_where_nothing_happened_sums_are_nothing():
  check(PAUSE, SUMMED)
  check(PAUSE, Field(column="a", kind="button", align="any"))
  with pytest.raises(ValueError, match="did the clock jump"):
    check(PAUSE, Field(column="a", kind="button", align="press"))


def test_frames_need_times():
  grid = align.grid(None, 5, np.arange(5))
  with pytest.raises(ValueError, match=r"\(events\.pad\.time\): 'screen' has no times"):
    clocks.check("pad", Table("a.jsonl", 1, np.zeros(1), {}), grid, None, "screen", ())


def test_a_short_session_with_a_jump_is_refused():
  at = np.arange(20) / 20 + np.where(np.arange(20) > 10, 3600, 0)
  with pytest.raises(ValueError, match="did the clock jump"):
    check(at, frames=np.arange(20) / 20)


@pytest.mark.parametrize(
  ("at", "message"),
  [
    (FRAMES[FRAMES <= 8], "in the last 92.0 of 100.0 s"),
    (FRAMES[FRAMES >= 60], "in the first 60.0 of 100.0 s"),
    (FRAMES[(FRAMES <= 8) | (FRAMES >= 52)], "from 8.0 to 52.0 of 100.0 s"),
    ([-3, 120], "in all of its 100.0 s"),
    ([], "in all of its 100.0 s"),
    ([50, 20], "in the last 50.0 of 100.0 s"),
  ],
)
def test_a_long_silence_is_told(at, message):
  assert clocks.silence(np.asarray(at, float), 0.0, 100.0) == f"no record of an action {message}"


@pytest.mark.parametrize(
  ("at", "span"),
  [
    (FRAMES, 100),
    (FRAMES[FRAMES < 76], 100),
    ([20, 40, 60, 80], 100),
    ([], 9),
    ([5, 12], 20),
    (np.arange(0, 400, 24), 400),
  ],
)
def test_pauses_are_not(at, span):
  assert clocks.silence(np.asarray(at, float), 0.0, float(span)) == ""


def check_stream(shown, frames=FRAMES):
  clocks.check_stream("a.mp4 (frames.map)", np.asarray(shown, float), align.grid(frames, 2000, np.arange(2000)), "pad")


@pytest.mark.parametrize("shown", [FRAMES[:900], FRAMES[1100:], FRAMES + 1e6, FRAMES / 1000])
def test_frames_that_stand_still_most_of_the_time_are_refused(shown):
  with pytest.raises(ValueError, match=r"a\.mp4 \(frames\.map\): frames from .* 'pad' from .*'check: false'"):
    check_stream(shown)


@pytest.mark.parametrize("shown", [FRAMES, FRAMES[:1100], np.arange(-500, 2000), [0], [50, 51]])
def test_frames_of_another_clock_that_fit_are_taken(shown):
  check_stream(shown)

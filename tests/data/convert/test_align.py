"""Records and steps small enough to be aligned by hand."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from ilx.data.convert.align import Grid, align
from ilx.data.convert.mapping import Field
from ilx.data.convert.tables import Column

# Four steps of a tenth of a second from 1.0 on.
GRID = Grid(np.array([1.0, 1.1, 1.2, 1.3]), 1.4)
#                 before   | at step 0, within it |  at 1  | none in 2 | within 3 | at the end, after
TIMES = np.array([0.5, 0.9, 1.0, 1.02, 1.09, 1.1, 1.35, 1.4, 7.0])


def column(values, rows=None, dtype=np.float64):
  return Column(np.arange(len(values)) if rows is None else np.array(rows), np.array(values, dtype))


def at_steps(values, align_by, rows=None, kind="number", dtype=np.float64, times=TIMES, grid=GRID, **settings):
  field = Field(column="x", align=align_by, kind=kind, **settings)
  return align(column(values, rows, dtype), times, grid, field).tolist()


def test_hold_takes_the_last_record_until_the_frame():
  assert at_steps([1, 2, 3, 4, 5, 6, 7, 8, 9], "hold") == [3, 6, 6, 6]


def test_sum_adds_from_a_frame_until_the_next():
  assert at_steps([1, 2, 3, 4, 5, 6, 7, 8, 9], "sum") == [3 + 4 + 5, 6, 0, 7]
  vectors = [[1, 10], [2, 20], [3, 30], [4, 40], [5, 50], [6, 60], [7, 70], [8, 80], [9, 90]]
  assert at_steps(vectors, "sum") == [[12, 120], [6, 60], [0, 0], [7, 70]]


def test_any_asks_whether_it_was_pressed_within_the_step():
  assert at_steps([1, 1, 0, 1, 0, 0, 0, 1, 1], "any", kind="button") == [1, 0, 0, 0]
  assert at_steps([0, 0, 0, 0, 0, 1, 1, 0, 0], "any", kind="button") == [0, 1, 0, 1]


def test_press_sees_what_is_held_and_what_was_tapped():
  # Down since 0.9, up at 1.02; a tap between 1.35 and 1.4.
  pressed = [0, 1, 1, 0, 0, 0, 1, 0, 0]
  assert at_steps(pressed, "hold", kind="button") == [1, 0, 0, 0]
  assert at_steps(pressed, "press", kind="button") == [1, 0, 0, 1]
  # Down at 1.1 and never up again.
  assert at_steps([0, 0, 0, 0, 0, 1], "press", kind="button", times=TIMES[:6]) == [0, 1, 1, 1]


def test_records_without_the_field_are_passed_over():
  assert at_steps([1, 2], "hold", rows=[1, 5]) == [1, 2, 2, 2]
  assert at_steps([1, 2], "sum", rows=[4, 6]) == [1, 0, 0, 2]


def test_before_the_first_record_there_is_what_fill_says():
  with pytest.raises(ValueError, match=r"step 0, at 1.000 s, is before the first record with a value \(1.100 s\)"):
    at_steps([1], "hold", rows=[5])
  assert at_steps([1], "hold", rows=[5], fill=9.0) == [9, 1, 1, 1]
  assert at_steps([[1, 2]], "hold", rows=[5], fill=9.0) == [[9, 9], [1, 2], [1, 2], [1, 2]]
  assert at_steps([1], "hold", rows=[5], kind="button") == [0, 1, 1, 1]
  texts = {"kind": "text", "dtype": object}
  assert at_steps(["go"], "hold", rows=[6], fill="wait", **texts) == ["wait"] * 4
  assert at_steps(["go"], "hold", rows=[5], fill="", **texts) == ["", "go", "go", "go"]
  places = {"kind": "category", "dtype": np.int64, "vocabulary": ("noop", "2", "left")}
  assert at_steps([2], "hold", rows=[5], fill="noop", **places) == [0, 2, 2, 2]
  assert at_steps([2], "hold", rows=[5], fill=2.0, **places) == [1, 2, 2, 2]
  with pytest.raises(ValueError, match="has no records with a value; set 'fill'"):
    at_steps([], "hold")
  with pytest.raises(ValueError, match=r"no record that its 'where' chooses has a value; spell it .* or set 'fill'"):
    at_steps([], "hold", where=(("type", ("stik",)),))


def test_clocks_that_differ_by_rounding_are_one():
  grid = Grid(np.array([0.0, 0.033, 0.067, 0.1]), 0.133)  # a Matroska file's milliseconds
  times = np.array([0.0, 1 / 30, 2 / 30, 0.1])
  assert at_steps([1, 2, 3, 4], "hold", times=times, grid=grid) == [1, 2, 3, 4]
  assert at_steps([1, 2, 3, 4], "sum", times=times, grid=grid) == [1, 2, 3, 4]
  early = np.array([0.0, 0.0329, 0.0668, 0.0999])
  assert at_steps([1, 2, 3, 4], "hold", times=early, grid=grid) == [1, 2, 3, 4]
  assert at_steps([1, 2, 3, 4], "sum", times=early, grid=grid) == [1, 2, 3, 4]


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
  st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True).map(sorted),
  st.lists(st.tuples(st.integers(-10, 60), st.integers(0, 1)), max_size=20).map(sorted),
)
def test_alignment_is_what_a_loop_over_all_records_says(frames, records):
  grid = Grid(np.array(frames) / 10, frames[-1] / 10 + 0.5)
  times, values = np.array([t for t, _ in records]) / 10, [v for _, v in records]
  ends = [*frames[1:], frames[-1] + 5]
  within = [[v for t, v in records if start <= t < end] for start, end in zip(frames, ends, strict=True)]
  held = [([0] + [v for t, v in records if t <= start])[-1] for start in frames]
  pressed = [int(any(found)) for found in within]
  settings = {"kind": "button", "times": times, "grid": grid}
  assert at_steps(values, "sum", **settings) == [sum(found) for found in within]
  assert at_steps(values, "any", **settings) == pressed
  assert at_steps(values, "hold", **settings) == held
  assert at_steps(values, "press", **settings) == np.maximum(held, pressed).tolist()

"""Windows, chunks, n steps and frame stacks by hand, on the host and inside a jitted program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.data.episodes import from_columns
from ilx.data.views import Transitions
from ilx.data.windows import Chunks, Windows, returns_to_go


def _episodes():
  """Episode 0: four transitions, terminal. Episode 1: two, a time limit. Last rows hold values that must not show."""
  return from_columns(
    observation={"state": np.arange(8, dtype=np.float32)[:, None] * 10},
    action=np.arange(1, 9, dtype=np.float32)[:, None],
    reward=np.array([1, 2, 4, 8, 99, 10, 20, 99], np.float32),
    discount=np.array([1, 0.5, 1, 1, 77, 1, 1, 77], np.float32),
    is_terminal=np.array([0, 0, 0, 0, 1, 0, 0, 0], bool),
    starts=[0, 5, 8],
  )


def _take(view, rows, where):
  episodes = view.prepare(_episodes())
  rows = np.array(rows, np.int32)
  if where == "host":
    return view.take(episodes, rows)
  return jax.tree.map(np.asarray, jax.jit(view.take)(jax.tree.map(jnp.asarray, episodes), jnp.asarray(rows)))


both = pytest.mark.parametrize("where", ["host", "device"])


@both
def test_a_window_padded_on_the_left(where):
  window = _take(Windows(3, padding="left"), [0, 2, 6], where)
  np.testing.assert_array_equal(window.mask, [[1, 1, 1], [0, 1, 1], [0, 0, 1]])
  np.testing.assert_array_equal(window.observation["state"][..., 0], [[0, 10, 20], [0, 20, 30], [0, 0, 60]])
  np.testing.assert_array_equal(window.action[..., 0], [[1, 2, 3], [0, 3, 4], [0, 0, 7]])
  np.testing.assert_array_equal(window.reward, [[1, 2, 4], [0, 4, 8], [0, 0, 20]])
  # Of rewards 1 2 4 8 and 10 20; the last rows' 99 is no reward.
  np.testing.assert_array_equal(window.returns_to_go, [[15, 14, 12], [0, 12, 8], [0, 0, 20]])
  np.testing.assert_array_equal(window.time_step, [[0, 1, 2], [0, 2, 3], [0, 0, 1]])
  # The dataset's 0.5 stays, the terminal cuts, the time limit does not.
  np.testing.assert_array_equal(window.discount, [[1, 0.5, 1], [0, 1, 0], [0, 0, 1]])
  assert window.time_step.dtype == np.int32 and window.mask.dtype == bool
  assert window.returns_to_go.dtype == window.reward.dtype == np.float32


@both
def test_a_window_padded_on_the_right(where):
  window = _take(Windows(3), [2, 6], where)
  np.testing.assert_array_equal(window.mask, [[1, 1, 0], [1, 0, 0]])
  np.testing.assert_array_equal(window.action[..., 0], [[3, 4, 0], [7, 0, 0]])
  np.testing.assert_array_equal(window.time_step, [[2, 3, 0], [1, 0, 0]])


def test_where_windows_begin():
  assert Windows(3).prepare(_episodes()).rows.tolist() == [0, 1, 2, 3, 5, 6]
  assert Windows(3, stride=2).prepare(_episodes()).rows.tolist() == [0, 2, 5]
  assert Windows(3, padding=None).prepare(_episodes()).rows.tolist() == [0, 1]
  assert Windows(2, padding=None).prepare(_episodes()).rows.tolist() == [0, 1, 2, 5]
  with pytest.raises(ValueError, match="every episode is too short"):
    Windows(9, padding=None).prepare(_episodes())


@pytest.mark.parametrize("view", [Transitions(), Windows(3), Windows(2, stride=3), Windows(3, padding=None), Chunks(2)])
def test_starts_say_of_one_episode_what_prepare_does_of_all(view):
  rows = [start + offset for start, length in ((0, 4), (5, 2)) for offset in view.starts(length)]
  assert view.prepare(_episodes()).rows.tolist() == rows


def test_narrowed_rows_stay_narrowed():
  episodes = _episodes().replace(rows=np.array([5, 6], np.int32))
  assert Windows(2, stride=2).prepare(episodes).rows.tolist() == [5]


@pytest.mark.parametrize("view", [Windows(3), Transitions(n_step=2)])
def test_unprepared_episodes_are_refused(view):
  with pytest.raises(ValueError, match=r"view\.prepare"):
    view.take(_episodes(), np.array([0]))


def test_discounted_returns_to_go():
  found = returns_to_go(_episodes(), 0.5)
  np.testing.assert_allclose(found, [1 + 1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8, 0, 20, 20, 0])


def test_returns_to_go_of_a_long_dataset_are_exact():
  """A sum over all episodes, cut apart afterwards, would lose the digits of the small ones."""
  reward = np.tile(np.array([1e-3, 1e-3, 0], np.float32), 1000)
  reward[:3] = 1e6
  episodes = from_columns(
    observation=reward, action=reward, reward=reward, discount=reward, is_terminal=np.zeros(3000, bool),
    starts=np.arange(0, 3001, 3),
  )  # fmt: skip
  np.testing.assert_array_equal(returns_to_go(episodes)[-3:], np.array([2e-3, 1e-3, 0], np.float32))


@both
def test_chunks_of_actions(where):
  chunk = _take(Chunks(3), [1, 3, 5], where)
  np.testing.assert_array_equal(chunk.action[..., 0], [[2, 3, 4], [4, 0, 0], [6, 7, 0]])
  np.testing.assert_array_equal(chunk.mask, [[1, 1, 1], [1, 0, 0], [1, 1, 0]])
  np.testing.assert_array_equal(chunk.observation["state"][:, 0], [10, 30, 50])


@both
def test_n_steps_are_summed_up(where):
  step = _take(Transitions(n_step=3, discount=0.9), [0, 1, 2, 3, 5, 6], where)
  g = 0.9
  # The data's discount of 0.5 after row 1 counts for what comes behind it.
  expected = [1 + g * 2 + g * g * 0.5 * 4, 2 + g * 0.5 * 4 + g * g * 0.5 * 8, 4 + g * 8, 8, 10 + g * 20, 20]
  np.testing.assert_allclose(step.reward, expected, rtol=1e-6)
  # Rows 1, 2 and 3 reach the terminal step; rows 5 and 6 the time limit, after two steps and after one.
  np.testing.assert_allclose(step.discount, [g * g * 0.5, 0, 0, 0, g, 1], rtol=1e-6)
  np.testing.assert_array_equal(step.next_observation["state"][:, 0], [30, 40, 40, 40, 70, 70])
  assert step.reward.dtype == step.discount.dtype == np.float32


@both
def test_one_step_is_the_plain_transition(where):
  rows = [0, 1, 2, 3, 5, 6]
  slow = _take(Transitions(n_step=1, discount=0.9, frame_stack=1), rows, where)
  plain = _take(Transitions(), rows, where)
  np.testing.assert_allclose(slow.reward, plain.reward)
  np.testing.assert_allclose(slow.discount, plain.discount)
  np.testing.assert_array_equal(slow.next_observation["state"][:, 0], plain.next_observation["state"])


@both
def test_frames_are_stacked_within_their_episode(where):
  step = _take(Transitions(frame_stack=3), [0, 3, 5], where)
  np.testing.assert_array_equal(step.observation["state"][..., 0], [[0, 0, 0], [10, 20, 30], [50, 50, 50]])
  np.testing.assert_array_equal(step.next_observation["state"][..., 0], [[0, 0, 10], [20, 30, 40], [50, 50, 60]])
  window = _take(Windows(2, padding="left", frame_stack=2), [2, 6], where)
  np.testing.assert_array_equal(window.observation["state"][..., 0], [[[10, 20], [20, 30]], [[0, 0], [50, 60]]])
  chunk = _take(Chunks(2, frame_stack=2), [5], where)
  np.testing.assert_array_equal(chunk.observation["state"][..., 0], [[50, 50]])


@pytest.mark.parametrize(
  "make", [lambda: Windows(0), lambda: Windows(2, padding="both"), lambda: Chunks(0), lambda: Transitions(n_step=0)]
)
def test_nonsense_is_refused(make):
  with pytest.raises(ValueError, match=r"at least 1|padding is"):
    make()

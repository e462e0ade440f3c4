"""Transitions with the data's next action: by hand, in every tier, with n steps and stacked frames."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from ilx import testing
from ilx.data import Recorder, episode, load, reading, stream
from ilx.data.episodes import from_columns
from ilx.data.host import batches as host_batches
from ilx.data.views import Transitions
from ilx.types import Agent, Transition

ROWS = np.array([0, 1, 2, 4, 5])


def _episodes(**changes):
  """Episode 0: three transitions, terminal. Episode 1: two, a time limit. Last rows hold actions that must not show."""
  columns = dict(
    observation=np.arange(7, dtype=np.float32)[:, None] * 10,
    action=np.array([0, 1, 2, np.nan, 4, 5, np.inf], np.float32)[:, None],
    reward=np.array([1, 2, 3, 99, 10, 20, 99], np.float32),
    discount=np.ones(7, np.float32),
    is_terminal=np.array([0, 0, 0, 1, 0, 0, 0], bool),
    starts=[0, 4, 7],
  )
  return from_columns(**(columns | changes))


def _take(view, where, episodes=None, rows=ROWS):
  prepared = view.prepare(_episodes() if episodes is None else episodes)
  if where == "host":
    return view.take(prepared, rows)
  return jax.jit(view.take)(jax.tree.map(jnp.asarray, prepared.replace(weights=None)), jnp.asarray(rows))


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("frame_stack", [0, 2])
def test_single_steps_by_hand(where, frame_stack):
  batch = _take(Transitions(next_action=True, frame_stack=frame_stack), where)
  # Rows 2 and 5 lead to last steps: their own action, the episode's last one, is repeated.
  np.testing.assert_array_equal(batch.next_action[:, 0], [1, 2, 2, 5, 5])
  np.testing.assert_array_equal(batch.next_is_last, [False, False, True, False, True])
  assert batch.next_action.dtype == np.float32 and batch.next_is_last.dtype == bool
  assert isinstance(batch.next_action, np.ndarray if where == "host" else jax.Array)
  newest = batch.next_observation[:, -1] if frame_stack else batch.next_observation
  np.testing.assert_array_equal(newest[:, 0], [10, 20, 30, 50, 60])


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("frame_stack", [0, 3])
def test_n_steps_by_hand(where, frame_stack):
  batch = _take(Transitions(n_step=2, discount=0.5, next_action=True, frame_stack=frame_stack), where)
  # Two steps on, or as far as the episode goes: rows 2, 3, 3, 6, 6, of which 3 and 6 are last.
  np.testing.assert_array_equal(batch.next_action[:, 0], [2, 2, 2, 5, 5])
  np.testing.assert_array_equal(batch.next_is_last, [False, True, True, True, True])
  np.testing.assert_allclose(batch.reward, [2, 3.5, 3, 20, 20])


@pytest.mark.parametrize("where", ["host", "device"])
def test_discrete_actions_and_trees_of_actions(where):
  action = {
    "button": np.array([0, 1, 2, 77, 1, 0, 77], np.int32),
    "stick": np.arange(14, dtype=np.float32).reshape(7, 2),
  }
  batch = _take(Transitions(next_action=True), where, _episodes(action=action))
  np.testing.assert_array_equal(batch.next_action["button"], [1, 2, 2, 0, 0])
  np.testing.assert_array_equal(batch.next_action["stick"][:, 0], [2, 4, 4, 10, 10])
  assert batch.next_action["button"].dtype == np.int32


def test_the_rest_of_a_transition_is_as_without_it():
  episodes = _episodes()
  for view in (Transitions(), Transitions(n_step=2, discount=0.9), Transitions(frame_stack=2)):
    more = Transitions(view.n_step, view.discount, view.frame_stack, next_action=True)
    batch = more.take(more.prepare(episodes), ROWS)
    plain = view.take(view.prepare(episodes), ROWS)
    assert plain.next_action is None and plain.next_is_last is None
    for name in Transition._fields[:5]:
      np.testing.assert_array_equal(getattr(batch, name), getattr(plain, name))


def test_episodes_must_be_prepared():
  with pytest.raises(ValueError, match="not prepared"):
    Transitions(next_action=True).take(_episodes(), ROWS)


def test_all_tiers_draw_the_same():
  view, episodes, key = (
    Transitions(next_action=True),
    testing.fake_episodes(testing.continuous_spec()),
    jax.random.key(3),
  )
  prepared = view.prepare(episodes)
  on_host = next(host_batches(view, prepared, 64, key))
  on_device = view.sample(jax.random.fold_in(key, 0), jax.tree.map(jnp.asarray, prepared), 64)
  for host, device in zip(on_host, on_device, strict=True):
    np.testing.assert_array_equal(host, device)
  assert on_host.next_is_last.any() and not on_host.next_is_last.all()


@pytest.mark.parametrize("kept", [True, False])
def test_streamed_items_are_what_loading_gives(tmp_path, monkeypatch, kept):
  if not kept:
    monkeypatch.setattr(reading, "_GROUP", 1)
  with Recorder(tmp_path, name="small") as recorder:
    for number, length in enumerate([3, 1, 7, 5, 2, 9, 4, 6]):
      observation = np.stack([np.full(length + 1, number), np.arange(length + 1)], 1).astype(np.float32)
      recorder.add(episode(observation, observation[:-1] + 0.5, np.ones(length), terminal=number % 2 == 0))
  view = Transitions(n_step=2, next_action=True)
  loaded = view.prepare(load(recorder.path))
  with stream.open(recorder.path).batches(view, 6, seed=0) as batches:
    for batch in itertools.islice(batches, 12):
      rows = np.array([loaded.starts[e] + t for e, t in batch.observation.astype(int)])
      for found, expected in zip(batch, view.take(loaded, rows), strict=True):
        np.testing.assert_array_equal(found, expected)


class _State(NamedTuple):
  params: jax.Array
  step: jax.Array


def test_training_from_the_host_is_training_on_the_device():
  def update(state, batch):
    moved = jnp.mean(jnp.where(batch.next_is_last[:, None], 0.0, batch.next_action), 0)
    return _State(0.9 * state.params + moved, state.step + 1), {"loss": jnp.sum(moved)}

  agent = Agent(
    init=lambda key, batch: _State(jnp.zeros(batch.next_action.shape[1:]), jnp.zeros((), jnp.int32)),
    update=update,
    act=None,
    carry=None,
    view=Transitions(next_action=True),
  )
  episodes = testing.fake_episodes(testing.continuous_spec())
  host, device = (ilx.train(agent, episodes, steps=70, batch_size=16, tier=tier) for tier in ("host", "device"))
  assert np.any(host.params != 0)
  np.testing.assert_array_equal(host.params, device.params)

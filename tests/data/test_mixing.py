"""Mixtures: shares, chained columns, and differences that are told."""

import jax
import numpy as np
import pytest

from ilx.data import sampling, stream
from ilx.data.episodes import from_columns
from ilx.data.images import Images
from ilx.data.mixing import Chain, mixture
from ilx.data.views import Transitions
from ilx.data.windows import Windows


def _episodes(offset: int, lengths: tuple[int, ...], size: int = 2, dtype=np.float32):
  starts = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)])
  rows = np.arange(starts[-1], dtype=np.float32) + offset
  return from_columns(
    observation={"state": np.repeat(rows[:, None], size, 1).astype(dtype)},
    action=rows[:, None],
    reward=rows,
    discount=np.ones_like(rows),
    is_terminal=np.zeros(len(rows), bool),
    starts=starts,
  )


def _share(episodes, number=100_000):
  rows = np.asarray(episodes.rows)[sampling.positions_many(jax.random.key(0), episodes, 0, 4, number // 4)]
  return np.mean(np.asarray(episodes.action)[rows] >= 1000)


def test_by_default_every_transition_counts_alike():
  both = mixture({"a": _episodes(0, (5, 10)), "b": _episodes(1000, (30,))})
  assert both.num_episodes == 3 and both.num_transitions == 45 and both.table is None
  assert abs(_share(both) - 30 / 45) < 0.01


@pytest.mark.parametrize(("what", "make"), [("datasets", mixture), ("streams", stream.mixture)])
def test_a_list_is_refused_in_words(what, make):
  with pytest.raises(TypeError, match=rf"mixture: expected a dict of {what}, such as {{.*}}, got list"):
    make([_episodes(0, (5,)), _episodes(0, (5,))])


def test_shares():
  both = mixture({"a": _episodes(0, (5, 10)), "b": _episodes(1000, (30,))}, {"a": 3, "b": 1})
  assert abs(_share(both) - 0.25) < 0.01


def test_weights_within_a_dataset_change_no_dataset_s_share():
  """However large they are; a dataset counts as its items that can be drawn."""
  for scale in (0.1, 1.0, 1e300):
    a = sampling.weighted(_episodes(0, (10, 10)), np.array([1.0, 5.0]) * scale)
    both = mixture({"a": a, "b": _episodes(1000, (20,))})
    assert abs(_share(both) - 0.5) < 0.01
  best = sampling.weighted(_episodes(0, (10, 30)), np.array([1.0, 0.0]))
  assert abs(_share(mixture({"a": best, "b": _episodes(1000, (30,))})) - 0.75) < 0.01


def test_weights_of_a_mixture_weigh_its_datasets_against_each_other():
  parts = {"a": _episodes(0, (30,)), "b": _episodes(1000, (10,))}
  assert abs(_share(sampling.weighted(mixture(parts), sampling.per_episode)) - 0.5) < 0.01
  assert abs(_share(sampling.weighted(mixture(parts), np.array([1.0, 9.0]))) - 0.75) < 0.01
  # Shares that were asked for stay.
  assert abs(_share(sampling.weighted(mixture(parts, {"a": 1, "b": 4}), np.array([1.0, 9.0]))) - 0.8) < 0.01


@pytest.mark.parametrize("view", [Windows(3), Windows(3, padding=None), Windows(3, stride=5)])
def test_shares_are_of_the_view_s_items(view):
  both = view.prepare(mixture({"a": _episodes(0, (10, 10)), "b": _episodes(1000, (3, 3, 3))}, {"a": 1, "b": 3}))
  assert abs(_share(both) - 0.75) < 0.01


def test_shares_go_by_name():
  both = mixture({"a": _episodes(0, (5, 10)), "b": _episodes(1000, (30,))}, {"b": 1, "a": 3})
  assert abs(_share(both) - 0.25) < 0.01


def test_a_mixture_of_mixtures_keeps_the_inner_shares():
  inner = mixture({"a": _episodes(0, (5,)), "b": _episodes(1000, (30,))}, {"a": 1, "b": 1})
  outer = mixture({"inner": inner, "c": _episodes(5000, (10,))}, {"inner": 1, "c": 1})
  drawn = np.asarray(outer.action)[
    np.asarray(outer.rows)[sampling.positions_many(jax.random.key(1), outer, 0, 1, 50_000)]
  ]
  assert abs(np.mean(drawn < 1000) - 0.25) < 0.01 and abs(np.mean(drawn >= 5000) - 0.5) < 0.01


def test_a_dataset_without_items_is_named():
  both = mixture({"a": _episodes(0, (10,)), "b": _episodes(1000, (2,))}, {"a": 1, "b": 1})
  with pytest.raises(ValueError, match="no item is left of dataset 2 of 2"):
    Windows(5, padding=None).prepare(both)


def test_streams_are_sent_to_their_own_function():
  with pytest.raises(TypeError, match=r"ilx\.data\.stream\.mixture"):
    mixture({"a": object()})


def test_weights_within_a_dataset_stay():
  a = sampling.weighted(_episodes(0, (5, 10)), np.array([0.0, 1.0]))
  b = sampling.weighted(_episodes(1000, (10, 10)), np.array([3.0, 1.0]))
  both = mixture({"a": a, "b": b}, {"a": 1, "b": 1})
  assert abs(_share(both) - 0.5) < 0.01
  drawn = np.asarray(both.action)[np.asarray(both.rows)[sampling.positions_many(jax.random.key(1), both, 0, 1, 50_000)]]
  assert drawn.min() == 6
  assert abs(np.mean(drawn >= 1011) - 0.125) < 0.01


def test_windows_never_cross_datasets():
  both = Windows(4).prepare(mixture({"a": _episodes(0, (3,)), "b": _episodes(1000, (3,))}))
  window = Windows(4).take(both, np.array([2, 4]))
  np.testing.assert_array_equal(window.action[..., 0], [[2, 0, 0, 0], [1000, 1001, 1002, 0]])


def test_it_trains_like_one_dataset():
  both = mixture({"a": _episodes(0, (5, 10)), "b": _episodes(1000, (30,))})
  plain = jax.tree.map(np.asarray, both)
  rows = np.array([0, 4, 6, 20, 40])
  jax.tree.map(np.testing.assert_array_equal, Transitions().take(both, rows), Transitions().take(plain, rows))


def test_all_differences_are_told():
  a = _episodes(0, (5,))
  b = _episodes(0, (5,), size=3, dtype=np.int32)
  with pytest.raises(ValueError, match=r"observation/state: float32 \[2\] in 'a', int32 \[3\] in 'b'"):
    mixture({"a": a, "b": b})
  c = a.replace(observation=a.observation | {"speed": a.reward}, action=a.action[:, 0])
  with pytest.raises(ValueError, match=r"(?s)action: .*observation/speed: absent in 'a', float32 \[\] in 'c'"):
    mixture({"a": a, "c": c})


@pytest.mark.parametrize("weights", [{"a": 1}, {"a": 1, "b": 0}, {"a": 1, "b": np.inf}, {"a": 1, "c": 1}])
def test_bad_weights(weights):
  with pytest.raises(ValueError, match="mixture: weight"):
    mixture({"a": _episodes(0, (5,)), "b": _episodes(0, (5,))}, weights)


def test_a_chain_is_indexed_like_one_array():
  parts = [np.arange(6).reshape(3, 2), np.arange(6, 8).reshape(1, 2), np.arange(8, 14).reshape(3, 2)]
  chain, whole = Chain(parts), np.concatenate(parts)
  for index in (
    0,
    -1,
    3,
    slice(1, 6),
    slice(None, None, 2),
    np.array([[6, 0], [3, 3]]),
    np.array([], int),
    whole[:, 0] > 5,
  ):
    np.testing.assert_array_equal(chain[index], whole[index])
  np.testing.assert_array_equal(np.asarray(chain), whole)
  assert chain.shape == whole.shape and len(chain) == 7 and chain.nbytes == whole.nbytes
  for index in (7, -8):
    with pytest.raises(IndexError, match="in 7 rows"):
      chain[index]


def test_pictures_are_chained_still_encoded():
  import io

  from PIL import Image

  def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((2, 2, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()

  chain = Chain([Images.of([png(1), png(2)], (2, 2, 3)), Images.of([png(3)], (2, 2, 3))])
  np.testing.assert_array_equal(chain[np.array([2, 0])][:, 0, 0, 0], [3, 1])

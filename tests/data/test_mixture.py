"""Mixtures: shares, chained columns, and differences that are told."""

import jax
import numpy as np
import pytest

from ilx.data import sampling
from ilx.data.episodes import from_columns
from ilx.data.images import Images
from ilx.data.mixture import Chain, mixture
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
  rows = sampling.draw_many(jax.random.key(0), episodes, 0, 4, number // 4)
  return np.mean(np.asarray(episodes.action)[rows] >= 1000)


def test_by_default_every_transition_counts_alike():
  both = mixture({"a": _episodes(0, (5, 10)), "b": _episodes(1000, (30,))})
  assert both.num_episodes == 3 and both.num_transitions == 45 and both.table is None
  assert abs(_share(both) - 30 / 45) < 0.01


def test_shares():
  both = mixture({"a": _episodes(0, (5, 10)), "b": _episodes(1000, (30,))}, {"a": 3, "b": 1})
  assert abs(_share(both) - 0.25) < 0.01


def test_weights_within_a_dataset_stay():
  a = sampling.weighted(_episodes(0, (5, 10)), np.array([0.0, 1.0]))
  b = sampling.weighted(_episodes(1000, (10, 10)), np.array([3.0, 1.0]))
  both = mixture({"a": a, "b": b}, {"a": 1, "b": 1})
  assert abs(_share(both) - 0.5) < 0.01
  drawn = np.asarray(both.action)[sampling.draw_many(jax.random.key(1), both, 0, 1, 50_000)]
  assert drawn.min() == 6
  assert abs(np.mean(drawn >= 1011) - 0.125) < 0.01


def test_windows_never_cross_datasets():
  both = Windows(4).prepare(mixture({"a": _episodes(0, (3,)), "b": _episodes(1000, (3,))}))
  window = Windows(4).take(both, np.array([2, 4]))
  np.testing.assert_array_equal(window.action[..., 0], [[0, 0, 0, 2], [0, 1000, 1001, 1002]])


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

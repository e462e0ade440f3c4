"""Actions by their rank among the data's, for bins with as much data in each."""

import dataclasses

import jax
import numpy as np

from ilx.data.episodes import Episodes
from ilx.data.stream import Stream
from ilx.types import Action, Array, Continuous, Spec, Tree

# Parts between quantiles; bins of a number that divides it hold equal shares of the data.
_PARTS = 512
# Beyond so many transitions, and so many streamed episodes, some stand for all.
_ROWS, _EPISODES = 1 << 18, 256


def rank_actions(spec: Spec, data: Episodes | Stream) -> Spec:
  """The spec with ``Continuous.quantiles`` of the data, so that networks see actions by their rank.

  Bins of equal widths (``head="discretised"``, ``binning="quantile"``) then hold equal shares of the data, and a bin
  stands for its median. Where one number is common, such as a gripper's "open", it has one bin, and the others that it
  would fill have no data; a number that is in less than about one of 1,000 transitions may have no bin of its own.

  Args:
    spec: of the data.
    data: what is learnt from, without what has no weight; of very many transitions evenly spaced ones, of a stream
      evenly spaced episodes.

  Raises:
    ValueError: where the spec has no continuous action, or none of the data's actions count.
  """
  if not any(isinstance(part, Continuous) for part in jax.tree.leaves(spec.action)):
    raise ValueError(f"rank_actions: the spec has no continuous action: {spec.action}")
  actions = _of_stream(data) if isinstance(data, Stream) else _of_episodes(data, _ROWS)

  def ranked(part: Action, column: Array) -> Action:
    if not isinstance(part, Continuous):
      return part
    # Values that the data have, none in between, so that of equal ones all are equal to a quantile.
    found = np.quantile(column, np.linspace(0, 1, _PARTS + 1), axis=0, method="inverted_cdf")
    return dataclasses.replace(part, quantiles=np.clip(found.astype(np.float32), part.low, part.high))

  return spec._replace(action=jax.tree.map(ranked, spec.action, actions))


def _of_episodes(episodes: Episodes, most: int) -> Tree:
  rows = np.asarray(episodes.rows)
  if not len(rows):
    raise ValueError("rank_actions: the data have no transition")
  rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)]
  return jax.tree.map(lambda x: np.asarray(x[rows]), episodes.action)


def _of_stream(data: Stream) -> Tree:
  drawn = np.flatnonzero((data.lengths > 0) & (data.weights > 0))
  if not len(drawn):
    raise ValueError("rank_actions: the data have no transition")
  numbers = drawn[np.unique(np.linspace(0, len(drawn) - 1, _EPISODES).astype(np.int64))]
  parts = [_of_episodes(data.read(number), _ROWS // len(numbers)) for number in numbers]
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)

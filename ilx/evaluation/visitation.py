"""Whether a policy goes where its demonstrator went: the distance between the observations that the two meet."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from ilx.types import Tree

# Points at which the quantile functions of two samples are compared.
_POINTS = 512


class Visitation(NamedTuple):
  """How far apart two sets of episodes are, in standard deviations of the demonstrator's observations.

  Attributes:
    distance: between the policy's observations and the demonstrator's.
    within: between the demonstrator's episodes of even and of odd number: a perfect imitation has no less than about
      that. NaN of a single episode.
  """

  distance: float
  within: float


def visitation(
  policy: Sequence[Tree], demonstrator: Sequence[Tree], *, projections: int = 128, seed: int = 0
) -> Visitation:
  """The sliced Wasserstein distance of order 1 (Bonneel et al. 2015) between visited observations.

  Observations are standardised by the demonstrator's (a dimension in which they do not vary is left in its own units)
  and projected on random directions. In one dimension the distance is the mean difference of sorted values; here it is
  the mean over directions, in a unit in which a shift of every dimension by one standard deviation is 1.

  Args:
    policy: the observations ``[T, O]`` of its episodes.
    demonstrator: the same of the demonstrator's.
    projections: directions.
    seed: of the directions.

  Raises:
    ValueError: where there is no episode, or dimensions differ.
  """
  ours, theirs = [_rows(episode) for episode in policy], [_rows(episode) for episode in demonstrator]
  if not ours or not theirs or ours[0].shape[1] != theirs[0].shape[1]:
    sizes = [rows[0].shape[1] if rows else "no episodes" for rows in (ours, theirs)]
    raise ValueError(
      f"visitation: observations of the policy have {sizes[0]} dimensions, the demonstrator's {sizes[1]}"
    )
  shown = np.concatenate(theirs)
  mean, std = shown.mean(axis=0), shown.std(axis=0)
  directions = np.random.default_rng(seed).normal(size=(len(mean), projections))
  # The mean of |u_1| over unit vectors u; a shift of all dimensions by one has the length sqrt(d).
  component = math.exp(math.lgamma(len(mean) / 2) - math.lgamma((len(mean) + 1) / 2)) / math.sqrt(math.pi)
  directions /= np.linalg.norm(directions, axis=0) * component * math.sqrt(len(mean))

  def quantiles(episodes: list[np.ndarray]) -> np.ndarray:
    rows = (np.concatenate(episodes) - mean) / np.where(std > 0, std, 1.0)
    return np.quantile(rows @ directions, (np.arange(_POINTS) + 0.5) / _POINTS, axis=0)

  def distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return float(np.mean(np.abs(quantiles(a) - quantiles(b))))

  within = distance(theirs[::2], theirs[1::2]) if len(theirs) > 1 else float("nan")
  return Visitation(distance(ours, theirs), within)


def _rows(episode: Tree) -> np.ndarray:
  """One row a step: all leaves side by side, float64."""
  leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(episode)]
  return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)

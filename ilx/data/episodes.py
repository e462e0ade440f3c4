"""Episodes in columns: the in-memory form of a dataset."""

from typing import Any

import jax
import numpy as np
from flax import struct

from ilx.data.sampling import Table, Weights
from ilx.types import Array, Tree


@struct.dataclass
class Episodes:
  """A dataset as columns over all steps, episode after episode; a pytree of arrays.

  A step is RLDS': ``reward`` and ``discount`` are what followed ``action`` at ``observation``, and on an
  episode's last step action, reward and discount carry no meaning. Next observations are row ``i + 1``.

  Attributes:
    observation: ``[N, O]``.
    action: ``[N, A]`` float32 or ``[N]`` int32, bool where they are flags.
    reward: float32 ``[N]``.
    discount: float32 ``[N]``.
    is_terminal: bool ``[N]``; true on a last step that ended the task. A last step without it is a time limit.
    starts: int64 ``[E + 1]``; episode ``e`` is rows ``starts[e]`` to ``starts[e + 1] - 1``.
    rows: int32 ``[M]``, the rows that views draw from: all but the last of every episode, unless narrowed.
    extras: further columns ``[N, ...]`` by name: step fields that were asked for, and what views prepare.
    weights: of items by episode, on the host (``ilx.data.weighted``); None: all alike.
    table: what draws by these weights; None: all alike.
  """

  observation: Tree
  action: Array
  reward: Array
  discount: Array
  is_terminal: Array
  starts: Array
  rows: Array
  extras: dict[str, Tree] = struct.field(default_factory=dict)
  weights: Weights | None = None
  table: Table | None = None

  @property
  def num_episodes(self) -> int:
    """E."""
    return len(self.starts) - 1

  @property
  def num_steps(self) -> int:
    """N, last steps included."""
    return len(self.reward)

  @property
  def num_transitions(self) -> int:
    """Steps with an action that counts: N - E."""
    return self.num_steps - self.num_episodes


def from_columns(
  *, observation: Tree, action: Any, reward: Any, discount: Any, is_terminal: Any, starts: Any, extras: Any = None
) -> Episodes:
  """Episodes whose ``rows`` are all the steps but the last of every episode.

  ``is_terminal`` may be numbers, not 0 where true; ``reward`` and ``discount`` become float32.

  Raises:
    ValueError: where lengths disagree, flags or rewards are no single numbers, ``starts`` does not split the steps into
      non-empty episodes, a step other than an episode's last is terminal, or a number is too large for the type that it
      has on a device (int32 of int64, float32 of float64).
  """
  starts = np.asarray(starts, np.int64)
  num_steps = len(reward)
  if starts.ndim != 1 or starts.size < 2 or starts[0] != 0 or starts[-1] != num_steps:
    raise ValueError(f"episodes: starts must run from 0 to the number of steps, {num_steps}")
  if np.any(np.diff(starts) < 1):
    raise ValueError(f"episodes: episode {int(np.argmax(np.diff(starts) < 1))} is empty")
  if num_steps > np.iinfo(np.int32).max:
    raise ValueError(f"episodes: {num_steps} steps do not fit one columnar block; load a part of the split")
  extras = {} if extras is None else extras
  columns = {"observation": observation, "action": action, "discount": discount, "is_terminal": is_terminal}
  columns["extras"] = extras
  for path, column in jax.tree_util.tree_leaves_with_path(columns):
    if np.ndim(column) < 1 or len(column) != num_steps:
      name = jax.tree_util.keystr(path, simple=True, separator="/")
      raise ValueError(f"episodes: {name} has shape {np.shape(column)} where reward has {num_steps} steps")
  singles = {"reward": reward, "discount": discount, "is_terminal": is_terminal}
  for name, column in singles.items():
    if np.ndim(column) != 1:
      raise ValueError(f"episodes: {name} has shape {list(np.shape(column))}; expected [{num_steps}], a number a step")
  ends = starts[1:] - 1
  columns |= {"action": action, "reward": np.asarray(reward) if isinstance(reward, list) else reward}
  for path, column in jax.tree_util.tree_leaves_with_path(columns):
    _check_range(jax.tree_util.keystr(path, simple=True, separator="/"), column, starts)
  reward, discount = _typed(reward, np.float32), _typed(discount, np.float32)
  is_terminal = _typed(is_terminal, bool)
  is_last = np.zeros(num_steps, bool)
  is_last[ends] = True
  if np.any(np.asarray(is_terminal) & ~is_last):
    row = int(np.argmax(np.asarray(is_terminal) & ~is_last))
    raise ValueError(f"episodes: is_terminal is true at row {row}, which is no episode's last")
  return Episodes(
    observation=observation,
    action=action,
    reward=reward,
    discount=discount,
    is_terminal=is_terminal,
    starts=starts,
    rows=np.flatnonzero(~is_last).astype(np.int32),
    extras=extras,
  )


def _check_range(name: str, column: Any, starts: np.ndarray) -> None:
  """Raises ValueError for a number that would become another one on a device, silently."""
  if name == "is_terminal" or not isinstance(column, np.ndarray) or column.dtype.kind not in "iuf" or not column.size:
    return
  single = name in ("reward", "discount")
  narrow = np.dtype(np.float32) if single else jax.dtypes.canonicalize_dtype(column.dtype)
  bounds = np.finfo(narrow) if narrow.kind == "f" else np.iinfo(narrow)
  # Without temporary arrays: of what is loaded from files and of most else this is all there is to do.
  if narrow == column.dtype or (
    np.fmin.reduce(column, None) >= bounds.min and np.fmax.reduce(column, None) <= bounds.max
  ):
    return
  flat = column.reshape(len(column), -1)
  lost = ((flat < bounds.min) | (flat > bounds.max)) & np.isfinite(flat)
  if single or name.partition("/")[0] == "action":
    lost[starts[1:] - 1] = False  # these carry no meaning
  if lost.any():
    row, place = (int(x) for x in np.argwhere(lost)[0])
    episode = int(np.searchsorted(starts, row, side="right")) - 1
    raise ValueError(
      f"episodes: {name} is {flat[row, place]} at step {row - starts[episode]} of episode {episode}, which {narrow} "
      "cannot hold; scale it, subtract what all have in common, or leave it out"
    )


def _typed(column: Any, dtype: type) -> Any:
  """As ``dtype``; what has that already stays where it is, such as in a file that is mapped."""
  if getattr(column, "dtype", None) == dtype:
    return column
  with np.errstate(over="ignore"):  # what would count has been looked at
    return np.asarray(column).astype(dtype)


def returns(episodes: Episodes) -> np.ndarray:
  """Undiscounted return of every episode, float64 ``[E]``; the last step's reward carries no meaning."""
  reward = np.asarray(episodes.reward, np.float64).copy()
  starts = np.asarray(episodes.starts)
  reward[starts[1:] - 1] = 0.0
  return np.add.reduceat(reward, starts[:-1])


def lengths(episodes: Episodes) -> np.ndarray:
  """Transitions in every episode, int64 ``[E]``."""
  return np.diff(np.asarray(episodes.starts)) - 1

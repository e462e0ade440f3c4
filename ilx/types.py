"""The contract: what an agent is, and the trees that flow between data, agents and environments.

Shape legend, used in every docstring::

  B  batch              N  steps in a dataset, the last step of every episode included
  T  time               E  episodes in a dataset
  O  observation size   A  action size (continuous) or number of actions (discrete)

An observation may be one array or any tree of arrays; "[B, O]" then stands for every leaf. An action may be dicts of
parts, each of the kind that ``Spec.action`` says, int32 ``[B, K]`` where that is ``MultiDiscrete``.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array | np.ndarray
# A nested structure of arrays.
Tree = Any


class Step(NamedTuple):
  """What a policy sees at one moment of play, in B environments at once.

  Attributes:
    observation: ``[B, O]``.
    reward: float32 ``[B]``, what the previous action earned; 0 where ``is_first``.
    is_first: bool ``[B]``, true where this is the first step of an episode.
  """

  observation: Tree
  reward: Array
  is_first: Array


class Transition(NamedTuple):
  """One step and what followed it.

  Attributes:
    observation: ``[B, O]``.
    action: float32 ``[B, A]`` in the environment's units, or int32 ``[B]`` for discrete actions.
    reward: float32 ``[B]``, what ``action`` at ``observation`` earned.
    discount: float32 ``[B]``, 0 where ``next_observation`` is terminal and 1 elsewhere (a time limit
      is not terminal), times the dataset's own discount. Agents multiply it by their gamma.
    next_observation: ``[B, O]``.
    next_action: what the data did at ``next_observation``, like ``action``; None where the view was not asked for it.
      Where ``next_is_last`` there is none, and the episode's last action, a legal one, stands in its place.
    next_is_last: bool ``[B]``, true where ``next_observation`` is its episode's last; None as ``next_action`` is.
  """

  observation: Tree
  action: Array
  reward: Array
  discount: Array
  next_observation: Tree
  next_action: Array | None = None
  next_is_last: Array | None = None


class Window(NamedTuple):
  """A stretch of consecutive steps of one episode, padded to T steps.

  Attributes:
    observation: ``[B, T, O]``; zero where padded, as all leaves are.
    action: float32 ``[B, T, A]`` or int32 ``[B, T]``.
    reward: float32 ``[B, T]``.
    discount: float32 ``[B, T]``, as in ``Transition``: 0 where the next step is terminal.
    returns_to_go: float32 ``[B, T]``, the sum of the rewards from this step to the end of the episode.
    time_step: int32 ``[B, T]``, the step's place in its episode, from 0.
    mask: bool ``[B, T]``, true where the step is real.
  """

  observation: Tree
  action: Array
  reward: Array
  discount: Array
  returns_to_go: Array
  time_step: Array
  mask: Array


class Chunk(NamedTuple):
  """An observation and the T actions that followed it.

  Attributes:
    observation: ``[B, O]``.
    action: float32 ``[B, T, A]`` or int32 ``[B, T]``; zero where padded.
    mask: bool ``[B, T]``, true where the action is real.
  """

  observation: Tree
  action: Array
  mask: Array


# Between the bounds of actions; quotients of float32 are exact enough up to there.
_WIDEST = 1e30


@dataclasses.dataclass(frozen=True, eq=False)
class Continuous:
  """Bounded real-valued actions.

  Attributes:
    low: float32 ``[A]``, or ``[]`` for one number without an axis.
    high: the same.
    quantiles: float32 ``[Q, A]`` (``[Q]``), rising, evenly spaced quantiles of the data
      (``ilx.data.rank_actions``): networks then see an action's rank among them, not where it lies between the bounds,
      and act within them. None: the linear scale of the bounds.
  """

  low: np.ndarray
  high: np.ndarray
  quantiles: np.ndarray | None = None

  def __post_init__(self):
    with np.errstate(over="ignore"):  # bounds beyond float32 are refused below, in words
      low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
    if low.ndim > 1 or low.shape != high.shape:
      raise ValueError(f"Continuous: low {low.shape} and high {high.shape} must both be [A]")
    if not np.all(np.isfinite(low) & np.isfinite(high) & (low < high)):
      raise ValueError(f"Continuous: bounds must be finite with low < high, got {low} and {high}")
    if np.any(high.astype(np.float64) - low > _WIDEST):
      raise ValueError(
        f"Continuous: bounds {low} and {high} are so far apart that float32 cannot scale by them, as some that stand "
        "for none; take the smallest and largest action of the data"
      )
    object.__setattr__(self, "low", low)
    object.__setattr__(self, "high", high)
    if self.quantiles is not None:
      quantiles = np.asarray(self.quantiles, np.float32)
      if quantiles.ndim != low.ndim + 1 or quantiles.shape[1:] != low.shape or len(quantiles) < 2:
        raise ValueError(
          f"Continuous: quantiles are {quantiles.shape} where low is {low.shape}; expected [Q, A], Q >= 2"
        )
      if not (np.all(np.diff(quantiles, axis=0) >= 0) and np.all((low <= quantiles[0]) & (quantiles[-1] <= high))):
        raise ValueError("Continuous: quantiles must rise and lie within the bounds")
      object.__setattr__(self, "quantiles", quantiles)

  def __eq__(self, other: object) -> bool:
    return self._key() == other._key() if isinstance(other, Continuous) else NotImplemented

  def __hash__(self) -> int:
    return hash(self._key())

  def _key(self) -> tuple[Any, ...]:
    arrays = (self.low, self.high, self.quantiles)
    return tuple(None if x is None else (x.shape, tuple(x.ravel().tolist())) for x in arrays)

  @property
  def size(self) -> int:
    """A; 1 for one number without an axis."""
    return self.low.size


def _whole(count: Any) -> bool:
  return isinstance(count, numbers.Real) and math.isfinite(count) and int(count) == count and count >= 1


@dataclasses.dataclass(frozen=True)
class Discrete:
  """One choice out of ``num_actions``, at least 1: an integer in ``[0, num_actions)``."""

  num_actions: int

  def __post_init__(self):
    if not _whole(self.num_actions):
      raise ValueError(f"Discrete: num_actions is {self.num_actions!r}; expected an integer of at least 1")
    object.__setattr__(self, "num_actions", int(self.num_actions))


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
  """K choices at once, such as the buttons of a controller: integers ``[K]``.

  Attributes:
    num_actions: of each choice, K integers of at least 1; the k-th is in ``[0, num_actions[k])``.
  """

  num_actions: tuple[int, ...]

  def __post_init__(self):
    sizes = np.asarray(self.num_actions).reshape(-1).tolist()
    if not sizes or not all(map(_whole, sizes)):
      raise ValueError(f"MultiDiscrete: num_actions are {self.num_actions}; expected integers of at least 1")
    object.__setattr__(self, "num_actions", tuple(map(int, sizes)))

  @property
  def size(self) -> int:
    """K."""
    return len(self.num_actions)


# What an agent does at a step: one of the three, or (nested) dicts of them, such as a stick and buttons.
Action = Continuous | Discrete | MultiDiscrete | dict[str, Any]


# The probabilities of ``Statistics.quantiles``.
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Statistics(NamedTuple):
  """Per-dimension moments of a tree of step fields; every leaf is shaped like one step.

  Attributes:
    count: rows.
    mean: float64.
    std: float64, of the population.
    min: float64.
    max: float64.
    quantiles: float32 ``[Q, ...]`` for the probabilities ``ilx.types.QUANTILES``, or None where they were not asked
      for; NaN in leaves too large for it.
  """

  count: int
  mean: Tree
  std: Tree
  min: Tree
  max: Tree
  quantiles: Tree | None = None


class Spec(NamedTuple):
  """What an agent must know about its task before it sees data.

  Attributes:
    observation: a tree of ``jax.ShapeDtypeStruct``, one step without batch axis.
    action: ``Continuous``, ``Discrete``, ``MultiDiscrete``, or nested dicts of these for an action of several parts.
    statistics: of the observations, or None to leave observations as they are.
  """

  observation: Tree
  action: Action
  statistics: Statistics | None = None


class View(Protocol):
  """What an agent learns from: turns a dataset into batches of items, such as transitions or windows.

  Data and rows may be numpy arrays or, inside a jitted program, JAX ones; batches come back as the same.
  """

  def starts(self, length: int) -> np.ndarray:
    """The steps at which items begin in an episode of ``length`` transitions: rising integers in ``[0, length)``."""
    ...

  def prepare(self, episodes: Tree) -> Tree:
    """Once, on the host: narrows ``episodes.rows`` to ``starts`` and adds the columns that ``take`` needs."""
    ...

  def take(self, episodes: Tree, rows: Array) -> Tree:
    """The items that begin at ``rows`` (int ``[B]``) of prepared episodes."""
    ...

  def sample(self, key: jax.Array, episodes: Tree, batch_size: int) -> Tree:
    """A batch of ``batch_size`` items of prepared episodes, drawn with replacement; a pure function."""
    ...


class Agent(NamedTuple):
  """A learning algorithm as pure functions; none knows of devices, seeds or files.

  Those of ilx's agents raise ValueError, while they are traced, where a batch or a step is not what the spec says.

  Attributes:
    init: ``(key, batch) -> state``. One pytree of arrays: params, optimizer state, step, key. ``batch`` gives
      shapes and dtypes; its values are not used.
    update: ``(state, batch) -> (state, metrics)``. One gradient step, without side effects: jit, scan, vmap or
      shard it yourself. ``metrics`` maps names to float32 scalars. ``state.params`` is what ``act`` takes and
      ``state.step`` counts the updates made.
    act: ``(params, carry, step, key) -> (action, carry)``. With ``key=None`` the action is the distribution's
      mode, with a key a sample. Resets its own carry where ``step.is_first``. Actions are in the environment's
      units: float32 ``[B, A]`` within the bounds, or int32 ``[B]``; dicts where the spec has dicts.
    carry: ``(batch_size) -> carry``, the memory before a first step; ``()`` for policies without memory.
    view: what the agent learns from.
    log_prob: ``(params, carry, step, action) -> (log_prob, carry)``, or None where an agent has none. How likely the
      policy finds ``action``, as ``act`` would return it, float32 ``[B]``: of continuous actions, scaled to [-1, 1],
      the log-density (the log-probability of the bin for those in bins), of choices the log-probability. Of actions
      in dicts a dict of each part's; None for what the policy chooses as a point, without a distribution. The carry is
      the memory of having taken ``action``.
  """

  init: Callable[[jax.Array, Tree], Any]
  update: Callable[[Any, Tree], tuple[Any, dict[str, jax.Array]]]
  act: Callable[[Tree, Tree, Step, jax.Array | None], tuple[Tree, Tree]]
  carry: Callable[[int], Tree]
  view: View
  log_prob: Callable[[Tree, Tree, Step, Tree], tuple[Tree, Tree]] | None = None

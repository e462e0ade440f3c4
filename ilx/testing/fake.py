"""Made-up specs and data to try agents on."""

import jax
import jax.numpy as jnp
import numpy as np

from ilx.data.episodes import Episodes, from_columns
from ilx.types import Action, Continuous, Discrete, MultiDiscrete, Spec, Statistics, Tree


def continuous_spec(observation_size: int = 5, action_size: int = 3) -> Spec:
  """Observations with uneven scales, one constant dimension, and actions with uneven bounds."""
  scale = np.linspace(0.1, 30.0, observation_size)
  scale[-1] = 0.0
  mean = np.arange(observation_size, dtype=np.float64)
  statistics = Statistics(count=1000, mean=mean, std=scale, min=mean - scale, max=mean + scale)
  bounds = np.arange(1.0, action_size + 1.0)
  return Spec(jax.ShapeDtypeStruct((observation_size,), jnp.float32), Continuous(-bounds, 2 * bounds), statistics)


def discrete_spec(observation_size: int = 5, num_actions: int = 4) -> Spec:
  """As `continuous_spec`, with discrete actions."""
  return continuous_spec(observation_size)._replace(action=Discrete(num_actions))


def factored_spec(observation_size: int = 5) -> Spec:
  """As `continuous_spec`, with an action of several parts: a stick, a trigger, buttons, and one of three weapons."""
  action = {
    "stick": Continuous([-1.0, -2.0], [1.0, 2.0]),
    "hand": {"buttons": MultiDiscrete((2, 2, 5)), "trigger": Continuous(0.0, 10.0)},
    "weapon": Discrete(3),
  }
  return continuous_spec(observation_size)._replace(action=action)


def single_frames(spec: Spec) -> Spec:
  """What the data of an agent that stacks frames has."""
  observation, statistics = spec.observation, spec.statistics
  if statistics is not None:
    one = {of: jax.tree.map(lambda x: x[0], getattr(statistics, of)) for of in ("mean", "std", "min", "max")}
    statistics = statistics._replace(**one)
  single = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), observation)
  return spec._replace(observation=single, statistics=statistics)


def fake_episodes(spec: Spec, num_episodes: int = 8, length: int = 20, seed: int = 0) -> Episodes:
  """Random episodes of ``length`` transitions each, every other one ending in a terminal step.

  Floats are drawn from normal distributions with the mean and the standard deviation of the spec's statistics, or with
  0 and 1 where there are none; integers are up to 255.
  """
  rng = np.random.default_rng(seed)
  num_steps = num_episodes * (length + 1)
  starts = np.arange(num_episodes + 1) * (length + 1)
  is_terminal = np.zeros(num_steps, bool)
  is_terminal[starts[1::2] - 1] = True

  def column(leaf: jax.ShapeDtypeStruct, mean: float | np.ndarray = 0.0, std: float | np.ndarray = 1.0) -> np.ndarray:
    if np.issubdtype(leaf.dtype, np.floating):
      return (mean + std * rng.normal(size=(num_steps, *leaf.shape))).astype(leaf.dtype)
    return rng.integers(0, 256, size=(num_steps, *leaf.shape)).astype(leaf.dtype)

  moments = () if spec.statistics is None else (spec.statistics.mean, spec.statistics.std)
  return from_columns(
    observation=jax.tree.map(column, spec.observation, *moments),
    action=fake_actions(spec.action, rng, num_steps),
    reward=rng.normal(size=num_steps).astype(np.float32),
    discount=np.ones(num_steps, np.float32),
    is_terminal=is_terminal,
    starts=starts,
  )


def fake_actions(action: Action, rng: np.random.Generator, size: int) -> Tree:
  """``size`` random legal actions, as in the columns of a dataset."""

  def draw(part: Continuous | Discrete | MultiDiscrete) -> np.ndarray:
    if isinstance(part, Continuous):
      return rng.uniform(part.low, part.high, (size, *part.low.shape)).astype(np.float32)
    shape = (size, part.size) if isinstance(part, MultiDiscrete) else (size,)
    return rng.integers(part.num_actions, size=shape).astype(np.int32)

  return jax.tree.map(draw, action)

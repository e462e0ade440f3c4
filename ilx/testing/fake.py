"""Made-up specs and data to try agents on."""

import jax
import jax.numpy as jnp
import numpy as np

from ilx.data.episodes import Episodes, from_columns
from ilx.types import Continuous, Discrete, Spec, Statistics


def continuous_spec(observation_size: int = 5, action_size: int = 3) -> Spec:
  """Observations with uneven scales, one constant dimension, and actions with uneven bounds."""
  scale = np.linspace(0.1, 30.0, observation_size)
  scale[-1] = 0.0
  statistics = Statistics(
    count=1000, mean=np.arange(observation_size, dtype=np.float64), std=scale, min=-scale, max=scale
  )
  bounds = np.arange(1.0, action_size + 1.0)
  return Spec(jax.ShapeDtypeStruct((observation_size,), jnp.float32), Continuous(-bounds, 2 * bounds), statistics)


def discrete_spec(observation_size: int = 5, num_actions: int = 4) -> Spec:
  """As `continuous_spec`, with discrete actions."""
  return continuous_spec(observation_size)._replace(action=Discrete(num_actions))


def fake_episodes(spec: Spec, num_episodes: int = 8, length: int = 20, seed: int = 0) -> Episodes:
  """Random episodes of ``length`` transitions each, every other one ending in a terminal step."""
  rng = np.random.default_rng(seed)
  num_steps = num_episodes * (length + 1)
  starts = np.arange(num_episodes + 1) * (length + 1)
  is_terminal = np.zeros(num_steps, bool)
  is_terminal[starts[1::2] - 1] = True

  def column(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    if np.issubdtype(leaf.dtype, np.floating):
      return rng.normal(size=(num_steps, *leaf.shape)).astype(leaf.dtype)
    return rng.integers(0, 256, size=(num_steps, *leaf.shape)).astype(leaf.dtype)

  if isinstance(spec.action, Discrete):
    action = rng.integers(spec.action.num_actions, size=num_steps).astype(np.int32)
  else:
    action = rng.uniform(spec.action.low, spec.action.high, (num_steps, spec.action.size)).astype(np.float32)
  return from_columns(
    observation=jax.tree.map(column, spec.observation),
    action=action,
    reward=rng.normal(size=num_steps).astype(np.float32),
    discount=np.ones(num_steps, np.float32),
    is_terminal=is_terminal,
    starts=starts,
  )

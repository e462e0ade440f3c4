"""Value functions: of observations, V(s), and of observations and actions, Q(s, a)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx import ranges
from ilx.types import Tree


class Critic(nn.Module):
  """One value, or one for each of several choices.

  Attributes:
    torso: features ``[..., F]`` to features.
    encoder: a tree of observations to features; None where observations are one array ``[..., F]``.
    num_actions: 0 for one value; A for the values of A discrete actions.
  """

  torso: nn.Module
  encoder: nn.Module | None = None
  num_actions: int = 0

  @nn.compact
  def __call__(self, observation: Tree, action: jax.Array | None = None) -> jax.Array:
    """Standardised observations ``[..., O]`` and features of actions ``[..., A]`` (or None) to ``[...]``.

    With ``num_actions``, ``[..., A]``.
    """
    x = observation if self.encoder is None else self.encoder(observation)
    if action is not None:
      x = jnp.concatenate([x, action], axis=-1)
    values = nn.Dense(self.num_actions or 1, name="value")(self.torso(x))
    return values if self.num_actions else values[..., 0]


@dataclasses.dataclass(frozen=True)
class Ensemble:
  """Several critics of one shape, each with parameters of its own; ``init`` and ``apply`` as a module's.

  Two are two trees, one computed after the other, as it is fastest on a CPU. More are one tree ``{"ensemble": ...}``
  with leaves ``[K, ...]``, computed at once; placement rules divide it over ``tensor``, some critics on each device.

  Attributes:
    critic: what each is a copy of.
    size: K, at least 1.
  """

  critic: nn.Module
  size: int = 2

  def __post_init__(self):
    ranges.at_least_1(num_critics=self.size)

  def init(self, key: jax.Array, observation: Tree, action: jax.Array | None = None) -> Any:
    """The variables of each."""
    keys = jax.random.split(key, self.size)
    if self.size <= 2:
      return tuple(self.critic.init(k, observation, action) for k in keys)
    return {"ensemble": jax.vmap(lambda k: self.critic.init(k, observation, action))(keys)}

  def apply(self, variables: Any, observation: Tree, action: jax.Array | None = None) -> jax.Array:
    """As ``Critic``, with a leading axis: ``[K, ...]``."""
    if self.size <= 2:
      return jnp.stack([self.critic.apply(v, observation, action) for v in variables])
    return jax.vmap(lambda v: self.critic.apply(v, observation, action))(variables["ensemble"])

  def first(self, variables: Any) -> Any:
    """The variables of the first critic."""
    return variables[0] if self.size <= 2 else jax.tree.map(lambda x: x[0], variables["ensemble"])

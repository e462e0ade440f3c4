"""Value functions: of observations, V(s), and of observations and actions, Q(s, a)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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

  Attributes:
    critic: what each is a copy of.
    size: K.
  """

  critic: Critic
  size: int = 2

  def init(self, key: jax.Array, observation: Tree, action: jax.Array | None = None) -> tuple[Any, ...]:
    """The variables of each."""
    return tuple(self.critic.init(k, observation, action) for k in jax.random.split(key, self.size))

  def apply(self, variables: tuple[Any, ...], observation: Tree, action: jax.Array | None = None) -> jax.Array:
    """As ``Critic``, with a leading axis: ``[K, ...]``."""
    return jnp.stack([self.critic.apply(v, observation, action) for v in variables])

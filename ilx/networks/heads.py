"""Policy heads: a torso's features ``[..., F]`` to an action distribution."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks import distributions


class DeterministicHead(nn.Module):
  """``tanh`` of a linear map: a point in ``(-1, 1)^A``."""

  action_size: int

  @nn.compact
  def __call__(self, x: jax.Array) -> distributions.Deterministic:
    return distributions.Deterministic(jnp.tanh(nn.Dense(self.action_size, name="mean")(x)))


class TanhGaussianHead(nn.Module):
  """Squashed Gaussian whose mean and log standard deviation both depend on the features.

  Attributes:
    action_size: number of action dimensions, A.
    log_std_min, log_std_max: the log standard deviation is clipped to this interval.
  """

  action_size: int
  log_std_min: float = -5.0
  log_std_max: float = 2.0

  @nn.compact
  def __call__(self, x: jax.Array) -> distributions.TanhNormal:
    mean = nn.Dense(self.action_size, name="mean")(x)
    log_std = nn.Dense(self.action_size, name="log_std")(x)
    return distributions.TanhNormal(mean, jnp.clip(log_std, self.log_std_min, self.log_std_max))


class CategoricalHead(nn.Module):
  """Logits over ``num_actions`` discrete actions."""

  num_actions: int

  @nn.compact
  def __call__(self, x: jax.Array) -> distributions.Categorical:
    return distributions.Categorical(nn.Dense(self.num_actions, name="logits")(x))


class Policy(nn.Module):
  """A torso followed by a head: observation features ``[..., F]`` to a distribution."""

  torso: nn.Module
  head: nn.Module

  def __call__(self, observation: jax.Array) -> Any:
    return self.head(self.torso(observation))

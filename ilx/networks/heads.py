"""Policy heads: a torso's features ``[..., F]`` to an action distribution."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks import distributions
from ilx.types import Continuous, Discrete, Tree


class DeterministicHead(nn.Module):
  """``tanh`` of a linear map: a point in ``(-1, 1)^A``."""

  action_size: int

  @nn.compact
  def __call__(self, x: jax.Array) -> distributions.Deterministic:
    return distributions.Deterministic(jnp.tanh(nn.Dense(self.action_size, name="mean")(x)))


class GaussianHead(nn.Module):
  """Gaussian with a mean in ``(-1, 1)``, and a log standard deviation that is one parameter per action dimension.

  The density is not squashed: samples beyond the bounds are for the caller to clip. The policy of IQL (Kostrikov et
  al. 2021, "Offline Reinforcement Learning with Implicit Q-Learning").

  Attributes:
    action_size: number of action dimensions, A.
    log_std_min, log_std_max: the log standard deviation, 0 at first, is clipped to this interval.
  """

  action_size: int
  log_std_min: float = -5.0
  log_std_max: float = 2.0

  @nn.compact
  def __call__(self, x: jax.Array) -> distributions.Normal:
    mean = jnp.tanh(nn.Dense(self.action_size, name="mean")(x))
    log_std = self.param("log_std", nn.initializers.zeros, (self.action_size,))
    return distributions.Normal(mean, jnp.clip(log_std, self.log_std_min, self.log_std_max))


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


HEADS = ("deterministic", "gaussian", "tanh_gaussian", "categorical")
_CONTINUOUS = {"deterministic": DeterministicHead, "gaussian": GaussianHead, "tanh_gaussian": TanhGaussianHead}


def make(action: Continuous | Discrete, head: str | None = None) -> nn.Module:
  """The head for actions of a spec.

  Args:
    action: what the head is to choose.
    head: one of ``HEADS``; by default "deterministic" for continuous actions, "categorical" for discrete ones.

  Raises:
    ValueError: for a head that is unknown or does not fit the actions.
  """
  discrete = isinstance(action, Discrete)
  head = head or ("categorical" if discrete else "deterministic")
  if head not in HEADS:
    raise ValueError(f"head is {head!r}; choose one of {', '.join(HEADS)}")
  if discrete != (head == "categorical"):
    raise ValueError(f"head {head!r} does not fit the actions of the spec, {action}")
  if discrete:
    return CategoricalHead(action.num_actions)
  return _CONTINUOUS[head](action.size)


class Policy(nn.Module):
  """A torso followed by a head: standardised observations ``[..., O]`` to a distribution.

  Attributes:
    torso: features ``[..., F]`` to features.
    head: features to a distribution.
    encoder: a tree of observations to features; None where observations are one array ``[..., F]``.
  """

  torso: nn.Module
  head: nn.Module
  encoder: nn.Module | None = None

  def __call__(self, observation: Tree) -> Any:
    features = observation if self.encoder is None else self.encoder(observation)
    return self.head(self.torso(features))

"""Policy heads: a torso's features ``[..., F]`` to an action distribution."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx import ranges
from ilx.networks import distributions
from ilx.networks.compound_heads import DiscretisedHead, FactoredHead, GaussianMixtureHead, MultiCategoricalHead
from ilx.types import Action, Continuous, Discrete, MultiDiscrete, Tree

# Of mu-law bins, as in Reed et al. 2022, "A Generalist Agent".
_MU = 100.0
BINNINGS = ("uniform", "quantile", "mu_law")


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
    log_std = self.param("log_std", nn.initializers.zeros, (self.action_size,), jnp.float32)
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


def _discretised(action: Continuous, bins: int = 256, binning: str | None = None) -> DiscretisedHead:
  ranges.at_least_2(bins=bins)
  if binning not in (None, *BINNINGS):
    raise ValueError(f"binning is {binning!r}; choose one of {', '.join(BINNINGS)}")
  if binning == "quantile" and action.quantiles is None:
    raise ValueError(
      "binning is 'quantile', but the spec has no quantiles of the actions: pass ilx.data.rank_actions(spec, episodes)"
    )
  if binning in ("uniform", "mu_law") and action.quantiles is not None:
    raise ValueError(f"binning is {binning!r}, but the spec's actions are scaled by rank: its bins are quantiles")
  return DiscretisedHead(action.size, bins, _MU if binning == "mu_law" else 0.0)


def _mixture(action: Continuous, modes: int = 5, min_std: float = 1e-4, low_noise: bool = False) -> GaussianMixtureHead:
  ranges.at_least_1(modes=modes)
  ranges.above_0(min_std=min_std)
  return GaussianMixtureHead(action.size, modes, min_std, low_noise)


# Heads of continuous actions: what makes them, the keyword arguments being their options.
_CONTINUOUS = {
  "deterministic": lambda action: DeterministicHead(action.size),
  "gaussian": lambda action: GaussianHead(action.size),
  "tanh_gaussian": lambda action: TanhGaussianHead(action.size),
  "gaussian_mixture": _mixture,
  "discretised": _discretised,
}
HEADS = (*_CONTINUOUS, "categorical")


def options(head: str | None) -> tuple[str, ...]:
  """The names of the options that ``make`` takes for a head.

  Raises:
    ValueError: for an unknown head.
  """
  _check(head)
  make_one = _CONTINUOUS.get(head or "")
  return tuple(inspect.signature(make_one).parameters)[1:] if make_one else ()


def make(action: Action, head: str | None = None, **given: Any) -> nn.Module:
  """The head for actions of a spec.

  Args:
    action: what the head is to choose. The parts of dicts each get a head of their own (``FactoredHead``).
    head: one of ``HEADS``; by default "deterministic" for continuous actions. Discrete ones, and the discrete ones
      among several parts, have "categorical".
    **given: options of the head. "gaussian_mixture": ``modes`` (5), ``min_std`` (1e-4), ``low_noise`` (False), see
      ``GaussianMixtureHead``. "discretised": ``bins`` (256) and ``binning``: "quantile" (with as much data in each; the
      default where the spec is one of ``ilx.data.rank_actions``, which it has to be), "uniform" (of equal widths
      between the bounds; the default elsewhere) or "mu_law" (finest about the middle, see ``compound.Discretised``).

  Raises:
    ValueError: for a head or an option that is unknown or does not fit the actions.
  """
  _check(head)
  for name in given:
    if name not in options(head):
      which = f"head {head!r}" if head else "the default head"
      raise ValueError(f"{which} has no option {name!r}; it has {', '.join(options(head)) or 'none'}")
  kinds = {type(part) for part in jax.tree.leaves(action)}
  if not kinds:
    raise ValueError("the spec's action has no parts")
  if head is not None and (Continuous in kinds) != (head != "categorical"):
    raise ValueError(f"head {head!r} does not fit the actions of the spec, {action}")
  return _make(action, head or "deterministic", given)


def _make(action: Action, head: str, given: Mapping[str, Any]) -> nn.Module:
  if isinstance(action, list | tuple):
    raise ValueError(f"the spec's action is a {type(action).__name__}; name its parts in a dict")
  if isinstance(action, Mapping):
    return FactoredHead({name: _make(part, head, given) for name, part in action.items()})
  if isinstance(action, Discrete):
    return CategoricalHead(action.num_actions)
  if isinstance(action, MultiDiscrete):
    return MultiCategoricalHead(action.num_actions)
  if not isinstance(action, Continuous):
    raise ValueError(
      f"the spec's action is {action!r}; expected ilx.types.Continuous, Discrete, MultiDiscrete or a dict"
    )
  return _CONTINUOUS[head](action, **given)


def _check(head: str | None) -> None:
  if head is not None and head not in HEADS:
    raise ValueError(f"head is {head!r}; choose one of {', '.join(HEADS)}")

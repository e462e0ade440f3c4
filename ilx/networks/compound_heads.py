"""Policy heads of the distributions in ``compound``: a torso's features ``[..., F]`` to a distribution."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks import compound

# In place of the logits of what cannot be chosen.
_NEVER = -1e9


class MultiCategoricalHead(nn.Module):
  """Logits of several choices at once, the k-th among ``num_actions[k]``."""

  num_actions: tuple[int, ...]

  @nn.compact
  def __call__(self, x: jax.Array) -> compound.MultiCategorical:
    most = max(self.num_actions)
    logits = nn.Dense(len(self.num_actions) * most, name="logits")(x).reshape(*x.shape[:-1], -1, most)
    there = jnp.arange(most) < jnp.array(self.num_actions)[:, None]
    return compound.MultiCategorical(jnp.where(there, logits, _NEVER))


class GaussianMixtureHead(nn.Module):
  """A mixture of Gaussians with means in ``(-1, 1)``.

  The policy of BC-GMM (Mandlekar et al. 2021, "What Matters in Learning from Offline Human Demonstrations for Robot
  Manipulation", robomimic): standard deviations are ``softplus`` of a linear map plus ``min_std``.

  Attributes:
    action_size: number of action dimensions, A.
    modes: components, K.
    min_std: the least standard deviation, by default robomimic's. Where actions lie on their bounds a component can
      shrink onto them, and its likelihood then outweighs all else: 0.05 is safer.
    low_noise: whether samples have no noise about the means of components, as robomimic plays.
  """

  action_size: int
  modes: int = 5
  min_std: float = 1e-4
  low_noise: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> compound.Mixture:
    def each(name: str) -> jax.Array:
      flat = nn.Dense(self.modes * self.action_size, name=name)(x)
      return flat.reshape(*x.shape[:-1], self.modes, self.action_size)

    logits = nn.Dense(self.modes, name="logits")(x)
    log_std = jnp.log(jax.nn.softplus(each("std")) + self.min_std)
    return compound.Mixture(logits, jnp.tanh(each("mean")), log_std, self.low_noise)


class DiscretisedHead(nn.Module):
  """Every action dimension a categorical over bins.

  Attributes:
    action_size: number of action dimensions, A.
    bins: K, as many for each dimension; 256 in Brohan et al. 2022, "RT-1".
    mu: of mu-law bins, 0 for bins of equal widths: see ``compound.Discretised``.
  """

  action_size: int
  bins: int = 256
  mu: float = 0.0

  @nn.compact
  def __call__(self, x: jax.Array) -> compound.Discretised:
    logits = nn.Dense(self.action_size * self.bins, name="logits")(x)
    return compound.Discretised(logits.reshape(*x.shape[:-1], self.action_size, self.bins), self.mu)


class FactoredHead(nn.Module):
  """A head for every part of an action; the parts are independent, given the features.

  Attributes:
    parts: heads by name.
  """

  parts: Mapping[str, nn.Module]

  def __call__(self, x: jax.Array) -> compound.Factored:
    return compound.Factored({name: head(x) for name, head in self.parts.items()})

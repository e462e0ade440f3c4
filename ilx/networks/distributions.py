"""Action distributions: small pytrees with ``mode``, ``sample`` and ``log_prob``.

Only what policies need, so that no probability library has to be installed. The modes of continuous ones lie in
``[-1, 1]``, an interval that agents map to the environment's action bounds; samples beyond it (of densities with
unbounded support) are then moved onto the bounds. Leading axes are batch axes everywhere: parameters ``[..., A]``,
log-probabilities ``[...]``.
"""

import math
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct

from ilx.types import Tree

# Recorded actions on a bound have an infinite atanh: they are moved inside first. Not by less, or they are outliers
# that rule the likelihood (LunarLanderContinuous, where full power is common: 110 with 1e-6, 285 with 1e-3).
_TANH_LIMIT = 1.0 - 1e-3


class Distribution(Protocol):
  """What a policy network returns."""

  def mode(self) -> Tree:
    """The most likely action (for a squashed Gaussian: the squashed mean)."""
    ...

  def sample(self, key: jax.Array) -> Tree:
    """One action per batch item."""
    ...

  def log_prob(self, action: Tree) -> jax.Array:
    """Log-likelihood of ``action``, summed over the action axis: ``[...]``."""
    ...


@struct.dataclass
class Deterministic:
  """A point, with the log-likelihood of a unit-variance Gaussian around it up to its constant.

  ``log_prob(a) = -1/2 |a - location|^2``, so maximum likelihood is least squares.
  """

  location: jax.Array

  def mode(self) -> jax.Array:
    """``[..., A]``."""
    return self.location

  def sample(self, key: jax.Array) -> jax.Array:
    """The point itself, whatever the key: ``[..., A]``."""
    del key
    return self.location

  def log_prob(self, action: jax.Array) -> jax.Array:
    """``-1/2 |action - location|^2``: ``[...]``."""
    return -0.5 * jnp.sum(jnp.square(action - self.location), axis=-1)


@struct.dataclass
class Normal:
  """A diagonal Gaussian ``N(mean, exp(log_std)^2)`` over the whole of ``R^A``, wherever its mean lies.

  ``log_std`` is ``[..., A]`` or broadcasts to it, such as ``[A]`` where it depends on no observation.
  """

  mean: jax.Array
  log_std: jax.Array

  def mode(self) -> jax.Array:
    """The mean: ``[..., A]``."""
    return self.mean

  def sample(self, key: jax.Array) -> jax.Array:
    """``[..., A]``, unbounded."""
    return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape, self.mean.dtype)

  def log_prob(self, action: jax.Array) -> jax.Array:
    """``[...]``."""
    z = (action - self.mean) * jnp.exp(-self.log_std)
    return jnp.sum(-0.5 * jnp.square(z) - self.log_std - 0.5 * math.log(2 * math.pi), axis=-1)


@struct.dataclass
class TanhNormal:
  """``tanh(x)`` of a diagonal Gaussian ``x ~ N(mean, exp(log_std)^2)``.

  Haarnoja et al. 2018, "Soft Actor-Critic", appendix C.
  """

  mean: jax.Array
  log_std: jax.Array

  def mode(self) -> jax.Array:
    """``tanh(mean)``: ``[..., A]``."""
    return jnp.tanh(self.mean)

  def sample(self, key: jax.Array) -> jax.Array:
    """``[..., A]``, in ``(-1, 1)``."""
    return self.sample_and_log_prob(key)[0]

  def log_prob(self, action: jax.Array) -> jax.Array:
    """``[...]``; actions beyond +-0.999 count as +-0.999."""
    return self._log_prob_of_unsquashed(jnp.arctanh(jnp.clip(action, -_TANH_LIMIT, _TANH_LIMIT)))

  def sample_and_log_prob(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A sample and its log-likelihood, without the numerical loss of inverting ``tanh``."""
    noise = jax.random.normal(key, self.mean.shape, self.mean.dtype)
    x = self.mean + noise * jnp.exp(self.log_std)
    return jnp.tanh(x), self._log_prob_of_unsquashed(x)

  def _log_prob_of_unsquashed(self, x: jax.Array) -> jax.Array:
    # log(1 - tanh(x)^2), in a form that does not underflow.
    log_det = 2.0 * (math.log(2.0) - x - jax.nn.softplus(-2.0 * x))
    return Normal(self.mean, self.log_std).log_prob(x) - jnp.sum(log_det, axis=-1)


@struct.dataclass
class Categorical:
  """Over ``logits.shape[-1]`` discrete actions; actions are integers without an action axis."""

  logits: jax.Array

  def mode(self) -> jax.Array:
    """int32 ``[...]``."""
    return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

  def sample(self, key: jax.Array) -> jax.Array:
    """int32 ``[...]``."""
    return jax.random.categorical(key, self.logits).astype(jnp.int32)

  def log_prob(self, action: jax.Array) -> jax.Array:
    """``[...]``; NaN where there is no such choice."""
    log_p = jax.nn.log_softmax(self.logits)
    # Else -1 would be the last choice.
    place = jnp.where(action < 0, log_p.shape[-1], action).astype(jnp.int32)
    return jnp.take_along_axis(log_p, place[..., None], axis=-1, mode="fill")[..., 0]

  def entropy(self) -> jax.Array:
    """In nats: ``[...]``."""
    log_p = jax.nn.log_softmax(self.logits)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

"""Action distributions made of simpler ones: mixtures, bins, several choices, several parts."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ilx.networks.distributions import Categorical, Deterministic, Normal
from ilx.types import Tree


def log_probs(dist: Any, action: Tree) -> Tree:
  """Log-likelihoods ``[...]`` of an action, part by part; None of points, which have no density."""
  if isinstance(dist, Factored):
    return {name: log_probs(part, action[name]) for name, part in dist.parts.items()}
  return None if isinstance(dist, Deterministic) else dist.log_prob(action)


@struct.dataclass
class Mixture:
  """A mixture of K diagonal Gaussians.

  Attributes:
    logits: ``[..., K]``, of the components.
    mean: ``[..., K, A]``.
    log_std: ``[..., K, A]``, or what broadcasts to it.
    low_noise: whether samples are the means of components, drawn by their weights, without the Gaussians' noise.
  """

  logits: jax.Array
  mean: jax.Array
  log_std: jax.Array
  low_noise: bool = struct.field(pytree_node=False, default=False)

  def mode(self) -> jax.Array:
    """The mean of the component with the largest weight: ``[..., A]``.

    The density itself may be highest elsewhere, at a component of less weight but less spread.
    """
    return self._of(self.mean, Categorical(self.logits).mode())

  def sample(self, key: jax.Array) -> jax.Array:
    """``[..., A]``, unbounded."""
    key, noise_key = jax.random.split(key)
    component = Categorical(self.logits).sample(key)
    mean = self._of(self.mean, component)
    if self.low_noise:
      return mean
    return Normal(mean, self._of(jnp.broadcast_to(self.log_std, self.mean.shape), component)).sample(noise_key)

  def log_prob(self, action: jax.Array) -> jax.Array:
    """``[...]``."""
    each = Normal(self.mean, self.log_std).log_prob(action[..., None, :])
    return jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + each, axis=-1)

  def _of(self, x: jax.Array, component: jax.Array) -> jax.Array:
    return jnp.take_along_axis(x, component[..., None, None], axis=-2)[..., 0, :]


@struct.dataclass
class MultiCategorical:
  """K independent choices; actions are integers ``[..., K]``.

  Attributes:
    logits: ``[..., K, M]``; a choice that has fewer than M values has very low logits for the others.
  """

  logits: jax.Array

  def mode(self) -> jax.Array:
    """int32 ``[..., K]``."""
    return Categorical(self.logits).mode()

  def sample(self, key: jax.Array) -> jax.Array:
    """int32 ``[..., K]``."""
    return Categorical(self.logits).sample(key)

  def log_prob(self, action: jax.Array) -> jax.Array:
    """Of all choices together: ``[...]``."""
    return jnp.sum(Categorical(self.logits).log_prob(action), axis=-1)

  def entropy(self) -> jax.Array:
    """Of all choices together, in nats: ``[...]``."""
    return jnp.sum(Categorical(self.logits).entropy(), axis=-1)


@struct.dataclass
class Discretised:
  """Every action dimension an independent choice among K bins of ``[-1, 1]``; actions are the centres of bins.

  With ``mu`` the bins have equal widths not in the action x but in ``sign(x) log(1 + mu |x|) / log(1 + mu)``, so that
  they are finest about 0: the mu-law of Reed et al. 2022, "A Generalist Agent", equation 3, for numbers within [-1, 1]
  (its M is 1).

  Attributes:
    logits: ``[..., A, K]``.
    mu: 0 for bins of equal widths.
  """

  logits: jax.Array
  mu: float = struct.field(pytree_node=False, default=0.0)

  def mode(self) -> jax.Array:
    """The centre of every dimension's most likely bin: ``[..., A]``."""
    return self.centre(Categorical(self.logits).mode())

  def sample(self, key: jax.Array) -> jax.Array:
    """Centres of bins: ``[..., A]``."""
    return self.centre(Categorical(self.logits).sample(key))

  def log_prob(self, action: jax.Array) -> jax.Array:
    """Of the bins that hold ``action``, so that no value is above 0: ``[...]``."""
    return jnp.sum(Categorical(self.logits).log_prob(self.bin(action)), axis=-1)

  def entropy(self) -> jax.Array:
    """Of the bins, in nats: ``[...]``."""
    return jnp.sum(Categorical(self.logits).entropy(), axis=-1)

  def bin(self, action: jax.Array) -> jax.Array:
    """int32 in ``[0, K)`` of every number; numbers beyond [-1, 1] are in the first and the last bin."""
    bins = self.logits.shape[-1]
    x = jnp.clip(action, -1.0, 1.0)
    if self.mu:
      x = jnp.sign(x) * jnp.log1p(self.mu * jnp.abs(x)) / jnp.log1p(self.mu)
    return jnp.clip(jnp.floor(0.5 * (x + 1.0) * bins), 0, bins - 1).astype(jnp.int32)

  def centre(self, index: jax.Array) -> jax.Array:
    """The number, float32, in the middle of a bin (in the middle of its mu-law scale)."""
    x = (2.0 * index + 1.0) / self.logits.shape[-1] - 1.0
    return jnp.sign(x) * jnp.expm1(jnp.abs(x) * jnp.log1p(self.mu)) / self.mu if self.mu else x


@struct.dataclass
class Factored:
  """An action of several parts that are independent, given the observation.

  Attributes:
    parts: distributions by name; of parts that have parts themselves, a ``Factored``.
  """

  parts: dict[str, Any]

  def mode(self) -> dict[str, Tree]:
    """Every part's."""
    return {name: part.mode() for name, part in self.parts.items()}

  def sample(self, key: jax.Array) -> dict[str, Tree]:
    """One of every part, drawn independently."""
    keys = jax.random.split(key, len(self.parts))
    return {name: self.parts[name].sample(k) for name, k in zip(sorted(self.parts), keys, strict=True)}

  def log_prob(self, action: Mapping[str, Tree]) -> jax.Array:
    """The sum over the parts: ``[...]``."""
    return sum(part.log_prob(action[name]) for name, part in self.parts.items())

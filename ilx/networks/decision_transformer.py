"""The network of the decision transformer (Chen et al. 2021)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks import context
from ilx.networks.distributions import Distribution
from ilx.networks.dropout import dropout
from ilx.networks.transformer import Transformer
from ilx.types import Tree


class Linear(nn.Module):
  """A dense layer with PyTorch's initialisers, which the authors' token embeddings have: ``[..., F] -> [..., width]``.

  Weights and biases are uniform within ``1 / sqrt(F)``; the biases tell the kinds of tokens apart from the start.
  """

  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    limit = x.shape[-1] ** -0.5

    def uniform(key, shape, dtype=jnp.float32):
      return jax.random.uniform(key, shape, dtype, -limit, limit)

    return nn.Dense(self.width, kernel_init=uniform, bias_init=uniform, name="linear")(x)


class DecisionTransformer(nn.Module):
  """A causal transformer over ``R_0, o_0, a_0, R_1, o_1, a_1, ...`` that predicts ``a_t`` where it sees ``o_t``.

  Attributes:
    transformer: over tokens of its own width.
    head: features to a distribution of actions.
    encoder: observations to features.
    max_episode_steps: embeddings of time; later steps have the last one.
    dropout: of tokens.
  """

  transformer: Transformer
  head: nn.Module
  encoder: nn.Module
  max_episode_steps: int
  dropout: float

  def setup(self):
    width = self.transformer.width
    self.embed_return, self.embed_observation, self.embed_action = Linear(width), Linear(width), Linear(width)
    self.embed_time = nn.Embed(self.max_episode_steps, width, embedding_init=nn.initializers.normal(1.0))
    self.norm = nn.LayerNorm(epsilon=1e-5)

  def __call__(
    self,
    observation: Tree,
    action: jax.Array,
    returns_to_go: jax.Array,
    time_step: jax.Array,
    deterministic: bool = True,
  ) -> Distribution:
    """The actions at every step, each given what came before it in its window; padding stands on the right.

    Args:
      observation: standardised, ``[B, T, O]``.
      action: features, ``[B, T, F]``.
      returns_to_go: ``[B, T]``, scaled.
      time_step: int32 ``[B, T]``.
      deterministic: False for dropout, with a key "dropout".

    Returns:
      A distribution ``[B, T]``.
    """
    batch_size, length = time_step.shape
    tokens = jnp.stack([*self._now(observation, returns_to_go, time_step), self._after(action, time_step)], axis=2)
    x = self.norm(tokens.reshape(batch_size, 3 * length, -1))
    if not deterministic and self.dropout > 0:
      x = dropout(x, self.dropout, self.make_rng("dropout"))
    return self.head(self.transformer(x, None, deterministic, read=slice(1, None, 3)))

  def play(
    self,
    observation: Tree,
    previous: jax.Array,
    returns_to_go: jax.Array,
    is_first: jax.Array,
    memory: context.Context,
    steps: int,
  ) -> tuple[Distribution, context.Context]:
    """The next action, given the context that `ilx.networks.context` documents.

    Args:
      observation: standardised, ``[B, O]``.
      previous: the token of the action before, ``[B, D]``, from ``embed``.
      returns_to_go: ``[B]``, scaled.
      is_first: bool ``[B]``, where the context is to be forgotten.
      memory: the context before this step.
      steps: K, the most that a context has.

    Returns:
      A distribution ``[B]``, and the context after this step.
    """
    now = self._now(observation, returns_to_go, jnp.where(is_first, 0, memory.step))
    tokens = jnp.stack([previous, *(self.norm(token) for token in now)], axis=1)
    valid = jnp.ones(tokens.shape[:2], bool)
    apply = functools.partial(self.transformer.extend, read=slice(-1, None))
    x, memory = context.extend(apply, memory, tokens, valid, is_first, steps=steps, previous=1)
    return self.head(x[:, 0]), memory

  def embed(self, action: jax.Array, time_step: jax.Array) -> jax.Array:
    """The token ``[B, D]`` of an action, given its features ``[B, F]`` and its step, int32 ``[B]``."""
    return self.norm(self._after(action, time_step))

  def _now(self, observation: Tree, returns_to_go: jax.Array, time_step: jax.Array) -> tuple[jax.Array, jax.Array]:
    time = self._time(time_step)
    features = self.embed_observation(self.encoder(observation))
    return self.embed_return(returns_to_go[..., None]) + time, features + time

  def _after(self, action: jax.Array, time_step: jax.Array) -> jax.Array:
    return self.embed_action(action) + self._time(time_step)

  def _time(self, time_step: jax.Array) -> jax.Array:
    return self.embed_time(jnp.minimum(time_step, self.max_episode_steps - 1))

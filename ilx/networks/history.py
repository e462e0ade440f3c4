"""Policies that look back: a causal transformer over the observations (and actions) of the steps so far."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from ilx.networks import context
from ilx.networks.distributions import Distribution
from ilx.networks.dropout import dropout
from ilx.networks.transformer import Transformer
from ilx.types import Tree


class HistoryPolicy(nn.Module):
  """Tokens ``o_0, a_0, o_1, a_1, ...``, or observations alone, and a head that chooses a_t where it sees o_t.

  Attributes:
    transformer: over tokens of its width.
    head: features to a distribution of actions.
    encoder: standardised observations to features.
    actions: whether past actions are tokens.
    dropout: of tokens.
  """

  transformer: Transformer
  head: nn.Module
  encoder: nn.Module
  actions: bool
  dropout: float = 0.0

  def setup(self):
    self.observation = nn.Dense(self.transformer.width)
    if self.actions:
      self.action = nn.Dense(self.transformer.width)

  def __call__(self, observation: Tree, action: jax.Array, deterministic: bool = True) -> Distribution:
    """The actions at every step, each given what came before it in its window.

    Args:
      observation: ``[B, T, O]``. Padding stands on the right, where no real step sees it.
      action: features ``[B, T, F]``.
      deterministic: False for dropout, with a key "dropout".

    Returns:
      A distribution ``[B, T]``.
    """
    x = self.observation(self.encoder(observation))
    stride = 1
    if self.actions:
      batch_size, length, width = x.shape
      x, stride = jnp.stack([x, self.action(action)], axis=2).reshape(batch_size, 2 * length, width), 2
    if not deterministic and self.dropout > 0.0:
      x = dropout(x, self.dropout, self.make_rng("dropout"))
    return self.head(self.transformer(x, None, deterministic, read=slice(None, None, stride)))

  def embed(self, action: jax.Array) -> jax.Array:
    """The tokens ``[B, D]`` of actions, features ``[B, F]``."""
    return self.action(action)

  def play(
    self, observation: Tree, previous: jax.Array | None, is_first: jax.Array, memory: context.Context, steps: int
  ) -> tuple[Distribution, context.Context]:
    """The next action, given the context that `ilx.networks.context` documents.

    Args:
      observation: ``[B, O]``.
      previous: the token ``[B, D]`` of the action before, where actions are tokens; else None.
      is_first: bool ``[B]``, where the context is to be forgotten.
      memory: the context before this step.
      steps: K, the most that a context has.

    Returns:
      A distribution ``[B]``, and the context after this step.
    """
    tokens = self.observation(self.encoder(observation))[:, None]
    if previous is not None:
      tokens = jnp.concatenate([previous[:, None], tokens], axis=1)
    valid = jnp.ones(tokens.shape[:2], bool)
    apply = functools.partial(self.transformer.extend, read=slice(-1, None))
    of_before = 0 if previous is None else 1
    x, memory = context.extend(apply, memory, tokens, valid, is_first, steps=steps, previous=of_before)
    return self.head(x[:, 0]), memory

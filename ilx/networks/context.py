"""What a transformer remembers at play: the last steps, exactly, in arrays of fixed shape.

A window that slides by one step cannot be cached: beyond the first layer, what is kept of a token depends on tokens
that have since left the window. So there are two caches. Every step's tokens are fed to both, in one pass. The first
empties itself at the steps 0, K, 2K, ... of an episode, the second at K//2, K//2 + K, ...; outputs are taken from the
one that holds more steps.

The context of step s of an episode (from 0), with p = s mod K, thus consists of the steps

  0 to s                      for s < K,
  s - p to s                  where p >= K//2,
  s - p - (K - K//2) to s     where p < K//2,

at most K of them, and at least K//2 + 1 once the episode has that many. Outputs are those of the transformer applied
to the tokens of these steps alone, without any token that belongs to the step before the first.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ilx.networks.transformer import Cache, Transformer

# As ``Transformer.extend``: tokens ``[B, n, D]``, cache, valid ``[B, n]`` to outputs ``[B, m, D]`` at all or some of
# the tokens and the new cache.
Extend = Callable[[jax.Array, Cache, jax.Array], tuple[jax.Array, Cache]]


class Context(NamedTuple):
  """The memory of B environments.

  Attributes:
    cache: of ``2 B`` rows: the first caches of all environments, then the second ones.
    step: int32 ``[B]``, the steps of the episode so far: the place of the next one.
  """

  cache: Cache
  step: jax.Array


def make(transformer: Transformer, batch_size: int, *, steps: int, tokens_per_step: int) -> Context:
  """An empty context.

  Args:
    transformer: gives the shapes; need not be bound.
    batch_size: B.
    steps: K, the most steps that are remembered.
    tokens_per_step: n, tokens in each call of ``extend``.
  """
  if steps < 1:
    raise ValueError(f"steps={steps} of a context must be at least 1")
  return Context(transformer.make_cache(2 * batch_size, steps * tokens_per_step), jnp.zeros(batch_size, jnp.int32))


def place(step: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
  """For the step at ``step`` of an episode, int ``[B]``: which caches start here, and which is taken.

  Returns:
    bool ``[2, B]``, whether the first and the second cache start at this step; bool ``[B]``, true where outputs are
    the second's.
  """
  half = steps // 2
  first, second = step % steps == 0, (step % steps == half) | (step == 0)
  # Before step K//2 of an episode both caches hold the same.
  return jnp.stack([first, second]), step % steps < half


def extend(
  apply: Extend,
  context: Context,
  tokens: jax.Array,
  valid: jax.Array,
  is_first: jax.Array,
  *,
  steps: int,
  previous: int = 0,
) -> tuple[jax.Array, Context]:
  """Feeds one step's tokens.

  Args:
    apply: ``transformer.extend`` of a bound module, or a function that applies it.
    context: the memory before this step.
    tokens: ``[B, n, D]``.
    valid: bool ``[B, n]``; others are not fed.
    is_first: bool ``[B]``, where an episode starts: all memory is dropped.
    steps: K, as for ``make``.
    previous: how many of the tokens, the first of them, belong to the step before, as the previous action does. A
      cache that starts at this step is not fed these.

  Returns:
    The outputs ``[B, m, D]`` of ``apply`` in the documented context (those of invalid tokens mean nothing), and the
    memory after this step.
  """
  batch_size, n, _ = tokens.shape
  step = jnp.where(is_first, 0, context.step)
  started, second = place(step, steps)
  count = jnp.where(started.reshape(-1), 0, context.cache.count)
  of_before = jnp.arange(n) < previous
  fed = valid & ~(started[..., None] & of_before)
  outputs, cache = apply(jnp.tile(tokens, (2, 1, 1)), context.cache._replace(count=count), fed.reshape(-1, n))
  outputs = outputs.reshape(2, batch_size, *outputs.shape[1:])
  return jnp.where(second[:, None, None], outputs[1], outputs[0]), Context(cache, step + 1)

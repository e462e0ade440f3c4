"""The limits of a training step: matmuls and nothing else."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ilx.training import programs

# Rows and columns of a matmul large enough to run at the machine's full rate.
SIDE = 1024


def flops(batch_size: int, sizes: Sequence[int]) -> int:
  """Of the matmuls of one update of an MLP: forward, and backward to all weights and to all inputs but the first.

  Args:
    batch_size: rows.
    sizes: widths from the input to the output.
  """
  layers = [2 * batch_size * a * b for a, b in itertools.pairwise(sizes)]
  return 2 * sum(layers) + sum(layers[1:])


def large(side: int = SIDE, dtype: Any = jnp.float32) -> Callable[[int], None]:
  """``call(n)`` multiplies two matrices of ``side`` rows and columns ``n`` times: ``2 n side^3`` operations."""
  normal = np.random.default_rng(0).standard_normal(side)
  # A reflection: its powers neither grow nor vanish.
  matrix = jnp.asarray(np.eye(side) - 2 * np.outer(normal, normal) / (normal @ normal), dtype)
  repeat = programs.make_loop(jax.default_backend())  # as updates are
  program = jax.jit(lambda x, n: repeat(n, lambda _, y: y @ x, x))

  def call(n: int) -> None:
    jax.block_until_ready(program(matrix, n))

  return call


def same_shapes(batch_size: int, sizes: Sequence[int]) -> Callable[[int], None]:
  """``call(n)`` makes the matmuls of ``n`` updates of an MLP in one program; see `flops`."""
  rng = np.random.default_rng(0)
  weights = [jnp.asarray(rng.standard_normal(s) / s[0] ** 0.5, jnp.float32) for s in itertools.pairwise(sizes)]
  # Another batch each time, as otherwise the compiler could move the products out of the loop.
  batches = jnp.asarray(rng.standard_normal((64, batch_size, sizes[0])), jnp.float32)

  def products(batch: jax.Array, weights: list[jax.Array]) -> list[jax.Array]:
    layers = [batch]
    for weight in weights:
      layers.append(layers[-1] @ weight)
    cotangent, gradients = layers.pop(), []
    for x, weight in zip(reversed(layers), reversed(weights), strict=True):
      gradients.append(x.T @ cotangent)
      if len(gradients) < len(weights):
        cotangent = cotangent @ weight.T
    return gradients[::-1]

  @jax.jit
  def program(weights, batches, n):
    return jax.lax.fori_loop(0, n, lambda i, _: products(batches[i % len(batches)], weights), weights)

  def call(n: int) -> None:
    jax.block_until_ready(program(weights, batches, n))

  return call

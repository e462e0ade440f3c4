import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx.networks import context
from ilx.networks.transformer import Transformer

WIDTH, B, STEPS = 8, 4, 40
TRANSFORMER = Transformer(layers=2, heads=2, width=WIDTH, hidden=12)


@functools.cache
def _variables():
  shapes = jax.eval_shape(TRANSFORMER.init, jax.random.key(0), jnp.zeros((1, 2, WIDTH)))
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape) * 0.5, x.dtype), shapes)


def _apply(x, cache, valid):
  return TRANSFORMER.apply(_variables(), x, cache, valid, method="extend")


def _episodes():
  """Slots that start episodes apart: never again, often, at once, and late; int ``[STEPS, B]`` places of steps."""
  is_first = np.zeros((STEPS, B), bool)
  is_first[0] = True
  is_first[[3, 10, 12, 13], 1] = is_first[[1, 2, 3], 2] = is_first[30, 3] = True
  return is_first


def _play(tokens, valid, is_first, steps, previous):
  """Outputs ``[T, B, n, D]`` of a context that is fed step by step."""

  def one(memory, now):
    y, memory = context.extend(_apply, memory, *now, steps=steps, previous=previous)
    return memory, y

  memory = context.make(TRANSFORMER, tokens.shape[1], steps=steps, tokens_per_step=tokens.shape[2])
  return jax.jit(lambda memory, xs: jax.lax.scan(one, memory, xs))(memory, (tokens, valid, is_first))[1]


def _start(place, steps):
  """The first step of the documented context."""
  phase, half = place % steps, steps // 2
  if place < steps:
    return 0
  return place - phase if phase >= half else place - phase - (steps - half)


@pytest.mark.parametrize(("steps", "previous"), [(4, 1), (5, 0), (1, 1)])
def test_is_the_transformer_on_the_documented_context(steps, previous):
  """Three tokens a step, of which the first may belong to the step before; some are invalid."""
  rng, n, is_first = np.random.default_rng(0), 3, _episodes()
  tokens = rng.normal(size=(STEPS, B, n, WIDTH)).astype(np.float32)
  valid = rng.random((STEPS, B, n)) < 0.8
  y = _play(tokens, valid, is_first, steps, previous)

  # Every context as one row, and which place in it is which output.
  rows, masks, wanted = [], [], []
  place = np.full(B, -1)
  for t in range(STEPS):
    place = np.where(is_first[t], 0, place + 1)
    for b in range(B):
      size = place[b] - _start(place[b], steps) + 1
      assert size <= steps and size >= min(place[b] + 1, steps // 2 + 1)
      x, real = np.zeros((steps, n, WIDTH), np.float32), np.zeros((steps, n), bool)
      x[:size], real[:size] = tokens[t - size + 1 : t + 1, b], valid[t - size + 1 : t + 1, b]
      real[0, :previous] = False
      rows.append(x.reshape(-1, WIDTH))
      masks.append(real.reshape(-1))
      wanted += [(t, b, i, len(rows) - 1, (size - 1) * n + i) for i in range(n) if real[size - 1, i]]
  expected = np.asarray(jax.jit(TRANSFORMER.apply)(_variables(), np.array(rows), np.array(masks)))
  t, b, i, row, at = np.array(wanted).T
  assert len(wanted) > STEPS * B * (n - previous) / 2
  np.testing.assert_allclose(np.asarray(y)[t, b, i], expected[row, at], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_place_is_as_documented(steps):
  step = jnp.arange(5 * steps)
  starts, second = context.place(step, steps)
  began = [np.maximum.accumulate(np.where(np.asarray(s), step, 0)) for s in starts]
  taken = np.where(second, began[1], began[0])
  assert taken.tolist() == [_start(s, steps) for s in range(5 * steps)]
  for first in began:  # what is not taken fits, too
    assert np.all(step - first + 1 <= steps)


def test_what_came_before_an_episode_leaves_no_trace():
  """Not even where it was not finite."""
  rng = np.random.default_rng(0)
  one = jax.jit(lambda memory, x, first: context.extend(_apply, memory, x, jnp.ones((B, 1), bool), first, steps=4))
  fresh = context.make(TRANSFORMER, B, steps=4, tokens_per_step=1)
  xs = rng.normal(size=(6, B, 1, WIDTH)).astype(np.float32)
  used = fresh
  for x in (*xs, np.full_like(xs[0], np.nan), np.full_like(xs[0], np.inf)):
    used = one(used, x, jnp.zeros(B, bool))[1]
  for i, x in enumerate(xs):
    (a, used), (b, fresh) = (one(memory, x, jnp.full(B, i == 0)) for memory in (used, fresh))
    np.testing.assert_array_equal(a, b)
    assert np.all(np.isfinite(a))


def test_no_steps_are_refused():
  with pytest.raises(ValueError, match="steps=0 of a context must be at least 1"):
    context.make(TRANSFORMER, B, steps=0, tokens_per_step=1)

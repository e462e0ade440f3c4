import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx import testing
from ilx.networks import chunks, compound, distributions, encoders, heads, mlp

_T, _B, _A = 4, 3, 2


def _episode(predictions, is_first, ensemble):
  """What `chunks.vote` makes of predictions ``[S, T, B, A]`` of S steps: averages ``[S, B, A]``."""
  carry = chunks.Votes(jnp.full((_B, _T, _A), 99.0), jnp.full(_B, 2, jnp.int32))

  def one(carry, step):
    mean, carry = chunks.vote(carry, *step, ensemble)
    return carry, mean

  return jax.lax.scan(one, carry, (jnp.asarray(predictions), jnp.asarray(is_first)))[1]


@pytest.mark.parametrize("ensemble", [0.01, 0.0, 1.5, -0.7])
def test_temporal_ensembling_against_a_plain_loop(ensemble):
  # Zhao et al. 2023, algorithm 2: weights exp(-m i), i = 0 being the oldest of at most T predictions for the step.
  steps, rng = 11, np.random.default_rng(0)
  predictions = rng.normal(size=(steps, _T, _B, _A)).astype(np.float32)
  is_first = np.zeros((steps, _B), bool)
  is_first[0] = True
  is_first[6, 1] = is_first[7, 1] = True
  expected = np.zeros((steps, _B, _A))
  for slot in range(_B):
    buffer = {}
    for t in range(steps):
      if is_first[t, slot]:
        buffer = {}
      for k in range(_T):
        buffer.setdefault(t + k, []).append(predictions[t, k, slot].astype(np.float64))
      weights = np.exp(-ensemble * np.arange(len(buffer[t])))
      expected[t, slot] = np.average(buffer[t], axis=0, weights=weights)
  np.testing.assert_allclose(_episode(predictions, is_first, ensemble), expected, rtol=1e-4, atol=1e-6)


def test_agreeing_predictions_are_kept():
  found = _episode(
    np.full((9, _T, _B, _A), 0.25, np.float32), np.zeros((9, _B), bool) | (np.arange(9) == 0)[:, None], 0.5
  )
  np.testing.assert_allclose(found, np.full((9, _B, _A), 0.25), rtol=1e-6)


@pytest.mark.parametrize("execute", [1, 3, 4])
def test_open_loop_against_a_plain_loop(execute):
  steps, rng = 10, np.random.default_rng(0)
  predictions = rng.normal(size=(steps, _T, _B, _A)).astype(np.float32)
  is_first = np.zeros((steps, _B), bool)
  is_first[0] = is_first[5, 2] = True
  expected = np.zeros((steps, _B, _A), np.float32)
  for slot in range(_B):
    made = 0
    for t in range(steps):
      if is_first[t, slot] or t - made == execute:
        made = t
      expected[t, slot] = predictions[made, t - made, slot]
  # Whatever was planned in an earlier episode is forgotten.
  carry = chunks.Plan(jnp.full((_B, execute, _A), 99.0), jnp.full(_B, execute - 1, jnp.int32))

  def one(carry, step):
    action, carry = chunks.follow(carry, *step)
    return carry, action

  np.testing.assert_array_equal(
    jax.lax.scan(one, carry, (jnp.asarray(predictions), jnp.asarray(is_first)))[1], expected
  )


def test_votes_are_probabilities_of_choices_and_modes_of_the_rest():
  logits, mean = jnp.log(jnp.array([[0.7, 0.2, 0.1]])), jnp.array([[0.3, -0.4]])
  dist = compound.Factored(
    {
      "choice": distributions.Categorical(logits),
      "bins": compound.Discretised(logits[:, None]),
      "point": distributions.Deterministic(mean),
    }
  )
  votes = chunks.votes(dist, None)
  np.testing.assert_allclose(votes["choice"], [[0.7, 0.2, 0.1]], rtol=1e-6)
  np.testing.assert_allclose(votes["bins"], [[[0.7, 0.2, 0.1]]], rtol=1e-6)
  np.testing.assert_array_equal(votes["point"], mean)
  averaged = {"choice": jnp.array([[0.3, 0.3, 0.4]]), "bins": jnp.array([[[0.1, 0.3, 0.6]]]), "point": -mean}
  decided = chunks.decide(dist, averaged, None)
  np.testing.assert_array_equal(decided["choice"], [2])
  np.testing.assert_allclose(decided["bins"], [[2 / 3]], rtol=1e-6)
  np.testing.assert_array_equal(decided["point"], -mean)


def test_choices_are_drawn_from_the_averaged_probabilities():
  dist = distributions.Categorical(jnp.zeros((20_000, 3)))
  mean = jnp.broadcast_to(jnp.array([0.5, 0.0, 0.5]), (20_000, 3))
  drawn = chunks.decide(dist, mean, jax.random.key(0))
  np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 20_000, [0.5, 0.0, 0.5], atol=0.02)


@pytest.mark.parametrize("head", ["gaussian", "gaussian_mixture", None])
def test_every_step_of_a_chunk_has_its_own_head(head):
  spec = testing.factored_spec() if head is None else testing.continuous_spec()
  network = chunks.ChunkPolicy(mlp.MLP((8,)), heads.make(spec.action, head), encoders.make(spec.observation), _T)
  observation = jnp.ones((_B, 5))
  variables = network.init(jax.random.key(0), observation[0])
  for leaf in jax.tree.leaves(variables["params"]["head"]):
    assert len(leaf) == _T
  dist = network.apply(variables, observation)
  for part in jax.tree.leaves(dist.mode()):
    assert part.shape[:2] == (_T, _B)
    assert len(np.unique(np.asarray(part)[:, 0], axis=0)) > 1
  sample = chunks.played(dist, jax.random.key(0))
  assert jax.tree.map(jnp.shape, sample) == jax.tree.map(jnp.shape, dist.mode())
  flat = functools.partial(jax.tree.map, lambda x: x[2])
  one = jax.vmap(lambda d, a: d.log_prob(a))(dist, sample)
  np.testing.assert_allclose(one[2], flat(dist).log_prob(flat(sample)), rtol=1e-5)


def test_samples_of_steps_and_of_parts_are_independent():
  normal = distributions.Normal(jnp.zeros((4, 5, 2)), jnp.zeros((4, 5, 2)))
  found = chunks.played(normal, jax.random.key(0))
  assert len(np.unique(found)) == found.size
  parts = chunks.votes(compound.Factored({"a": normal, "b": normal}), jax.random.key(0))
  assert np.all(parts["a"] != parts["b"])
  choice, mean = distributions.Categorical(jnp.zeros((100, 3))), jnp.full((100, 3), 1 / 3)
  drawn = chunks.decide(compound.Factored({"a": choice, "b": choice}), {"a": mean, "b": mean}, jax.random.key(0))
  assert np.any(drawn["a"] != drawn["b"])

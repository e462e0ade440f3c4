import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ilx.networks import distributions


def test_deterministic():
  dist = distributions.Deterministic(jnp.array([[0.5, -0.5]]))
  np.testing.assert_array_equal(dist.mode(), [[0.5, -0.5]])
  np.testing.assert_array_equal(dist.sample(jax.random.key(0)), [[0.5, -0.5]])
  np.testing.assert_allclose(dist.log_prob(jnp.array([[0.5, 0.5]])), [-0.5])


def test_normal_against_scipy():
  mean, log_std, action = np.array([0.3, -0.2]), np.array([-0.5, 0.1]), np.array([[0.6, -0.9], [1.0, 1.0]])
  dist = distributions.Normal(jnp.array([mean, mean]), jnp.array(log_std))
  expected = stats.norm.logpdf(action, mean, np.exp(log_std)).sum(-1)
  np.testing.assert_allclose(dist.log_prob(jnp.array(action)), expected, rtol=1e-5)
  np.testing.assert_array_equal(dist.mode(), dist.mean)
  many = distributions.Normal(jnp.full((20_000, 2), mean), jnp.array(log_std)).sample(jax.random.key(0))
  np.testing.assert_allclose(many.mean(0), mean, atol=0.03)
  np.testing.assert_allclose(many.std(0), np.exp(log_std), atol=0.03)


def test_tanh_normal_log_prob_by_change_of_variables():
  mean, log_std, action = np.array([0.3, -0.2]), np.array([-0.5, 0.1]), np.array([0.6, -0.9])
  x = np.arctanh(action)
  expected = np.sum(stats.norm.logpdf(x, mean, np.exp(log_std)) - np.log(1 - action**2))
  found = distributions.TanhNormal(jnp.array(mean), jnp.array(log_std)).log_prob(jnp.array(action))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_tanh_normal_density_integrates_to_one():
  dist = distributions.TanhNormal(jnp.array([0.4]), jnp.array([-0.3]))
  action = np.linspace(-0.9999, 0.9999, 20_001)
  density = np.exp(dist.log_prob(jnp.array(action)[:, None]))
  assert np.trapezoid(density, action) == pytest.approx(1.0, abs=1e-3)


def test_tanh_normal_sample_agrees_with_its_log_prob():
  dist = distributions.TanhNormal(jnp.full((1000, 2), 0.2), jnp.full((1000, 2), -1.0))
  action, log_prob = dist.sample_and_log_prob(jax.random.key(0))
  np.testing.assert_array_equal(action, dist.sample(jax.random.key(0)))
  np.testing.assert_allclose(log_prob, dist.log_prob(action), atol=1e-3)
  np.testing.assert_allclose(np.arctanh(action).mean(), 0.2, atol=0.03)
  np.testing.assert_allclose(np.arctanh(action).std(), np.exp(-1.0), atol=0.03)


@pytest.mark.parametrize("action", [-1.0, 1.0])
def test_tanh_normal_is_finite_on_the_bounds(action):
  def loss(mean):
    return distributions.TanhNormal(mean, jnp.array([-5.0])).log_prob(jnp.array([action]))

  value, gradient = jax.value_and_grad(lambda m: loss(m).sum())(jnp.array([0.0]))
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()


def test_categorical_against_probabilities():
  probabilities = np.array([0.2, 0.5, 0.3])
  dist = distributions.Categorical(jnp.log(jnp.array([probabilities, probabilities])))
  np.testing.assert_allclose(dist.log_prob(jnp.array([0, 2])), np.log([0.2, 0.3]), rtol=1e-5)
  np.testing.assert_array_equal(dist.mode(), [1, 1])
  np.testing.assert_allclose(dist.entropy(), np.full(2, stats.entropy(probabilities)), rtol=1e-5)
  many = distributions.Categorical(jnp.broadcast_to(dist.logits[0], (20_000, 3))).sample(jax.random.key(0))
  assert many.dtype == jnp.int32
  np.testing.assert_allclose(np.bincount(many) / 20_000, probabilities, atol=0.02)


@pytest.mark.parametrize("action", [-1, 3, 7])
def test_there_is_no_likelihood_of_what_is_no_choice(action):
  assert np.isnan(distributions.Categorical(jnp.zeros((1, 3))).log_prob(jnp.array([action])))

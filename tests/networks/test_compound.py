import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from ilx.networks import compound, distributions

_LOGITS = np.array([0.5, -1.0, 2.0])
_MEAN = np.array([[0.1, -0.9], [0.8, 0.8], [-0.5, 0.3]])
_STD = np.array([[0.1, 0.2], [0.5, 0.05], [0.3, 0.4]])


def _mixture(**kwargs):
  return compound.Mixture(*(jnp.array(x, jnp.float32) for x in (_LOGITS, _MEAN, np.log(_STD))), **kwargs)


def test_mixture_log_prob_against_scipy():
  action = np.array([[0.1, -0.8], [0.0, 0.0], [-1.0, 1.0]])
  each = stats.norm.logpdf(action[:, None], _MEAN, _STD).sum(-1)
  expected = special.logsumexp(np.log(special.softmax(_LOGITS)) + each, axis=-1)
  many = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), _mixture())
  np.testing.assert_allclose(many.log_prob(jnp.array(action)), expected, rtol=1e-5)


def test_mixture_of_one_is_a_normal():
  mean, log_std, action = jnp.array([0.3, -0.2]), jnp.array([-1.0, 0.5]), jnp.array([0.7, 0.1])
  one = compound.Mixture(jnp.zeros(1), mean[None], log_std[None])
  np.testing.assert_allclose(one.log_prob(action), distributions.Normal(mean, log_std).log_prob(action), rtol=1e-6)


def test_mixture_mode_is_the_mean_of_the_heaviest_component():
  # The density is highest at the first component, which is narrow; the third has the largest weight.
  dist = _mixture()
  assert dist.log_prob(jnp.array(_MEAN[0])) > dist.log_prob(jnp.array(_MEAN[2]))
  np.testing.assert_allclose(dist.mode(), _MEAN[2], rtol=1e-6)


@pytest.mark.parametrize("low_noise", [False, True])
def test_mixture_samples_have_the_components_frequencies_and_spread(low_noise):
  size = 20_000
  dist = jax.tree.map(lambda x: jnp.broadcast_to(x, (size, *x.shape)), _mixture(low_noise=low_noise))
  sample = np.asarray(dist.sample(jax.random.key(0)))
  weights = special.softmax(_LOGITS)
  if low_noise:
    frequencies = (sample[:, None] == _MEAN.astype(np.float32)).all(-1).mean(0)
    np.testing.assert_allclose(frequencies, weights, atol=0.01)
    return
  mean = weights @ _MEAN
  np.testing.assert_allclose(sample.mean(0), mean, atol=0.02)
  np.testing.assert_allclose(sample.var(0), weights @ (_STD**2 + _MEAN**2) - mean**2, atol=0.01)


def test_mixture_gradient_is_finite_far_from_every_component():
  def loss(mean):
    return compound.Mixture(jnp.zeros(2), mean, jnp.full((2, 1), np.log(1e-4))).log_prob(jnp.array([1.0]))

  value, gradient = jax.value_and_grad(loss)(jnp.array([[-0.9], [-0.8]]))
  assert np.isfinite(value) and np.isfinite(gradient).all()


def test_multi_categorical_by_hand():
  p = np.array([[0.2, 0.8, 0.0], [0.1, 0.3, 0.6]])
  dist = compound.MultiCategorical(jnp.array(np.where(p > 0, np.log(np.where(p > 0, p, 1)), -1e9), jnp.float32))
  np.testing.assert_array_equal(dist.mode(), [1, 2])
  np.testing.assert_allclose(dist.log_prob(jnp.array([0, 2])), np.log(0.2 * 0.6), rtol=1e-5)
  np.testing.assert_allclose(dist.entropy(), stats.entropy(p, axis=-1).sum(), rtol=1e-5)
  many = jax.tree.map(lambda x: jnp.broadcast_to(x, (20_000, *x.shape)), dist).sample(jax.random.key(0))
  for choice in range(2):
    np.testing.assert_allclose(np.bincount(many[:, choice], minlength=3) / 20_000, p[choice], atol=0.02)
  # Independent of each other.
  np.testing.assert_allclose(np.mean((many[:, 0] == 0) & (many[:, 1] == 2)), 0.2 * 0.6, atol=0.02)


def _bins(bins, mu=0.0, dimensions=1):
  return compound.Discretised(jnp.zeros((dimensions, bins)), mu)


@pytest.mark.parametrize("mu", [0.0, 100.0])
@pytest.mark.parametrize("bins", [2, 5, 256])
def test_the_centre_of_a_bin_is_in_it(bins, mu):
  dist, every = _bins(bins, mu), jnp.arange(bins)
  centres = dist.centre(every)
  np.testing.assert_array_equal(dist.bin(centres), every)
  assert (np.diff(centres) > 0).all() and centres[0] > -1 and centres[-1] < 1
  np.testing.assert_allclose(centres, -centres[::-1], atol=1e-6)


def test_uniform_bins_by_hand():
  dist = _bins(4)
  np.testing.assert_array_equal(
    dist.bin(jnp.array([-7, -1, -0.51, -0.5, 0, 0.49, 0.5, 1, 7])), [0, 0, 0, 1, 2, 2, 3, 3, 3]
  )
  np.testing.assert_allclose(dist.centre(jnp.arange(4)), [-0.75, -0.25, 0.25, 0.75])


def test_mu_law_bins_by_hand():
  # Reed et al. 2022, equation 3, with mu = 100 and M = 1, then bins of equal widths.
  x = np.array([-1.0, -0.3, -0.004, 0.0, 0.02, 0.5, 0.99])
  companded = np.sign(x) * np.log(np.abs(x) * 100 + 1) / np.log(101)
  dist = _bins(64, 100.0)
  np.testing.assert_array_equal(dist.bin(jnp.array(x)), np.floor((companded + 1) * 32))
  middle = (2 * 40 + 1) / 64 - 1
  np.testing.assert_allclose(dist.centre(jnp.array([40])), [(101**middle - 1) / 100], rtol=1e-5)
  assert np.diff(dist.centre(jnp.arange(64)))[31] < 0.002 < 0.1 < np.diff(dist.centre(jnp.arange(64)))[-1]


def test_discretised_log_prob_and_mode_by_hand():
  logits = np.array([[0.0, 1.0, 0.5], [2.0, -1.0, 0.0]])
  dist = compound.Discretised(jnp.array(logits, jnp.float32))
  expected = np.log(special.softmax(logits[0])[2]) + np.log(special.softmax(logits[1])[0])
  np.testing.assert_allclose(dist.log_prob(jnp.array([1.0, -1.0])), expected, rtol=1e-5)
  np.testing.assert_allclose(dist.mode(), [0.0, -2 / 3], atol=1e-6)
  np.testing.assert_allclose(dist.entropy(), stats.entropy(special.softmax(logits, axis=-1), axis=-1).sum(), rtol=1e-5)
  sample = jax.tree.map(lambda x: jnp.broadcast_to(x, (20_000, *x.shape)), dist).sample(jax.random.key(1))
  np.testing.assert_allclose(np.mean(sample[:, 0] > 0.5), special.softmax(logits[0])[2], atol=0.02)


@pytest.mark.parametrize("action", [-1.0, 1.0])
def test_discretised_gradient_is_finite_on_the_bounds(action):
  gradient = jax.grad(lambda x: compound.Discretised(x, 100.0).log_prob(jnp.array([action])))(jnp.zeros((1, 8)))
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0.5


def test_factored_log_prob_is_the_sum_of_the_parts():
  stick, button, deep = distributions.Normal(jnp.zeros((3, 2)), jnp.zeros(2)), _fair(3, 2), _fair(3, 4)
  dist = compound.Factored({"stick": stick, "hand": compound.Factored({"button": button, "deep": deep})})
  action = {"stick": jnp.ones((3, 2)), "hand": {"button": jnp.array([0, 1, 0]), "deep": jnp.array([3, 2, 1])}}
  expected = stats.norm.logpdf(1.0) * 2 + np.log(1 / 2) + np.log(1 / 4)
  np.testing.assert_allclose(dist.log_prob(action), np.full(3, expected), rtol=1e-5)
  assert jax.tree.map(jnp.shape, dist.mode()) == {"stick": (3, 2), "hand": {"button": (3,), "deep": (3,)}}


def test_factored_samples_are_independent():
  dist = compound.Factored({"a": _fair(20_000, 2), "b": _fair(20_000, 2)})
  sample = dist.sample(jax.random.key(0))
  together = np.mean((sample["a"] == 1) & (sample["b"] == 1))
  np.testing.assert_allclose(together, 0.25, atol=0.02)


def _fair(size, choices):
  return distributions.Categorical(jnp.zeros((size, choices)))


def test_noise_of_a_mixture_does_not_depend_on_its_component():
  count = 20_000
  mean = jnp.broadcast_to(jnp.array([[-50.0], [50.0]]), (count, 2, 2))
  mixture = compound.Mixture(jnp.zeros((count, 2)), mean, jnp.zeros((count, 2, 2)))
  x = np.asarray(mixture.sample(jax.random.key(0)))
  for side in (-1, 1):
    np.testing.assert_allclose(x[np.sign(x[:, 0]) == side].mean(0), 50 * side, atol=0.05)

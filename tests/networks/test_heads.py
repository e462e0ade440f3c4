import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ilx import testing
from ilx.networks import compound, distributions, heads, mlp
from ilx.types import Continuous, Discrete, MultiDiscrete


def test_policy_shapes_for_any_batch_axes():
  policy = heads.Policy(mlp.MLP((8, 8)), heads.TanhGaussianHead(3))
  variables = policy.init(jax.random.key(0), jnp.zeros(5))
  for batch in ((), (4,), (2, 4)):
    dist = policy.apply(variables, jnp.ones((*batch, 5)))
    assert dist.mode().shape == (*batch, 3)
    assert dist.log_prob(jnp.zeros((*batch, 3))).shape == batch


def test_log_std_is_clipped():
  head = heads.TanhGaussianHead(2, log_std_min=-1.0, log_std_max=0.5)
  variables = head.init(jax.random.key(0), jnp.zeros(3))
  variables["params"]["log_std"]["bias"] = jnp.array([-100.0, 100.0])
  np.testing.assert_array_equal(head.apply(variables, jnp.zeros(3)).log_std, [-1.0, 0.5])


def test_gaussian_has_a_squashed_mean_and_one_clipped_log_std_for_all_features():
  head = heads.GaussianHead(2)
  variables = head.init(jax.random.key(0), jnp.zeros(1))
  np.testing.assert_array_equal(variables["params"]["log_std"], [0.0, 0.0])
  variables["params"]["mean"]["kernel"] = jnp.array([[1.0, -3.0]])
  variables["params"]["log_std"] = jnp.array([-100.0, 100.0])
  dist = head.apply(variables, jnp.array([[0.5], [2.0]]))
  np.testing.assert_allclose(dist.mode(), np.tanh([[0.5, -1.5], [2.0, -6.0]]), rtol=1e-5)
  np.testing.assert_array_equal(dist.log_std, [-5.0, 2.0])


def test_mixture_head_has_squashed_means_and_a_least_std():
  head = heads.make(Continuous(-np.ones(2), np.ones(2)), "gaussian_mixture", modes=3, min_std=0.01)
  variables = head.init(jax.random.key(0), jnp.zeros(4))
  variables["params"]["std"]["bias"] = jnp.array([-100.0, 0.0, 3.0, 0.0, 0.0, 0.0])
  variables["params"]["mean"]["bias"] = jnp.array([0.5, 9.0, 0.0, 0.0, 0.0, 0.0])
  dist = head.apply(variables, jnp.zeros(4))
  assert dist.logits.shape == (3,)
  np.testing.assert_allclose(
    np.exp(dist.log_std[:2]), [[0.01, np.log(2) + 0.01], [np.log1p(np.exp(3)) + 0.01, np.log(2) + 0.01]], rtol=1e-5
  )
  np.testing.assert_allclose(dist.mean[0], np.tanh([0.5, 9.0]), rtol=1e-5)


def test_choices_with_fewer_values_never_take_more():
  head = heads.make(MultiDiscrete((2, 5, 1)))
  variables = head.init(jax.random.key(0), jnp.zeros(4))
  dist = head.apply(variables, jnp.zeros((4000, 4)))
  np.testing.assert_array_equal(dist.sample(jax.random.key(1)).max(axis=0), [1, 4, 0])
  np.testing.assert_allclose(dist.entropy()[0], np.log(2) + np.log(5), rtol=1e-5)
  gradient = jax.grad(lambda v: head.apply(v, jnp.ones(4)).log_prob(jnp.array([1, 1, 0])))(variables)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


def test_every_part_has_its_head():
  head = heads.make(testing.factored_spec().action, "discretised", bins=7)
  dist = head.apply(head.init(jax.random.key(0), jnp.zeros(4)), jnp.zeros(4))
  assert isinstance(dist.parts["weapon"], distributions.Categorical)
  assert isinstance(dist.parts["hand"].parts["buttons"], compound.MultiCategorical)
  assert dist.parts["stick"].logits.shape == (2, 7)


def test_options_of_heads():
  assert heads.options("discretised") == ("bins", "binning")
  assert heads.options("gaussian_mixture") == ("modes", "min_std", "low_noise")
  assert heads.options("deterministic") == heads.options("categorical") == heads.options(None) == ()


_BOX = Continuous(-np.ones(1), np.ones(1))


@pytest.mark.parametrize(
  ("action", "head", "options", "message"),
  [
    (_BOX, "softmax", {}, "choose one of deterministic, gaussian"),
    (_BOX, "gaussian", {"bins": 4}, "no option 'bins'"),
    (_BOX, "discretised", {"bin": 4}, "no option 'bin'; it has bins, binning"),
    (_BOX, "discretised", {"bins": 1}, "at least 2"),
    (_BOX, "discretised", {"binning": "log"}, "choose one of uniform, quantile, mu_law"),
    (_BOX, "discretised", {"binning": "quantile"}, "rank_actions"),
    (Continuous(-np.ones(1), np.ones(1), np.array([[-1.0], [1]])), "discretised", {"binning": "mu_law"}, "by rank"),
    (Continuous(-np.ones(1), np.ones(1), np.array([[-1.0], [1]])), "discretised", {"binning": "uniform"}, "by rank"),
    ((_BOX, _BOX), None, {}, "a tuple; name its parts in a dict"),
    (_BOX, "gaussian_mixture", {"modes": 0}, "modes=0 must be at least 1"),
    (_BOX, "categorical", {}, "does not fit"),
    (Discrete(2), "gaussian", {}, "does not fit"),
    (MultiDiscrete((2, 2)), "deterministic", {}, "does not fit"),
    ({"a": Discrete(2), "b": {"c": MultiDiscrete((2,))}}, "gaussian", {}, "does not fit"),
    ({"a": Discrete(2), "b": _BOX}, "categorical", {}, "does not fit"),
    ({}, None, {}, "no parts"),
  ],
)
def test_heads_and_options_that_do_not_fit_are_refused(action, head, options, message):
  with pytest.raises(ValueError, match=message):
    heads.make(action, head, **options)


def test_mlp_by_hand():
  torso = mlp.MLP((2,))
  variables = {"params": {"Dense_0": {"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.array([0.5, 0.5])}}}
  np.testing.assert_array_equal(torso.apply(variables, jnp.array([2.0])), [2.5, 0.0])


def test_layer_norm_normalises_before_the_activation():
  torso = mlp.MLP((16,), activation=lambda x: x, layer_norm=True)
  x = jax.random.normal(jax.random.key(1), (7, 4))
  out = torso.apply(torso.init(jax.random.key(0), x), x)
  np.testing.assert_allclose(out.mean(-1), np.zeros(7), atol=1e-5)
  np.testing.assert_allclose(out.std(-1), np.ones(7), atol=1e-3)


@pytest.mark.parametrize(
  ("head", "options", "field", "expected"),
  [
    ("discretised", {"bins": 8, "binning": "mu_law"}, "mu", 100.0),
    ("discretised", {"bins": 8}, "mu", 0.0),
    ("gaussian_mixture", {"low_noise": True}, "low_noise", True),
  ],
)
def test_options_reach_the_distribution(head, options, field, expected):
  module, x = heads.make(testing.continuous_spec().action, head, **options), jnp.zeros(4)
  assert getattr(module.apply(module.init(jax.random.key(0), x), x), field) == expected


def test_the_squashed_heads_deviation_is_bounded():
  module, x = heads.make(testing.continuous_spec().action, "tanh_gaussian"), jnp.zeros(3)
  variables = module.init(jax.random.key(0), x)
  variables["params"]["log_std"]["bias"] = jnp.array([-100.0, 100.0, 0.0])
  np.testing.assert_array_equal(module.apply(variables, x).log_std, [-5.0, 2.0, 0.0])

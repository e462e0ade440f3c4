import jax
import jax.numpy as jnp
import numpy as np

from ilx.networks import heads, mlp


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

"""What hyper-parameters are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ilx
from ilx import ranges, testing

SPEC = testing.continuous_spec()


@pytest.mark.parametrize(
  ("agent", "arguments", "message"),
  [
    ("iql", {"discount": 1.5}, "discount=1.5 must be from 0 to 1"),
    ("iql", {"temperature": float("inf")}, "temperature=inf must be at least 0, and finite"),
    ("iql", {"expectile": None}, "expectile=None must be between 0 and 1"),
    ("iql", {"num_critics": 2.5}, "num_critics=2.5 must be at least 1, a whole number"),
    ("iql", {"n_step": 1.5}, "n_step=1.5 must be at least 1, a whole number"),
    ("td3_bc", {"policy_delay": 1.5}, "policy_delay=1.5 must be at least 1, a whole number"),
    ("td3_bc", {"alpha": float("inf")}, "alpha=inf must be at least 0, and finite"),
    ("rebrac", {"reward_scale": float("nan")}, "reward_scale=nan must be a finite number"),
    ("bc", {"head": "gaussian_mixture", "head_options": {"min_std": float("nan")}}, "min_std=nan must be above 0"),
    (
      "bc",
      {"head": "gaussian_mixture", "head_options": {"modes": 2.5}},
      "modes=2.5 must be at least 1, a whole",
    ),
    ("bc", {"head": "discretised", "head_options": {"bins": 8.5}}, "bins=8.5 must be at least 2, a whole number"),
    ("bc_transformer", {"positions": None}, "positions=None; choose 'rotary' or 'learnt'"),
    ("bc_transformer", {"layers": 1.5}, "layers=1.5 must be at least 1, a whole number"),
    ("dt", {"target_return": None, "return_scale": 1.0}, "target_return=None must be a finite number"),
    ("dt", {"target_return": 1.0, "return_scale": 1.0, "length": 2.5}, "length=2.5 must be at least 1, a whole number"),
  ],
)
def test_what_makes_no_sense_is_named(agent, arguments, message):
  with pytest.raises(ValueError, match=message):
    getattr(ilx.agents, agent)(SPEC, **arguments)


@pytest.mark.parametrize("number", [1, np.int64(1), np.array(1), jnp.array(1)])
def test_any_kind_of_number_is_a_number(number):
  ranges.at_least_1(number=number)
  ranges.finite(number=number)


def test_what_is_traced_has_no_value_to_look_at():
  jax.jit(lambda x: ranges.between_0_and_1(x=x))(3.0)
  with pytest.raises(ValueError, match=r"x=3\.0 must be between 0 and 1"):
    ranges.between_0_and_1(x=3.0)


def test_a_number_of_jax_is_looked_at_under_jit_too():
  """A comparison of it would be traced there."""
  number = jnp.float32(0.7)
  jax.jit(lambda x: (ranges.above_0(number=number), x)[1])(1.0)
  with pytest.raises(ValueError, match="must be at least 1, a whole"):
    jax.jit(lambda x: (ranges.at_least_1(number=number), x)[1])(1.0)


@pytest.mark.parametrize("number", [1 + 0j, np.complex64(1), jnp.complex64(1)])
def test_complex_numbers_are_refused(number):
  with pytest.raises(ValueError, match="must be a finite number"):
    ranges.finite(number=number)

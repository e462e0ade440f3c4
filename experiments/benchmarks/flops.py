"""Counting the operations of a function's matmuls and convolutions."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
from jax.interpreters import partial_eval


def of(function: Callable, *arguments: Any) -> float:
  """Floating-point operations of the matmuls and convolutions in one call; arguments may be shapes.

  What does not reach the results is not counted, nor are products with the zeros that a gradient puts into the holes of
  a stride. A scan's body counts as often as it runs; of a ``cond`` the mean of its branches, which is right for updates
  made every other time; a ``while`` of unknown length counts once.
  """
  jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
  needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _of_jaxpr(needed)


def _of_jaxpr(jaxpr: Any) -> float:
  return sum(map(_of_equation, jaxpr.eqns))


def _of_equation(equation: Any) -> float:
  name, parameters = equation.primitive.name, equation.params
  if name == "dot_general":
    (contracted, _), _ = parameters["dimension_numbers"]
    return 2.0 * equation.outvars[0].aval.size * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
  if name == "conv_general_dilated":
    kernel, numbers = equation.invars[1].aval, parameters["dimension_numbers"]
    products = equation.outvars[0].aval.size * kernel.size / kernel.shape[numbers.rhs_spec[0]]
    return 2.0 * products / math.prod(parameters["lhs_dilation"])
  inner = [_of_jaxpr(jaxpr) for jaxpr in jax.extend.core.jaxprs_in_params(parameters)]
  if name == "scan":
    return parameters["length"] * sum(inner)
  if name == "cond":
    return sum(inner) / len(inner)
  return sum(inner)

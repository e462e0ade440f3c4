"""Hyper-parameters within their ranges: each function raises ValueError, naming what is not.

What a transformation of JAX traces has no value to look at and passes, so that hyper-parameters can be vmapped.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def _range(what: str, holds: Callable[[Any], bool]) -> Callable[..., None]:
  def check(**values: Any) -> None:
    for name, value in values.items():
      if isinstance(value, jax.core.Tracer):
        continue
      # Under jit a comparison of one of jax's own arrays would be traced, whatever it holds.
      number = np.asarray(value) if isinstance(value, jax.Array) else value
      if not (_is_number(number) and holds(number)):
        raise ValueError(f"{name}={value!r} must be {what}")

  return check


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float, np.number, np.ndarray)) and np.ndim(value) == 0 and not np.iscomplexobj(value)


def _is_whole(value: Any) -> bool:
  return np.issubdtype(np.asarray(value).dtype, np.integer)


finite = _range("a finite number", math.isfinite)
finite_at_least_0 = _range("at least 0, and finite", lambda x: 0 <= x < math.inf)
above_0 = _range("above 0", lambda x: x > 0)
at_least_0 = _range("at least 0", lambda x: x >= 0)
whole_at_least_0 = _range("at least 0, a whole number", lambda x: _is_whole(x) and x >= 0)
at_least_1 = _range("at least 1, a whole number", lambda x: _is_whole(x) and x >= 1)
at_least_2 = _range("at least 2, a whole number", lambda x: _is_whole(x) and x >= 2)
from_0_to_1 = _range("from 0 to 1", lambda x: 0 <= x <= 1)
from_0_to_below_1 = _range("from 0 to below 1", lambda x: 0 <= x < 1)
above_0_to_1 = _range("above 0 and at most 1", lambda x: 0 < x <= 1)
between_0_and_1 = _range("between 0 and 1", lambda x: 0 < x < 1)

_FLOATS = ("float32", "bfloat16", "float16", "float64")


def floating(**values: Any) -> None:
  """Dtypes to compute in: a type, a ``np.dtype`` or a name."""
  for name, value in values.items():
    if getattr(value, "__name__", str(value)) not in _FLOATS:
      raise ValueError(f"{name}={value!r}; choose one of {', '.join(_FLOATS)}")

import numpy as np
import pytest

from ilx.types import Continuous, Discrete, MultiDiscrete

RISING = np.array([[-1.0, -1.0], [0.0, 1.0]])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
  ("low", "high", "quantiles", "message"),
  [
    ([-1.0], [1.0, 1.0], None, r"low \(1,\) and high \(2,\) must both be \[A\]"),
    ([[-1.0]], [[1.0]], None, r"must both be \[A\]"),
    ([-np.inf], [1.0], None, "bounds must be finite"),
    ([-1e300], [1e300], None, "bounds must be finite"),  # not so in float32
    ([-3.4e38], [3.4e38], None, "so far apart"),  # as some spaces say that there are none
    ([0.0, 1.0], [1.0, 1.0], None, "low < high"),
    ([-1.0, -1.0], [1.0, 1.0], RISING[:1], r"expected \[Q, A\], Q >= 2"),
    ([-1.0, -1.0], [1.0, 1.0], RISING[::-1], "must rise"),
    ([-1.0, -1.0], [1.0, 0.5], RISING, "within the bounds"),
  ],
)
def test_bounds_that_make_no_sense_are_refused(low, high, quantiles, message):
  with pytest.raises(ValueError, match=message):
    Continuous(np.array(low), np.array(high), quantiles)


@pytest.mark.parametrize("num_actions", [0, -1, 2.5, np.nan, np.inf, "3"])
def test_choices_of_none_are_refused(num_actions):
  with pytest.raises(ValueError, match=f"num_actions is {num_actions!r}"):
    Discrete(num_actions)


def test_bounds_are_float32():
  action = Continuous([-1, -2], [1, 2], RISING)
  assert {x.dtype for x in (action.low, action.high, action.quantiles)} == {np.dtype(np.float32)}
  assert action.size == 2


@pytest.mark.parametrize("num_actions", [(), (2.7, 3), (0, 2), (np.nan, 2)])
def test_several_choices_of_none_are_refused(num_actions):
  with pytest.raises(ValueError, match="expected integers of at least 1"):
    MultiDiscrete(num_actions)


def test_bounds_are_compared_by_their_values():
  one = Continuous([-1, -2], [1, 2], RISING)
  assert one == Continuous([-1, -2], [1, 2], RISING)
  assert hash(one) == hash(Continuous([-1, -2], [1, 2], RISING))
  assert one not in (Continuous([-1, -2], [1, 2]), Continuous([-1, -2], [1, 3], RISING), Continuous(-1, 1), Discrete(2))

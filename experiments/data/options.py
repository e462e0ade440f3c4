"""Flags that several commands have."""

import math

from absl import flags


def define_number(
  values: flags.FlagValues, name: str, default: float | None, words: str, lower: float | None = None
) -> None:
  """A flag for a number, which NaN and inf are not."""
  flags.DEFINE_float(name, default, words, lower, flag_values=values)
  flags.register_validator(
    name,
    lambda value: value is None or math.isfinite(value),
    message=f"--{name}: expected a number",
    flag_values=values,
  )


def define_idle_tolerance(values: flags.FlagValues) -> None:
  """How much may change in steps that count as idle."""
  words = "Differences up to this, in the data's units, count as standing still."
  define_number(values, "idle_tolerance", 0.0, words, 0.0)

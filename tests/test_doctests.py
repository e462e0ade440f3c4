"""Examples in docstrings give what they say."""

import doctest
import importlib

import pytest
from documented import ROOT

MODULES = [
  ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
  for package in ("ilx", "experiments")
  for path in sorted((ROOT / package).rglob("*.py"))
  if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name):
  # Not by attributes: `ilx.agents.bc` is a function.
  done = doctest.testmod(importlib.import_module(name))
  assert done.attempted and not done.failed


def test_examples_are_found():
  assert "ilx.agents.iql" in MODULES and len(MODULES) >= 6

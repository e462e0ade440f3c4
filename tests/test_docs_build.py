"""The documentation's site is built, and a warning is an error."""

import importlib.util
import subprocess
import sys

import pytest
from documented import ROOT

_MISSING = [name for name in ("sphinx", "myst_parser", "furo") if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  if _MISSING:
    pytest.skip(f'{", ".join(_MISSING)} not installed: pip install -e ".[docs]"')
  folder = tmp_path_factory.mktemp("site")
  program = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", folder / "trees"]
  done = subprocess.run([*program, ROOT / "docs", folder / "html"], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return folder / "html"


def test_guides_and_reference_are_there(site):
  assert "Getting started" in (site / "index.html").read_text()
  agents = (site / "api" / "agents.html").read_text()
  for name in ("iql", "dt", "rebrac", "frozen"):
    assert f'id="ilx.agents.{name}"' in agents
  assert "of Q over the data" in agents, "arguments are documented"
  assert "actor_bc_coef" in (site / "configs.html").read_text(), "configs are shown whole"


def test_docstrings_leave_no_markup(site):
  """Sections that were not understood stand as text."""
  for page in (site / "api").glob("*.html"):
    text = page.read_text()
    assert "<p>Args:" not in text and "<p>Attributes:" not in text and "Alias for field number" not in text, page.name

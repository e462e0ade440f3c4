"""Sphinx's settings: the guides are Markdown (MyST), the reference is made of the docstrings."""

import pathlib
import re
import sys
from typing import Any

import sphinx.application

# A checkout is documented, not what may be installed beside it.
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import ilx

project = "ilx"
author = copyright = "The ilx authors"
version = release = ilx.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = f"ilx {version}"

# Headings can be linked to as on GitHub: data.md#mixtures.
myst_heading_anchors = 3

# Single backticks in docstrings are links where there is something of that name.
default_role = "py:obj"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
napoleon_numpy_docstring = False
# As lists: "low, high: ..." is one entry, which fields of reStructuredText cannot say.
napoleon_use_param = False
napoleon_custom_sections = [("Attributes", "params_style")]


def _skip(app: sphinx.application.Sphinx, what: str, name: str, obj: Any, *_: Any) -> bool | None:
  """Leaves out what NamedTuple makes of its fields, which the class documents."""
  return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field number") else None


def _without_flax(app: sphinx.application.Sphinx, what: str, name: str, obj: Any, options: Any, given: str, *_: Any):
  """Leaves out the two arguments that every Flax module has."""
  return (re.sub(r"(, )?parent: .*", ")", given), None) if isinstance(obj, type) and given else None


def setup(app: sphinx.application.Sphinx) -> None:
  """Called by Sphinx."""
  app.connect("autodoc-skip-member", _skip)
  app.connect("autodoc-process-signature", _without_flax)

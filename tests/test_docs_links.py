"""Links of the documentation lead somewhere. The network is not asked: docs/README.md says how to."""

import os
import re
import urllib.parse

import documented
import pytest
from documented import ROOT

_PROJECT = [ROOT / name for name in ("README.md", "WORKSPACE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
FILES = [
  *_PROJECT,
  *documented.PAGES,
  *sorted((ROOT / "experiments").rglob("*.md")),
  *sorted((ROOT / "colab").glob("*.md")),
]


def _is_external(target):
  return re.match(r"[a-z][a-z0-9+.-]*:", target) is not None


def wrong(page, target):
  """What is wrong with a link; None: nothing."""
  if _is_external(target):
    parts = urllib.parse.urlsplit(target)
    good = parts.scheme == "https" and re.fullmatch(r"([a-z0-9-]+\.)+[a-z]{2,}", parts.netloc)
    return None if good else "no address of a page (https)"
  name, _, anchor = target.partition("#")
  path = page if not name else page.parent / urllib.parse.unquote(name)
  if not path.exists():
    return "no such file"
  if os.path.commonpath([path.resolve(), ROOT]) != str(ROOT):
    return "leads out of the repository"
  # A reference page's modules have anchors that Sphinx makes; the headings have the same names.
  if anchor and anchor not in documented.anchors(path.read_text()):
    return f"no such heading; there are {', '.join(sorted(documented.anchors(path.read_text())))}"
  return None


@pytest.mark.parametrize("page", FILES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
  found = [(target, error) for target in documented.links(page.read_text()) if (error := wrong(page, target))]
  assert not found


def test_wrong_links_are_found():
  page = ROOT / "docs" / "index.md"
  assert wrong(page, "data.md#mixtures") is None and wrong(page, "https://example.org/a#b") is None
  for target in ("nothing.md", "data.md#nothing", "#nothing", "http://example.org", "https://example", "../../x"):
    assert wrong(page, target), target
  text = "[a](x.md) `[b](code.md)`\n\n```\n[c](fence.md)\n```\n    [d](indented.md)\n[e\nf](y.md#z)\n"
  assert documented.links(text) == ["x.md", "y.md#z"]
  assert documented.anchors("# A `b.c` (d)\n## A b\n## A b\n```\n# no\n```\n") == {"a-bc-d", "a-b", "a-b-1"}

import importlib

import pytest

from experiments.data import __main__ as tool


@pytest.mark.parametrize(
  ("error", "code", "message"),
  [
    (RuntimeError("another process writes it"), 2, "error: another process writes it\n"),
    (OverflowError("int too large"), 2, "error: int too large\n"),
    (MemoryError(), 2, "error: out of memory\n"),
    (MemoryError("Unable to allocate 3 TiB"), 2, "error: out of memory: Unable to allocate 3 TiB\n"),
    (OSError(), 2, "error: OSError\n"),
    (KeyboardInterrupt(), 130, "error: interrupted\n"),
  ],
)
@pytest.mark.parametrize("place", ["work", "import"])
def test_what_goes_wrong_is_one_sentence(monkeypatch, capsys, error, code, message, place):
  def fail(*_):
    raise error

  if place == "work":
    monkeypatch.setattr("experiments.data.query.main", fail)
  else:
    monkeypatch.setattr(importlib, "import_module", fail)
  assert tool.main(["query", "dataset", "SELECT 1"]) == code
  assert capsys.readouterr().err == message


def test_a_defect_shows_its_place_but_not_as_a_finding(monkeypatch, capsys):
  def fail(*_):
    raise KeyError("nothing")

  monkeypatch.setattr("experiments.data.validate.main", fail)
  assert tool.main(["validate", "dataset"]) == 2
  assert "KeyError: 'nothing'" in capsys.readouterr().err

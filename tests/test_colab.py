"""The notebooks are executed as they stand, but for one cell of smaller parameters."""

import re

import nbformat
import pytest
from documented import ROOT
from nbclient import NotebookClient

from experiments.demos import datasets

FOLDER = ROOT / "colab"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
BADGE = re.compile(
  r"\[!\[Open in Colab\]\(https://colab\.research\.google\.com/assets/colab-badge\.svg\)\]"
  r"\(https://colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/main/(colab/[\w.]+)\)\n"
)

# What the cell of parameters is followed by, and the figures and videos that a reader then sees.
SMALL = {
  "1_behaviour_cloning": ({"DEMONSTRATIONS": [3], "SEEDS": 1, "STEPS": 10, "EPISODES": 2}, 2, 1),
  "2_offline_rl": ({"SEEDS": 1, "STEPS": 10, "EVALUATIONS": 1, "EPISODES": 2}, 3, 2),
  "3_decision_transformer": ({"TARGETS": [10, 50], "EPISODES": 2, "STEPS": 10, "LENGTH": 4}, 3, 2),
  "4_your_own_data": ({"SESSIONS": 5, "FRAMES": 20, "STEPS": 5, "GAMES": 2}, 3, 2),
  "5_in_your_own_code": ({"STEPS": 10, "SEEDS": 8, "EPISODES": 2}, 2, 1),
}
# Seconds for one cell; they take a few.
_TIMEOUT = 300


def _read(name):
  notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
  nbformat.validate(notebook)
  return notebook


def _code(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """A few episodes of each built-in dataset that notebooks name, which they then find."""
  folder = tmp_path_factory.mktemp("data")
  text = "".join(path.read_text() for path in FOLDER.glob("*.ipynb"))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(datasets, "STEPS_PER_ROUND", 12_000)
    patch.setattr(datasets, "ROUNDS", 50)  # of which one is made
    for name in sorted(set(re.findall(r'DATASET = \\"([\w-]+)\\"', text))):
      datasets.build(name, folder, rounds=1)
  return folder


def test_every_notebook_is_tested_and_listed():
  assert list(SMALL) == NAMES
  listed = re.findall(r"\]\((\w+)\.ipynb\)", (FOLDER / "README.md").read_text())
  assert listed == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_begins_with_badge_installation_and_parameters(name):
  notebook = _read(name)
  repository, path = BADGE.match(notebook.cells[0].source).groups()
  assert path == f"colab/{name}.ipynb"
  install, parameters, *others = _code(notebook)
  assert notebook.cells.index(install) == 1 and notebook.cells.index(parameters) == 2
  assert f'REPOSITORY = "{repository}"' in install.source
  assert install.source == _code(_read(NAMES[0]))[0].source, "the installation is the same in all"
  assert parameters.metadata.get("tags") == ["parameters"]
  assert not any(cell.metadata for cell in [install, *others])


@pytest.mark.parametrize("name", NAMES)
def test_is_kept_without_outputs(name):
  text = (FOLDER / f"{name}.ipynb").read_text()
  notebook = _read(name)
  assert all(not cell.outputs and cell.execution_count is None for cell in _code(notebook))
  assert set(notebook.metadata) == {"kernelspec", "language_info"}
  assert notebook.metadata.kernelspec.name == "python3" and set(notebook.metadata.language_info) == {"name"}
  assert text == nbformat.writes(notebook) + "\n", "as Jupyter writes it"


@pytest.mark.parametrize("name", NAMES)
def test_runs_and_shows_what_it_promises(name, data, tmp_path, monkeypatch):
  notebook, (values, figures, videos) = _read(name), SMALL[name]
  place = next(i for i, cell in enumerate(notebook.cells) if cell.metadata.get("tags") == ["parameters"])
  known = re.findall(r"^(\w+) = ", notebook.cells[place].source, re.MULTILINE)
  assert set(values) <= set(known)
  small = "\n".join(f"{key} = {value!r}" for key, value in values.items())
  notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(small))
  monkeypatch.setenv("ILX_DATA_DIR", str(data))
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  monkeypatch.delenv("MPLBACKEND", raising=False)  # EnvPool sets it; a kernel of its own shows figures

  NotebookClient(notebook, timeout=_TIMEOUT, resources={"metadata": {"path": str(tmp_path)}}).execute()

  outputs = [output for cell in _code(notebook) for output in cell.outputs]
  shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
  assert sum("image/png" in each for each in shown) == figures
  assert sum("<video" in each.get("text/html", "") for each in shown) == videos
  errors = "".join(output.text for output in outputs if output.get("name") == "stderr")
  assert "Warning" not in errors and "Traceback" not in errors, errors

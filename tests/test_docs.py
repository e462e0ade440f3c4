"""The code in the documentation runs, its commands have the flags that they show, and everything is named somewhere."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import documented
import pytest
from documented import ROOT

import ilx
from experiments import run
from experiments.configs import bc
from experiments.data import sources
from experiments.demos import datasets
from ilx.data.convert import mapping_file

GUIDES = [page for page in documented.PAGES if documented.blocks(page.read_text(), "python")]
WITH_COMMANDS = [*documented.PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  folder = tmp_path_factory.mktemp("datasets")
  datasets.build("cartpole-expert", folder, rounds=1)
  return folder


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_from_top_to_bottom(page, root, tmp_path, monkeypatch):
  monkeypatch.setenv("ILX_DATA_DIR", str(root))
  monkeypatch.chdir(tmp_path)
  for workdir in re.findall(r'trained\.load\(pathlib\.Path\("(.*)"\)\)', page.read_text()):
    _experiment(pathlib.Path(workdir))
  namespace = {"__name__": f"docs.{page.stem}"}
  for block in documented.blocks(page.read_text(), "python"):
    # Line numbers of errors are the page's.
    tree = ast.increment_lineno(ast.parse(block.code, str(page)), block.line - 1)
    exec(compile(tree, str(page), "exec"), namespace)


def _experiment(workdir):
  """A run that a page reads, made small."""
  config = bc.get_config()
  config.update(dataset="cartpole-expert", steps=20, batch_size=16, log_every=10)
  config.evaluation.update(every=0, final_episodes=2, video=False)
  run.run(config, workdir)


def test_the_agent_of_the_guide_keeps_the_contract_on_several_devices(tmp_path):
  """In a folder of its own, with the conftest.py of the guide: what a reader would do."""
  agent, _, suite, conftest, *_ = documented.blocks((ROOT / "docs" / "extending.md").read_text(), "python")
  (tmp_path / "conftest.py").write_text(conftest.code)
  (tmp_path / "test_linear.py").write_text(agent.code + suite.code)
  ours = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "PYTEST_ADDOPTS")
  environment = {name: value for name, value in os.environ.items() if name not in ours}
  command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"]
  environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  assert re.search(r"\d+ passed, 1 skipped", done.stdout), done.stdout
  assert "the agent has no log_prob" in done.stdout  # and not: one device only


def _errors(commands):
  program = [sys.executable, "-m", "tests.documented_commands"]
  done = subprocess.run(program, cwd=ROOT, input=json.dumps(commands), capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def test_commands_have_the_flags_that_pages_show():
  shown = [(page.name, words) for page in WITH_COMMANDS for words in documented.commands(page.read_text())]
  # Where a page leaves something out, only the command's name is looked at.
  whole = [(name, words) for name, words in shown if "..." not in words]
  assert len(whole) > 20
  wrong = [["experiments.main", "--config=experiments/configs/bc.py", "--config.agent.hidde=(1,)"]]
  wrong += [["experiments.evaluate", "--workdir=x", "--episode=3"], ["experiments.data", "convert", "x", "--nmae=y"]]
  wrong += [["experiments.launch", "local", "--config=experiments/configs/bc.py", "--grid=config.sed=1", "--workdir=x"]]
  wrong += [["experiments.report", "--wrkdir=x"], ["experiments.nothing"]]
  errors = _errors([words for _, words in whole] + wrong)
  assert all(errors[len(whole) :]), "flags that do not exist must be found"
  found = [(name, " ".join(words), error) for (name, words), error in zip(whole, errors, strict=False) if error]
  assert not found, "\n".join(map(str, found))


def test_extras_that_pages_install_exist():
  extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  shown = {name for page in WITH_COMMANDS for name in re.findall(r'"\.\[([\w,]+)\]"', page.read_text())}
  assert shown and {name for names in shown for name in names.split(",")} <= set(extras)


def test_mappings_of_game_logs_are_read(tmp_path):
  shown = [block for page in documented.PAGES for block in documented.blocks(page.read_text(), "yaml")]
  assert shown
  for block in shown:
    (tmp_path / "mapping.yaml").write_text(block.code)
    assert mapping_file.read(tmp_path / "mapping.yaml").action


def _named(text, name):
  """Whether a name stands in code, whole."""
  return re.search(rf"(?<![\w.-])(?:ilx\.agents\.|ilx\.data\.|python -m )?{re.escape(name)}(?![\w-])", text) is not None


def test_every_agent_is_in_the_guide_to_agents():
  text = (ROOT / "docs" / "agents.md").read_text()
  assert not [name for name in ilx.agents.__all__ if f"`{name}`" not in text]


def test_every_format_is_in_the_guide_to_data():
  text = (ROOT / "docs" / "own-data.md").read_text()
  assert not [name for name in sources.FORMATS if f"| `{name}` |" not in text]


def test_every_command_is_in_the_list_of_commands():
  text = (ROOT / "docs" / "commands.md").read_text()
  missing = []
  for path in sorted((ROOT / "experiments").rglob("*.py")):
    if '__name__ == "__main__"' in path.read_text():
      name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
      if not _named(text, name):
        missing.append(name)
  assert not missing


def test_every_config_is_shown():
  """Whole, so that each field is, with what is said about it."""
  text = (ROOT / "docs" / "configs.md").read_text()
  shown = set(re.findall(r"\{literalinclude\} \.\./(experiments/configs/\w+\.py)", text))
  assert shown == {str(path.relative_to(ROOT)) for path in (ROOT / "experiments" / "configs").glob("[!_]*.py")}


def test_pages_are_short():
  long = {page.name: n for page in documented.PAGES if (n := page.read_text().count("\n")) > 210}
  assert not long

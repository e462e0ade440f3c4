import json
import pathlib

import pytest
from robots import episode, write

from experiments.data import __main__ as tool


@pytest.fixture
def directory(tmp_path):
  return str(write(tmp_path, {"train": [[episode(0, 3), episode(1, 5)]], "val": [[episode(2, 4)]]}))


def run(capsys, *args):
  code = tool.main(["query", *args])
  captured = capsys.readouterr()
  return code, captured.out, captured.err


SQL = "SELECT split, count(*), avg(episode_return) AS mean FROM episodes GROUP BY split ORDER BY split"


def test_table(directory, capsys):
  assert run(capsys, directory, SQL) == (
    0,
    "split  count_star()  mean\ntrain  2             4\nval    1             4\n",
    "",
  )


def test_csv_and_json(directory, capsys):
  assert run(capsys, directory, SQL, "--csv")[1].splitlines() == [
    '"split","count_star()","mean"',
    '"train",2,4',
    '"val",1,4',
  ]
  rows = [json.loads(line) for line in run(capsys, directory, SQL, "--json")[1].splitlines()]
  assert rows[0] == {"split": "train", "count_star()": 2, "mean": 4.0}


def test_metadata_and_splits(directory, capsys):
  sql = "SELECT operator, success FROM episodes"
  assert run(capsys, directory, sql, "--split=train[1:]")[1] == "operator  success\nperson 1  False\n"


def test_long_answers_are_cut(directory, capsys):
  out = run(capsys, directory, "SELECT length FROM episodes", "--max_rows=1")[1]
  assert out.splitlines() == ["length", "3", "(2 more rows: --max_rows, --csv or --json)"]


def test_two_columns_of_one_name(directory, capsys):
  assert run(capsys, directory, "SELECT 1 AS a, 2 AS a")[1].splitlines()[1].split() == ["1", "2"]


def test_errors(directory, capsys):
  code, _, err = run(capsys, directory, "SELECT nothing FROM episodes")
  assert code == 2
  assert "The table 'episodes' has the columns split, file, index" in err
  assert run(capsys, directory)[0] == 2
  assert run(capsys, directory, SQL, "--csv", "--json")[0] == 2


def test_what_cannot_be_kept_is_said_in_one_line(directory, capsys, tmp_path, monkeypatch):
  """As a path and a line of the code would be of no use."""
  (tmp_path / "full").write_text("no folder")
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path / "full"))
  folder = pathlib.Path(directory)
  folder.chmod(0o555)
  try:
    code, out, err = run(capsys, directory, SQL)
  finally:
    folder.chmod(0o755)
  assert code == 0 and "train  2" in out
  assert all(line.startswith("warning: cannot write ") for line in err.splitlines()) and err

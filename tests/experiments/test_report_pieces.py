import math

import pytest
from report_pages import LOG, RESULT, make, page, record

from experiments.report import run, write_report


@pytest.mark.parametrize(
  ("change", "sentence"),
  [
    ({"expert_return": None}, "Not known for this run: the return of the expert."),
    ({"expert_return": None, "data_return": None, "random_return": None}, "nothing to be measured against"),
    ({"random_return": None}, "needs the expert's and the random return"),
    ({"expert_return": 10**400}, "Not known for this run: the return of the expert."),
    ({"git_commit": "\udc80"}, "git checkout"),
    ({"expert_return": math.nan}, "Not known for this run: the return of the expert."),
    ({"return_mean": 9512.0}, "The policy's mean return equals the expert's."),
    ({"return_ci95": [9301.0, 9600.0]}, "which its 95 % interval includes."),
    ({"return_ci95": None}, "95 % interval not recorded"),
    ({"return_mean": -300.0}, "no better than a random policy"),
    ({"returns": [500.0] * 4}, "All 4 episodes returned 500."),
    ({"returns": [1.0, math.nan, 3.0, 4.0]}, "1 returns are not finite and are left out."),
    ({"returns": None}, "The returns of the episodes are not recorded."),
    ({"lengths": [1000] * 4}, "All 4 episodes are 1,000 steps long."),
    ({"lengths": [10, 20, 30, 60]}, "from 10 to 60, mean 30.0."),
    ({"steps": 300}, "The run stopped at update 300 of 400."),
    ({"seconds": None, "updates_per_second": None}, "speed not recorded"),
  ],
)
def test_what_is_missing_or_odd_is_said(tmp_path, change, sentence):
  assert sentence in page(make(tmp_path, result={**RESULT, **change})).text


def test_no_video(tmp_path):
  assert "No video was recorded." in page(make(tmp_path)).text


def test_damaged_video(tmp_path):
  folder = make(tmp_path)
  (folder / "episode.mp4").write_bytes(b"not a video")
  content = page(folder)
  assert "the file is damaged" in content.text
  assert content.count("video") == 0


def test_huge_video_is_not_embedded(tmp_path, monkeypatch):
  folder = make(tmp_path)
  record(folder / "episode.mp4")
  monkeypatch.setattr(run, "MAX_VIDEO_BYTES", 100)
  content = page(folder)
  assert "open it from the run folder" in content.text
  assert content.count("video") == 0


def test_one_evaluation(tmp_path):
  content = page(make(tmp_path, log=LOG[:1]))
  assert "One evaluation only" in content.text
  assert content.count("line", "whisker") == 1
  assert content.count("path", "band") == 0


def test_losses_that_are_not_finite_leave_gaps(tmp_path):
  log = [{"step": i, "train/loss": None if i in (3, 4) else 1.0 + i} for i in range(1, 8)]
  content = page(make(tmp_path, log=log))
  assert "Not finite at 2 of 7 logged steps, first at update 3." in content.text
  assert content.count("path", "curve") == 2
  never = page(make(tmp_path, log=[{"step": 1, "train/loss": None}]))
  assert "train/loss was never finite." in never.text


def test_damaged_and_repeated_log_lines(tmp_path):
  folder = make(tmp_path)
  with open(folder / "log.jsonl", "a") as file:
    file.write('{"step": 400, "train/loss": 7.0}\n[1]\n{"step": 500, "train/lo')
  series, broken = run.read_log(folder / "log.jsonl")
  assert broken == 2
  assert series["train/loss"] == run.Series([100, 200, 300, 400], [0.5, 0.25, 0.5 / 3, 7.0])
  assert "2 damaged line(s) of log.jsonl" in page(folder).text


def test_unfinished_run(tmp_path):
  content = page(make(tmp_path, result=None))
  assert "This run has no result yet: it is still going" in content.text
  assert content.count("path", "curve") == 2


def test_a_run_that_diverged_says_so(tmp_path):
  folder = make(tmp_path, result=None)
  (folder / "diverged.json").write_text('{"step": 450}')
  assert "training diverged at update 450; diverged.json" in page(folder).text


def test_names_of_the_data_are_text(tmp_path):
  parts = {"<img src=x>": {"accuracy": 0.5}}
  content = page(make(tmp_path, result={"env_id": None, "steps": 1, "heldout": {"parts": parts}}))
  assert content.count("img") == 0 and "<img src=x>: accuracy" in content.text


def test_result_alone(tmp_path):
  content = page(make(tmp_path, config=None, log=None))
  for sentence in ("No evaluation was logged", "No training loss was logged", "the command is not known"):
    assert sentence in content.text


def test_errors_name_the_file(tmp_path):
  with pytest.raises(FileNotFoundError, match="no such run folder"):
    write_report(tmp_path / "absent")
  with pytest.raises(FileNotFoundError, match=r"no config\.json, log\.jsonl or result\.json"):
    write_report(tmp_path)
  folder = make(tmp_path)
  (folder / "report.html").write_text("earlier")
  (folder / "result.json").write_text('{"env_id": ')
  with pytest.raises(ValueError, match=r"result\.json: not valid JSON"):
    write_report(folder)
  (folder / "result.json").write_text("[]")
  with pytest.raises(ValueError, match=r"result\.json: must hold a JSON object, got list"):
    write_report(folder)
  assert (folder / "report.html").read_text() == "earlier"


def test_two_at_once_do_not_write_the_same_temporary_file(tmp_path):
  """Such as a run that ends while somebody writes its report anew; here the other one's is there, and a folder."""
  folder = make(tmp_path)
  (folder / "report.html.tmp").mkdir()
  assert "<html" in write_report(folder).read_text()

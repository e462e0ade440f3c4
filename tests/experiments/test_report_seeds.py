import re

from report_pages import CONFIG, CONTINUOUS, SEEDS, UNPLAYED, Page, assert_self_contained, make

from experiments.report import write_report

LOG = [
  {
    "step": 100 * i,
    "train/loss": 2.0 / i,
    "train/other": 1.0 * i,
    "eval/return_mean": 2000.0 * i,
    "eval/return_ci95": [1900.0 * i, 2100.0 * i],
    "eval/heldout_mean_absolute_error": 0.1 / i,
    **{f"train/loss/seed{seed}": seed / i for seed in (4, 5, 6)},
    **{f"eval/return_mean/seed{seed}": 2000.0 * i + seed for seed in (4, 5, 6)},
    **{f"eval/heldout_mean_absolute_error/seed{seed}": seed / (100 * i) for seed in (4, 5, 6)},
  }
  for i in range(1, 5)
]


def _source(folder, result=SEEDS, log=LOG, config=CONFIG):
  return write_report(make(folder, config, result, log)).read_text(encoding="utf-8")


def test_every_seed_has_a_row_and_thin_lines_beside_the_mean(tmp_path):
  source = _source(tmp_path, SEEDS | {"heldout": CONTINUOUS})
  assert_self_contained(source)
  content = Page(source)
  for words in (
    "4 evaluation episodes of every seed",
    "seeds 4 to 6",
    "95 % interval 9,000 to 9,800",
    "2,143 updates of every seed a second",
    "4 9,312 9,300 to 9,400 98.0 0.0125 0.05 87.5 % 0.25 5 9,412 9,400 to 9,500 99.0 0.025 0.05 87.5 % 1.25",
    "mean of the seeds, with 95 % interval",
    "12 episodes",
    "from 9,300 to 9,520.",
    "from 900 to 1,000, mean 975.2.",
  ):
    assert words in content.text, words
  # Returns, held-out errors and the loss; the other metric has its mean alone, and single seeds are no metrics.
  assert content.count("path", "thin") == 9
  assert content.count("path", "curve") == 4
  assert "/seed" not in content.text


def test_thin_lines_are_within_the_chart(tmp_path):
  log = [{"step": s, "train/loss": 1.0, "train/loss/seed4": 0.5, "train/loss/seed5": 1.5} for s in (100, 200)]
  source = _source(tmp_path, None, log)
  heights = [
    {float(point.split()[1]) for point in path.split("L")}
    for path in re.findall(r'class="(?:thin|curve)"[^>]* d="M([^"]*)"', source)
  ]
  assert [[round(h, 1) for h in sorted(found)] for found in heights] == [[95.5], [4.5], [50.0]]


def test_seeds_without_an_environment(tmp_path):
  parts = [{key: seed[key] for key in ("seed", "heldout", "loss")} for seed in SEEDS["per_seed"]]
  source = _source(tmp_path, SEEDS | UNPLAYED | {"heldout": CONTINUOUS, "per_seed": parts})
  text = Page(source).text
  assert "Every seed Seed Mean absolute error Root mean squared error Variance explained Last loss 4 0.0125" in text
  assert "Mean return" not in text


def test_a_run_of_one_seed_says_nothing_of_others(tmp_path):
  text = Page(_source(tmp_path, SEEDS | {"seeds": 1, "per_seed": None, "returns": [1.0], "lengths": [1]}, LOG[:1])).text
  assert "seed 4" in text
  assert "very seed" not in text.split("Return while training")[0]


def test_an_unfinished_run_of_many_seeds(tmp_path):
  text = Page(_source(tmp_path, None, LOG[:2], CONFIG | {"seeds": 3})).text
  assert "seeds 0 to 2" in text
  assert "mean of the seeds" in text

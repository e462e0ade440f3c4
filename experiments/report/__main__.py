"""The report of a run, written into its folder, or several runs compared on one page.

python -m experiments.report runs/bc                       writes runs/bc/report.html
python -m experiments.report runs/bc runs/iql runs/sweep   writes compare.html
"""

import argparse
import difflib
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from experiments.report import write_report
from experiments.report.compare import find

_FLAGS = ("--workdir", "--output", "--json", "--help")


def main() -> None:
  """Prints the path of the page, or one line that says what is wrong."""
  arguments = _parse()
  try:
    about = _write(arguments.runs or [arguments.workdir], arguments.output)
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(json.dumps(about, indent=2) if arguments.json else about["output"])


def _parse() -> argparse.Namespace:
  form = argparse.RawDescriptionHelpFormatter
  parser = argparse.ArgumentParser("python -m experiments.report", description=__doc__, formatter_class=form)
  parser.add_argument("runs", nargs="*", metavar="RUN", help="a run folder, or a folder of runs such as a sweep's")
  parser.add_argument("--workdir", help="the same as one RUN")
  parser.add_argument("--output", help="the page that compares several runs (default: compare.html)")
  parser.add_argument("--json", action="store_true", help="print the path and the compared scores as JSON")
  arguments, unknown = parser.parse_known_args()
  if unknown:
    flag = unknown[0].partition("=")[0]
    nearest = difflib.get_close_matches(flag, _FLAGS, 1)
    parser.error(f"unknown flag {flag}" + (f"; did you mean {nearest[0]}?" if nearest else ""))
  if bool(arguments.runs) == bool(arguments.workdir):
    parser.error("name one or more run folders, or one with --workdir" + (", not both" if arguments.runs else ""))
  return arguments


def _write(runs: Sequence[str], output: str | None) -> dict[str, Any]:
  folder = pathlib.Path(runs[0]).expanduser()
  if len(runs) == 1 and (find.is_run(folder) or not folder.is_dir()):
    if output is not None:
      raise ValueError(f"--output: the report of one run is {folder / 'report.html'}; leave the flag out")
    return {"output": str(write_report(folder))}
  # These take jax, which the report of one run does without.
  from experiments.report.compare import page, scores

  path, groups = page.write_comparison(runs, output or "compare.html")
  return {"output": str(path), "groups": [scores.as_json(group) for group in groups]}


if __name__ == "__main__":
  main()

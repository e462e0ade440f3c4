"""The report of a run, written into its folder, or several runs compared on one page.

python -m experiments.report runs/bc                       writes runs/bc/report.html
python -m experiments.report runs/bc runs/iql runs/sweep   writes compare.html
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from experiments.report import write_report
from experiments.report.compare import find


def main() -> None:
  """Prints the path of the page, or one line that says what is wrong."""
  arguments = _parse()
  try:
    print(_write(arguments.runs or [arguments.workdir], arguments.output))
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")


def _parse(words: Sequence[str] | None = None) -> argparse.Namespace:
  form = argparse.RawDescriptionHelpFormatter
  parser = argparse.ArgumentParser("python -m experiments.report", description=__doc__, formatter_class=form)
  parser.add_argument("runs", nargs="*", metavar="RUN", help="a run folder, or a folder of runs such as a sweep's")
  parser.add_argument("--workdir", help="the same as one RUN")
  parser.add_argument("--output", help="the page that compares several runs (default: compare.html)")
  arguments = parser.parse_args(words)
  if bool(arguments.runs) == bool(arguments.workdir):
    parser.error("name one or more run folders, or one with --workdir" + (", not both" if arguments.runs else ""))
  return arguments


def _write(runs: Sequence[str], output: str | None) -> pathlib.Path:
  folder = pathlib.Path(runs[0]).expanduser()
  if len(runs) == 1 and (find.is_run(folder) or not folder.is_dir()):
    if output is not None:
      raise ValueError(f"--output: the report of one run is {folder / 'report.html'}; leave the flag out")
    return write_report(folder)
  # This takes jax, which the report of one run does without.
  from experiments.report.compare.page import write_comparison

  return write_comparison(runs, output or "compare.html")


if __name__ == "__main__":
  main()

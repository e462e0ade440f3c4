"""Writes the report of a run folder again: ``python -m experiments.report --workdir=runs/bc``."""

import argparse
import sys

from experiments.report import write_report


def main() -> None:
  """Prints the path of the report, or one line that says what is wrong."""
  parser = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__)
  parser.add_argument("--workdir", required=True, help="the run folder")
  arguments = parser.parse_args()
  try:
    print(write_report(arguments.workdir))
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  main()

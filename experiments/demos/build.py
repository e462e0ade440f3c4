"""Builds the built-in datasets, unless they are there.

python -m experiments.demos.build --name=halfcheetah-expert
python -m experiments.demos.build --all
"""

import sys

from absl import app, flags

from experiments import cli
from experiments.demos import datasets

FLAGS = flags.FLAGS
flags.DEFINE_string("name", None, f"One of {', '.join(datasets.NAMES)}.")
flags.DEFINE_bool("all", False, "Build all of them.")
flags.DEFINE_string("root", None, "Folder of datasets; by default $ILX_DATA_DIR or ~/.cache/ilx.")


def main() -> None:
  if (FLAGS.name is None) != FLAGS.all:
    raise app.UsageError("give either --name or --all")
  for name in datasets.NAMES if FLAGS.all else (FLAGS.name,):
    try:
      print(datasets.build(name, FLAGS.root))
    except (ValueError, OSError, RuntimeError) as error:
      sys.exit(f"--name={name}: {error}")


if __name__ == "__main__":
  cli.run(main)

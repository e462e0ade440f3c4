"""Coverage-guided fuzzing of one reader by Atheris (``pip install atheris``), which finds what random damage does not.

python -m experiments.fuzz.guided example -max_total_time=60

What follows the reader's name goes to libFuzzer. A finding is written to the current folder and ends the run.
"""

import contextlib
import pathlib
import random
import sys
import tempfile


def main() -> None:
  if "--help" in sys.argv:
    sys.exit(__doc__)
  try:
    import atheris
  except ImportError:
    sys.exit("error: this needs Atheris: pip install atheris")

  with atheris.instrument_imports(include=["ilx.data"]):
    from experiments.fuzz import targets

  name, *options = sys.argv[1:] or ["example"]
  with tempfile.TemporaryDirectory(prefix="ilx-fuzz-") as folder:
    known = targets.targets(pathlib.Path(folder))
    if name not in known:
      sys.exit(f"no reader {name!r}; there are {', '.join(known)}")
    corpus = pathlib.Path(folder) / "corpus"
    corpus.mkdir()
    for number in range(200):
      (corpus / str(number)).write_bytes(known[name].make(random.Random(number)))

    def read(content: bytes) -> None:
      with contextlib.suppress(ValueError, FileNotFoundError):
        known[name].read(content)

    atheris.Setup([sys.argv[0], "-timeout=5", "-rss_limit_mb=4096", "-max_len=8192", *options, str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
  main()

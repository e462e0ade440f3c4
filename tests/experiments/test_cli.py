"""What all command lines do alike."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
_MAIN = """
import os, signal
from experiments import cli

def main():
  signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs these tests may ignore it
  os.kill(os.getpid(), signal.SIGINT)

cli.run(main)
"""


@pytest.mark.parametrize(
  ("flags", "code", "message"),
  [
    ((), 130, "stopped by SIGINT"),
    (("--help",), 0, "USAGE"),
    (("--helpfull",), 0, "flags:"),
    (("x",), 1, "unexpected argument 'x'"),
    (("--nosuch=1",), 1, "nosuch"),
  ],
)
def test_how_commands_end(flags, code, message):
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-c", _MAIN, *flags]
  ended = subprocess.run(command, env=environment, capture_output=True, text=True)
  assert (ended.returncode, "Traceback" in ended.stderr) == (code, False)
  assert message in ended.stdout + ended.stderr


def test_warnings_of_ours_are_one_line():
  warn = 'import warnings; warnings.warn("it is slow"); warnings.warn("it is old", FutureWarning)'
  command = [sys.executable, "-c", f"from experiments import cli; cli.plain_warnings(); {warn}"]
  ended = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
  ours, theirs = ended.stderr.splitlines()[:2]
  assert ours == "warning: it is slow" and theirs.endswith("FutureWarning: it is old")

"""Which run folders are meant: those that are named, and those in folders that are named."""

import os
import pathlib
import re
from collections.abc import Iterable, Iterator

# Of these each run has the first from its beginning, and the second from its first log.
CONFIG, LOG = "config.json", "log.jsonl"


def is_run(folder: pathlib.Path) -> bool:
  """Whether a folder holds a run, or part of one."""
  return any((folder / name).is_file() for name in (CONFIG, LOG, "result.json"))


def runs(paths: Iterable[str | os.PathLike]) -> list[pathlib.Path]:
  """The run folders, in the order of ``paths``, each once; those in a folder by name, numbers by their value.

  Raises:
    FileNotFoundError: for a path that is no folder, a folder without runs, a run without its config, or without a log
      where the run itself is named.
  """
  found: dict[pathlib.Path, pathlib.Path] = {}
  for path in map(pathlib.Path, paths):
    path = path.expanduser()
    if not path.is_dir():
      raise FileNotFoundError(f"{path}: no such folder; name run folders, or folders of runs")
    named = [path] if is_run(path) else list(_inside(path))
    if not named:
      raise FileNotFoundError(f"{path}: holds no runs, that is no folders with {CONFIG}; name run folders or a sweep's")
    for folder in named:
      _check(folder, folder == path)
      found.setdefault(folder.resolve(), folder)
  return list(found.values())


def _check(folder: pathlib.Path, named: bool) -> None:
  if not (folder / CONFIG).is_file():
    raise FileNotFoundError(
      f"{folder}: no {CONFIG} here, so it is not known what the run was; leave it out, or write its report alone"
    )
  if named and not (folder / LOG).is_file():
    raise FileNotFoundError(
      f"{folder}: no {LOG} here: the run has logged nothing yet, or its log is lost; leave it out, or name the folder "
      "it is in, of which runs that have not begun are shown as such"
    )


def _inside(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  for path, names, files in os.walk(folder):
    if CONFIG in files or LOG in files:
      yield pathlib.Path(path)
      names.clear()  # what is in a run folder is the run's
    names[:] = sorted((name for name in names if not name.startswith(".")), key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
  return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", name)]

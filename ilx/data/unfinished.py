"""``<version>.incomplete``: what is there of a dataset until it is published, and what a kill leaves of it.

At every moment there is either a journal to go on with or the published dataset. A file marks the journal while the
dataset takes its name: with the mark and without the staged files, what the journal holds is published.
"""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from ilx.data import files
from ilx.data.journal import Journal

_JOURNAL, _STAGING, _MARK = "journal.tfrecord", "staging", "publishing"


def of(path: Path) -> Path:
  """The folder beside ``path`` in which it comes to be."""
  return path.with_name(f"{path.name}.incomplete")


def claim(path: Path, *, fsync: bool = False) -> Journal:
  """The journal of the dataset that is to be ``path``, held by this process until closed; empty in a new one.

  Raises:
    FileExistsError: where the dataset is already there.
    RuntimeError: where another process writes it.
  """
  folder = of(path)
  while True:
    _refuse_existing(path)
    journal = Journal(folder / _JOURNAL, fsync=fsync)
    if not path.exists():
      break
    journal.close()  # published by the process that held it until now
  if _is_published(folder):
    journal.clear()  # the dataset was removed since
  (folder / _MARK).unlink(missing_ok=True)
  return journal


@contextlib.contextmanager
def staged(path: Path, name: str = _STAGING) -> Iterator[Path]:
  """A new folder, to be filled, that becomes ``path`` when the block ends well and is removed when it does not.

  For who holds the journal: whatever happens, its content is either to go on with, or published and discarded with
  all else beside it.

  Raises:
    FileExistsError: where ``path`` is there at the end.
  """
  folder = of(path)
  staging, mark = folder / name, folder / _MARK
  shutil.rmtree(staging, ignore_errors=True)
  try:
    staging.mkdir()
    yield staging
    files.sync_folder(staging)
    if path.exists():
      raise _exists(path)
    files.write_text(mark, "")
    files.sync_folder(folder)
    staging.rename(path)
    files.sync_folder(path.parent)
  finally:
    if staging.exists():
      # In this order: what is marked and not staged counts as published.
      mark.unlink(missing_ok=True)
      shutil.rmtree(staging, ignore_errors=True)
  _discard(folder)


@contextlib.contextmanager
def built(path: Path) -> Iterator[Path]:
  """``staged`` by one process at a time, without a journal; what a killed one left is removed first.

  Raises:
    FileExistsError: where the dataset is already there.
    RuntimeError: where another process writes it.
    ValueError: where there is an unfinished recording.
  """
  folder = of(path)
  with contextlib.closing(claim(path)) as journal:
    if not journal.empty:
      raise ValueError(f"{folder} holds an unfinished recording; finish it, or remove the folder")
    try:
      for left in folder.iterdir():
        if left != journal.path:
          shutil.rmtree(left) if left.is_dir() else left.unlink()
      # A name of its own: workers of a killed run that live on do not write into this one's.
      with staged(path, uuid.uuid4().hex[:8]) as staging:
        yield staging
    finally:
      _discard(folder)


def _is_published(folder: Path) -> bool:
  return (folder / _MARK).exists() and not (folder / _STAGING).exists()


def _refuse_existing(path: Path) -> None:
  if path.exists():
    _tidy(of(path))
    raise _exists(path)


def _exists(path: Path) -> FileExistsError:
  return FileExistsError(f"{path} is already there; remove it, or record under another name or version")


def _tidy(folder: Path) -> None:
  """Removes what a kill after publishing left, unless a process is at it."""
  if not folder.exists():
    return
  with contextlib.suppress(OSError, RuntimeError), contextlib.closing(Journal(folder / _JOURNAL)) as journal:
    if journal.empty or _is_published(folder):
      _discard(folder)


def _discard(folder: Path) -> None:
  # The journal first: without the mark it would be one to go on with.
  (folder / _JOURNAL).unlink(missing_ok=True)
  shutil.rmtree(folder, ignore_errors=True)

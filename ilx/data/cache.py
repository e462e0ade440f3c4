"""A columnar cache: a dataset's columns as files, written once and mapped into memory.

A cache is a folder ``columns-<key>`` (see ``columnar``) among the dataset's derived files (``derived``), so it
belongs to one fingerprint of the dataset; the key covers the split, the selection and the format. Its files grow by
some episodes at a time, so that writing takes little memory whatever the dataset's size; of processes that start at
once one writes, the others wait; the folder gets its name when it is complete and on the disk.

Opening reads the index, compares the files' sizes with it and maps them: milliseconds, whatever the size. The values
themselves are compared with their checksums by ``columnar.verify`` alone. A damaged cache is not written again behind
the user's back, as a failing disk would go unnoticed: the error names it and says that it may be removed.
"""

import contextlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from ilx.data import columnar, derived, rlds
from ilx.data.episodes import Episodes
from ilx.data.rlds import EVERYTHING, Info, Selection

# Bytes of columns that are in memory at once while a cache is written.
_BLOCK = 64 << 20
# (episodes, steps) written so far.
Progress = Callable[[int, int], None]


def open(
  directory_or_info: str | os.PathLike | Info,
  split: str = "train",
  selection: Selection = EVERYTHING,
  progress: Progress | None = None,
) -> Episodes:
  """A dataset whose columns are mapped from its cache, which is written first where there is none.

  Args:
    directory_or_info: see ``rlds.resolve``.
    split: in TFDS' syntax.
    selection: which fields become which columns; with ``lazy``, pictures are cached as they are and stay encoded.
    progress: called while the cache is written, with the episodes and steps written so far.

  Returns:
    ``Episodes`` of read-only arrays that the system reads from disk as they are touched, and keeps while memory lasts.

  Raises:
    FileNotFoundError: where the dataset or one of its files is missing.
    ValueError: where the cache is damaged, or the dataset is (see ``rlds.load``); names the file.
    OSError: where the cache cannot be written, such as on a full disk; nothing is left of it.

  Warns:
    UserWarning: where caches of earlier states of the dataset take room, when one is written.
  """
  info = directory_or_info if isinstance(directory_or_info, Info) else rlds.read_info(rlds.resolve(directory_or_info))
  path = folder(info, split, selection)
  if not path.is_dir():
    with contextlib.ExitStack() as stack:
      try:
        stack.enter_context(derived.locked(path))
      except OSError as error:
        raise _unwritable(path, error) from None
      if not path.is_dir():
        _build(path, info, split, selection, progress)
  return columnar.read(path)


def folder(info: Info, split: str = "train", selection: Selection = EVERYTHING) -> Path:
  """Where the cache is, or would be; see ``derived.find``."""
  return derived.find(info, f"columns-{derived.key('columns', columnar.VERSION, split, selection)}")


def clean(info: Info) -> list[Path]:
  """Removes what is of no more use: derived files of a dataset's earlier states, and caches half written.

  Processes of this machine that have mapped a removed cache keep it until they end; end those of others first.

  Returns:
    The folders and files removed.
  """
  stale = _stale(info)
  for path in stale:
    shutil.rmtree(path)
  here = derived.folder(info)
  for path in here.glob("*.incomplete"):  # of a cache or an index
    with derived.locked(path.with_name(path.name.split(".", 1)[0])):  # while a process writes, wait for it
      if not path.exists():
        continue
      shutil.rmtree(path) if path.is_dir() else path.unlink()
      stale.append(path)
  return stale


def _stale(info: Info) -> list[Path]:
  """The folders that hold for earlier states of a dataset."""
  here = derived.folder(info)
  if here.parent == info.directory / ".ilx":
    return [path for path in here.parent.glob("*") if path.is_dir() and path != here]
  # One place for all datasets: only what says that it came from this one.
  others = here.parent.glob(f"{derived.prefix(info)}-*")
  return [path for path in others if path != here and str(info.directory.resolve()) in _origins(path)]


def _origins(path: Path) -> set[str]:
  """The datasets that the caches in a folder of derived files were made from."""
  found = set()
  for cache in path.glob("columns-*"):
    with contextlib.suppress(OSError, ValueError):
      found.add(columnar.read_facts(cache)["dataset"])
  return found


def _build(path: Path, info: Info, split: str, selection: Selection, progress: Progress | None) -> None:
  for left in path.parent.glob(f"{path.name}.*.incomplete"):
    shutil.rmtree(left)  # of a process that was killed: the lock is ours
  try:
    with derived.publishing(path) as staging:
      facts = {"dataset": str(info.directory.resolve()), "split": split, "selection": repr(selection)}
      try:
        columnar.write(staging, _blocks(info, split, selection), facts, progress)
      except columnar.UnfitError as error:
        raise ValueError(f"{info.directory}: split {split!r}: {error}") from None
      if not derived.holds(info, path):
        raise ValueError(f"{info.directory} changed while it was read; open it again")
  except FileNotFoundError:
    raise  # a shard is missing
  except OSError as error:
    raise _unwritable(path, error) from None
  # Not removed here: where the folder is shared over a network, another machine may have mapped what is in it.
  if stale := _stale(info):
    warnings.warn(
      f"{info.directory}: files derived from earlier states of the dataset take room ({len(stale)} in "
      f"{stale[0].parent}); ilx.data.cache.clean(info) removes them",
      stacklevel=3,
    )


def _unwritable(path: Path, error: OSError) -> OSError:
  reason = f"cannot write the cache {path}: {error.strerror or error}; nothing is left of it"
  remedy = "Make room, let ILX_DATA_DIR be a folder that can be written, load the dataset into memory, or stream it"
  return OSError(error.errno, f"{reason}. {remedy}")


def _blocks(info: Info, split: str, selection: Selection) -> Iterator[Episodes]:
  """The split's episodes, as many at a time as make a block."""
  records: list[tuple[Path, bytes]] = []
  before = size = 0
  room = _BLOCK >> 6  # encoded bytes of a block; how much they grow, the first one shows

  def assemble() -> Episodes:
    expected = (len(records), size)
    return rlds.assemble(info, selection, records, where=f"split {split!r}", first=before, expected=expected)

  for record in rlds.read_records(info, split):
    if records and size + len(record[1]) > room:
      block = assemble()
      grown = sum(leaf.nbytes for _, leaf in columnar.leaves(block))
      yield block
      del block
      room = max(1, size * _BLOCK // grown)
      before, size = before + len(records), 0
      records = []
    records.append(record)
    size += len(record[1])
  if records:
    yield assemble()

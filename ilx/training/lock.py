"""One process at a time works in a run folder."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

from ilx.parallel import hosts

# Of the file in the folder; it stays.
NAME = ".lock"
# Folders that this process has locked, with the thread that did and how often it did.
_held: dict[pathlib.Path, tuple[int, int]] = {}
_guard = threading.Lock()
# Through which they are locked.
_files: set[TextIO] = set()


def _forget() -> None:
  """In a forked process, a worker of an evaluation for example: it may live on, and is not to hold what it inherits."""
  _held.clear()
  while _files:
    _files.pop().close()


os.register_at_fork(after_in_child=_forget)


class FolderInUseError(RuntimeError):
  """Another process works in the folder; the message says which."""


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
  """Keeps other processes out of ``folder``, which is made where there is none, until the end of the block.

  The lock is advisory (``flock`` on ``folder/.lock``), and the system releases it when the process dies, however it
  does. A thread that holds it may ask again. Of several processes of one run the first holds it for all.

  Raises:
    FolderInUseError: where another process, or another thread, has it.
  """
  path = pathlib.Path(folder).absolute()
  with contextlib.ExitStack() as stack:
    hosts.together(lambda: stack.enter_context(_locked(path)) if hosts.is_first() else None, FolderInUseError)
    yield


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
  path.mkdir(parents=True, exist_ok=True)
  path, thread = path.resolve(), threading.get_ident()
  with _guard:
    owner, depth = _held.get(path, (thread, 0))
    if owner != thread:
      raise FolderInUseError(f"{path} is in use by another thread of this process; choose another folder")
    _held[path] = thread, depth + 1
  try:
    with contextlib.nullcontext() if depth else _flocked(path):
      yield
  finally:
    with _guard:
      _held[path] = thread, depth
      if not depth:
        del _held[path]


@contextlib.contextmanager
def _flocked(path: pathlib.Path) -> Iterator[None]:
  with (path / NAME).open("a+") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise FolderInUseError(f"{path} is in use by {_holder(path)}; wait for it, or choose another folder") from None
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
        raise
      warnings.warn(f"{path} cannot be locked ({error.strerror}): see that no other process uses it", stacklevel=2)
    with contextlib.suppress(OSError):  # on a full disk nobody learns who it is
      os.ftruncate(file.fileno(), 0)
      os.write(file.fileno(), (json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n").encode())
    _files.add(file)
    try:
      yield
    finally:
      _files.discard(file)


def _holder(path: pathlib.Path) -> str:
  try:
    found = json.loads((path / NAME).read_text())
    return f"process {found['pid']} on {found['host']}"
  except (KeyError, OSError, TypeError, ValueError):  # it is about to write who it is
    return "another process"

"""Files that the commands write for the user: looked at before the work, written whole or not at all."""

import os
import pathlib


def check(path: str | os.PathLike, flag: str, hint: str = "") -> pathlib.Path:
  """The path, if a file can be written there.

  Raises:
    OSError: where it is a folder, or its folder is not there or cannot be written to; names ``flag``, ends with
      ``hint``.
  """
  path = pathlib.Path(path).expanduser()
  folder = path.absolute().parent
  if path.is_dir():
    raise IsADirectoryError(f"{flag}: {path} is a folder; name a file in it{hint}")
  if not folder.is_dir():
    raise NotADirectoryError(f"{flag}: {path} cannot be written: there is no folder {folder}{hint}")
  if not os.access(folder, os.W_OK | os.X_OK):
    raise PermissionError(f"{flag}: {path} cannot be written: the folder {folder} is read-only{hint}")
  return path


def write(path: pathlib.Path, text: str) -> None:
  """Writes a text, under a temporary name first."""
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  try:
    temporary.write_text(text, encoding="utf-8", errors="replace")
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)

"""Finds the files of every recording by patterns such as "sessions/{episode}/video.mp4"."""

import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from ilx.data.convert import frames


class Found(NamedTuple):
  """What a pattern found.

  Attributes:
    names: the parts that the pattern names, in its order.
    files: by the values of those parts, the files or the folder, in natural order.
  """

  names: tuple[str, ...]
  files: dict[tuple[str, ...], tuple[pathlib.Path, ...]]


def find(root: pathlib.Path, pattern: str, where: str) -> Found:
  """The files below ``root`` that fit the pattern.

  Raises:
    ValueError: where the pattern is no pattern, nothing fits it, or a file is a link that leads out of ``root``; names
      ``where`` it stands, or the file.
  """
  parts = pathlib.PurePosixPath(pattern).parts
  if pattern.startswith("/") or ".." in parts or not parts:
    raise ValueError(f"{where}: is {pattern!r}; expected a path below the recordings' folder")
  names = tuple(re.findall(r"\{([^{}]*)\}", pattern))
  if any(not name.isidentifier() for name in names) or len(set(names)) != len(names):
    raise ValueError(f"{where}: is {pattern!r}; parts in braces are different names such as {{episode}}")
  found: dict[tuple[str, ...], list[pathlib.Path]] = {}
  inside = root.resolve()
  for values, path in _walk(root, parts, ()):
    _check_link(path, inside)
    found.setdefault(values, []).append(path)
  if not found:
    raise ValueError(f"{where}: nothing in {root} fits {pattern!r}")
  ordered = sorted(found, key=lambda values: [frames.natural(value) for value in values])
  files = {key: tuple(sorted(found[key], key=lambda path: frames.natural(str(path)))) for key in ordered}
  return Found(names, files)


def filled(pattern: str, values: dict[str, str]) -> str:
  """The pattern with the parts that are known filled in."""
  return re.sub(r"\{([^{}]*)\}", lambda match: values.get(match[1], match[0]), pattern)


def _walk(
  folder: pathlib.Path, parts: tuple[str, ...], values: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], pathlib.Path]]:
  """(values of the named parts, path); folders are listed only where a part is no plain name."""
  part, rest = parts[0], parts[1:]
  if not re.search(r"[*?{]", part):
    path = folder / part
    if rest and path.is_dir():
      yield from _walk(path, rest, values)
    elif not rest and path.exists():
      yield values, path
    return
  # Pictures of one folder are listed when they are read.
  if not rest and "{" not in part and frames.is_picture(part):
    if any(re.fullmatch(_regex(part), entry.name) for entry in os.scandir(folder)):
      yield values, folder / part
    return
  for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
    match = re.fullmatch(_regex(part), entry.name)
    if not match or (entry.name.startswith(".") and not part.startswith(".")):
      continue
    inner = (*values, *match.groups())
    if not rest:
      yield inner, pathlib.Path(entry.path)
    elif entry.is_dir():
      yield from _walk(pathlib.Path(entry.path), rest, inner)


def pictures(files: tuple[pathlib.Path, ...]) -> list[pathlib.Path] | None:
  """The picture files that a stream's files are or lie in, in natural order; None where it is a video.

  Raises:
    ValueError: where one is a link that leads out of their folder.
  """
  path = files[0]
  if len(files) == 1 and path.is_dir():
    return _unlinked(frames.in_folder(path), path)
  if len(files) == 1 and re.search(r"[*?]", path.name) and not path.exists():
    fits = re.compile(_regex(path.name))
    return _unlinked([file for file in frames.in_folder(path.parent) if fits.fullmatch(file.name)], path.parent)
  return list(files) if all(frames.is_picture(file) for file in files) else None


def _unlinked(files: list[pathlib.Path], folder: pathlib.Path) -> list[pathlib.Path]:
  inside = folder.resolve()
  for file in files:
    if file.is_symlink():
      _check_link(file, inside)
  return files


def _check_link(path: pathlib.Path, inside: pathlib.Path) -> None:
  """A folder from elsewhere may have links to anything that its reader can open."""
  if not path.resolve().is_relative_to(inside):
    raise ValueError(f"{path}: is or goes through a link that leads out of {inside}; put a copy there instead")


def _regex(part: str) -> str:
  """A path's part as a regular expression with a group for every name."""
  pieces = re.split(r"(\{[^{}]*\}|[*?])", part)
  found = {"*": ".*", "?": "."}
  return "".join(found.get(piece, "(.+)" if piece.startswith("{") else re.escape(piece)) for piece in pieces)

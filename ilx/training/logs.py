"""Logs of a run: rows of named numbers, to a JSON-lines file and to TensorBoard."""

import contextlib
import json
import math
import os
import pathlib
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np


class Log(Protocol):
  """Where a run's numbers go."""

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    """Records ``row`` (floats, or short lists of floats) at ``step`` updates."""
    ...

  def close(self) -> None:
    """Flushes; nothing is written afterwards."""
    ...


class JsonlLog:
  """One JSON object a line, flushed line by line: ``step`` and ``seconds`` first.

  ``seconds`` is wall clock since the log was first opened, the time between a stop and its resumption left out.
  Rows later than ``resume_step`` are dropped on opening: they belong to work that will be done again. So is a last line
  that a crash cut short. An evaluation at ``resume_step`` stays until one is written that was made again.
  """

  def __init__(self, path: str | os.PathLike, resume_step: int = 0):
    self._path = pathlib.Path(path)
    rows = read_jsonl(self._path) if self._path.exists() else []
    kept = [row for row in rows if row["step"] <= resume_step]
    # The step of evaluations that the next one replaces.
    self._again = resume_step if any(row["step"] == resume_step and _evaluated(row) for row in kept) else None
    self._open(kept)
    self._began = time.monotonic() - (kept[-1].get("seconds", 0.0) if kept else 0.0)

  def _open(self, rows: list[dict[str, Any]]) -> None:
    _write(self._path, "".join(json.dumps(row) + "\n" for row in rows))
    self._file = open(self._path, "a")  # noqa: SIM115 (closed by close)

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    """Appends one line; non-finite numbers become null, which JSON can express."""
    seconds = round(time.monotonic() - self._began, 3)
    if step == self._again and _evaluated(row):
      self._again = None
      self.close()
      self._open([row for row in read_jsonl(self._path) if row["step"] < step or not _evaluated(row)])
    with _naming(self._path):
      self._file.write(json.dumps({"step": step, "seconds": seconds, **jsonable(row)}) + "\n")
      self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    with _naming(self._path):  # what could not be written is tried again
      self._file.close()


class TensorBoardLog:
  """Scalars for TensorBoard; what an earlier process wrote beyond the step that is resumed from is hidden."""

  def __init__(self, directory: str | os.PathLike, resume_step: int = 0):
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    # Not its SummaryWriter, whose thread has the last rows for seconds, in which a process may be killed.
    self._path, self._event = pathlib.Path(directory), Event
    with _naming(self._path):
      self._path.mkdir(parents=True, exist_ok=True)
      # Files are called by the second: another process' of the same one is not written over.
      self._writer = EventsWriter(str(self._path / "events"), f".{os.getpid()}.{time.time_ns()}")
      start = SessionLog(status=SessionLog.START)
      self._writer.write_event(Event(wall_time=time.time(), step=resume_step + 1, session_log=start))

  def write(self, step: int, row: Mapping[str, Any]) -> None:
    """Writes the entries that are single numbers."""
    from tensorboardX.proto.summary_pb2 import Summary

    numbers = {
      name: float(value)
      for name, value in row.items()
      if np.ndim(value) == 0 and value is not None and not isinstance(value, str)
    }
    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()])
    with _naming(self._path):
      self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=summary))
      self._writer.flush()

  def close(self) -> None:
    """Closes the event file."""
    with _naming(self._path):
      self._writer.close()


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
  """A full disk is an error without a name where buffers are flushed."""
  try:
    yield
  except OSError as error:
    raise OSError(error.errno, f"cannot write {path}: {error.strerror}") from error


def _evaluated(row: Mapping[str, Any]) -> bool:
  return any(name.startswith("eval/") for name in row)


def read_jsonl(path: str | os.PathLike) -> list[dict[str, Any]]:
  """Rows of a JSON-lines file; a last line without its newline, cut by a crash, is left out.

  Warns:
    UserWarning: of lines before it that are no rows, such as a power cut may leave; they are left out, too.
  """
  text, rows = pathlib.Path(path).read_text(errors="replace"), []
  for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    if isinstance(row, dict) and type(row.get("step")) is int and type(row.get("seconds", 0.0)) in (int, float):
      rows.append(row)
    else:
      warnings.warn(f"{path}: line {number} is damaged; it is left out", stacklevel=2)
  return rows


def jsonable(value: Any) -> Any:
  """numpy and jax values as JSON ones; non-finite floats as None."""
  if isinstance(value, Mapping):
    return {str(k): jsonable(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [jsonable(v) for v in value]
  if hasattr(value, "tolist"):
    return jsonable(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes ``value`` as indented JSON, atomically."""
  _write(pathlib.Path(path), json.dumps(jsonable(value), indent=2) + "\n")


def _write(path: pathlib.Path, text: str) -> None:
  """A whole file, or none."""
  temporary = path.with_name(path.name + ".tmp")
  with _naming(path):
    try:
      temporary.write_text(text)
      os.replace(temporary, path)
    except OSError:
      temporary.unlink(missing_ok=True)
      raise

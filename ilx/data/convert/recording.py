"""A recording in columns, on its way to an RLDS dataset."""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ilx.data import encode, record


@dataclasses.dataclass(frozen=True)
class Recording:
  """A recording in columns: N actions in E episodes.

  Attributes:
    observation: ``[N, ...]`` float32, uint8 or int32, what each action saw.
    final: ``[E, ...]``, what followed each episode's last action; None where it was not recorded.
    action: float32 ``[N, A]`` or int32 ``[N]``.
    reward: float32 ``[N]``.
    starts: int64 ``[E + 1]``; episode ``e`` is actions ``starts[e]`` to ``starts[e + 1] - 1``.
    terminal: bool ``[E]``, whether the episode ended by an end of the task.
    metadata: what ``metadata.json`` will say, JSON-able: ``env_id``, ``env_kwargs``, ``source``, ``licence`` and
      ``note`` as far as the file has them; ``action_low`` and ``action_high``, or ``num_actions``, as far as they are
      known; ``data_return`` and ``data_return_std`` over episodes; and ``recording``: the file, how it was read, and
      ``summary``.
  """

  observation: np.ndarray
  final: np.ndarray | None
  action: np.ndarray
  reward: np.ndarray
  starts: np.ndarray
  terminal: np.ndarray
  metadata: dict[str, Any]

  @property
  def returns(self) -> np.ndarray:
    """Undiscounted return of every episode as recorded, float64 ``[E]``."""
    return np.add.reduceat(self.reward.astype(np.float64), self.starts[:-1])


def episodes(recording: Recording) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, bool]]:
  """Every episode as (observation ``[T+1, ...]``, action ``[T, ...]``, reward ``[T]``, terminal).

  Where what followed the last action was not recorded, a terminal episode repeats its last observation, and a cut one
  loses its last action; one that has no action left then is left out.
  """
  for episode, (start, stop) in enumerate(zip(recording.starts[:-1], recording.starts[1:], strict=True)):
    terminal = bool(recording.terminal[episode])
    observation = recording.observation[start:stop]
    if recording.final is not None:
      observation = np.concatenate([observation, recording.final[episode : episode + 1]])
    elif terminal:
      observation = np.concatenate([observation, observation[-1:]])
    else:
      stop -= 1
    if stop > start:
      yield observation, recording.action[start:stop], recording.reward[start:stop], terminal


def summary(recording: Recording) -> dict[str, Any]:
  """Counts and returns of a recording as read, and what writing it leaves out.

  ``dropped`` counts the last actions of episodes cut by a time limit whose next observation was not recorded.
  """
  returns = recording.returns
  cut = int((~recording.terminal).sum())
  return {
    "episodes": len(returns),
    "steps": len(recording.reward),
    "return_mean": float(returns.mean()),
    "return_min": float(returns.min()),
    "return_max": float(returns.max()),
    "terminals": int(recording.terminal.sum()),
    "time_limits": cut,
    "dropped": 0 if recording.final is not None else cut,
  }


def write(
  recording: Recording,
  directory: str | os.PathLike,
  *,
  name: str,
  version: str = "1.0.0",
  metadata: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes a recording as the RLDS dataset ``<directory>/<name>/<version>``, whole or not at all.

  Args:
    recording: what ``read`` gave.
    directory: the folder of datasets, such as ``ilx.data.root()``.
    name: letters, digits, "_" and "-".
    version: three numbers.
    metadata: entries of ``metadata.json`` beside, or instead of, the recording's own.

  Returns:
    The dataset's folder.

  Raises:
    FileExistsError: where the dataset is already there.
    OSError: where it cannot be written.
    ValueError: for a bad name or version, or a recording without a transition.
  """
  directory = pathlib.Path(directory).expanduser()
  target = directory / name / version
  if target.exists():
    raise FileExistsError(f"{target} is already there; remove it, or convert under another name or version")
  directory.mkdir(parents=True, exist_ok=True)
  # Not in place: a journal that an interrupted run left there may be of another recording.
  with tempfile.TemporaryDirectory(dir=directory, prefix=".convert-") as staging:
    merged = recording.metadata | dict(metadata or {})
    with record.Recorder(staging, name=name, version=version, metadata=merged) as recorder:
      for observation, action, reward, terminal in episodes(recording):
        recorder.add(encode.episode(observation, action, reward, terminal=terminal))
    target.parent.mkdir(exist_ok=True)
    try:
      recorder.path.rename(target)
    except OSError as error:
      if target.exists():
        raise FileExistsError(f"{target} is already there; another process wrote it") from error
      raise
  return target

"""From what an environment gives step by step to recorded episodes; what all wrappers share."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ilx.data import encode, folder, values
from ilx.data.images import Images
from ilx.data.record import Recorder
from ilx.types import Tree


class Playing:
  """The episode being played, and the recorder that gets it once it is finished.

  Attributes:
    recorder: of the dataset.
    metadata: of the episode being played and those that follow; may be changed until an episode's end.
  """

  def __init__(self, recorder: Recorder, about: Mapping[str, Any], keep_abandoned: bool):
    """Goes on with an earlier recording if that was of the same environment.

    Args:
      recorder: of the dataset.
      about: what tells the environment, JSON-able.
      keep_abandoned: whether an episode that is left before its end is recorded, as ended by a time limit.

    Raises:
      ValueError: where the recorder holds episodes of another environment.
    """
    self.recorder = recorder
    self.metadata: dict[str, Any] = {}
    self._keep_abandoned = keep_abandoned
    about = json.loads(json.dumps(dict(about)))  # as the journal has it: tuples are lists
    self._steps: list[dict[str, Any]] = []  # of the episode being played, its first observation included
    found = [note["environment"] for note in recorder.notes if "environment" in note]
    if not found and not recorder.num_episodes:
      recorder.note({"environment": about})
    elif found != [about]:
      held = found[0] if found else "something that no environment gave"
      raise ValueError(
        f"{recorder.path}.incomplete holds an unfinished recording of {held}, not of {about}; "
        "finish that one, or remove the folder"
      )

  @property
  def is_playing(self) -> bool:
    """Whether an episode has begun and not ended."""
    return bool(self._steps)

  def begin(self, observation: Tree, extras: Mapping[str, Any]) -> None:
    """The first observation of an episode; one that is being played is left."""
    self.abandon()
    self._steps.append({"observation": observation, "extras": dict(extras)})

  def step(
    self, action: Tree, reward: Any, discount: Any, observation: Tree, extras: Mapping[str, Any], *, last: bool,
    terminal: bool,
  ) -> None:  # fmt: skip
    """An action and what followed it; ``terminal``, on a last one: by an end of the task.

    Raises:
      ValueError, OSError: where the episode ends here and cannot be recorded; it is gone then, earlier ones are not.
    """
    following = {"action": action, "reward": reward, "discount": discount}
    self._steps.append({"observation": observation, "extras": dict(extras), "followed": following})
    if last:
      self._finish(terminal)

  def abandon(self) -> None:
    """Leaves the episode that is being played, if any."""
    if len(self._steps) > 1 and self._keep_abandoned:
      self._finish(terminal=False)
    self._steps = []

  def drop(self) -> None:
    """Forgets the episode that is being played."""
    self._steps = []

  def close(self, *, publish: bool) -> None:
    """Publishes what was recorded, or leaves it in the journal; without any episode there is nothing to publish.

    Raises:
      ValueError, OSError: as ``Recorder.close``.
    """
    try:
      if publish:
        self.abandon()
      if not publish or not self.recorder.num_episodes:
        return
      summary = folder.summary(self.recorder.returns, self.recorder.num_transitions)
      self.recorder.metadata = summary | self.recorder.metadata
      self.recorder.close()
    finally:
      self.recorder.suspend()

  def _finish(self, terminal: bool) -> None:
    steps, self._steps = self._steps, []
    followed = [step["followed"] for step in steps[1:]]
    episode = encode.episode(
      stack([step["observation"] for step in steps], "observation"),
      stack([step["action"] for step in followed], "action"),
      np.array([scalar(step["reward"], "reward") for step in followed], np.float32),
      terminal=terminal,
      discount=np.array([scalar(step["discount"], "discount") for step in followed], np.float32),
    )
    told = [step["extras"] for step in steps]
    episode |= stack([_like(told[0], told[1]), *told[1:]], "")
    self.recorder.add(episode, metadata=self.metadata)


def scalar(value: Any, name: str) -> float:
  """One number, as environments give it in many forms."""
  value = np.asarray(value)
  if value.size != 1 or value.dtype.kind not in "fiub":
    raise ValueError(f"recording: the {name} is {value.dtype} {list(value.shape)}; expected one number")
  return value.item()


def stack(rows: Sequence[Tree], name: str) -> Tree:
  """The same tree with the rows of every leaf in one array; text as a list, pictures as ``Images``.

  Raises:
    ValueError: where rows differ in their keys or shapes; names the field.
  """
  pattern = rows[-1]
  if isinstance(pattern, Mapping):
    if any(not isinstance(row, Mapping) or row.keys() != pattern.keys() for row in rows):
      raise ValueError(f"recording: field {name!r} has other keys in some steps than in others")
    return {key: stack([row[key] for row in rows], f"{name}/{key}" if name else key) for key in pattern}
  if isinstance(pattern, Picture):
    if len({row.shape for row in rows}) > 1:
      raise ValueError(f"recording: field {name!r} changes its size from {rows[0].shape} to {pattern.shape}")
    return Images.of([row.content for row in rows], pattern.shape)
  if isinstance(pattern, str | bytes):
    return list(rows)
  shapes = {np.shape(row) for row in rows}
  if len(shapes) > 1:
    raise ValueError(f"recording: field {name!r} has shapes {' and '.join(map(str, sorted(shapes)))} in one episode")
  return np.stack([np.asarray(row) for row in rows])


def _like(first: Tree, second: Tree) -> Tree:
  """``first``, and what it lacks of ``second`` as 0 or empty text: a reset does not tell all that steps do."""
  if isinstance(second, Mapping):
    first = first if isinstance(first, Mapping) else {}
    return {**first, **{key: _like(first.get(key), value) for key, value in second.items()}}
  if first is not None:
    return first
  return "" if isinstance(second, str | bytes) else np.zeros_like(second)


def copied(value: Any) -> Tree:
  """A value as environments give it, as arrays of its own, text and dicts; tuples and lists as dicts by number.

  A list of numbers is an array.
  """
  if isinstance(value, Mapping):
    return {str(key): copied(item) for key, item in value.items()}
  if isinstance(value, str | bytes):
    return value
  if isinstance(value, list | tuple) and any(np.ndim(item) or isinstance(item, Mapping | str) for item in value):
    return {str(index): copied(item) for index, item in enumerate(value)}
  return np.array(value)


class Picture:
  """An encoded picture of uint8 ``[height, width, channels]``; frames would take much memory until an episode ends."""

  def __init__(self, pixels: Any, image_format: str):
    """Raises ValueError where ``pixels`` is no picture."""
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4):
      raise ValueError(
        f"recording: a frame is {pixels.dtype} {list(pixels.shape)}; expected uint8 [height, width, 1, 3 or 4]"
      )
    self.content = values.encode_picture(pixels, image_format, "recording: a frame")
    self.shape = pixels.shape


def rounded(action: Any, low: Any = None, high: Any = None) -> Any:
  """A float64 action at the nearest float32 within its bounds, so that what is stored is what is played."""
  exact = np.asarray(action)
  if exact.dtype != np.float64:
    return action
  near = exact.astype(np.float32)
  if low is not None:
    near = np.where((near < low) & (exact >= low), np.nextafter(near, np.float32(np.inf)), near)
    near = np.where((near > high) & (exact <= high), np.nextafter(near, np.float32(-np.inf)), near)
  return near.astype(np.float64)


def parted(bounds: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
  """``metadata.json``'s bounds of an action of several parts: every field a dict of the parts that have it."""
  found: dict[str, dict[str, Any]] = {}
  for part, fields in bounds.items():
    for field, value in fields.items():
      found.setdefault(field, {})[part] = value
  return found


def bounds(low: np.ndarray, high: np.ndarray) -> dict[str, list[float]]:
  """``metadata.json``'s bounds of an action ``[A]``; none where it is no vector or unbounded."""
  if np.ndim(low) != 1 or not np.isfinite([low, high]).all():
    return {}
  return {"action_low": np.asarray(low, float).tolist(), "action_high": np.asarray(high, float).tolist()}

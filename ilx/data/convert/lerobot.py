"""LeRobot datasets, v2.0 and v2.1 (a file an episode) and v3.0 (many episodes a file), turned into RLDS ones.

What was decided once:

* Fields. "observation.state" becomes observation["state"], "observation.images.top" observation["images"]["top"];
  "action" the action; "next.reward" the reward. Every other column but counters and texts becomes a step field of its
  own name ("timestamp", "next.success"...), and the task's text "language_instruction".
* Ends. ``next.done`` on an episode's last frame is an end of the task and repeats the last observation as the terminal
  one, whose value is never bootstrapped; with ``done="ignore"``, without that column or where it stays false, the
  recording was cut: it loses its last action, and its last frame becomes its last step. LeRobot keeps no observation
  after the last action.
* Rewards that were not recorded are 0, and ``metadata["reward"]`` says so.
* Pictures of videos are taken by time: the frame shown at the step's timestamp, within ``tolerance``.

Source of the formats: https://github.com/huggingface/lerobot (lerobot 0.3.3 and 0.4.4 wrote the tests' files).
"""

import dataclasses
import os
import pathlib
from typing import Any, Literal

import numpy as np

from ilx.data import encode
from ilx.data.convert import frames, parquet, video
from ilx.data.convert.frames import Look
from ilx.data.convert.lerobot_meta import Episode, Meta, read_meta
from ilx.data.convert.source import Converted
from ilx.data.images import Images

__all__ = ["LeRobot", "open"]

# Counters that follow from a step's place, and what is stored under another name.
_LEFT_OUT = ("frame_index", "episode_index", "index", "task_index", "subtask_index")
_NAMED = ("action", "next.reward", "next.done")


def open(
  path: str | os.PathLike,
  *,
  cameras: str | tuple[str, ...] | None = None,
  crop: tuple[int, int, int, int] | None = None,
  resize: tuple[int, int] | None = None,
  encoding: Literal["jpeg", "png"] | None = None,
  tolerance: float | None = None,
  done: Literal["terminal", "ignore"] = "terminal",
) -> "LeRobot":
  """Opens a LeRobot dataset; reads its metadata alone.

  Example::

    source = lerobot.open("pusht")
    source[0].steps["observation"]["state"]   # float32 [T + 1, 2]

  Args:
    path: its folder, the one with ``meta/info.json``.
    cameras: features to take pictures from, such as ("observation.images.top",); all by default.
    crop: left, top, width and height of every picture, in pixels.
    resize: width and height of every picture, in pixels.
    encoding: see ``frames.Look``: JPEG of quality 95 for frames of videos by default.
    tolerance: how far a frame's time may be from a step's, in seconds; a quarter of a frame by default.
    done: what ``next.done`` says: "terminal", or "ignore" where it was set at time limits too.

  Raises:
    FileNotFoundError: where it is no LeRobot dataset.
    ValueError: where its metadata are damaged or of another version, or it has no such camera; names file and field.
  """
  meta = read_meta(pathlib.Path(path).expanduser())
  known = meta.of_kind("video", "image")
  wanted = tuple(known if cameras is None else [cameras] if isinstance(cameras, str) else cameras)
  for camera in wanted:
    if camera not in known:
      raise ValueError(f"{path}: no camera {camera!r}; there are {', '.join(known) or 'none'}")
  if tolerance is None:
    tolerance = 0.25 / meta.fps
  if done not in ("terminal", "ignore"):
    raise ValueError(f"done is {done!r}; expected 'terminal' or 'ignore'")
  if not tolerance > 0:
    raise ValueError(f"tolerance is {tolerance}; expected seconds")
  return LeRobot(meta, wanted, Look(crop, resize, 3, encoding), tolerance, done)


@dataclasses.dataclass(frozen=True)
class LeRobot:
  """A ``convert.source.Source``; ``open`` makes it."""

  meta: Meta
  cameras: tuple[str, ...]
  look: Look
  tolerance: float
  done: str

  @property
  def name(self) -> str:
    """The folder's name."""
    return self.meta.name

  @property
  def metadata(self) -> dict[str, Any]:
    """What ``info.json`` says, and how it was read."""
    features = self.meta.features
    found = {
      "source": f"LeRobot {self.meta.version}",
      "fps": self.meta.fps,
      "robot_type": self.meta.robot_type,
      "reward": "recorded (next.reward)" if "next.reward" in features else "filled with 0: none was recorded",
      "ends": "next.done" if self._ends else "all episodes were cut: no next.done was used",
      "left_out": self.meta.left_out,
    }
    for key, name in (("action", "action_names"), ("observation.state", "state_names")):
      if isinstance(names := features.get(key, {}).get("names"), list | dict):
        found[name] = names
    return found

  @property
  def _ends(self) -> bool:
    return self.done == "terminal" and "next.done" in self.meta.features

  def __len__(self) -> int:
    """How many episodes the splits have."""
    return len(self.meta.episodes)

  def __getitem__(self, index: int) -> Converted:
    """Reads one episode; see ``convert.source.Source``."""
    episode = self.meta.episodes[index]
    where = f"{self.meta.root / episode.data}: episode {episode.index}"
    images = [name for name in self.cameras if name in self.meta.of_kind("image")]
    columns = [name for name in self.meta.features if name not in self.meta.of_kind("video", "image")]
    table = parquet.rows(self.meta.root / episode.data, [*columns, *images], "episode_index", episode.index)
    if len(table) != episode.length:
      raise ValueError(f"{where} has {len(table)} rows, meta/ says {episode.length}")
    shapes = {name: tuple(self.meta.features[name]["shape"]) for name in columns}
    arrays = {name: parquet.array(table, name, shapes[name], where) for name in columns}
    arrays |= {name: arrays[name].reshape(-1) for name in (*_LEFT_OUT, "timestamp") if name in arrays}
    self._check_order(arrays, where)
    terminal = self._terminal(arrays, where)
    steps = self._steps(arrays, terminal, where)
    for name in self.cameras:
      pictures = self._pictures(episode, table, name, arrays["timestamp"])
      if terminal:
        pictures = Images.concatenate([pictures, pictures.part(len(pictures) - 1, len(pictures))])
      _put(steps["observation"], name, pictures)
    texts = self._texts(arrays["task_index"], self.meta.tasks, "task_index", where)
    steps["language_instruction"] = texts + texts[-1:] * terminal
    if "subtask_index" in arrays and self.meta.subtasks:
      subtasks = self._texts(arrays["subtask_index"], self.meta.subtasks, "subtask_index", where)
      steps["subtask"] = subtasks + subtasks[-1:] * terminal
    about = {"episode_index": episode.index, "task": "; ".join(dict.fromkeys(texts))}
    if "next.success" in arrays:
      about["success"] = bool(np.any(arrays["next.success"]))
    return Converted(steps, about, episode.split)

  def _check_order(self, arrays: dict[str, np.ndarray], where: str) -> None:
    if np.any(np.diff(arrays["frame_index"]) != 1):
      row = int(np.argmax(np.diff(arrays["frame_index"]) != 1)) + 1
      raise ValueError(f"{where}, row {row}: column 'frame_index' does not count on from the row before")
    times = arrays["timestamp"]
    if not np.isfinite(times).all() or np.any(np.diff(times) <= 0):
      row = int(np.argmax(~np.isfinite(times) | (np.diff(times, prepend=-np.inf) <= 0)))
      raise ValueError(f"{where}, row {row}: column 'timestamp' does not rise ({times[row]})")

  def _terminal(self, arrays: dict[str, np.ndarray], where: str) -> bool:
    """Whether the last row ended the task."""
    length = len(arrays["frame_index"])
    done = arrays["next.done"].reshape(length, -1).any(axis=1) if self._ends else np.zeros(length, bool)
    if done[:-1].any():
      row = int(np.argmax(done))
      raise ValueError(
        f"{where}, row {row}: column 'next.done' is true before the last row; pass done='ignore' if it is no end"
      )
    if length < 2 and not done[-1]:
      raise ValueError(f"{where} has one row; an episode that was cut needs two")
    return bool(done[-1])

  def _steps(self, arrays: dict[str, np.ndarray], terminal: bool, where: str) -> dict[str, Any]:
    def shown(values: np.ndarray) -> np.ndarray:
      return np.concatenate([values, values[-1:]]) if terminal else values

    length = len(arrays["frame_index"])
    count = length if terminal else length - 1
    action = arrays["action"]
    if action.dtype.kind in "iu" and action.shape[1:] == (1,):
      action = action[:, 0]
    reward = arrays.get("next.reward", np.zeros(length, np.float32)).reshape(length, -1)
    if reward.shape[1] != 1:
      raise ValueError(f"{where}: column 'next.reward' has {reward.shape[1]} values a row; expected one")
    observation: dict[str, Any] = {}
    extras: dict[str, Any] = {}
    for name, values in arrays.items():
      if name.startswith("observation.") or name == "observation":
        _put(observation, name, shown(values))
      elif name not in (*_LEFT_OUT, *_NAMED):
        extras[name] = shown(values[:, 0] if values.shape[1:] == (1,) else values)
    if not observation and not self.cameras:
      raise ValueError(f"{where}: no column 'observation.*' and no camera")
    steps = encode.episode(shown(arrays["timestamp"]), action[:count], reward[:count, 0], terminal=terminal)
    return steps | {"observation": observation} | extras

  def _pictures(self, episode: Episode, table: Any, name: str, times: np.ndarray) -> Images:
    where = f"{self.meta.root / episode.data}: episode {episode.index}: {name!r}"
    if name in episode.videos:
      path, start = episode.videos[name]
      path = self.meta.root / path
      shown = video.frames(path, times.astype(np.float64) + start, self.tolerance)
      return frames.pack(frames.from_arrays(shown, self.look), f"{path}: episode {episode.index}")
    files = parquet.pictures(table, name, self.meta.root, where)
    return frames.pack((_checked(file, self.look, where, row) for row, file in enumerate(files)), where)

  def _texts(self, indices: np.ndarray, known: dict[int, str], column: str, where: str) -> list[str]:
    missing = set(indices.reshape(-1).tolist()) - known.keys()
    if missing:
      raise ValueError(f"{where}: column {column!r} has {sorted(missing)[0]}, which meta/ has no text for")
    return [known[index] for index in indices.reshape(-1).tolist()]


def _checked(file: bytes | pathlib.Path, look: Look, where: str, row: int) -> bytes:
  try:
    return frames.from_file(file, look)
  except (ValueError, OSError) as error:
    raise ValueError(f"{where}, row {row}: {error}") from None


def _put(tree: dict[str, Any], name: str, value: Any) -> None:
  """ "observation.images.top" at tree["images"]["top"]; dots stay where a shorter name is taken."""
  *folders, leaf = name.removeprefix("observation.").split(".")
  node = tree
  for depth, folder in enumerate(folders):
    below = node.setdefault(folder, {})
    if not isinstance(below, dict):
      leaf = ".".join([*folders[depth:], leaf])
      break
    node = below
  node[name.removeprefix("observation.") if leaf in node else leaf] = value

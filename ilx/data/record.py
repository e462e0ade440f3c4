"""Recording episodes as an RLDS dataset, safe against kills and full disks."""

import array
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ilx.data import encode, features, folder, shards, unfinished
from ilx.data.journal import write_error


class Recorder:
  """Writes one dataset, episode after episode; a context manager.

  Every finished episode is in the journal ``<directory>/<name>/<version>.incomplete`` as soon as ``add`` returns.
  Opened again after a kill, the recorder goes on behind the last of them. Leaving the ``with`` block writes the
  dataset under a temporary name and renames it to ``<directory>/<name>/<version>``; leaving it by an exception keeps
  the journal and publishes nothing. The same episodes and metadata give the same bytes.

  Example::

    with ilx.data.Recorder(ilx.data.root(), name="hopper-expert", metadata={"env_id": "Hopper-v5"}) as recorder:
      while recorder.num_episodes < 100:
        recorder.add(ilx.data.episode(observation, action, reward, terminal=True))

  Attributes:
    num_episodes: how many are recorded, those of an earlier, killed run included.
    num_transitions: steps with an action that counts, of all episodes.
    notes: what ``note`` was given, those of an earlier, killed run included.
    metadata: a JSON-able dict, written on close; may be changed until then.
    path: the folder that is published.
  """

  def __init__(
    self,
    directory: str | os.PathLike,
    *,
    name: str,
    version: str = "1.0.0",
    split: str = "train",
    metadata: Mapping[str, Any] | None = None,
    episodes_per_shard: int = 1000,
    image_format: str | None = None,
    fsync: bool = False,
  ):
    """Opens the journal.

    Args:
      directory: the folder of datasets, such as ``ilx.data.root()``.
      name: letters, digits, "_", "-", starting with a letter.
      version: three numbers.
      split: where episodes go unless ``add`` is told another; letters, digits, "_", "-".
      metadata: see the attribute.
      episodes_per_shard: episodes in a file.
      image_format: "png" or "jpeg" encodes uint8 fields ``[T + 1, height, width, 1, 3 or 4]``; None keeps raw bytes.
      fsync: waits for the disk after every episode, so that a power cut loses none either.

    Raises:
      ValueError: for a bad name, version, split or image_format, or a damaged journal.
      FileExistsError: where the dataset is already there.
      RuntimeError: where another process records it.
    """
    folder.check_options(name, version, split, episodes_per_shard, image_format)
    self.name, self.version, self.split = name, version, split
    self.path = Path(directory).expanduser().absolute() / name / version  # files are opened later, maybe from elsewhere
    self.metadata = dict(metadata or {})
    self.num_transitions = 0
    self.notes: list[dict[str, Any]] = []
    self._returns = array.array("d")
    self._offsets: dict[str, array.array] = {}  # of the journal's entries, by split
    self._last = -1
    self._episodes_per_shard, self._image_format = episodes_per_shard, image_format
    self._features: dict[str, Any] | None = None
    self._journal = unfinished.claim(self.path, fsync=fsync)
    try:
      self._replay()
    except BaseException:
      self._journal.close()
      raise

  def _replay(self) -> None:
    for offset, head, _ in self._journal.scan():
      try:
        if "split" in head and head["split"] != self.split:
          problem = f"holds split {head['split']!r}, not {self.split!r}; finish or remove it first"
          raise ValueError(f"{self._journal.path} {problem}")
        if "features" in head:
          self._features = features.from_json(head["features"], str(self._journal.path))
        if "note" in head:
          self.notes.append(head["note"])
        if "episode" in head:
          self._count(offset, head["episode"], head["transitions"], head["return"])
      except (KeyError, TypeError) as error:
        raise ValueError(f"{self._journal.path} is no journal of a Recorder: {error!r}") from None

  def _count(self, offset: int, split: str, num_transitions: int, total_reward: float) -> None:
    self._offsets.setdefault(split, array.array("q")).append(offset)
    self._returns.append(total_reward)
    self.num_transitions += num_transitions
    self._last = offset

  @property
  def num_episodes(self) -> int:
    """See the class."""
    return len(self._returns)

  @property
  def returns(self) -> np.ndarray:
    """Undiscounted return of every episode, in the order they came, float64 ``[E]``."""
    return np.array(self._returns)

  def add(
    self, episode: Mapping[str, Any], *, metadata: Mapping[str, Any] | None = None, split: str | None = None
  ) -> None:
    """Records one episode; float64 is stored as float32, wider integers as int32.

    Args:
      episode: arrays ``[T + 1, ...]``, T >= 1, by field: observation, action, reward, discount, is_first, is_last,
        is_terminal and any others; dicts of them nest, in all but the last six. A field is numbers of any rank, text
        (strings or an array of them, ``[T + 1]``) or ``Images``, which are stored as they are. See ``episode``.
      metadata: of the episode, stored as "episode_metadata": strings, bools, numbers and small arrays by name.
        Integers are stored in 64 bits, floats as they are; NaN stands for what is not known.
      split: by default the recorder's.

    Raises:
      ValueError: where a field is missing, cannot be stored, is not finite, or is of another type or shape than in
        the episodes recorded before; nothing is written.
      OSError: where it cannot be written, such as on a full disk; what was recorded before stays intact.
    """
    self._refuse_closed()
    self.add_encoded(encode.encode(episode, metadata, self._image_format), split=split)

  def add_encoded(self, encoded: encode.Encoded, *, split: str | None = None) -> None:
    """``add`` of what ``encode.encode`` gave."""
    self._refuse_closed()
    split = self.split if split is None else split
    folder.check_names(self.name, self.version, split)
    # An entry of features without an episode, which a kill can leave, binds nobody.
    if not self.num_episodes:
      self._journal.append({"split": self.split, "features": features.to_json(encoded.features)})
      self._features = encoded.features
    elif problem := encode.difference(self._features, encoded.features):
      raise ValueError(f"Recorder.add: {problem}")
    head = {"episode": split, "transitions": encoded.num_transitions, "return": encoded.total_reward}
    offset = self._journal.append(head, encoded.record)
    self._count(offset, split, encoded.num_transitions, encoded.total_reward)

  def note(self, note: Mapping[str, Any]) -> None:
    """Keeps a JSON-able remark in the journal, in ``notes`` of this and later runs; it is not published.

    Raises OSError where it cannot be written.
    """
    self._refuse_closed()
    self._journal.append({"note": dict(note)})
    self.notes.append(dict(note))

  def last(self) -> bytes | None:
    """The record of the episode that was added last; None where there is none."""
    return None if self._last < 0 else self._journal.payload(self._last)

  def _refuse_closed(self) -> None:
    if self._journal.closed:
      raise ValueError(f"Recorder of {self.path}: it is closed")

  def close(self) -> Path:
    """Publishes the dataset and removes the journal; returns its folder.

    Raises:
      ValueError: where there is no episode, or metadata is not JSON.
      OSError: where it cannot be written; the journal stays, so that closing a reopened recorder tries again.
    """
    self._refuse_closed()
    try:
      if not self.num_episodes:
        raise ValueError(f"Recorder: no episode was added; nothing to publish at {self.path}")
      with unfinished.staged(self.path) as staging:
        self._write(staging)
    except FileExistsError:
      raise
    except OSError as error:
      raise write_error(error, self._journal.path.parent) from None
    finally:
      self._journal.close()
    return self.path

  def suspend(self) -> None:
    """Closes without publishing; a recorder opened again goes on."""
    self._journal.close()

  def _write(self, staging: Path) -> None:
    folder.json_text(self.metadata)  # before the work of writing shards
    splits = {}
    for split, offsets in self._offsets.items():
      lengths = folder.shard_lengths(len(offsets), self._episodes_per_shard)
      num_bytes = 0
      for index, length in enumerate(lengths):
        path = staging / folder.shard_name(self.name, split, index, len(lengths))
        start = index * self._episodes_per_shard
        num_bytes += shards.write_array_record(path, map(self._journal.payload, offsets[start : start + length]))
      splits[split] = folder.Shards(lengths, num_bytes)
    folder.describe(staging, self.name, self.version, splits, self._features, self.metadata)

  def __enter__(self) -> "Recorder":
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    if kind is not None:
      self.suspend()
    elif not self._journal.closed:
      self.close()

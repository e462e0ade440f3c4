"""Recording episodes as an RLDS dataset, safe against kills and full disks."""

import fcntl
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ilx.data import encode, example, features, files, shards


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
  ):
    """Opens the journal.

    Args:
      directory: the folder of datasets, such as ``ilx.data.root()``.
      name: letters, digits, "_", "-", starting with a letter.
      version: three numbers.
      split: letters, digits, "_", "-".
      metadata: see the attribute.
      episodes_per_shard: episodes in a file.

    Raises:
      ValueError: for a bad name, version or split, or a damaged journal.
      FileExistsError: where the dataset is already there.
      RuntimeError: where another process records it.
    """
    for what, value, pattern in (
      ("name", name, r"[A-Za-z][\w-]*"),
      ("version", version, r"\d+\.\d+\.\d+"),
      ("split", split, r"\w[\w-]*"),
    ):
      if not re.fullmatch(pattern, value, re.ASCII):
        raise ValueError(f"Recorder: {what} {value!r} does not match {pattern}")
    if episodes_per_shard < 1:
      raise ValueError(f"Recorder: episodes_per_shard is {episodes_per_shard}; at least 1")
    self.name, self.version, self.split = name, version, split
    self.path = Path(directory).expanduser() / name / version
    self.metadata = dict(metadata or {})
    self.num_episodes = 0
    self._episodes_per_shard = episodes_per_shard
    self._features: dict[str, Any] | None = None
    self._folder = self.path.with_name(f"{version}.incomplete")
    self._refuse_existing()
    self._folder.mkdir(parents=True, exist_ok=True)
    self._journal = (self._folder / "journal.tfrecord").open("a+b", buffering=0)
    try:
      self._open_journal()
    except BaseException:
      self._journal.close()
      raise

  def _refuse_existing(self) -> None:
    if self.path.exists():
      raise FileExistsError(f"{self.path} is already there; remove it, or record under another name or version")

  def _open_journal(self) -> None:
    try:
      fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise RuntimeError(f"{self._folder} is being recorded by another process; wait for it or stop it") from None
    self._refuse_existing()  # published by the process that held the lock until now
    end = 0
    for behind, record in self._records():
      end = behind
      if self._features is None:
        self._features = _read_header(record, self._journal.name, self.split)
      else:
        self.num_episodes += 1
    self._journal.truncate(end)

  def _records(self) -> Iterator[tuple[int, bytes]]:
    """The journal's records, without the torn one that a kill may have left at the end."""
    size = self._journal.seek(0, os.SEEK_END)
    self._journal.seek(0)
    try:
      yield from shards.scan_tfrecord(self._journal, size, self._journal.name)
    except shards.CutShortError:
      return

  def add(self, episode: Mapping[str, Any]) -> None:
    """Records one episode; float64 is stored as float32, wider integers as int32.

    Args:
      episode: arrays ``[T + 1, ...]``, T >= 1, by field: observation (an array or nested dicts), action, reward,
        discount, is_first, is_last, is_terminal. See ``episode``.

    Raises:
      ValueError: where a field is missing, not finite, or shaped unlike those recorded before; nothing is written.
      OSError: where it cannot be written, such as on a full disk; what was recorded before stays intact.
    """
    if self._journal.closed:
      raise ValueError("Recorder.add: the recorder is closed")
    steps = encode.normalize(episode)
    found = {"steps": features.Sequence(encode.step_features(steps))}
    if self._features is None:
      header = {"split": self.split, "features": features.to_json(found)}
      self._append(json.dumps(header, sort_keys=True).encode())
      self._features = found
    elif found != self._features:
      raise ValueError(f"Recorder.add: {_difference(self._features, found)}")
    self._append(example.serialize({name: encode.stored(value) for name, value in encode.flatten(steps, "steps/")}))
    self.num_episodes += 1

  def _append(self, record: bytes) -> None:
    end = self._journal.seek(0, os.SEEK_END)
    left = memoryview(shards.frame_tfrecord(record))
    try:
      while left:
        left = left[self._journal.write(left) :]
    except BaseException as error:
      self._journal.truncate(end)
      if isinstance(error, OSError):
        raise _write_error(error, self._folder) from None
      raise

  def close(self) -> Path:
    """Publishes the dataset and removes the journal; returns its folder.

    Raises:
      ValueError: where there is no episode, or metadata is not JSON.
      OSError: where it cannot be written; the journal stays, so that closing a reopened recorder tries again.
    """
    try:
      if not self.num_episodes:
        raise ValueError(f"Recorder: no episode was added; nothing to publish at {self.path}")
      self._publish()
    finally:
      self._journal.close()
    shutil.rmtree(self._folder, ignore_errors=True)
    return self.path

  def _publish(self) -> None:
    staging = self._folder / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    try:
      staging.mkdir()
      self._write(staging)
      self._refuse_existing()
      staging.rename(self.path)
      files.sync_folder(self.path.parent)
    except FileExistsError:
      raise
    except OSError as error:
      raise _write_error(error, self._folder) from None
    finally:
      shutil.rmtree(staging, ignore_errors=True)

  def _write(self, staging: Path) -> None:
    try:
      metadata = json.dumps(self.metadata, indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
      raise ValueError(f"Recorder: metadata is not JSON: {error}") from None
    files.write_text(staging / "metadata.json", metadata + "\n")
    count = -(-self.num_episodes // self._episodes_per_shard)
    lengths, num_bytes = [], 0
    records = (record for _, record in self._records())
    next(records)  # the header
    for index in range(count):
      take = min(self._episodes_per_shard, self.num_episodes - index * self._episodes_per_shard)
      name = f"{self.name}-{self.split}.array_record-{index:05}-of-{count:05}"
      num_bytes += shards.write_array_record(staging / name, itertools.islice(records, take))
      lengths.append(str(take))
    split = {
      "name": self.split,
      "numBytes": str(num_bytes),
      "shardLengths": lengths,
      "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": self.name, "version": self.version, "fileFormat": "array_record", "splits": [split]}
    files.write_text(staging / "dataset_info.json", json.dumps(info, indent=2, sort_keys=True) + "\n")
    features.write(staging / "features.json", self._features)
    files.sync_folder(staging)

  def __enter__(self) -> "Recorder":
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    if kind is None:
      self.close()
    else:
      self._journal.close()


def _read_header(record: bytes, journal: str, split: str) -> dict[str, Any]:
  try:
    header = json.loads(record)
    recorded, found = header["split"], features.from_json(header["features"], journal)
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{journal} is no journal of a Recorder: {error}") from None
  if recorded != split:
    raise ValueError(f"{journal} holds split {recorded!r}, not {split!r}; finish or remove it first")
  return found


def _difference(recorded: dict[str, Any], found: dict[str, Any]) -> str:
  """The first field in which two episodes differ."""
  before, now = (dict(features.flatten(x["steps"].feature)) for x in (recorded, found))
  for name in sorted(before.keys() | now.keys()):
    texts = [f"{x[name].dtype} {list(x[name].shape)}" if name in x else "absent" for x in (before, now)]
    if texts[0] != texts[1]:
      return f"field {name!r} is {texts[1]} a step, but {texts[0]} in the episodes recorded before"
  return "the fields differ from the episodes recorded before"


def _write_error(error: OSError, folder: Path) -> OSError:
  return OSError(
    error.errno,
    f"cannot write to {folder}: {error.strerror or error}; what was recorded before is intact, "
    "free some space and run again",
  )

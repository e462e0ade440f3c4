"""What is fuzzed: every reader of files, each with what must hold of it beyond not crashing."""

import contextlib
import gzip
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np

from experiments.fuzz import mutate, seeds
from ilx.data import cache, columnar, decode, example, features, images, index, index_format, rlds, shards, splits
from ilx.data.record import Recorder


class Target(NamedTuple):
  """A reader.

  Attributes:
    make: a damaged input.
    read: reads it; raises ValueError (or FileNotFoundError) where it does not accept it, ``SilentError`` where it
      accepted what a checksum should have told.
    cost: rough relative cost of one input; decides how many of a million each target gets.
  """

  make: Callable[[random.Random], bytes]
  read: Callable[[bytes], object]
  cost: float


class SilentError(Exception):
  """A damaged input gave other values than the sound one, without a word, though there is a checksum."""


def targets(folder: Path) -> dict[str, Target]:
  """All targets by name; ``folder`` is theirs to write to."""
  dataset = seeds.write(folder)
  info = rlds.read_info(dataset)
  contents = seeds.records(dataset)
  return {
    "example": Target(lambda rng: mutate.blob(rng, contents), example.parse, 1),
    "record": Target(lambda rng: mutate.blob(rng, contents), lambda x: rlds.decode_episode(info, x), 8),
    "columns": Target(lambda rng: mutate.blob(rng, contents), _columns(info, dataset), 15),
    "features": _features(dataset, folder, contents),
    "dataset_info": _dataset_info(dataset, folder),
    "split": Target(lambda rng: mutate.blob(rng, _SPLITS), lambda x: splits.parse(x.decode(), info.splits), 1),
    "picture": _picture(),
    "tfrecord": _shard("tfrecord", seeds.as_tfrecord(contents), contents, folder),
    "tfrecord.gz": _shard("tfrecord", gzip.compress(seeds.as_tfrecord(contents), mtime=0), contents, folder),
    "array_record": _shard("array_record", seeds.as_array_record(contents, folder), contents, folder),
    "journal": _journal(folder, contents),
    "index": _index(info),
    "signed_index": _signed_index(info),
    "cache": _cache(info, folder),
    "signed_cache": _signed_cache(info, folder),
  }


_SPLITS = [b"train", b"train[:90%]", b"train[10:20]+all", b"train[-5:]", b"train[50%:]+train[:1shard]"]


def _columns(info: rlds.Info, path: Path) -> Callable[[bytes], object]:
  selection = rlds.Selection(observation=("observation/state", "observation/camera", "observation/count"))
  return lambda content: rlds.assemble(info, selection, [(path, content)])


def _features(dataset: Path, folder: Path, contents: list[bytes]) -> Target:
  document = json.loads((dataset / "features.json").read_text())

  def read(content: bytes) -> None:
    try:
      found = features.from_json(json.loads(content), "features.json")
    except (RecursionError, UnicodeDecodeError) as error:
      raise ValueError(str(error)) from None
    if isinstance(found, dict):
      decode.decode(decode.choose(found, None), example.parse(contents[0]))

  return Target(lambda rng: mutate.document(rng, [document]), read, 8)


def _dataset_info(dataset: Path, folder: Path) -> Target:
  document = json.loads((dataset / "dataset_info.json").read_text())
  copy = folder / "info" / "1.0.0"
  shutil.copytree(dataset, copy)

  def read(content: bytes) -> None:
    (copy / "dataset_info.json").write_bytes(content)
    info = rlds.read_info(copy)
    for split in info.splits:
      for _ in rlds.read_records(info, split):
        break

  return Target(lambda rng: mutate.document(rng, [document]), read, 15)


def _picture() -> Target:
  files = [seeds.picture(7), seeds.picture(200, "JPEG"), seeds.picture(9, "PNG", (40, 30))]
  return Target(lambda rng: mutate.blob(rng, files), lambda x: images.decode(x, (None, None, 3)), 8)


def _shard(file_format: str, sound: bytes, contents: list[bytes], folder: Path) -> Target:
  path = folder / f"{file_format}-{len(sound)}"

  def read(content: bytes) -> None:
    path.write_bytes(content)
    found = list(shards.read(path, file_format, len(contents)))
    with shards.open(path, file_format, len(contents)) as reader:
      again = [reader[i] for i in reversed(range(len(reader)))][::-1]
    if found != contents or again != contents:
      raise SilentError("other records than were written")

  return Target(lambda rng: mutate.blob(rng, [sound]), read, 15)


def _journal(folder: Path, contents: list[bytes]) -> Target:
  home = folder / "journal"
  recorder = Recorder(home, name="x")
  for number in range(3):
    steps = np.arange(3 + number, dtype=np.float32)
    flags = {"is_first": steps == 0, "is_last": steps == steps[-1], "is_terminal": steps == steps[-1]}
    recorder.add({"observation": steps[:, None], "action": steps[:, None], "reward": steps, "discount": steps} | flags)
  files = {path.name: path.read_bytes() for path in recorder.path.with_name("1.0.0.incomplete").iterdir()}
  del recorder
  (name, sound), *_ = [(name, content) for name, content in files.items() if content]
  journal = home / "x" / "1.0.0.incomplete" / name

  def read(content: bytes) -> None:
    journal.write_bytes(content)
    with contextlib.suppress(KeyError), Recorder(home, name="x"):
      raise KeyError  # leaves the journal as it is and publishes nothing
    if not sound.startswith(journal.read_bytes()):
      raise SilentError("other episodes than were recorded")

  return Target(lambda rng: mutate.blob(rng, [sound]), read, 15)


def _index(info: rlds.Info) -> Target:
  sound = index_format.encode(index.build(info))

  def read(content: bytes) -> None:
    index_format.decode(content)
    if content.rstrip() != sound.rstrip():
      raise SilentError("a damaged index was taken")

  return Target(lambda rng: mutate.blob(rng, [sound]), read, 3)


def _signed_index(info: rlds.Info) -> Target:
  """Damage under a checksum that is right: by a bad program, or on purpose."""
  body = index_format.encode(index.build(info)).partition(b"\n")[2]
  head, _, rest = body.partition(b"\n")

  def make(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
      changed = mutate.document(rng, [json.loads(head)]) + b"\n" + rest
    else:
      changed = mutate.blob(rng, [body])
    return hashlib.sha256(changed).hexdigest().encode() + b"\n" + changed

  return Target(make, index_format.decode, 3)


def _cache(info: rlds.Info, folder: Path) -> Target:
  """One of the cache's files is damaged; reading or verifying must tell."""
  selection = rlds.Selection(lazy=True)
  home = _copy_of_cache(info, selection, folder / "cache")
  names = sorted(path.name for path in home.iterdir())
  sound = {name: (home / name).read_bytes() for name in names}

  def make(rng: random.Random) -> bytes:
    number = rng.randrange(len(names))
    return bytes([number]) + mutate.blob(rng, [sound[names[number]]])

  def read(content: bytes) -> None:
    name = names[content[0]]
    (home / name).write_bytes(content[1:])
    try:
      _touch(home)
      columnar.verify(home)
      if content[1:] != sound[name] and not (name.endswith(".json") and _same(content[1:], sound[name])):
        raise SilentError(f"{name} is damaged and was taken")
    finally:
      (home / name).write_bytes(sound[name])

  return Target(make, read, 40)


def _signed_cache(info: rlds.Info, folder: Path) -> Target:
  """The cache's index is damaged under a checksum that is right."""
  home = _copy_of_cache(info, rlds.Selection(lazy=True), folder / "signed")
  document = json.loads(json.loads((home / "index.json").read_text())["content"])

  def make(rng: random.Random) -> bytes:
    text = mutate.document(rng, [document]).decode(errors="replace")
    return json.dumps({"content": text, "crc32c": google_crc32c.value(text.encode())}).encode()

  def read(content: bytes) -> None:
    (home / "index.json").write_bytes(content)
    _touch(home)

  return Target(make, read, 25)


def _copy_of_cache(info: rlds.Info, selection: rlds.Selection, target: Path) -> Path:
  cache.open(info, selection=selection)
  shutil.copytree(cache.folder(info, selection=selection), target)
  return target


def _touch(home: Path) -> None:
  """Opens a cache and looks at every column."""
  episodes = columnar.read(home)
  rows = np.asarray(episodes.rows)
  if len(rows) and (rows.min() < 0 or rows.max() >= episodes.num_steps):
    raise ValueError("rows point outside")
  episodes.reward[rows[:4]]


def _same(a: bytes, b: bytes) -> bool:
  """Whether two JSON files say the same."""
  return json.loads(a) == json.loads(b)

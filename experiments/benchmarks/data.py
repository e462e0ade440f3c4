"""Reading RLDS datasets, beside what memory allows."""

import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

from experiments.benchmarks import fake, measure
from experiments.benchmarks.measure import Row
from ilx import data
from ilx.data import example, rlds, shards

READ_BAR, PARSE_BAR = 10e6, 25.0


def run(quick: bool) -> list[Row]:
  """Whole episodes from ArrayRecord and TFRecord, and the parser alone."""
  rounds = 2 if quick else 9
  episodes = fake.episodes(20 if quick else 1000)
  with _on_disk(episodes) as folders:
    return _reading(folders, episodes, rounds) + _parsing(folders["ArrayRecord"], 0.02 if quick else 0.2, rounds)


@contextmanager
def _on_disk(episodes: data.Episodes) -> Iterator[dict[str, Path]]:
  """The episodes as two temporary datasets, by format."""
  with tempfile.TemporaryDirectory(prefix="ilx-benchmark-") as folder:
    path = fake.record(episodes, folder, "array_record")
    yield {"ArrayRecord": path, "TFRecord": _as_tfrecord(path, Path(folder) / "tfrecord/1.0.0")}


def _as_tfrecord(source: Path, target: Path) -> Path:
  """The same dataset with TFRecord shards, which ilx reads but does not write."""
  target.mkdir(parents=True)
  info = json.loads((source / "dataset_info.json").read_text())
  info |= {"name": "tfrecord", "fileFormat": "tfrecord"}
  (target / "dataset_info.json").write_text(json.dumps(info))
  (target / "features.json").write_text((source / "features.json").read_text())
  pairs = zip(rlds.read_info(source).splits["train"].files, rlds.read_info(target).splits["train"].files, strict=True)
  lengths = rlds.read_info(source).splits["train"].lengths
  for (before, after), length in zip(pairs, lengths, strict=True):
    with after.open("wb") as file:
      file.writelines(map(shards.frame_tfrecord, shards.read(before, "array_record", length)))
  return target


def _reading(folders: dict[str, Path], episodes: data.Episodes, rounds: int) -> list[Row]:
  steps = episodes.num_steps
  columns = [np.asarray(x) for x in jax.tree.leaves(episodes.replace(starts=None, rows=None))]
  copies = [np.copy(x) for x in columns]
  held: list[list[np.ndarray]] = []
  info = rlds.read_info(folders["ArrayRecord"])
  (file,), (length,) = info.splits["train"]

  def load(folder: Path) -> float:
    return float(data.load(folder).num_steps)

  def copy() -> float:
    for target, source in zip(copies, columns, strict=True):
      np.copyto(target, source)
    return float(steps)

  def fresh() -> float:
    # What a reader's result takes beyond the copy: pages that the system must find first.
    held.append([np.copy(x) for x in columns])
    held.clear()
    return float(steps)

  def records() -> float:
    for _ in shards.read(file, "array_record", length):
      pass
    return float(steps)

  def contents() -> float:
    for path in rlds.read_info(folders["TFRecord"]).splits["train"].files:
      path.read_bytes()
    return float(steps)

  calls = {name: functools.partial(load, folder) for name, folder in folders.items()}
  calls |= {
    "copy": copy,
    "fresh": fresh,
    "records": records,
    "contents": contents,
    "tfds": _tfds(folders["ArrayRecord"]),
  }
  for call in calls.values():
    call()
  times = measure.interleave(calls, rounds)
  rows = []
  for name, second in (("ArrayRecord", "records"), ("TFRecord", "contents")):
    beside = {"copy": "np.copyto of the columns", second: f"{name} read, not parsed"}
    if name == "ArrayRecord":
      beside |= {"fresh": "np.copy into fresh memory", "tfds": "TFDS' own reading"}
    rows += [
      measure.row(
        f"read {name}",
        times[name],
        "steps/s",
        limit,
        times[key],
        bar=READ_BAR if key == "copy" else None,
        note="by processor time: on one core; the files are in the page cache" if key == "copy" else "",
      )
      for key, limit in beside.items()
    ]
  # Apart, since its threads would take time from what else is measured.
  calls = {"TFRecord": functools.partial(load, folders["TFRecord"]), "tf.data": _tf_data(folders["TFRecord"])}
  times = measure.interleave(calls, rounds)
  return [
    *rows,
    measure.row("read TFRecord", times["TFRecord"], "steps/s", "tf.data, whole episodes", times["tf.data"]),
  ]


def _tfds(folder: Path, count: int = 2) -> Callable[[], float]:
  """Reads ``count`` episodes step by step, as TFDS offers them without TensorFlow."""
  import tensorflow_datasets as tfds

  source = tfds.builder_from_directory(str(folder)).as_data_source("train")
  return lambda: float(sum(len(list(source[index]["steps"])) for index in range(count)))


def _tf_data(folder: Path) -> Callable[[], float]:
  """Reads all episodes by TensorFlow's pipeline, the steps of each as one batch."""
  import tensorflow_datasets as tfds

  episodes = tfds.builder_from_directory(str(folder)).as_dataset(split="train")
  whole = episodes.flat_map(lambda episode: episode["steps"].batch(fake.EPISODE)).prefetch(2)
  return lambda: float(sum(len(steps["reward"]) for steps in whole.as_numpy_iterator()))


def _parsing(folder: Path, seconds: float, rounds: int) -> list[Row]:
  import tensorflow_datasets as tfds

  info = rlds.read_info(folder)
  count = min(20, info.splits["train"].num_episodes)
  records = [record for _, record in rlds.read_records(info, f"train[:{count}]")]
  buffers = [np.frombuffer(record, np.uint8) for record in records]
  target = np.empty(max(map(len, records)), np.uint8)
  reference = tfds.builder_from_directory(str(folder)).info.features

  def parse(n: int) -> None:
    for index in range(n):
      example.parse(records[index % len(records)])

  def copy(n: int) -> None:
    for index in range(n):
      buffer = buffers[index % len(buffers)]
      np.copyto(target[: len(buffer)], buffer)

  def parse_tfds(n: int) -> None:
    for index in range(n):
      reference.deserialize_example_np(records[index % len(records)])

  calls = {"parse": parse, "copy": copy, "tfds": parse_tfds}
  times = measure.interleave({name: measure.repeated(call, seconds) for name, call in calls.items()}, rounds)
  name, note = f"parse one episode of {fake.EPISODE} steps", f"{len(records[0]):,} bytes, in the processor's cache"
  return [
    measure.row(name, times["parse"], "us", "np.copyto of its bytes", times["copy"], bar=PARSE_BAR, note=note),
    measure.row(name, times["parse"], "us", "TFDS' own parser", times["tfds"]),
  ]

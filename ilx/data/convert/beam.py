"""From a source of recordings to an RLDS dataset on Apache Beam: many processes or machines, the same bytes."""

import functools
import hashlib
import json
import os
import socket
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ilx.data import features, files, folder, rlds, shards, unfinished
from ilx.data.convert import plan as plan_lib
from ilx.data.convert.plan import Head, Plan, Read
from ilx.data.convert.source import Source
from ilx.data.convert.write import Skipped, checked, described, named, prepare, warn

_TOKEN = "token"


def write(
  source: Source,
  directory: str | os.PathLike | None = None,
  *,
  name: str | None = None,
  version: str = "1.0.0",
  metadata: Mapping[str, Any] | None = None,
  episodes_per_shard: int = 1000,
  skip_damaged: bool = False,
  image_format: str | None = None,
  pipeline_options: Any = None,
) -> Path:
  """``convert.write.write`` on Apache Beam: the same dataset byte for byte, written by many workers.

  A Beam runner goes over failed parts again by itself; a run that is killed starts over, and removes what it left.

  Args:
    source: the recordings; picklable, its files reachable by all workers.
    directory: see ``convert.write.write``; a folder that this machine and all workers share under the same path.
    name: see ``convert.write.write``.
    version: see ``convert.write.write``.
    metadata: see ``convert.write.write``.
    episodes_per_shard: see ``convert.write.write``.
    skip_damaged: see ``convert.write.write``.
    image_format: see ``convert.write.write``.
    pipeline_options: Beam's flags, such as ``["--runner=FlinkRunner", "--flink_master=host:8081"]`` or
      ``["--direct_running_mode=multi_processing", "--direct_num_workers=8"]``, or its ``PipelineOptions``; by default
      one process here.

  Returns:
    The dataset's folder.

  Raises:
    ModuleNotFoundError: without apache-beam.
    FileExistsError: where the dataset is already there.
    RuntimeError: where another process writes it.
    ValueError: as ``convert.write.write``, or where any unfinished recording is in the way. What fails on a worker is
      raised as the runner tells it, with the text of the error, which names the episode.
  """
  total, merged = checked(source, metadata)
  name = name or source.name
  folder.check_options(name, version, "train", episodes_per_shard, image_format)
  path = Path(rlds.root() if directory is None else directory).expanduser().absolute() / name / version
  options = _options(pipeline_options)
  with unfinished.built(path) as staging:
    token = uuid.uuid4().hex
    (staging / _TOKEN).write_text(token)
    check = functools.partial(_check_reachable, str(staging), token)
    read = functools.partial(_read, source, name, version, image_format, skip_damaged, check)
    plan = functools.partial(plan_lib.make, source.name, episodes_per_shard, skip_damaged, str(staging))
    shard = functools.partial(_write_shard, str(staging), name, check)
    _run(options, total, read, plan, shard)
    _describe(staging, name, version, source, merged, episodes_per_shard)
  warn(source)
  return path


def _options(given: Any) -> Any:
  try:
    from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f'{error}; writing on Beam needs it: pip install "ilx[beam]"') from None
  if isinstance(given, PipelineOptions):
    return given
  options = PipelineOptions(list(given or []))
  if options.view_as(SetupOptions).save_main_session is None:
    # The calling script's variables are not needed, and often cannot be pickled.
    options.view_as(SetupOptions).save_main_session = False
  return options


def _run(options: Any, total: int, read: Any, plan: Any, shard: Any) -> None:
  import apache_beam as beam

  with beam.Pipeline(options=options) as pipeline:
    episodes = pipeline | "Number" >> beam.Create(range(total)) | beam.Reshuffle() | "Read" >> beam.FlatMap(read)
    heads = episodes | "Head" >> beam.Map(lambda episode: episode[0]) | beam.combiners.ToList()
    kinds = episodes | "Features" >> beam.FlatMap(_kind) | beam.Distinct()
    planned = heads | "Plan" >> beam.Map(plan, kinds=beam.pvalue.AsDict(kinds))
    _ = (
      episodes
      | "Place" >> beam.FlatMap(plan_lib.place, plan=beam.pvalue.AsSingleton(planned))
      | beam.GroupByKey()
      | "Write" >> beam.Map(shard, plan=beam.pvalue.AsSingleton(planned))
    )


def _check_reachable(staging: str, token: str) -> None:
  try:
    found = (Path(staging) / _TOKEN).read_text()
  except OSError:
    found = ""
  if found != token:
    raise FileNotFoundError(
      f"{staging} cannot be reached by the worker on {socket.gethostname()}: "
      "choose a directory that all workers share with the machine that starts the pipeline"
    )


def _read(
  source: Source, name: str, version: str, image_format: str | None, skip_damaged: bool, check: Any, index: int
) -> Iterator[Read]:
  """An episode as (head, features as JSON, record)."""
  check()
  try:
    prepared = prepare(source, index, image_format)
    folder.check_names(name, version, prepared.split)
  except ValueError as error:
    if not skip_damaged:
      raise named(error, source, index) from error
    yield Skipped(index, str(error)), "", b""
    return
  encoded = prepared.encoded
  text = json.dumps(features.to_json(encoded.features), sort_keys=True)
  kind = hashlib.sha256(text.encode()).hexdigest()
  head = Head(index, prepared.split, kind, encoded.num_transitions, encoded.total_reward, len(encoded.record))
  yield head, text, encoded.record


def _kind(episode: Read) -> Iterator[tuple[str, str]]:
  if isinstance(episode[0], Head):
    yield episode[0].kind, episode[1]


def _write_shard(
  staging: str,
  name: str,
  check: Any,
  group: tuple[tuple[str, int], Iterable[tuple[int, bytes]]],
  plan: Plan,
) -> None:
  """Writes one file; its episodes come in any order, and may be more than fit into memory."""
  check()
  (split, shard), episodes = group
  count = len(folder.shard_lengths(len(plan.indices[split]), plan.episodes_per_shard))
  with tempfile.TemporaryFile(dir=staging) as spool:
    places = []
    for index, content in episodes:
      places.append((index, spool.tell(), len(content)))
      spool.write(content)
    path = Path(staging) / folder.shard_name(name, split, shard, count)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
      shards.write_array_record(temporary, _ordered(spool, places))
      temporary.replace(path)
    finally:
      temporary.unlink(missing_ok=True)


def _ordered(spool: Any, places: Sequence[tuple[int, int, int]]) -> Iterator[bytes]:
  for _, offset, size in sorted(places):
    spool.seek(offset)
    yield spool.read(size)


def _describe(
  staging: Path, name: str, version: str, source: Source, merged: dict[str, Any], episodes_per_shard: int
) -> None:
  about = files.read_json(staging / plan_lib.FILE)
  skipped = [Skipped(*episode) for episode in about["skipped"]]
  if not about["returns"]:
    raise ValueError(f"{source.name}: all {len(skipped)} episodes are damaged; the first: {skipped[0].reason}")
  splits = {}
  for split, episodes in about["splits"].items():
    lengths = folder.shard_lengths(len(episodes), episodes_per_shard)
    for shard in range(len(lengths)):
      path = staging / folder.shard_name(name, split, shard, len(lengths))
      if not path.is_file():
        raise FileNotFoundError(f"{path} was not written; do all workers share this folder?")
    splits[split] = folder.Shards(lengths, sum(size for _, size in episodes))
  metadata = described(merged, np.array(about["returns"]), about["num_transitions"], skipped)
  for file in (*staging.glob(f"{plan_lib.FILE}*"), staging / _TOKEN):
    file.unlink()
  folder.describe(staging, name, version, splits, features.from_json(about["features"]), metadata)

"""Shuffled minibatches of transitions and windows from every tier, beside indexing arrays whose rows are known."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from experiments.benchmarks import fake, measure
from experiments.benchmarks.measure import Row
from ilx import data
from ilx.data import cache, host, rlds, stream

MEMORY_BAR, MAPPED_BAR, WINDOWS_BAR = 2e6, 1e6, 50e3
BATCH, WINDOW = 256, 20


def run(quick: bool) -> list[Row]:
  """Batches of 256 transitions from memory, a memory map, a stream and the device; windows of 20 from memory."""
  rounds, seconds = (2, 0.05) if quick else (9, 0.5)
  episodes = fake.episodes(20 if quick else 1000)
  with tempfile.TemporaryDirectory(prefix="ilx-benchmark-") as folder:
    path = fake.record(episodes, folder, "batches")
    return _transitions(episodes, path, seconds, rounds) + _windows(episodes, seconds, rounds)


def _transitions(episodes: data.Episodes, path: Path, seconds: float, rounds: int) -> list[Row]:
  view, key = data.Transitions(), jax.random.key(0)
  drawn = np.random.default_rng(0).choice(episodes.rows, (1024, BATCH))

  def indexing(n: int) -> None:
    for index in range(n):
      rows = drawn[index % len(drawn)]
      for column in (episodes.observation, episodes.action, episodes.reward, episodes.discount):
        column[rows]
      for column in (episodes.observation, episodes.is_terminal):
        column[rows + 1]

  @jax.jit
  def program(episodes, key, n):
    # The batch is what the loop carries, so that none is left out.
    def body(i, batch):
      del batch
      return view.sample(jax.random.fold_in(key, i), episodes, BATCH)

    return jax.lax.fori_loop(0, n, body, view.sample(key, episodes, BATCH))

  on_device = jax.device_put(episodes)

  def device(n: int) -> None:
    jax.block_until_ready(program(on_device, key, n))

  calls = {
    "host memory": _next(host.batches(view, episodes, BATCH, key)),
    "memory map": _next(host.batches(view, cache.open(path), BATCH, key)),
    "device memory": device,
    "indexing": indexing,
  }
  bars = {"host memory": MEMORY_BAR, "memory map": MAPPED_BAR, "device memory": MEMORY_BAR}
  row = functools.partial(measure.row, unit="steps/s", note=f"transitions in batches of {BATCH}")
  limit = "numpy indexing, rows known"
  times = _times(calls, seconds, rounds)
  rows = [
    row(f"batches, {tier}", times[tier], limit=limit, limit_seconds=times["indexing"], bar=bar)
    for tier, bar in bars.items()
  ]
  # Streams make batches ahead in threads of their own, which would take time from what else is measured.
  for beside, make in ((limit, lambda: indexing), ("tf.data, the same files", lambda: _next(_tf_data(path)))):
    streamed = stream.open(path).batches(view, BATCH, seed=0)
    times = _times({"stream": _next(streamed), "beside": make()}, seconds, rounds)
    streamed.close()
    rows.append(row("batches, stream", times["stream"], limit=beside, limit_seconds=times["beside"]))
  return rows


def _times(calls: dict[str, Callable[[int], None]], seconds: float, rounds: int) -> dict[str, measure.Seconds]:
  return measure.interleave({name: measure.repeated(call, seconds, work=BATCH) for name, call in calls.items()}, rounds)


def _windows(episodes: data.Episodes, seconds: float, rounds: int) -> list[Row]:
  view = data.Windows(WINDOW)
  prepared = view.prepare(episodes)
  drawn = np.random.default_rng(0).choice(episodes.num_steps - WINDOW, (1024, BATCH))[..., None] + np.arange(WINDOW)

  def indexing(n: int) -> None:
    for index in range(n):
      rows = drawn[index % len(drawn)]
      for column in (episodes.observation, episodes.action, episodes.reward, episodes.discount, episodes.is_terminal):
        column[rows]

  calls = {"windows": _next(host.batches(view, prepared, BATCH, jax.random.key(0))), "indexing": indexing}
  times = _times(calls, seconds, rounds)
  name, limit = f"windows of {WINDOW}, host memory", "numpy indexing, rows known"
  return [measure.row(name, times["windows"], "windows/s", limit, times["indexing"], bar=WINDOWS_BAR)]


def _next(batches: Iterator) -> Callable[[int], None]:
  def call(n: int) -> None:
    for _ in range(n):
      next(batches)

  return call


def _tf_data(path: Path) -> Iterator:
  """The usual pipeline: records parsed step by step, a shuffle buffer over transitions, batches."""
  import tensorflow as tf
  import tensorflow_datasets as tfds

  info = rlds.read_info(path)
  features = tfds.builder_from_directory(str(path)).info.features
  records = tf.data.Dataset.from_generator(
    lambda: (record for _, record in rlds.read_records(info, "train")), output_signature=tf.TensorSpec((), tf.string)
  )

  def transitions(record: tf.Tensor) -> tf.data.Dataset:
    steps = features.deserialize_example(record)["steps"]
    return tf.data.Dataset.zip(steps, steps.skip(1).map(lambda step: step["observation"]))

  shuffled = records.interleave(transitions, num_parallel_calls=tf.data.AUTOTUNE).repeat().shuffle(100_000)
  return shuffled.batch(BATCH).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()

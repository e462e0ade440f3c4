"""Streaming: what loading gives, every item once an epoch, the same bits after a resume and on any number of hosts."""

import collections
import dataclasses
import gc
import io
import itertools
import threading
import time
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from PIL import Image

from ilx.data import (
  Recorder,
  Transitions,
  Windows,
  dividing,
  episode,
  load,
  mixture,
  reading,
  rlds,
  sampling,
  sources,
  stream,
  transitions,
)
from ilx.data.images import Images
from ilx.data.memo import Memo

LENGTHS = [3, 1, 7, 5, 2, 9, 4, 1, 6, 8, 3, 5]


def write(root, lengths=LENGTHS, name="small", first=0):
  """Episode e's step t has the observation [first + e, t]."""
  with Recorder(root, name=name, episodes_per_shard=5) as recorder:
    for number, length in enumerate(lengths):
      steps = np.arange(length + 1)
      observation = np.stack([np.full(length + 1, first + number), steps], axis=1).astype(np.float32)
      recorder.add(episode(observation, observation[:-1] + 0.5, steps[1:] * 10.0, terminal=number % 2 == 0))
  return recorder.path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  return write(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch):
  """The datasets here have a few dozen items; made 64 at once, batches would reach over a hundred epochs."""
  monkeypatch.setattr(reading, "_GROUP", 4)


class Pair(NamedTuple):
  now: Any
  later: Any


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Observations ``gap`` steps apart, from every ``stride``-th step."""

  gap: int = 4
  stride: int = 2

  def starts(self, length):
    return np.arange(0, max(0, length - self.gap + 1), self.stride)

  def prepare(self, episodes):
    rows = [start + self.starts(stop - start - 1) for start, stop in itertools.pairwise(episodes.starts)]
    return episodes.replace(rows=np.concatenate(rows).astype(np.int32))

  def take(self, episodes, rows):
    return Pair(episodes.observation[rows], episodes.observation[rows + self.gap])


def take(batches, count):
  with batches:
    return list(itertools.islice(batches, count))


def keys(batch):
  """(episode, step) of the items."""
  observation = batch.now if isinstance(batch, Pair) else batch.observation
  return list(map(tuple, observation.astype(int).tolist()))


def assert_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_describes_the_dataset_without_reading_it(dataset):
  found = stream.open(dataset)
  assert (found.num_episodes, found.num_transitions) == (12, sum(LENGTHS))
  np.testing.assert_array_equal(found.index.length, LENGTHS)
  assert found.info.name == "small"
  np.testing.assert_array_equal(found.read([3]).observation[:, 0], [3] * 6)


def test_items_are_what_loading_gives(dataset):
  loaded = load(dataset)
  for batch in take(stream.open(dataset).batches(Transitions(), 6, seed=0), 9):
    rows = [loaded.starts[e] + t for e, t in keys(batch)]
    assert_equal(batch, transitions(loaded, np.array(rows)))


def test_pictures_stay_encoded_until_they_are_in_a_batch(tmp_path):
  rng = np.random.default_rng(0)
  with Recorder(tmp_path, name="pictures") as recorder:
    for number in range(6):
      pixels = rng.integers(0, 256, (4, 8, 6, 3), np.uint8)
      contents = []
      for picture in pixels:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "png")
        contents.append(file.getvalue())
      observation = {"camera": Images.of(contents, (8, 6, 3)), "place": np.stack([np.full(4, number), np.arange(4)], 1)}
      recorder.add(episode(observation, np.zeros((3, 2)), np.zeros(3), terminal=True))
  loaded, opened = load(recorder.path), stream.open(recorder.path)
  assert isinstance(opened.read([0]).observation["camera"], Images)
  for batch in take(opened.batches(Transitions(), 6, seed=0), 6):
    rows = [loaded.starts[e] + t for e, t in batch.observation["place"].tolist()]
    assert_equal(batch, transitions(loaded, np.array(rows)))


@pytest.mark.parametrize(
  ("view", "batch_size"), [(Transitions(), 6), (Transitions(), 1), (Pairs(), 5), (Pairs(8, 1), 3)]
)
def test_every_epoch_has_every_item_once(dataset, view, batch_size):
  items = [(e, t) for e, length in enumerate(LENGTHS) for t in view.starts(length)]
  assert len(items) % batch_size == 0 or view != Transitions()
  epochs = 2 * batch_size  # as many batches as there are items, twice
  for streams in {1, batch_size}:
    batches = stream.open(dataset).batches(view, batch_size, seed=1, streams=streams)
    found = collections.Counter(key for batch in take(batches, 2 * len(items)) for key in keys(batch))
    assert found == dict.fromkeys(items, epochs)


def test_a_part_of_a_split_and_many_more_streams_than_episodes(tmp_path):
  path = write(tmp_path, [4, 2, 3])
  batches = stream.open(path, "train[:2]").batches(Transitions(), 32, seed=0, streams=32)
  found = collections.Counter(key for batch in take(batches, 3) for key in keys(batch))
  assert found == dict.fromkeys([(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)], 16)


@pytest.mark.parametrize("group_bytes", [1, 500, 1 << 20])
def test_resuming_anywhere_gives_the_same_bits(dataset, monkeypatch, group_bytes):
  monkeypatch.setattr(reading, "_GROUP_BYTES", group_bytes)
  opened = stream.open(dataset)
  whole = take(opened.batches(Transitions(), 8, seed=5), 20)
  for start in (0, 1, 7, 19):
    assert_equal(take(opened.batches(Transitions(), 8, seed=5, start=start), 20 - start), whole[start:])
  with opened.batches(Transitions(), 8, seed=5) as batches:
    list(itertools.islice(batches, 5))
    state = batches.get_state()
    assert state == {"next_index": 5} and batches.position == 5
    list(itertools.islice(batches, 4))
    for position in (5, 3, 15):  # back and forth
      batches.set_state({"next_index": position})
      assert_equal(list(itertools.islice(batches, 5)), whole[position : position + 5])


def test_seeds_and_epochs_differ(dataset):
  opened = stream.open(dataset)
  one, other = (take(opened.batches(Transitions(), 6, seed=seed), 18) for seed in (0, 1))
  assert [keys(x) for x in one] != [keys(x) for x in other]
  assert [keys(x) for x in one[:9]] != [keys(x) for x in one[9:]]  # 54 items: 9 batches an epoch


def test_the_number_of_hosts_changes_nothing(dataset):
  opened = stream.open(dataset, weights=sampling.per_episode)
  options = {"seed": 2, "streams": 4}
  whole = take(opened.batches(Pairs(), 8, **options), 12)
  for start, hosts in ((0, 1), (0, 2), (5, 4), (9, 2)):  # also one run, whose number of hosts changes
    parts = [take(opened.batches(Pairs(), 8, host=(h, hosts), start=start, **options), 3) for h in range(hosts)]
    for expected, *found in zip(whole[start : start + 3], *parts, strict=True):
      assert_equal(jax.tree.map(lambda *x: np.concatenate(x), *found), expected)


def test_a_host_reads_its_own_blocks_alone(tmp_path, monkeypatch):
  path = write(tmp_path, [5] * 64)
  monkeypatch.setattr(reading, "_GROUP_BYTES", 1)
  opened, per_host = stream.open(path), []
  for host in range(2):
    seen = []
    with monkeypatch.context() as patch:
      original = reading.read
      patch.setattr(reading, "read", lambda s, n, seen=seen, original=original: seen.extend(n) or original(s, n))
      # Half an epoch, so that no stream is near the next.
      take(opened.batches(Transitions(), 8, seed=0, streams=4, host=(host, 2)), 20)
    per_host.append(seen)
  assert len(set(per_host[0]) & set(per_host[1])) <= 4 * 3  # blocks of 4 that lie on the 3 cuts
  assert len(per_host[0]) < 48 and len(per_host[1]) < 48


def test_blocks_are_read_once_whatever_the_threads(tmp_path, monkeypatch):
  path = write(tmp_path, [5] * 64)
  monkeypatch.setattr(reading, "_GROUP_BYTES", 1)  # many small groups, so that threads ask for the same blocks
  opened, original = stream.open(path), reading.read
  results = []
  for threads in (1, 4):
    reads = collections.Counter()

    def counted(sources, numbers, reads=reads):
      reads[tuple(numbers)] += 1
      time.sleep(0.002)
      return original(sources, numbers)

    monkeypatch.setattr(reading, "read", counted)
    results.append(take(opened.batches(Transitions(), 8, seed=0, streams=2, threads=threads), 40))
    assert eventually(lambda: not running())
    # 320 items, an epoch: blocks on the two cuts of the ring are needed twice, at its begin and its end.
    assert sum(reads.values()) - len(reads) <= 2
  assert_equal(*results)


def test_no_more_is_held_than_what_streams_use_and_have_read(tmp_path):
  opened = stream.open(write(tmp_path, [5] * 64))
  with opened.batches(Transitions(), 8, seed=0, streams=4, threads=1) as batches:
    reader, held = batches._reader, []
    for _ in range(300):  # 7 epochs, 112 blocks
      next(batches)
      held.append((len(reader._blocks.keep(lambda _: True)), len(reader._pieces.keep(lambda _: True))))
  # How many are left over, in use and read ahead depends on the threads, up to the capacity: of 8 pieces in use at most
  # (a group of 8 items a stream reaches into two), twice as many, and one more for each of 4 streams.
  assert max(blocks for blocks, _ in held) <= 20 and max(pieces for _, pieces in held) <= 20
  assert min(blocks for blocks, _ in held[10:]) <= 9


def test_the_next_blocks_are_read_before_they_are_needed(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, "_GROUP", 1)
  opened = stream.open(write(tmp_path, [50] * 16))
  with opened.batches(Transitions(), 8, seed=0, streams=4) as batches:
    reader = batches._reader
    reader[0]
    pieces = [next(reader._schedule.spans(v, 0, 1)).piece for v in range(4)]
    pieces += [reader._schedule.after(piece) for piece in pieces]
    assert eventually(lambda: all(piece in reader._pieces.keep(lambda _: True) for piece in pieces))


def test_weights_are_shares_of_the_items(dataset):
  weights = np.array([0, 1, 2, 4] * 3)
  opened = stream.open(dataset, weights=weights)
  batches = take(opened.batches(Transitions(), 54, seed=0, streams=1), 100)
  found = collections.Counter(key for batch in batches for key in keys(batch))
  expected = {(e, t): weights[e] for e, length in enumerate(LENGTHS) for t in range(length) if weights[e]}
  assert set(found) == set(expected)
  scale = 54 * 100 / sum(expected.values())
  for key, weight in expected.items():
    assert abs(found[key] - weight * scale) < 0.5 * 5 * np.sqrt(100)


@pytest.mark.parametrize(("batch_size", "hosts"), [(20, 4), (100, 4), (24, 8), (200, 8), (1000, 8), (512, 32), (7, 1)])
def test_hosts_that_divide_a_batch_share_its_streams(dataset, batch_size, hosts):
  streams = dividing.default_streams(batch_size)
  assert batch_size % streams == 0 and streams % hosts == 0
  opened = stream.open(dataset)
  with opened.batches(Transitions(), batch_size, seed=0, host=(hosts - 1, hosts)) as batches:
    assert len(next(batches).action) == batch_size // hosts


@pytest.mark.parametrize("weights", [None, sampling.per_episode])
def test_few_items_are_read_once_and_shuffled(dataset, monkeypatch, weights):
  monkeypatch.setattr(reading, "_GROUP", 64)
  opened = stream.open(dataset, weights=weights)
  options = {"seed": -5, "streams": 4}
  whole = take(opened.batches(Transitions(), 8, **options), 54)
  loaded = load(dataset)
  for batch in whole[:5]:
    assert_equal(batch, transitions(loaded, np.array([loaded.starts[e] + t for e, t in keys(batch)])))
  drawn = [key for batch in whole for key in keys(batch)]
  if weights is None:
    for epoch in range(8):
      assert len(set(drawn[54 * epoch : 54 * epoch + 54])) == 54
  for start, hosts in ((0, 2), (17, 4), (53, 1)):
    parts = [take(opened.batches(Transitions(), 8, host=(h, hosts), start=start, **options), 1) for h in range(hosts)]
    assert_equal(jax.tree.map(lambda *x: np.concatenate(x), *(part[0] for part in parts)), whole[start])
  calls = []
  monkeypatch.setattr("ilx.data.small.read", lambda *x: calls.append(x) or sources.read(*x))
  take(opened.batches(Transitions(), 8, seed=0), 200)
  assert len(calls) == 1


def test_few_items_of_many_bytes_are_not_kept(dataset, monkeypatch):
  monkeypatch.setattr(reading, "_GROUP", 64)
  monkeypatch.setattr("ilx.data.small.read", lambda *_: pytest.fail("all were read"))
  take(stream.open(dataset).batches(Transitions(), 8, seed=0, buffer_bytes=1000), 3)


def test_episodes_that_take_more_than_the_buffer_are_told(tmp_path):
  opened = stream.open(write(tmp_path, [40] * 64))
  with pytest.warns(
    UserWarning,
    match=r"each of 16 streams take about .* KiB, of which .* KiB on this host: more than twice buffer_bytes=1000\.0 B",
  ):
    take(opened.batches(Transitions(), 32, seed=0, buffer_bytes=1000, host=(1, 4)), 1)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    take(opened.batches(Transitions(), 32, seed=0), 1)


def test_one_transition_is_as_quick_as_many(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, "_GROUP", 64)
  opened = stream.open(write(tmp_path, [1]), weights=[2.0])
  began = time.perf_counter()
  take(opened.batches(Transitions(), 256, seed=0, start=10**6), 200)
  assert time.perf_counter() - began < 2


def _shares(found, edges):
  """Of the items whose episode's number is below each edge, and not below the one before."""
  return np.histogram(found, [0, *edges])[0] / len(found)


@pytest.mark.parametrize("view", [Transitions(), Windows(3, padding=None)])
@pytest.mark.parametrize("shares", [None, {"one": 1, "other": 3}])
def test_shares_are_those_of_data_in_memory(tmp_path, view, shares):
  paths = {
    "one": write(tmp_path, [9] * 10 + [2] * 10, name="one"),
    "other": write(tmp_path, [5, 3] * 8, name="other", first=100),
  }
  weights = {"one": np.array([1, 7] * 10), "other": np.array([0, 0, 1, 4] * 4)}
  streams = {name: stream.open(path, weights=weights[name]) for name, path in paths.items()}
  drawn = take(stream.mixture(streams, shares).batches(view, 32, seed=0), 400)
  episodes = {name: sampling.weighted(load(path), weights[name]) for name, path in paths.items()}
  prepared = view.prepare(mixture(episodes, shares))
  rows = np.asarray(prepared.rows)[sampling.positions_many(jax.random.key(0), prepared, 0, 4, 5000)]
  expected = np.asarray(prepared.observation)[rows.ravel(), 0]
  found = np.concatenate([view_episodes(batch) for batch in drawn])
  edges = [10, 20, 100, 104, 108, 112, 200]
  np.testing.assert_allclose(_shares(found, edges), _shares(expected, edges), atol=0.02)
  if shares:
    assert abs(np.mean(found >= 100) - 0.75) < 0.02


def view_episodes(batch):
  """The number of the episode of each item."""
  observation = batch.observation
  return observation.reshape(len(observation), -1)[:, 0]


def test_statistics_of_a_mixture_are_of_what_has_them(dataset, tmp_path):
  opened = stream.open(dataset)
  (source,) = opened.sources
  without = source.index._replace(statistics={"observation": source.index.statistics["observation"]})
  for order in (1, -1):
    parts = {
      name: stream.Stream((source._replace(index=index),))
      for name, index in (("a", source.index), ("b", without))[::order]
    }
    found = stream.mixture(parts).index.statistics
    assert found["action"].count == source.index.statistics["action"].count
    assert found["observation"].count == 2 * source.index.statistics["observation"].count


def test_episodes_by_return_or_function(dataset):
  best = stream.open(dataset, weights=sampling.top_return(0.1))  # 9 steps and 450 of return
  assert {e for batch in take(best.batches(Transitions(), 4, seed=0), 10) for e, _ in keys(batch)} == {5}


def test_a_mixture_has_the_shares_asked_for(tmp_path):
  one = write(tmp_path, [5] * 20, name="one")
  other = write(tmp_path, [2] * 10, name="other", first=100)
  streams = {"one": stream.open(one), "other": stream.open(other)}
  for weights, share in ((None, 20 / 120), ({"one": 1, "other": 3}, 0.75)):
    mixed = stream.mixture(streams, weights)
    assert (mixed.num_episodes, mixed.num_transitions) == (30, 120)
    batches = take(mixed.batches(Transitions(), 8, seed=0, streams=2), 600)
    found = collections.Counter(e >= 100 for batch in batches for e, _ in keys(batch))
    assert abs(found[True] / (8 * 600) - share) < 0.02
    for batch in batches[:20]:
      np.testing.assert_array_equal(batch.action, batch.observation + 0.5)
      np.testing.assert_array_equal(batch.next_observation - batch.observation, [[0, 1]] * 8)
  assert mixed.index.statistics["reward"].count == 120
  with pytest.raises(ValueError, match="mixture"):
    stream.mixture(streams, {"one": 1})
  with pytest.raises(ValueError, match="mixture"):
    stream.mixture({})
  more = stream.open(other, selection=rlds.Selection(extras=("is_last",)))
  with pytest.raises(ValueError, match="extras/is_last: absent in 'one', there in 'other'"):
    stream.mixture({"one": streams["one"], "other": more})


@pytest.mark.parametrize("formats", [("png", None), (None, "png")])
def test_a_mixture_of_pictures_stored_in_two_ways(tmp_path, formats):
  streams = {}
  for place, image_format in enumerate(formats):
    with Recorder(tmp_path, name=f"of{place}", image_format=image_format) as recorder:
      for number in range(4):
        pixels = np.full((4, 16, 16, 3), 10 * place + number, np.uint8)
        recorder.add(episode(pixels, np.full((3, 1), 10.0 * place + number), np.zeros(3), terminal=True))
    streams[str(place)] = stream.open(recorder.path)
  batch = take(stream.mixture(streams).batches(Transitions(), 24, seed=0, streams=1), 1)[0]
  np.testing.assert_array_equal(batch.observation[:, 0, 0, 0], batch.action[:, 0])
  assert len(np.unique(batch.action)) == 8


def test_weights_within_a_mixture_stay(tmp_path):
  one = write(tmp_path, [5] * 4, name="one")
  other = write(tmp_path, [2] * 4, name="other", first=100)
  mixed = stream.mixture(
    {"one": stream.open(one, weights=np.array([1, 0, 0, 0])), "other": stream.open(other)}, {"one": 1, "other": 1}
  )
  found = collections.Counter(
    e for batch in take(mixed.batches(Transitions(), 8, seed=0, streams=1), 300) for e, _ in keys(batch)
  )
  assert set(found) == {0, 100, 101, 102, 103}
  assert abs(found[0] / 2400 - 0.5) < 0.03


def test_mixed_columns_that_differ_are_refused(tmp_path):
  one = write(tmp_path, [3] * 4, name="one")
  with Recorder(tmp_path, name="other") as recorder:
    for _ in range(4):
      recorder.add(episode(np.zeros((4, 3)), np.zeros((3, 2)), np.zeros(3), terminal=True))
  streams = {"one": stream.open(one), "other": stream.open(recorder.path)}
  with pytest.raises(ValueError, match=r"observation: float32 \[2\] in 'one', float32 \[3\] in 'other'"):
    stream.mixture(streams)
  mixed = stream.Stream(tuple(x.sources[0] for x in streams.values()))
  with pytest.raises(ValueError, match="columns that differ"):
    take(mixed.batches(Transitions(), 8, seed=0, streams=1), 10)


def test_a_damaged_record_is_named_again_and_again(tmp_path):
  path = write(tmp_path)
  opened = stream.open(path)
  file = sorted(path.glob("*array_record*"))[1]
  content = bytearray(file.read_bytes())
  content[1000] ^= 1
  file.write_bytes(content)
  with rlds.open_split(rlds.read_info(path)) as records:
    for damaged in range(5, 10):
      try:
        records[damaged]
      except ValueError:
        break
  with opened.batches(Transitions(), 6, seed=0, streams=1) as batches:
    for _ in range(2):
      with pytest.raises(ValueError, match=rf"{file.name} is damaged.* at record {damaged - 5}"):
        list(itertools.islice(batches, 20))
      position = batches.position
    with pytest.raises(ValueError, match=file.name):
      next(batches)
    assert batches.position == position


def test_an_error_that_goes_away_costs_no_batch(dataset, monkeypatch):
  opened, original, calls = stream.open(dataset), reading.read, itertools.count()
  expected = take(opened.batches(Transitions(), 6, seed=0, streams=1), 12)

  def failing(sources, numbers):
    if next(calls) in range(3, 9):
      raise OSError("the network is away")
    return original(sources, numbers)

  monkeypatch.setattr(reading, "read", failing)
  found, failures = [], 0
  with opened.batches(Transitions(), 6, seed=0, streams=1) as batches:
    while len(found) < 12:
      try:
        found.append(next(batches))
      except OSError:
        failures += 1
  assert failures
  assert_equal(found, expected)


def test_a_record_that_makes_no_episode_is_named(tmp_path, monkeypatch):
  path = write(tmp_path)
  opened = stream.open(path)
  original = opened.sources[0].records

  class Torn:
    def __len__(self):
      return len(original)

    def __getitem__(self, index):
      file, record = original[index]
      return file, record[:-3] if index == 7 else record

    where = staticmethod(original.where)

  torn = stream.Stream((opened.sources[0]._replace(records=Torn()),))
  with pytest.raises(ValueError, match=r"00001-of-00003: episode 7 of split 'train': .*\(record 2 of the file\)"):
    take(torn.batches(Transitions(), 6, seed=0), 20)


def running():
  return {thread.name for thread in threading.enumerate() if thread.name.startswith(("ilx-stream", "grain-prefetch"))}


def eventually(condition):
  deadline = time.monotonic() + 10
  while not condition() and time.monotonic() < deadline:
    time.sleep(0.01)
  return condition()


@pytest.mark.parametrize("how", ["close", "forget"])
def test_threads_end(dataset, how):
  assert eventually(lambda: not running())
  batches = stream.open(dataset).batches(Transitions(), 6, seed=0)
  next(batches)
  assert running()
  if how == "close":
    batches.close()
    batches.close()
    with pytest.raises(StopIteration):
      next(batches)
  del batches
  gc.collect()
  assert eventually(lambda: not running())


def test_wrong_sizes_are_refused(dataset, tmp_path):
  opened = stream.open(dataset)
  for options, message in (
    ({"streams": 4}, "no multiple of streams=4"),
    ({"host": (0, 2), "streams": 3}, "3 streams do not divide among 2 hosts; pass streams=2"),
    ({"host": (0, 4)}, "batch_size=6 does not divide among 4 hosts"),
    ({"host": (2, 2)}, "host 2 of 2"),
    ({"start": -1}, "start=-1"),
    ({"threads": 0}, "threads=0"),
  ):
    with pytest.raises(ValueError, match=message):
      opened.batches(Transitions(), 6, **({"seed": 0} | options))
  with pytest.raises(ValueError, match="no item is left"):
    opened.batches(Pairs(gap=30), 6, seed=0)
  with pytest.raises(ValueError, match="every episode with weight is too short"):
    stream.open(dataset, weights=np.arange(12) == 1).batches(Pairs(), 6, seed=0)
  for numbers in ([], [-1], [12], [0.5]):
    with pytest.raises(ValueError, match=r"read: episodes .*from 0 to 11"):
      opened.read(numbers)
  with pytest.raises(ValueError, match="weights"):
    stream.open(dataset, weights=np.ones(3))


def test_a_kept_batch_is_its_own(dataset):
  with stream.open(dataset).batches(Transitions(), 6, seed=0) as batches:
    first, second = next(batches), next(batches)
    expected = second.observation.copy()
    first.observation[:] = -1
    assert first.observation.base is None or first.observation.base.size == first.observation.size
    np.testing.assert_array_equal(second.observation, expected)


def test_memo_works_out_once_forgets_the_oldest_and_keeps_no_errors():
  memo, made, gate = Memo(2), [], threading.Event()

  def make(key):
    gate.wait(5)
    made.append(key)
    return key

  found = []
  threads = [threading.Thread(target=lambda: found.append(memo.get("a", lambda: make("a")))) for _ in range(8)]
  for thread in threads:
    thread.start()
  gate.set()
  for thread in threads:
    thread.join()
  assert made == ["a"] and found == ["a"] * 8
  memo.get("b", lambda: make("b"))
  assert memo.touch("a")
  memo.get("c", lambda: make("c"))
  assert memo.touch("a") and memo.touch("c") and not memo.touch("b")
  with pytest.raises(ZeroDivisionError):
    memo.get("d", lambda: 1 / 0)
  assert memo.get("d", lambda: 4) == 4

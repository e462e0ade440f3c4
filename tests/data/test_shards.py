"""Record files of every kind: from front to end, any record alone, and damage that is always told."""

import gzip
import io
import os
import random
import resource
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from array_record.python import array_record_module
from hypothesis import given, settings
from hypothesis import strategies as st

from ilx.data import shards, tfrecord

_RNG = np.random.default_rng(0)
RECORDS = [_RNG.bytes(int(n)) + b"ab" * int(n) for n in _RNG.integers(0, 3000, 25)]
RECORDS[3] = b""


def _tfrecord(path, records):
  path.write_bytes(b"".join(map(shards.frame_tfrecord, records)))


def _gzip(path, records):
  path.write_bytes(gzip.compress(b"".join(map(shards.frame_tfrecord, records))))


def _gzip_members(path, records):
  path.write_bytes(b"".join(gzip.compress(shards.frame_tfrecord(record)) for record in records))


def _zlib(path, records):
  path.write_bytes(zlib.compress(b"".join(map(shards.frame_tfrecord, records))))


def _array_record(options):
  def write(path, records):
    writer = array_record_module.ArrayRecordWriter(str(path), options)
    for record in records:
      writer.write(record)
    writer.close()

  return write


WRITERS = {
  "tfrecord": _tfrecord,
  "tfrecord gzip": _gzip,
  "tfrecord gzip members": _gzip_members,
  "tfrecord zlib": _zlib,
  "array_record snappy": _array_record("group_size:1,snappy"),
  "array_record zstd": _array_record("group_size:1,zstd:3"),
  "array_record brotli groups": _array_record("group_size:7,brotli:2"),
  "array_record plain": _array_record("group_size:3,uncompressed"),
}
EVERY = pytest.mark.parametrize("kind", WRITERS)


def make(folder, kind, records=RECORDS):
  path = folder / "file"
  WRITERS[kind](path, records)
  return path, kind.split()[0]


@EVERY
def test_front_to_end(tmp_path, kind):
  path, file_format = make(tmp_path, kind)
  assert list(shards.read(path, file_format, len(RECORDS))) == RECORDS


@EVERY
@pytest.mark.parametrize(("start", "stop"), [(0, 5), (7, 20), (20, None), (24, 25), (5, 5), (25, None)])
def test_a_part(tmp_path, kind, start, stop):
  path, file_format = make(tmp_path, kind)
  assert list(shards.read(path, file_format, len(RECORDS), start, stop)) == RECORDS[start:stop]


@EVERY
def test_any_record(tmp_path, kind):
  path, file_format = make(tmp_path, kind)
  with shards.open(path, file_format, len(RECORDS)) as reader:
    assert len(reader) == len(RECORDS)
    for index in random.Random(0).choices(range(-25, 25), k=60):
      assert reader[index] == RECORDS[index]
    for index in (25, -26):
      with pytest.raises(IndexError, match=f"record {index} of 25"):
        reader[index]
  with pytest.raises(ValueError, match="closed"):
    reader[0]


@EVERY
def test_from_several_threads(tmp_path, kind):
  path, file_format = make(tmp_path, kind)
  wrong = []
  with shards.open(path, file_format, len(RECORDS)) as reader:

    def work(seed):
      for index in random.Random(seed).choices(range(25), k=200):
        if reader[index] != RECORDS[index]:
          wrong.append(index)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert not wrong


@EVERY
def test_no_records_at_all(tmp_path, kind):
  path, file_format = make(tmp_path, kind, [])
  assert list(shards.read(path, file_format, 0)) == []
  with shards.open(path, file_format, 0) as reader:
    assert len(reader) == 0


@EVERY
@pytest.mark.parametrize("count", [24, 26])
def test_another_number_of_records(tmp_path, kind, count):
  path, file_format = make(tmp_path, kind)
  with pytest.raises(ValueError, match=f"holds (25|more) records where dataset_info.json says {count}"):
    list(shards.read(path, file_format, count))
  with pytest.raises(ValueError, match=f"holds 25 records where dataset_info.json says {count}"):
    shards.open(path, file_format, count)


def test_a_missing_file(tmp_path):
  for file_format in shards.FORMATS:
    with pytest.raises(FileNotFoundError, match="is missing: the dataset is incomplete"):
      shards.open(tmp_path / "none", file_format, 3)
    with pytest.raises(FileNotFoundError, match="is missing: the dataset is incomplete"):
      shards.read(tmp_path / "none", file_format, 3)


@EVERY
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damage_is_told_or_harmless(tmp_path_factory, kind, data):
  """Any flipped byte or cut: what is read is right, or a ValueError."""
  path, file_format = make(tmp_path_factory.mktemp("shard"), kind)
  content = bytearray(path.read_bytes())
  place = data.draw(st.integers(0, len(content) - 1))
  if data.draw(st.booleans()):
    content[place] ^= data.draw(st.integers(1, 255))
  else:
    del content[place:]
  path.write_bytes(content)
  found = []

  def read():
    for record in shards.read(path, file_format, len(RECORDS)):
      found.append(record)
    assert len(found) == len(RECORDS)

  _told(path, read)
  assert found == RECORDS[: len(found)]
  reader = _told(path, lambda: shards.open(path, file_format, len(RECORDS)))
  for index in range(len(RECORDS) if reader else 0):
    assert _told(path, lambda index=index: reader[index]) in (None, RECORDS[index])


def _told(path, call):
  """What a call gives; None where it says that the file is damaged."""
  try:
    return call()
  except ValueError as error:
    message = str(error)
  assert str(path) in message
  return None


@pytest.mark.parametrize("kind", ["tfrecord", "array_record snappy"])
def test_damage_of_one_record_leaves_the_others_readable(tmp_path, kind):
  path, file_format = make(tmp_path, kind)
  content = bytearray(path.read_bytes())
  content[content.index(RECORDS[10][:50]) + 5] ^= 1
  path.write_bytes(content)
  with shards.open(path, file_format, len(RECORDS)) as reader:
    for index in (0, 10, 11, 10, 24, 9):
      if index == 10:
        with pytest.raises(ValueError, match=r"file is damaged"):
          reader[index]
      else:
        assert reader[index] == RECORDS[index]


def test_what_is_before_a_part_is_not_read(tmp_path):
  path, file_format = make(tmp_path, "tfrecord")
  content = bytearray(path.read_bytes())
  content[20] ^= 1  # in the first record
  path.write_bytes(content)
  assert list(shards.read(path, file_format, 25, 1)) == RECORDS[1:]
  with pytest.raises(ValueError, match="checksum"):
    list(shards.read(path, file_format, 25, 0, 1))


def test_a_compressed_file_is_read_in_little_memory(tmp_path):
  record = bytes(1000)
  path = tmp_path / "file"
  path.write_bytes(gzip.compress(shards.frame_tfrecord(record) * 20_000))
  tracemalloc.start()
  try:
    assert sum(1 for _ in shards.read(path, "tfrecord", 20_000)) == 20_000
    assert tracemalloc.get_traced_memory()[1] < 3e6
  finally:
    tracemalloc.stop()


def test_a_claimed_length_takes_no_memory(tmp_path):
  head = (2**50).to_bytes(8, "little")
  head += tfrecord._mask(__import__("google_crc32c").value(head)).to_bytes(4, "little")
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  for content in (head + b"x" * 50, gzip.compress(head + b"x" * 50)):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cut short"):
      list(shards.read(path, "tfrecord", 1))
    with pytest.raises(ValueError, match="cut short"):
      shards.open(path, "tfrecord", 1)
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_records_that_come_in_pieces_are_whole(tmp_path, monkeypatch):
  """Linux gives at most 2 GiB at once; here, twelve bytes."""

  class Pieces:
    def __init__(self, file):
      self._file = file

    def read(self, size):
      return self._file.read(min(size, 12))

  path = tmp_path / "file"
  _tfrecord(path, RECORDS)
  with path.open("rb") as file:
    found = [record for _, record in tfrecord.scan(Pieces(file), path.stat().st_size, "file")]
  assert found == RECORDS and max(map(len, RECORDS)) > 12
  once = os.pread
  monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: once(descriptor, min(size, 12), offset))
  reader = tfrecord.Reader(path)
  assert [reader[i] for i in range(len(reader))] == RECORDS
  os.truncate(path, path.stat().st_size - 1)
  with pytest.raises(ValueError, match="it shrank while it was open"):
    reader[len(RECORDS) - 1]


def test_a_record_that_looks_compressed_is_not(tmp_path):
  """0x8b1f bytes: the length begins as a gzip file does."""
  path = tmp_path / "file"
  record = bytes(0x8B1F)
  _tfrecord(path, [record])
  assert path.read_bytes()[:2] == b"\x1f\x8b"
  assert list(shards.read(path, "tfrecord", 1)) == [record]


def test_inflated_reads_what_gzip_reads():
  content = _RNG.bytes(100_000) + bytes(1_000_000)
  packed = gzip.compress(content[:500_000]) + gzip.compress(content[500_000:])
  source = tfrecord.Inflated(io.BytesIO(packed), "x")
  parts = []
  while part := source.read(70_001):
    parts.append(part)
  assert b"".join(parts) == content

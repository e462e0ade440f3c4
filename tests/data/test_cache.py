"""The columnar cache: equal to loading, written once by however many processes, never half there, damage is found."""

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import google_crc32c
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ilx.data import Recorder, cache, columnar, derived, episode, from_columns, load, read_info
from ilx.data.images import Images


def write(root, count=12, seed=0, name="small"):
  rng = np.random.default_rng(seed)
  with Recorder(root, name=name, episodes_per_shard=5) as recorder:
    for index in range(count):
      length = 1 + index % 4
      observation = {
        "state": rng.standard_normal((length + 1, 3)),
        "pixels": rng.integers(0, 256, (length + 1, 4, 5, 3), np.uint8),
      }
      action = rng.uniform(-1, 1, (length, 2))
      recorder.add(episode(observation, action, rng.standard_normal(length), terminal=index % 2 == 0))
  return recorder.path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  return write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def fresh(tmp_path):
  return write(tmp_path)


@pytest.fixture
def small_blocks(monkeypatch):
  monkeypatch.setattr(cache, "_BLOCK", 64)


def assert_equal(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert np.asarray(x).dtype == np.asarray(y).dtype
    np.testing.assert_array_equal(x, y)


def left_over(path):
  """Everything beside complete caches and locks."""
  return [x for x in (path / ".ilx").rglob("*") if "incomplete" in x.name]


def test_equals_loading_whether_written_in_one_block_or_many(fresh, monkeypatch):
  expected = load(fresh)
  assert_equal(cache.open(fresh), expected)
  written = []
  monkeypatch.setattr(cache, "_BLOCK", 64)
  monkeypatch.setattr(columnar, "VERSION", 99)  # another folder
  found = cache.open(fresh, progress=lambda *x: written.append(x))
  assert written == [(e, expected.starts[e]) for e in range(1, 13)]
  assert_equal(found, expected)
  folders = [x for x in derived.folder(read_info(fresh)).iterdir() if x.is_dir()]
  assert len(folders) == 2
  columnar.verify(folders[0])
  columnar.verify(folders[1])


def test_columns_are_plain_maps_that_cannot_be_written(dataset):
  found = cache.open(read_info(dataset))
  for leaf in jax.tree.leaves(found):
    assert type(leaf) is np.ndarray and isinstance(leaf.base, np.memmap)
  with pytest.raises(ValueError, match="read-only"):
    found.reward[0] = 1


def test_a_second_opening_writes_nothing(dataset, monkeypatch):
  cache.open(dataset)
  monkeypatch.setattr(columnar, "write", None)
  cache.open(dataset)


def test_splits_and_selections_have_caches_of_their_own(dataset):
  info = read_info(dataset)
  folders = [
    cache.folder(info),
    cache.folder(info, "train[:5]"),
    cache.folder(info, "train", cache.EVERYTHING._replace(lazy=True)),
  ]
  assert len(set(folders)) == 3


def test_a_changed_dataset_is_cached_anew(fresh):
  before = cache.open(fresh)
  shard = next(fresh.glob("*.array_record*"))
  os.utime(shard, ns=(1, 1))
  calls = []
  with pytest.warns(UserWarning, match=r"earlier states of the dataset take room \(1 in"):
    after = cache.open(fresh, progress=lambda *x: calls.append(x))
  assert calls
  assert_equal(after, before)


def test_a_dataset_that_changes_while_it_is_read_is_refused(fresh):
  shard = next(fresh.glob("*.array_record*"))
  with pytest.raises(ValueError, match="changed while it was read"):
    cache.open(fresh, progress=lambda *_: os.utime(shard, ns=(1, 1)))
  assert not left_over(fresh)


def test_opening_takes_no_longer_for_many_steps(tmp_path):
  steps = 5_000_000
  sizes = []
  for count in (1000, steps):
    folder = tmp_path / str(count)
    folder.mkdir()
    zeros = np.zeros(count, np.float32)
    starts = np.arange(0, count + 1, 10)
    columnar.write(
      folder,
      [
        from_columns(
          observation=zeros, action=zeros, reward=zeros, discount=zeros, is_terminal=zeros > 0, starts=starts
        )
      ],
      {},
    )
    columnar.read(folder)
    times = []
    for _ in range(5):
      began = time.perf_counter()
      columnar.read(folder)
      times.append(time.perf_counter() - began)
    sizes.append(min(times))
  assert sizes[1] < 0.05


def test_pictures_stay_encoded(tmp_path):
  rng = np.random.default_rng(0)
  contents = [rng.bytes(int(size)) for size in rng.integers(1, 50, 12)]

  def block(first, last):
    # Offsets that do not begin at 0, as parts of a column have them.
    pictures = Images.of(contents, (4, 5, 3)).part(first, last)
    steps = last - first
    zeros = np.zeros(steps, np.float32)
    return from_columns(
      observation={"camera": pictures, "state": np.ones((steps, 0), np.float32)},
      action=zeros,
      reward=zeros,
      discount=zeros,
      is_terminal=zeros > 0,
      starts=np.array([0, steps]),
      extras={"embedding": np.arange(first, last, dtype=np.float32)},
    )

  columnar.write(tmp_path, [block(0, 5), block(5, 7), block(7, 12)], {"origin": "here"})
  found = columnar.read(tmp_path)
  assert found.observation["camera"].shape == (12, 4, 5, 3)
  assert [found.observation["camera"].encoded(index) for index in range(12)] == contents
  assert found.observation["state"].shape == (12, 0)
  np.testing.assert_array_equal(found.extras["embedding"], np.arange(12))
  np.testing.assert_array_equal(found.starts, [0, 5, 7, 12])
  np.testing.assert_array_equal(found.rows, [0, 1, 2, 3, 5, 7, 8, 9, 10])
  assert columnar.read_facts(tmp_path) == {"origin": "here", "episodes": 3, "steps": 12}
  columnar.verify(tmp_path)


def test_blocks_that_differ_are_refused_by_name(tmp_path):
  def block(width):
    zeros = np.zeros(3, np.float32)
    observation = np.zeros((3, width), np.float32)
    return from_columns(
      observation=observation, action=zeros, reward=zeros, discount=zeros, is_terminal=zeros > 0, starts=[0, 3]
    )

  with pytest.raises(ValueError, match=r"observation, from episode 1 on, is <f4 \(3,\), but <f4 \(2,\) before"):
    columnar.write(tmp_path, [block(2), block(3)], {})


# Slow enough that processes that start at once are at it at once.
OPEN = """
  import os, sys, time
  import numpy as np
  from ilx.data import cache
  cache._BLOCK = 64
  def progress(episodes, steps):
    with open(sys.argv[2], "a") as log:
      log.write(f"{os.getpid()}\\n")
    time.sleep(0.2)
    if len(sys.argv) > 3 and episodes == 3:
      os.kill(os.getpid(), 9)
  episodes = cache.open(sys.argv[1], progress=progress)
  print(episodes.num_steps, float(np.sum(episodes.observation["state"], dtype=np.float64)))
"""


def start(*arguments):
  code = [sys.executable, "-c", textwrap.dedent(OPEN), *map(str, arguments)]
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  return subprocess.Popen(code, stdout=subprocess.PIPE, text=True, env=environment)


def test_processes_that_start_at_once_write_it_once(fresh, tmp_path):
  processes = [start(fresh, tmp_path / "log") for _ in range(4)]
  outputs = {process.communicate(timeout=60)[0] for process in processes}
  expected = load(fresh)
  assert outputs == {f"{expected.num_steps} {float(np.sum(expected.observation['state'], dtype=np.float64))}\n"}
  writers = (tmp_path / "log").read_text().split()
  assert len(writers) == 12 and len(set(writers)) == 1


def test_a_killed_process_leaves_nothing_that_opens_and_is_tidied_up(fresh, tmp_path, small_blocks):
  process = start(fresh, tmp_path / "log", "kill")
  process.communicate(timeout=60)
  assert process.returncode == -signal.SIGKILL
  assert len(left_over(fresh)) == 1
  assert not cache.folder(read_info(fresh)).exists()
  assert_equal(cache.open(fresh), load(fresh))
  assert not left_over(fresh)


def test_a_full_disk_says_so_and_leaves_nothing(fresh):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
  try:
    with pytest.raises(OSError, match=r"cannot write the cache .*columns-.*File too large.*stream it"):
      cache.open(fresh)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert not left_over(fresh)
  assert_equal(cache.open(fresh), load(fresh))


def test_a_written_one_serves_those_who_may_only_read(fresh, tmp_path, monkeypatch):
  expected = cache.open(fresh)
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path / "root"))
  monkeypatch.setattr(derived.os, "access", lambda *_: False)
  monkeypatch.setattr(columnar, "write", None)
  assert_equal(cache.open(fresh), expected)
  assert not (tmp_path / "root").exists()


def test_where_nothing_can_be_written_it_says_so(fresh, tmp_path, monkeypatch):
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path / "root"))
  monkeypatch.setattr(derived.os, "access", lambda *_: False)
  (tmp_path / "root").write_text("in the way")
  with pytest.raises(OSError, match=r"cannot write the cache .*root.*columns-.*Not a directory.*stream it"):
    cache.open(fresh)


def test_an_interrupted_writing_leaves_nothing(fresh, small_blocks):
  def interrupt(episodes, steps):
    if episodes == 4:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    cache.open(fresh, progress=interrupt)
  assert not left_over(fresh)
  assert not cache.folder(read_info(fresh)).exists()


def test_a_missing_shard_is_named(fresh):
  shard = sorted(fresh.glob("*.array_record*"))[1]
  shard.unlink()
  with pytest.raises(FileNotFoundError, match=shard.name):
    cache.open(fresh)


def test_every_flipped_byte_of_the_index_is_found(fresh):
  cache.open(fresh)
  folder = cache.folder(read_info(fresh))
  index = folder / "index.json"
  content = index.read_bytes()
  for place in range(len(content)):
    index.write_bytes(content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"index\.json.*Remove the folder"):
      columnar.read(folder)
  for size in (0, 1, len(content) // 2, len(content) - 1):
    index.write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"index\.json.*Remove the folder"):
      columnar.read(folder)
  index.unlink()
  with pytest.raises(ValueError, match=r"index\.json.*Remove the folder"):
    cache.open(fresh)


def test_files_of_another_size_or_missing_are_found_at_once(fresh):
  cache.open(fresh)
  for path in cache.folder(read_info(fresh)).glob("0*"):
    content = path.read_bytes()
    for changed in (content[:-1], content + b"\0", b""):
      path.write_bytes(changed)
      with pytest.raises(ValueError, match=rf"{path.name} has {len(changed)} bytes where {len(content)} are expected"):
        cache.open(fresh)
    path.unlink()
    with pytest.raises(ValueError, match=path.name):
      cache.open(fresh)
    path.write_bytes(content)
  cache.open(fresh)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_every_flipped_byte_of_a_column_is_found_by_verify(dataset, data):
  cache.open(dataset)
  folder = cache.folder(read_info(dataset))
  path = data.draw(st.sampled_from(sorted(folder.glob("0*"))))
  content = path.read_bytes()
  place = data.draw(st.integers(0, len(content) - 1))
  try:
    path.write_bytes(content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :])
    with pytest.raises(ValueError, match=r"starts|rows are|" + path.name):
      columnar.verify(folder)
  finally:
    path.write_bytes(content)
  columnar.verify(folder)


def test_an_index_that_is_right_but_foreign_is_refused(tmp_path):
  def index(**changes):
    part = {"file": "000-x.values", "dtype": "<f4", "shape": [2], "crc32c": 0} | changes
    columns = [{"path": ["reward"], "picture": [], "files": [part]}]
    text = json.dumps({"columns": columns, "episodes": 1, "steps": 2})
    (tmp_path / "index.json").write_text(json.dumps({"content": text, "crc32c": google_crc32c.value(text.encode())}))

  (tmp_path / "000-x.values").write_bytes(b"\0" * 8)
  for changes, message in (
    ({"file": "../000-x.values"}, "unknown file"),
    ({"dtype": "|O"}, "unknown file"),
    ({"shape": [-1, -2]}, "shape"),
    ({"shape": [2, 10**18]}, "8 bytes where"),
    ({"shape": "ab"}, "shape ab"),
    ({}, "missing"),  # no other columns
  ):
    index(**changes)
    with pytest.raises(ValueError, match=rf"the cache .* is damaged.*{message}"):
      columnar.read(tmp_path)


@pytest.mark.parametrize(("place", "value"), [(-1, 6), (-1, 2**31 - 1), (0, -1)])
def test_rows_that_are_not_among_the_steps_are_refused(tmp_path, place, value):
  zeros = np.zeros(6, np.float32)
  block = from_columns(
    observation=zeros, action=zeros, reward=zeros, discount=zeros, is_terminal=zeros > 0, starts=[0, 2, 6]
  )
  columnar.write(tmp_path, [block], {})
  (path,) = tmp_path.glob("*-rows.values")
  rows = np.fromfile(path, np.int32)
  columnar.read(tmp_path)
  rows[place] = value
  rows.tofile(path)
  with pytest.raises(ValueError, match="rows are not among the steps"):
    columnar.read(tmp_path)


def test_no_index_does_anything_but_open_or_be_refused(tmp_path):
  zeros = np.zeros(6, np.float32)
  observation = {"camera": Images.of([b"abc"] * 6, (4, 4, 3)), "state": zeros}
  block = from_columns(
    observation=observation, action=zeros, reward=zeros, discount=zeros, is_terminal=zeros > 0, starts=[0, 2, 6]
  )
  columnar.write(tmp_path, [block], {})
  content = json.loads(json.loads((tmp_path / "index.json").read_text())["content"])

  def places(node, path=()):
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
      yield (*path, key)
      yield from places(node[key], (*path, key))

  refused = 0
  for path in places(content):
    for junk in (None, -1, 2**63, 1e300, "", "x", "<f4", [], [1], [[]], {}, {"a": 1}, True, [0], [2**62], ["starts"]):
      changed = json.loads(json.dumps(content))
      node = changed
      for key in path[:-1]:
        node = node[key]
      node[path[-1]] = junk
      text = json.dumps(changed)
      (tmp_path / "index.json").write_text(json.dumps({"content": text, "crc32c": google_crc32c.value(text.encode())}))
      try:
        columnar.read(tmp_path)
      except ValueError:
        refused += 1
  assert refused > 1000


def test_clean_removes_what_earlier_states_left(fresh, small_blocks):
  cache.open(fresh)
  info = read_info(fresh)
  stale = derived.folder(info)
  os.utime(next(fresh.glob("*.array_record*")), ns=(1, 1))
  with pytest.warns(UserWarning, match="earlier states"):
    found = cache.open(fresh)
  torn = cache.folder(info).with_name("columns-0123456789abcdef.01234567.incomplete")
  torn.mkdir()
  cut = torn.with_name("index-0123456789abcdef.01234567.incomplete")
  cut.write_bytes(b"part")
  assert sorted(cache.clean(info)) == sorted([stale, torn, cut])
  assert not stale.exists() and not torn.exists() and not cut.exists()
  assert cache.clean(info) == []
  assert_equal(cache.open(fresh), found)


def test_clean_leaves_other_datasets_of_the_name_alone(tmp_path, monkeypatch):
  monkeypatch.setenv("ILX_DATA_DIR", str(tmp_path / "root"))
  one, other = write(tmp_path / "one"), write(tmp_path / "other", count=5)
  monkeypatch.setattr(derived.os, "access", lambda *_: False)  # as if the datasets could not be written
  cache.open(one)
  cache.open(other)
  stale = derived.folder(read_info(one))
  assert stale.parent == tmp_path / "root" / ".derived"
  os.utime(next(one.glob("*.array_record*")), ns=(1, 1))
  assert cache.clean(read_info(one)) == [stale]
  assert cache.folder(read_info(other)).is_dir()

"""Recording: what TFDS reads of it, determinism, kills, full disks, two processes."""

import errno
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from concurrent import futures

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from ilx.data import Recorder, encode, episode, journal, load, read_info, unfinished


def make(length: int = 3, seed: int = 0, discrete: bool = False, terminal: bool = True):
  rng = np.random.default_rng(seed)
  observation = {
    "state": rng.standard_normal((length + 1, 4)),
    "pixels": rng.integers(0, 256, (length + 1, 5, 6), np.uint8),
    "inner": {"count": rng.integers(-200, 200, length + 1)},
  }
  action = rng.integers(0, 4, length) if discrete else rng.uniform(-1, 1, (length, 2))
  return episode(observation, action, rng.standard_normal(length), terminal=terminal)


def record(root, episodes, **options):
  with Recorder(root, name="test", **options) as recorder:
    for item in episodes:
      recorder.add(item)
  return recorder.path


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def assert_holds(path, episodes):
  """``load`` gives exactly these episodes, float64 in 32 bits."""
  found = load(path)
  np.testing.assert_array_equal(np.diff(found.starts), [len(item["reward"]) for item in episodes])
  for name in ("action", "reward", "discount", "is_terminal"):
    expected = np.concatenate([item[name] for item in episodes])
    np.testing.assert_array_equal(getattr(found, name), expected.astype(getattr(found, name).dtype))
  flat = dict(encode.flatten({"observation": found.observation}))
  for name, value in flat.items():
    expected = np.concatenate([dict(encode.flatten(item))[name] for item in episodes])
    np.testing.assert_array_equal(value, expected.astype(value.dtype))
  return found


def test_episode_by_hand():
  item = episode(np.arange(3.0)[:, None], np.array([[5.0], [6.0]]), [1, 2], terminal=True)
  np.testing.assert_array_equal(item["action"], [[5], [6], [0]])
  np.testing.assert_array_equal(item["reward"], [1, 2, 0])
  np.testing.assert_array_equal(item["discount"], [1, 0, 0])
  np.testing.assert_array_equal(item["is_first"], [True, False, False])
  np.testing.assert_array_equal(item["is_last"], [False, False, True])
  np.testing.assert_array_equal(item["is_terminal"], [False, False, True])
  limit = episode(np.arange(3.0)[:, None], np.array([[5.0], [6.0]]), [1, 2], terminal=False)
  np.testing.assert_array_equal(limit["discount"], [1, 1, 0])
  assert not limit["is_terminal"].any()


@pytest.mark.parametrize("sizes", [(3, 3, 3), (4, 3, 2), (1, 0, 0)])
def test_episode_lengths_must_agree(sizes):
  observations, actions, rewards = sizes
  with pytest.raises(ValueError, match=f"{actions} actions need"):
    episode(np.zeros((observations, 1)), np.zeros((actions, 1)), np.zeros(rewards), terminal=True)


@pytest.mark.parametrize("discrete", [False, True])
def test_what_is_recorded_loads(tmp_path, discrete):
  episodes = [make(2 + i, i, discrete, terminal=bool(i % 2)) for i in range(5)]
  found = assert_holds(record(tmp_path, episodes, episodes_per_shard=2), episodes)
  assert found.observation["state"].dtype == np.float32
  assert found.observation["pixels"].dtype == np.uint8
  assert found.observation["inner"]["count"].dtype == np.int32
  assert found.action.dtype == (np.int32 if discrete else np.float32)


def test_tfds_reads_equal_content(tmp_path):
  episodes = [make(2 + i, i, terminal=bool(i % 2)) for i in range(5)]
  path = record(tmp_path, episodes, episodes_per_shard=2, split="val", metadata={"env_id": "Test-v0"})
  builder = tfds.builder_from_directory(str(path))
  assert dict(builder.info.metadata) == {"env_id": "Test-v0"}
  source = builder.as_data_source("val")
  assert len(source) == 5
  for item, found in zip(episodes, source, strict=True):
    steps = list(found["steps"])
    assert len(steps) == len(item["reward"])
    for index, step in enumerate(steps):
      flat = dict(encode.flatten(step))
      expected = dict(encode.flatten(encode.normalize(item)))
      assert flat.keys() == expected.keys()
      for name, value in expected.items():
        np.testing.assert_array_equal(flat[name], value[index], err_msg=name)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 4), st.integers(0, 2**32))
def test_any_lengths_and_shards(tmp_path_factory, lengths, per_shard, seed):
  episodes = [make(length, seed + i) for i, length in enumerate(lengths)]
  path = record(tmp_path_factory.mktemp("any"), episodes, episodes_per_shard=per_shard)
  assert_holds(path, episodes)
  assert sum(read_info(path).splits["train"].lengths) == len(lengths)


def test_the_same_episodes_give_the_same_bytes(tmp_path):
  episodes = [make(50, i) for i in range(5)]
  first = contents(record(tmp_path / "a", episodes, episodes_per_shard=2, metadata={"b": 1, "a": 2}))
  second = contents(record(tmp_path / "b", episodes, episodes_per_shard=2, metadata={"a": 2, "b": 1}))
  assert first == second
  assert set(first) == {
    "dataset_info.json",
    "features.json",
    "metadata.json",
    *(f"test-train.array_record-0000{i}-of-00003" for i in range(3)),
  }


def test_metadata_may_change_until_the_end(tmp_path):
  with Recorder(tmp_path, name="test", metadata={"env_id": "a"}) as recorder:
    recorder.add(make())
    recorder.metadata["score"] = 1.5
  assert read_info(recorder.path).metadata == {"env_id": "a", "score": 1.5}


def test_an_exception_keeps_the_journal_and_publishes_nothing(tmp_path):
  episodes = [make(seed=i) for i in range(3)]

  def interrupted():
    with Recorder(tmp_path, name="test") as recorder:
      for item in episodes[:2]:
        recorder.add(item)
      raise KeyError("stop")

  with pytest.raises(KeyError):
    interrupted()
  assert not (tmp_path / "test" / "1.0.0").exists()
  with Recorder(tmp_path, name="test") as recorder:
    assert recorder.num_episodes == 2
    recorder.add(episodes[2])
  assert os.listdir(tmp_path / "test") == ["1.0.0"]
  assert contents(recorder.path) == contents(record(tmp_path / "whole", episodes))


_CHILD = """
  import sys
  import numpy as np
  from test_record import make
  from ilx.data import Recorder
  recorder = Recorder(sys.argv[1], name="test")
  while True:
    recorder.add(make(200, recorder.num_episodes))
    print(recorder.num_episodes, flush=True)
"""


def _start_child(root):
  return subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(_CHILD), str(root)],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
  )


def test_kill_9_loses_no_finished_episode(tmp_path):
  told = 0
  for wanted in (3, 7):
    child = _start_child(tmp_path)
    try:
      while told < wanted:
        told = int(child.stdout.readline())
    finally:
      child.send_signal(signal.SIGKILL)
      rest = child.communicate()[0].split()
    told = max([told, *map(int, rest)])
  with Recorder(tmp_path, name="test") as recorder:
    # One more may have been written before it could be told.
    assert recorder.num_episodes in (told, told + 1)
    count = recorder.num_episodes
  assert_holds(recorder.path, [make(200, i) for i in range(count)])


def test_a_second_process_is_refused(tmp_path):
  child = _start_child(tmp_path)
  try:
    child.stdout.readline()
    with pytest.raises(RuntimeError, match=r"1\.0\.0\.incomplete is being recorded by another process"):
      Recorder(tmp_path, name="test")
  finally:
    child.kill()
    child.communicate()


@pytest.mark.parametrize("cut", [1, 10, 200])
def test_a_torn_tail_is_dropped(tmp_path, cut):
  episodes = [make(seed=i) for i in range(3)]
  recorder = Recorder(tmp_path, name="test")
  for item in episodes:
    recorder.add(item)
  recorder.suspend()
  journal = tmp_path / "test" / "1.0.0.incomplete" / "journal.tfrecord"
  os.truncate(journal, journal.stat().st_size - cut)
  recorder = Recorder(tmp_path, name="test")
  assert recorder.num_episodes == 2
  recorder.add(episodes[2])
  recorder.suspend()  # what was added follows the last whole episode, not the torn one
  with Recorder(tmp_path, name="test") as recorder:
    assert recorder.num_episodes == 3
  assert_holds(recorder.path, episodes)


@pytest.mark.parametrize(("zeroed", "more", "left"), [(1, 0, 2), (60, 0, 2), (0, 5000, 3), (60, 5000, 2)])
def test_a_tail_that_never_reached_the_disk_is_dropped(tmp_path, zeroed, more, left):
  recorder = Recorder(tmp_path, name="test")
  for i in range(3):
    recorder.add(make(seed=i))
  recorder.suspend()
  journal = tmp_path / "test" / "1.0.0.incomplete" / "journal.tfrecord"
  content = journal.read_bytes()
  journal.write_bytes(content[: len(content) - zeroed] + bytes(zeroed + more))
  if zeroed == 1:  # that is damage: the rest of the checksum is there
    with pytest.raises(ValueError, match=r"journal\.tfrecord is damaged"):
      Recorder(tmp_path, name="test")
    return
  with Recorder(tmp_path, name="test") as recorder:
    assert recorder.num_episodes == left
    recorder.add(make(seed=9))
  assert_holds(recorder.path, [*(make(seed=i) for i in range(left)), make(seed=9)])


def test_what_was_added_is_on_the_disk_where_asked(tmp_path, monkeypatch):
  synced = []
  sync = os.fsync
  monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), sync(file)))
  recorder = Recorder(tmp_path / "new", name="test", fsync=True)
  folder = tmp_path / "new" / "test" / "1.0.0.incomplete"
  assert {str(tmp_path), str(tmp_path / "new"), str(folder.parent), str(folder)} <= set(synced)
  synced.clear()
  recorder.add(make())
  assert set(synced) == {str(folder / "journal.tfrecord")}
  recorder.suspend()


def test_a_damaged_journal_is_refused_and_kept(tmp_path):
  recorder = Recorder(tmp_path, name="test")
  recorder.add(make())
  recorder.add(make())
  recorder.suspend()
  journal = tmp_path / "test" / "1.0.0.incomplete" / "journal.tfrecord"
  content = bytearray(journal.read_bytes())
  content[len(content) // 2] ^= 1
  journal.write_bytes(content)
  with pytest.raises(ValueError, match=r"journal\.tfrecord is damaged"):
    Recorder(tmp_path, name="test")
  assert journal.read_bytes() == content


def _limit_file_size(size):
  """The system refuses files beyond ``size``, as a full disk would; returns how to undo it."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

  def undo():
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)

  return undo


def test_a_full_disk_while_adding(tmp_path):
  episodes = [make(100, i) for i in range(4)]
  recorder = Recorder(tmp_path, name="test")
  recorder.add(episodes[0])
  undo = _limit_file_size(os.path.getsize(recorder._journal.path) + 5000)
  try:
    with pytest.raises(OSError, match=r"cannot write to .*1\.0\.0\.incomplete.*is intact"):
      recorder.add(episodes[1])
  finally:
    undo()
  assert recorder.num_episodes == 1
  for item in episodes[1:]:
    recorder.add(item)
  recorder.suspend()
  with Recorder(tmp_path, name="test") as recorder:
    assert recorder.num_episodes == 4
  assert_holds(recorder.path, episodes)


def test_a_full_disk_while_publishing(tmp_path):
  other = record(tmp_path, [make()], version="0.9.0")
  before = contents(other)
  recorder = Recorder(tmp_path, name="test")
  recorder.add(make(100))
  undo = _limit_file_size(10_000)
  try:
    with pytest.raises(OSError, match=r"cannot write to .*1\.0\.0\.incomplete.*is intact") as error:
      recorder.close()
  finally:
    undo()
  assert error.value.errno == errno.EFBIG
  assert sorted(os.listdir(tmp_path / "test")) == ["0.9.0", "1.0.0.incomplete"]
  assert os.listdir(tmp_path / "test" / "1.0.0.incomplete") == ["journal.tfrecord"]
  assert contents(other) == before
  with Recorder(tmp_path, name="test") as recorder:
    assert recorder.num_episodes == 1
  assert_holds(recorder.path, [make(100)])


def test_a_published_dataset_is_never_overwritten(tmp_path):
  path = record(tmp_path, [make()])
  before = contents(path)
  with pytest.raises(FileExistsError, match=r"test/1\.0\.0 is already there"):
    Recorder(tmp_path, name="test")
  assert contents(path) == before


class _Kills:
  """Ends all that changes names in the file system from the n-th such call on, as a kill there would."""

  _EVENTS = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"})
  at: int | None = None

  def __call__(self, event, args):
    if self.at is None or event not in self._EVENTS:
      return
    self.at -= 1
    if self.at < 0:
      raise _KilledError(event)


class _KilledError(BaseException):
  pass


@pytest.fixture(scope="module")
def kills():
  hook = _Kills()
  sys.addaudithook(hook)  # for good, so it is turned off between
  yield hook
  hook.at = None


def _publish_and_kill(recorder, kills, at):
  """Whether the call came to its end."""
  kills.at = at
  try:
    recorder.close()
  except _KilledError:
    return False
  except OSError as error:
    if error.errno != errno.EIO:
      raise
  finally:
    kills.at = None
  return True


@pytest.mark.parametrize("told", [False, True], ids=["removed-at-once", "opened-before-removed"])
def test_a_kill_while_publishing_leaves_a_journal_or_a_dataset(tmp_path, kills, told):
  old, new = [make(seed=i) for i in range(2)], [make(seed=9)]
  outcomes = []
  for at, again in itertools.product(range(12), (None, 1, 5, 6, 7)):
    root = tmp_path / f"{at}-{again}"
    recorder = Recorder(root, name="test")
    for item in old:
      recorder.add(item)
    if _publish_and_kill(recorder, kills, at):
      outcomes.append("whole")
    elif recorder.path.exists():
      outcomes.append("published")
    else:
      outcomes.append("resumable")
      recorder = Recorder(root, name="test")
      assert recorder.num_episodes == 2
      if again is None:
        recorder.close()
      elif not _publish_and_kill(recorder, kills, again) and not recorder.path.exists():
        Recorder(root, name="test").close()
    assert_holds(recorder.path, old)
    if told:
      with pytest.raises(FileExistsError):
        Recorder(root, name="test")
      assert os.listdir(root / "test") == ["1.0.0"]
    shutil.rmtree(recorder.path)
    with Recorder(root, name="test") as recorder:
      assert recorder.num_episodes == 0
      recorder.add(new[0])
    assert_holds(recorder.path, new)
    assert os.listdir(root / "test") == ["1.0.0"]
  assert list(dict.fromkeys(outcomes)) == ["resumable", "published", "whole"]


def test_a_kill_after_failing_to_publish_leaves_the_journal(tmp_path, kills, monkeypatch):
  def failing(*args):
    raise OSError(errno.EIO, "input/output error")

  ends = []
  for at in range(12):
    root = tmp_path / str(at)
    recorder = Recorder(root, name="test")
    recorder.add(make())
    with monkeypatch.context() as patch:
      patch.setattr(unfinished.Path, "rename", failing)
      ends.append(_publish_and_kill(recorder, kills, at))
    with Recorder(root, name="test") as recorder:
      assert recorder.num_episodes == 1
    assert_holds(recorder.path, [make()])
  assert set(ends) == {False, True}


def test_a_journal_beside_a_dataset_from_elsewhere_stays(tmp_path):
  recorder = Recorder(tmp_path, name="test")
  recorder.add(make())
  recorder.suspend()
  shutil.copytree(record(tmp_path / "other", [make(seed=1)]), recorder.path)
  with pytest.raises(FileExistsError):
    Recorder(tmp_path, name="test")
  shutil.rmtree(recorder.path)
  with Recorder(tmp_path, name="test") as recorder:
    assert recorder.num_episodes == 1


def test_published_while_another_opens(tmp_path, monkeypatch):
  first = Recorder(tmp_path, name="test")
  first.add(make())

  def late(*args, **options):
    if not first.path.exists():
      first.close()
    return journal.Journal(*args, **options)

  monkeypatch.setattr(unfinished, "Journal", late)
  with pytest.raises(FileExistsError, match=r"test/1\.0\.0 is already there"):
    Recorder(tmp_path, name="test")
  assert_holds(first.path, [make()])
  assert os.listdir(tmp_path / "test") == ["1.0.0"]


def test_a_journal_removed_while_another_opens(tmp_path, monkeypatch):
  lock, path = journal.fcntl.flock, tmp_path / "x" / "journal.tfrecord"
  removed = []

  def late(file, how):
    if not removed:
      removed.append(shutil.rmtree(path.parent))
    lock(file, how)

  monkeypatch.setattr(journal.fcntl, "flock", late)
  opened = journal.Journal(path)
  opened.append({"a": 1})
  opened.close()
  assert [head for _, head, _ in journal.Journal(path).scan()] == [{"a": 1}]


def test_threads_that_record_the_same_name(tmp_path):
  def one(number):
    try:
      with Recorder(tmp_path, name="test") as recorder:
        recorder.add(make(seed=number))
    except (FileExistsError, RuntimeError) as error:
      return type(error)
    return number

  with futures.ThreadPoolExecutor(8) as pool:
    results = list(pool.map(one, range(40)))
  (winner,) = (result for result in results if isinstance(result, int))
  assert_holds(tmp_path / "test" / "1.0.0", [make(seed=winner)])
  assert os.listdir(tmp_path / "test") == ["1.0.0"]


def test_closed_within_its_block(tmp_path):
  with Recorder(tmp_path, name="test") as recorder:
    recorder.add(make(seed=0))
    recorder.close()
  assert_holds(recorder.path, [make(seed=0)])


def test_nothing_recorded(tmp_path):
  with pytest.raises(ValueError, match="no episode was added"):
    Recorder(tmp_path, name="test").close()


def test_metadata_must_be_json(tmp_path):
  recorder = Recorder(tmp_path, name="test", metadata={"x": np.float32(1)})
  recorder.add(make())
  with pytest.raises(ValueError, match="metadata is not JSON"):
    recorder.close()
  with Recorder(tmp_path, name="test") as recorder:
    assert recorder.num_episodes == 1


@pytest.mark.parametrize(
  ("options", "problem"),
  [
    ({"name": "../x"}, "name '../x'"),
    ({"name": "x", "version": "1"}, "version '1'"),
    ({"name": "x", "split": "a/b"}, "split 'a/b'"),
    ({"name": "x", "episodes_per_shard": 0}, "episodes_per_shard is 0"),
  ],
)
def test_bad_options(tmp_path, options, problem):
  with pytest.raises(ValueError, match=problem):
    Recorder(tmp_path, **options)
  assert not any(tmp_path.iterdir())


def test_another_split_does_not_join_the_journal(tmp_path):
  recorder = Recorder(tmp_path, name="test")
  recorder.add(make())
  recorder.suspend()
  with pytest.raises(ValueError, match="holds split 'train', not 'val'"):
    Recorder(tmp_path, name="test", split="val")


def _changed(**fields):
  return {**make(), **fields}


@pytest.mark.parametrize(
  ("item", "problem"),
  [
    ({k: v for k, v in make().items() if k != "discount"}, r"missing: \['discount'\]"),
    (_changed(extra=np.zeros(4)), r"'extra' is float32 \[\] a step, but absent"),
    (_changed(action=np.zeros((3, 2))), r"'action' has shape \(3, 2\), but the reward has 4"),
    (_changed(reward=np.array([0, np.nan, 0, 0])), "'reward' is NaN or inf in float32 at step 1"),
    (_changed(action=np.full((4, 2), 1e300)), "'action' is NaN or inf in float32 at step 0"),
    (
      _changed(observation={**make()["observation"], "state": np.array(["a"] * 4)}),
      r"'observation/state' is text a step, but float32 \[4\]",
    ),
    (_changed(observation={"a/b": np.zeros(4)}), "key 'a/b'"),
    (_changed(action=np.full(4, 2**40)), "'action' has integers outside int32"),
    (_changed(is_first=np.array([0, 1, 0, 0], bool)), "'is_first' must be true at step 0 of 4 alone"),
    (_changed(is_last=np.zeros(4, bool)), "'is_last' must be true at step 3 of 4 alone"),
    (_changed(is_terminal=np.array([1, 0, 0, 1], bool)), "'is_terminal' is true before"),
    (_changed(is_terminal=np.array([0, 0, 0, np.nan])), "'is_terminal' has values that are neither true nor false"),
    (_changed(is_last=np.array([0.3, 0, 0, 1])), "'is_last' has values that are neither true nor false"),
    (make(discrete=True), r"field 'action' is int32 \[\] a step, but float32 \[2\]"),
    (_changed(observation={"state": np.zeros((4, 4))}), "field 'observation/inner/count' is absent"),
  ],
)
def test_a_bad_episode_is_refused_and_nothing_written(tmp_path, item, problem):
  with Recorder(tmp_path, name="test") as recorder:
    recorder.add(make())
    size = os.path.getsize(recorder._journal.path)
    with pytest.raises(ValueError, match=problem):
      recorder.add(item)
    assert (os.path.getsize(recorder._journal.path), recorder.num_episodes) == (size, 1)
  assert json.loads((recorder.path / "dataset_info.json").read_text())["splits"][0]["shardLengths"] == ["1"]
